"""Language models as distributions over texts, and the step reward that reads its score head."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl.effects import Call
from ppl.models import chat, checkpoint, files
from ppl.models.decode import Stop
from ppl.models.engine import Engine
from ppl.models.stops import stop_table
from ppl.models.text import Text
from ppl.models.tokenizer import TOKEN_BYTES, Tokenizer
from ppl.source import Key


class LanguageModel:
    """A transformer with its tokenizer; `extend` is what programs sample from.

    It is a light handle: `handle()` gives another one over the same engine, whose `tokens` counts what was
    sampled through it alone, while the device calls are shared.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, name: str = "model") -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.name = name
        self.tokens = 0
        self._stops: dict[str | None, tuple[Stop, np.ndarray]] = {}

    def handle(self) -> LanguageModel:
        """Another handle, with its own count of tokens."""
        other = LanguageModel(self.engine, self.tokenizer, self.name)
        other._stops = self._stops
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
        first, *parts = self.tokenizer.template.render(messages, continue_final, options)
        data = self.tokenizer.encode(first)
        for i, part in enumerate(parts):
            data += self.tokenizer.follow(part) if i % 2 else self.tokenizer.verbatim(part)
        return self._prompt(data)

    def _prompt(self, data: bytes) -> Text:
        out = Text(self.tokenizer, data)
        if not 0 < len(out) < self.engine.capacity:
            raise ValueError(f"a prompt of {len(out)} tokens does not fit {self.name}: its context holds "
                             f"{self.engine.capacity} tokens, prompt and answer together")  # fmt: skip
        return out

    def extend(
        self, text: Text, *, until: str | None = None, max_tokens: int = 256, temperature: float = 1.0
    ) -> Extension:
        """The distribution of `text` with one more block behind it.

        The block ends with the token that completes `until` (a string, or the name of a special token), with an
        end-of-text token, at `max_tokens`, or at the end of the context. At a temperature other than 1 this *is* the
        tempered model: no weight corrects for it.

        Raises:
            TypeError: `text` is not a `Text`.
            ValueError: `max_tokens` < 1, temperature not positive, `until` empty or impossible to write, or `text`
                has no room left.
        """
        if until and until not in self._stops:
            self.tokenizer.follow(until)  # raises for what no token can write
            self.stop(until)  # raises for half a special token
        return Extension(self, text, until, max_tokens, temperature)

    def stop(self, until: str | None) -> tuple[Stop, np.ndarray]:
        """The automaton that watches for `until` and the end of the text, on the device and on the host."""
        if until not in self._stops:
            size = self.engine.config.vocab_size
            table = stop_table(self.tokenizer, until, size)
            self._stops[until] = Stop.of(table, size), table
        return self._stops[until]

    def __repr__(self) -> str:
        return f"<language model {self.name}>"


class Extension:
    """The distribution over texts that `LanguageModel.extend` denotes."""

    __slots__ = ("lm", "max_tokens", "temperature", "text", "until")

    def __init__(self, lm: LanguageModel, text: Text, until: str | None, max_tokens: int, temperature: float) -> None:
        if not isinstance(text, Text):
            raise TypeError(f"extend needs a Text, like lm.text({text!r})")
        if max_tokens < 1 or not 0 < temperature < math.inf or until == "":
            raise ValueError(f"extend(until={until!r}, max_tokens={max_tokens}, temperature={temperature}): max_tokens "
                             "must be at least 1, the temperature positive and finite, until not empty")  # fmt: skip
        if len(text.data) >= lm.engine.full:
            raise ValueError(f"extend: a text of {len(text)} tokens fills the context of {lm.engine.capacity}")
        self.lm = lm
        self.text = text
        self.until = until
        self.max_tokens = max_tokens
        self.temperature = float(temperature)

    @property
    def family(self) -> Hashable:
        return self.lm.engine, self.until, self.max_tokens, self.temperature

    @property
    def drawn_by(self) -> Hashable:
        """What a text that this distribution drew carries: its log probability need not be computed again."""
        return self.lm.engine, self.temperature

    @staticmethod
    def begin_many(keys: Sequence[Key], dists: Sequence[Extension]) -> Callable[[], list[Text]]:
        """Start one block for each, decoded together; the returned function waits for them."""
        lm, until, max_tokens, temperature = dists[0].lm, dists[0].until, dists[0].max_tokens, dists[0].temperature
        data = np.frombuffer(b"".join([key.digest[:8] for key in keys]), "<u4").reshape(-1, 2)
        finish = lm.engine.decode([dist.text for dist in dists], data, lm.stop(until)[0], max_tokens, temperature)

        def texts() -> list[Text]:
            out = finish()
            for dist, text in zip(dists, out, strict=True):
                text.drawn_by = dist.drawn_by
                dist.lm.tokens += (len(text.data) - len(dist.text.data)) // TOKEN_BYTES
            return out

        return texts

    @staticmethod
    def log_prob_many(dists: Sequence[Extension], values: Sequence[Text]) -> list[float]:
        """Nats, summed over the tokens of the block; `-inf` for a text the distribution cannot write."""
        out = [-math.inf] * len(dists)
        possible: list[int] = []
        for i, (dist, value) in enumerate(zip(dists, values, strict=True)):
            if not dist.can_write(value):
                continue
            if value.drawn_by == dist.drawn_by and value.parent.key == dist.text.key:  # pyright: ignore[reportOptionalMemberAccess]
                out[i] = value.log_prob  # pyright: ignore[reportCallIssue, reportArgumentType]
            else:
                possible.append(i)
        if possible:
            texts, starts = [values[i] for i in possible], [len(dists[i].text) for i in possible]
            sums = dists[0].lm.engine.log_probs(texts, starts, dists[0].temperature)
            for i, log_prob in zip(possible, sums, strict=True):
                out[i] = log_prob
        return out

    def sample(self, key: Key) -> Text:
        return self.begin_many([key], [self])()[0]

    def log_prob(self, value: Any) -> float:
        return self.log_prob_many([self], [value])[0]

    def can_write(self, value: Any) -> bool:
        """Whether `value` is the text with one whole block behind it, no more and no less."""
        if not isinstance(value, Text) or not value.data.startswith(self.text.data):
            return False
        block = np.frombuffer(value.data[len(self.text.data) :], "<i4").tolist()
        limit = min(self.max_tokens, self.lm.engine.capacity - len(self.text))
        if not 1 <= len(block) <= limit:
            return False
        table, state = self.lm.stop(self.until)[1], 0
        for position, token in enumerate(block):
            state = table[state, token]
            if state == len(table) - 1:
                return position == len(block) - 1
        return len(block) == limit

    def powered(self, alpha: float) -> Extension:
        """At temperature / alpha: each token from the power of its distribution."""
        return Extension(self.lm, self.text, self.until, self.max_tokens, self.temperature / alpha)

    def encode(self, value: Text) -> Any:
        """A draw as JSON: [the tokens behind `text`, log_prob, full].

        Raises:
            TypeError: `value` is not one link behind `text`, so `decode` could not give it back.
        """
        if not isinstance(value, Text) or value.parent is None or value.parent.key != self.text.key:
            raise TypeError(f"{value!r} is not a block written behind {self.text!r}")
        return [value.tokens[len(self.text) :].tolist(), value.log_prob, value.full]

    def decode(self, data: Any) -> Text:
        """The draw that `encode` wrote: the same tokens, parent, log_prob and full."""
        tokens, log_prob, full = data
        block = np.array(tokens, "<i4").tobytes()
        text = Text(self.lm.tokenizer, self.text.data + block, self.text, log_prob, full)
        text.drawn_by = self.drawn_by
        return text

    def sketch(self) -> str:
        """What identifies the distribution when a record is compared with a program: the same in every process."""
        return (
            f"extend({self.lm.name}, text={zlib.crc32(self.text.data):08x}, until={self.until!r}, "
            f"max_tokens={self.max_tokens}, temperature={self.temperature})"
        )

    def __repr__(self) -> str:
        return f"Extension(of {len(self.text)} tokens, until={self.until!r}, max_tokens={self.max_tokens})"


class StepReward:
    """Judges the last step of a text: calling it gives an effect whose answer is log P(this step is right).

    It reads the score head of a language model at the text's last token. When that model also wrote the text, the
    judgement is a by-product of decoding and costs nothing more.

    Raises:
        ValueError: the model has no score head.
    """

    kind = "step"

    def __init__(self, lm: LanguageModel) -> None:
        if "score.weight" not in lm.engine.params:
            raise ValueError(f"{lm.name} has no score head (score.weight, score.bias): it cannot judge steps")
        self._batch = lm.engine.log_right

    def __call__(self, text: Text) -> Call[float]:
        return Call(self.score, (text,), self._batch)

    def score(self, text: Text) -> float:
        """log P(the last step is right), nats."""
        return self._batch([(text,)])[0]


def load(path: Path | str, dtype: str | None = None) -> LanguageModel:
    """The language model in a checkpoint folder, or under an id of the Hugging Face hub ("Qwen/Qwen2.5-0.5B").

    An id is looked up in the local cache of the hub first, then downloaded; no more than safetensors, json and
    tokenizer files are. `dtype` is as in `checkpoint.load`.

    Raises:
        CheckpointError: naming the file and what is wrong with it.
    """
    folder = files.find(path)
    params, config, tokenizer = checkpoint.load(folder, dtype)
    name = folder.name if folder == Path(path) else str(path)
    return LanguageModel(Engine(params, config), tokenizer, name)
