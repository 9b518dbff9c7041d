"""How reward models want a question and the steps of an answer laid out: the tokens that their authors feed them.

A layout gives the tokens of a whole text. It becomes a chain of links, cut where the text of fewer steps agrees with
it, so an engine that keeps rows by prefix reads each step once.

Sources: the model cards of Qwen2.5-Math-PRM and -RM (Zhang et al. 2025, "The lessons of developing process reward
models") and Math-Shepherd (Wang et al. 2024); SkyworkAI/skywork-o1-prm-inference; RLHFlow/RLHF-Reward-Modeling,
math-rm; huggingface/search-and-learn. Names of special tokens in steps are text here, not tokens: a model that writes
"<extra_0>" does not end a step by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ppl.models import chat
from ppl.models.chat import Message
from ppl.models.text import Text
from ppl.models.tokenizer import TOKEN_BYTES, Tokenizer

Steps = tuple[str, ...]
"""The steps of an answer as they were written; joined, they are the answer."""

QWEN_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


class Layout:
    """Gives the text of a question and steps, whose last token is where the score is read.

    `bos` is the token that texts begin with where a format asks for it, int32 as bytes; `pad` the token that pads.

    Raises:
        ValueError: the tokenizer lacks a token or the chat template that the layout needs.
    """

    closes = False
    """Whether tokens follow that the text of more steps does not begin with."""

    def __init__(self, tokenizer: Tokenizer, bos: bytes = b"", pad: bytes = b"") -> None:
        self.tokenizer = tokenizer
        self.bos = bos
        self.pad = pad
        # Every particle asks for the same question, and at each step for what its steps were before.
        self._begin = lru_cache(256)(self.begin)
        self._data = lru_cache(4096)(self.data)
        self._step = lru_cache(4096)(self.step)

    def data(self, question: str, steps: Steps) -> bytes:
        """The tokens of the whole text, int32 as bytes: those before the first step, then those of each."""
        return self._begin(question) + b"".join([self._step(step, i == 0) for i, step in enumerate(steps)])

    def begin(self, question: str) -> bytes:
        """The tokens before the first step."""
        raise NotImplementedError

    def step(self, step: str, first: bool) -> bytes:
        """The tokens of a step, the last one where it is scored."""
        raise NotImplementedError

    def text(self, question: str, steps: Steps) -> Text:
        """The text, a link of its own for what each step adds.

        Raises:
            ValueError: the tokenizer cannot write it.
        """
        data, text = self._data(question, steps), None
        others = [steps[:count] for count in range(len(steps))]
        if self.closes:  # what comes before will be there when a further step is written
            others.append((*steps, "1"))
        for other in others:
            cut = _common(self._data(question, other), data)
            if cut > (0 if text is None else len(text.data)):
                text = Text(self.tokenizer, data[:cut], text)
        return Text(self.tokenizer, data, text)

    def token(self, piece: str) -> int:
        """The one token that writes `piece` behind other text.

        Raises:
            ValueError: there is none.
        """
        try:
            ids = np.frombuffer(self.tokenizer.follow(piece), "<i4").tolist()
        except ValueError:
            ids = []
        if len(ids) != 1:
            raise ValueError(f"its tokenizer has no token {piece!r}: use the tokenizer files that came with it, "
                             "or name another format")  # fmt: skip
        return ids[0]

    def chat(self, messages: Sequence[Message], answered: bool = False) -> bytes:
        """The tokens of a conversation, up to where the assistant begins to speak or, `answered`, has spoken."""
        if self.tokenizer.template is None:
            raise ValueError("it has no chat template (chat_template in tokenizer_config.json, or "
                             "chat_template.jinja), in which this format lays a question out")  # fmt: skip
        return chat.tokens(self.tokenizer, messages, answered=answered)


class QwenPRM(Layout):
    """A chat; each step ends with <extra_0>."""

    def __init__(self, tokenizer: Tokenizer, bos: bytes = b"", pad: bytes = b"") -> None:
        super().__init__(tokenizer, bos, pad)
        self.tag = np.int32(self.token("<extra_0>")).tobytes()
        self.begin("")

    def begin(self, question: str) -> bytes:
        return self.chat([_says("system", QWEN_SYSTEM), _says("user", question)])

    def step(self, step: str, first: bool) -> bytes:
        return self.tokenizer.verbatim(step.strip()) + self.tag


class Skywork(Layout):
    """The question and a line for each step, each tokenized alone; a step is scored at its newline."""

    def __init__(self, tokenizer: Tokenizer, bos: bytes = b"", pad: bytes = b"") -> None:
        super().__init__(tokenizer, bos, pad)
        self.newline = np.int32(self.token("\n")).tobytes()

    def begin(self, question: str) -> bytes:
        return self.bos + self.tokenizer.encode(question + "\n")

    def step(self, step: str, first: bool) -> bytes:
        return b"".join([self.tokenizer.verbatim(line) + self.newline for line in step.strip().split("\n")])


class MathShepherd(Layout):
    """Plain text; each step ends with the token of " ки"."""

    def __init__(self, tokenizer: Tokenizer, bos: bytes = b"", pad: bytes = b"") -> None:
        super().__init__(tokenizer, bos, pad)
        self.tag = np.int32(self.token(" ки")).tobytes()
        self.signs = self.token(" +"), self.token(" -")

    def begin(self, question: str) -> bytes:
        return self.tokenizer.prefix + self.tokenizer.encode(question)

    def step(self, step: str, first: bool) -> bytes:
        return self.tokenizer.verbatim((" " if first else "\n") + step.strip()) + self.tag


class RLHFlow(Layout):
    """A chat in which the user says a step, the first with the question, and the assistant that it is right: "+".

    A step is scored where the assistant begins to speak, by what it would say; it says "+" to all steps before.
    """

    def __init__(self, tokenizer: Tokenizer, bos: bytes = b"", pad: bytes = b"") -> None:
        super().__init__(tokenizer, bos, pad)
        self.signs = self.token("+"), self.token("-")
        plus, self._begun = np.int32(self.signs[0]).tobytes(), self.chat([_says("user", "1")])
        if not self.chat([_says("user", "1"), _says("assistant", "+")], answered=True).startswith(self._begun + plus):
            raise ValueError('its chat template does not put the token "+" where the assistant begins to speak, which '
                             "is where the score is read: use the tokenizer files that came with it")  # fmt: skip
        turns = [_says(role, said) for role, said in (("user", "1 2"), ("assistant", "+")) * 2]
        if self.chat([*turns, _says("user", "3")]) != self.data("1", ("2", "1 2", "3")):
            raise ValueError("its chat template lays a turn out by what was said before: use the tokenizer files that "
                             "came with it")  # fmt: skip

    def data(self, question: str, steps: Steps) -> bytes:
        if not steps:
            return b""
        first = self.chat([_says("user", f"{question} {steps[0].strip()}")])
        return first + b"".join([self._step(step, False) for step in steps[1:]])

    def step(self, step: str, first: bool) -> bytes:
        turns = [_says("user", "1"), _says("assistant", "+"), _says("user", step.strip())]
        return self.chat(turns).removeprefix(self._begun)


class Answer(Layout):
    """A chat with the answer, scored at its end: the last token of all that is no padding."""

    closes = True
    system: str | None = None

    def __init__(self, tokenizer: Tokenizer, bos: bytes = b"", pad: bytes = b"") -> None:
        super().__init__(tokenizer, bos, pad)
        self.data("", ())

    def data(self, question: str, steps: Steps) -> bytes:
        messages = [_says("system", self.system)] if self.system else []
        messages += [_says("user", question), _says("assistant", "".join(steps).strip())]
        data = self.chat(messages, answered=True)
        while self.pad and data.endswith(self.pad):
            data = data[:-TOKEN_BYTES]
        return data


class QwenAnswer(Answer):
    """As `Answer`, with what Qwen2.5-Math tells the system."""

    system = QWEN_SYSTEM


def _says(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _common(a: bytes, b: bytes) -> int:
    """How far two token sequences agree, in bytes."""
    if b.startswith(a):
        return len(a)
    size = min(len(a), len(b)) // TOKEN_BYTES
    differ = np.frombuffer(a, "<i4", size) != np.frombuffer(b, "<i4", size)
    return TOKEN_BYTES * (int(differ.argmax()) if differ.any() else size)
