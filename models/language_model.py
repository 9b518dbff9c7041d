"""Language models as distributions over texts, and the step reward that reads its score head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl.effects import Call
from ppl.grammar.regular import Regular
from ppl.models import chat, checkpoint, files
from ppl.models.blocks import Blocks
from ppl.models.checked import Checked
from ppl.models.compiled import keep_compiled
from ppl.models.constrained import Constrained, Local, Restricted
from ppl.models.decode import Stop
from ppl.models.draw import PLAIN
from ppl.models.engine import Engine
from ppl.models.extension import Extension
from ppl.models.guide import Guide, taught, unigram
from ppl.models.kept import Kept
from ppl.models.next_token import NextToken
from ppl.models.reader import Reader
from ppl.models.stops import stop_table
from ppl.models.text import Text
from ppl.models.tokenizer import Tokenizer


class LanguageModel(Blocks[Extension]):
    """A transformer with its tokenizer; `extend` is what programs sample from.

    It is a light handle: `handle()` gives another one over the same engine, whose `tokens` counts what was
    sampled through it alone, while the device calls are shared.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, name: str = "model", kept: Kept | None = None) -> None:
        super().__init__()
        self.engine = engine
        self.tokenizer = tokenizer
        self.name = name
        self.tokens = 0
        self.kept = kept
        """Where what is worked out about grammars is kept for other processes; None: nowhere."""
        self._stops: dict[tuple[str, ...], tuple[Stop, np.ndarray]] = {}

    def handle(self) -> LanguageModel:
        """Another handle, with its own count of tokens."""
        other = LanguageModel(self.engine, self.tokenizer, self.name, self.kept)
        other._stops, other._guides = self._stops, self._guides
        return other

    def text(self, text: str) -> Text:
        """The tokens of a prompt, begun as the vocabulary wants it (Llama's <s>), which `text + "..."` is not.

        Names of special tokens in it become those: see `chat` for what users typed.

        Raises:
            ValueError: the vocabulary cannot write it, or it leaves no room in the context.
        """
        data, prefix = self.tokenizer.encode(text), self.tokenizer.prefix
        return self._prompt(data if data.startswith(prefix) else prefix + data)

    def chat(
        self,
        messages: str | Sequence[chat.Message],
        system: str | None = None,
        continue_final: bool = False,
        **options: Any,
    ) -> Text:
        """A conversation as the model's chat template lays it out, up to where the model answers.

        `messages` is a question of the user or a list like [{"role": "user", "content": "Hello"}, ...]; `system` goes
        before them. With `continue_final` the last message, one of the assistant, is not ended and the model goes on
        with it. `options` are for the template (`enable_thinking=False`, `tools=[...]`, `date_string="..."`).
        Names of special tokens in messages are text, not tokens: nobody ends a turn by typing it.

        Raises:
            TypeError: a message is not a dictionary with a role, or holds what is not plain data.
            ValueError: the model has no template; or it refuses the messages; or as for `text`.
        """
        if self.tokenizer.template is None:
            raise ValueError(f"{self.name} has no chat template (chat_template in tokenizer_config.json, or "
                             "chat_template.jinja): lay the prompt out yourself with lm.text(...)")  # fmt: skip
        messages = chat.conversation(messages, system, continue_final)
        return self._prompt(chat.tokens(self.tokenizer, messages, continue_final, options))

    def _prompt(self, data: bytes) -> Text:
        out = Text(self.tokenizer, data)
        if not 0 < len(out) < self.engine.capacity:
            raise ValueError(f"a prompt of {len(out)} tokens does not fit {self.name}: its context holds "
                             f"{self.engine.capacity} tokens, prompt and answer together")  # fmt: skip
        return out

    @property
    def unigram(self) -> np.ndarray:
        """How probable each token is on average, float64 [vocab_size]."""
        if "unigram" not in self._guides:
            self._guides["unigram"] = unigram(self)
        return self._guides["unigram"]

    def next_token(self, text: Text) -> NextToken:
        """The distribution of `text` with one more token; `*` and `**` make products of experts of them.

        Raises:
            ValueError: `text` has no room left.
        """
        return NextToken(text, [(self, 1.0)])

    def next_log_probs(self, text: Text) -> Call[np.ndarray]:
        """What a program awaits to see log P of every token behind a text: float32 [vocab_size], nats."""
        return Call(self._one_row, (text,), self._rows, "next_log_probs", (self.engine, "next_log_probs"))

    def hidden(self, text: Text) -> Call[np.ndarray]:
        """What a program awaits to see the last hidden state of a text, after the final norm: float32 [hidden_size]."""
        return Call(self._one_state, (text,), self._states, "hidden", (self.engine, "hidden"))

    def log_prob(self, text: Text, continuation: str) -> Call[float]:
        """What a program awaits for log P(`continuation` behind `text`), nats, under the model as it is; in batches.

        It is of these tokens: of other ways to write the same characters it says nothing.

        Raises:
            ValueError: the continuation is empty, the vocabulary cannot write it, or it does not fit the context.
        """
        whole = text + continuation
        if not len(text) < len(whole) <= self.engine.capacity:
            raise ValueError(f"log_prob of {len(whole) - len(text)} tokens behind {len(text)}: there must be one or "
                             f"more, and {self.name} has room for {self.engine.capacity} in all")  # fmt: skip
        return Call(self._one_score, (text, whole), self._scores, "log_prob", (self.engine, "log_prob"))

    def _one_row(self, text: Text) -> np.ndarray:
        return self._rows([(text,)])[0]

    def _rows(self, args: Sequence[tuple[Text]]) -> list[np.ndarray]:
        return list(np.asarray(self.engine.next_log_probs([text for (text,) in args]))[: len(args)])

    def _one_state(self, text: Text) -> np.ndarray:
        return self._states([(text,)])[0]

    def _states(self, args: Sequence[tuple[Text]]) -> list[np.ndarray]:
        return list(self.engine.hidden([text for (text,) in args]))

    def _one_score(self, text: Text, whole: Text) -> float:
        return self._scores([(text, whole)])[0]

    def _scores(self, args: Sequence[tuple[Text, Text]]) -> list[float]:
        return self.engine.log_probs([text for text, _ in args], [whole for _, whole in args], PLAIN)

    def stop(self, until: tuple[str, ...]) -> tuple[Stop, np.ndarray]:
        """The automaton that watches for `until` and the end of the text, on the device and on the host."""
        if until not in self._stops:
            table = stop_table(self.tokenizer, until, self._vocab_size)
            self._stops[until] = Stop.at(table), table
        return self._stops[until]

    @property
    def _vocab_size(self) -> int:
        return self.engine.config.vocab_size

    def _check_stops(self, until: tuple[str, ...]) -> None:
        for one in until if until not in self._stops else ():
            self.tokenizer.follow(one)  # raises for what no token can write
        self.stop(until)  # raises for half a special token

    def _stop_table(self, until: tuple[str, ...]) -> np.ndarray:
        return self.stop(until)[1]

    def _guide(self, grammar: Regular, stops: np.ndarray, finish: bool) -> Guide:
        return taught(self, grammar, self._vocabulary, stops, finish)

    def _blocks(self, parts: tuple[Any, ...], guide: Guide | Reader | None, local: bool) -> Any:
        if guide is None:
            return Extension(*parts)
        if isinstance(guide, Reader):
            return Checked(Restricted(*parts, guide))
        return Local(*parts, guide) if local else Constrained.of(*parts, guide)

    def __repr__(self) -> str:
        return f"<language model {self.name}>"


class StepReward:
    """Judges the last step of a text: calling it gives an effect whose answer is log P(this step is right).

    It reads the score head of a language model at the text's last token. When that model also wrote the text, the
    judgement is a by-product of decoding and costs nothing more. It judges the text as it is, with the question that is
    in it: a `question` given as to other rewards (`ppl.models.rewards`) changes nothing.

    Raises:
        ValueError: the model has no score head; a text to judge is that of another tokenizer.
    """

    kind = "step"

    def __init__(self, lm: LanguageModel) -> None:
        if "score.weight" not in lm.engine.params:
            raise ValueError(f"{lm.name} has no score head (score.weight, score.bias): it cannot judge steps")
        self.lm = lm
        self._batch = lm.engine.log_right

    def __call__(self, text: Text, question: str | None = None) -> Call[float]:
        ours = self.lm.tokenizer
        if text.tokenizer is not ours and text.tokenizer.fingerprint != ours.fingerprint:
            raise ValueError(f"{self.lm.name} cannot judge a text of another tokenizer than its own")
        return Call(self.score, (text,), self._batch)

    def score(self, text: Text, question: str | None = None) -> float:
        """log P(the last step is right), nats."""
        return self._batch([(text,)])[0]


def load(
    path: Path | str, dtype: str | None = None, *, memory: int | None = None, rows: int | None = None
) -> LanguageModel:
    """The language model in a checkpoint folder, or under an id of the Hugging Face hub ("Qwen/Qwen2.5-0.5B").

    An id is looked up in the local cache of the hub first, then downloaded; no more than safetensors, json and
    tokenizer files are. `dtype` is as in `checkpoint.load`, `memory` and `rows` as in
    `Engine`. What is compiled for it, and what is seen of it under grammars, is kept on disk (`keep_compiled`).

    Raises:
        CheckpointError: naming the file and what is wrong with it.
    """
    keep_compiled()
    folder = files.find(path)
    params, config, tokenizer = checkpoint.load(folder, dtype)
    name = folder.name if folder == Path(path) else str(path)
    engine = Engine(params, config, memory=memory, rows=rows)
    return LanguageModel(engine, tokenizer, name, Kept.of(params, config))
