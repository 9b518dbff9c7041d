"""A language model given by a table: exact, tiny, for tests and for trying out programs.

>>> from ppl import measure, program, sample
>>> lm = TableLM("ab.", lambda text: {"a": 0.5, "b": 0.25, ".": 0.25}, eos=".")
>>> @program
... async def write():
...     return str(await sample("word", lm.extend(lm.text("a"), max_tokens=1)))
>>> measure(write())
Measure({'aa': 0.5, 'ab': 0.25, 'a.': 0.25})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from ppl.distributions import Categorical
from ppl.models.draw import Options
from ppl.models.pieces import Pieces
from ppl.models.stops import Until, check_block, stops_of
from ppl.models.text import Text, Tokenizer
from ppl.source import Key

NextTokens = Callable[[str], Mapping[str, float]]


class TableLM:
    """`next_tokens(text)` gives the probability of each next character; those of one text sum to 1.

    `alphabet` lists the characters, `eos` those among them that end a text. `text` and `extend` are those of
    `LanguageModel`, so a program written for one runs on the other; here `measure` can enumerate it.

    Raises:
        ValueError: `eos` is not in the alphabet.
    """

    def __init__(self, alphabet: str, next_tokens: NextTokens, eos: str = "") -> None:
        if missing := set(eos) - set(alphabet):
            raise ValueError(f"TableLM: eos {''.join(missing)!r} is not in the alphabet {alphabet!r}")
        plain = Tokenizer.of_characters(alphabet)
        self.tokenizer = Tokenizer(plain.backend, [alphabet.index(c) for c in eos])
        self.alphabet = alphabet
        self.next_tokens = next_tokens

    def text(self, text: str) -> Text:
        """The tokens of a prompt."""
        return Text.of(self.tokenizer, text)

    def extend(
        self,
        text: Text,
        *,
        until: Until = None,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        bias: Mapping[int, float] | None = None,
    ) -> TableExtension:
        """As `LanguageModel.extend`.

        Raises:
            ValueError: `max_tokens` < 1, an empty `until`, or an option that makes no sense.
        """
        return TableExtension(
            self, text, stops_of(until), max_tokens, Options.of(temperature, top_k, top_p, min_p, bias)
        )

    def __repr__(self) -> str:
        return f"<table language model of {self.tokenizer.size} characters>"


class TableExtension:
    """The distribution over texts that `TableLM.extend` denotes."""

    __slots__ = ("before", "lm", "max_tokens", "options", "text", "until")

    def __init__(
        self, lm: TableLM, text: Text, until: tuple[str, ...], max_tokens: int, options: Options,
        before: str = "",
    ) -> None:  # fmt: skip
        check_block(until, max_tokens)
        self.lm = lm
        self.text = text
        self.until = until
        self.max_tokens = max_tokens
        self.options = options
        self.before = before
        """What `text`, that goes on with a block, has of it."""

    @property
    def family(self) -> Hashable:
        return TableExtension

    def sample(self, key: Key) -> Text:
        block, log_prob = "", 0.0
        while not self._ended(block):
            tokens = self._next(block)
            token = tokens.sample(key.fold(str(len(block))))
            block, log_prob = block + token, log_prob + tokens.log_prob(token)
        return self._text(block, log_prob)

    def log_prob(self, value: Any) -> float:
        if not isinstance(value, Text) or not value.data.startswith(self.text.data):
            return -math.inf
        block, total = str(value)[len(str(self.text)) :], 0.0
        for at, token in enumerate(block):
            if self._ended(block[:at]):
                return -math.inf
            total += self._next(block[:at]).log_prob(token)
        return total if self._ended(block) else -math.inf

    def table(self) -> list[tuple[Text, float]]:
        """Every block that can be written, with its probability."""
        return [(self._text(block, math.log(p)), p) for block, p in self._blocks("", 1.0)]

    def misses(self, target: Any) -> str | None:
        """What this, as a proposal, cannot draw of the target, in words: see `Proposed`."""
        return self.options.misses(target.options) if isinstance(target, TableExtension) else None

    def powered(self, alpha: float) -> TableExtension:
        """Each token from the power of its distribution: at temperature / alpha. As `Options.powered`."""
        options = self.options.powered(alpha)
        return TableExtension(self.lm, self.text, self.until, self.max_tokens, options, self.before)

    def stopped(self, value: Text) -> bool:
        """As `Extension.stopped`."""
        return value.finished or any(one in self._written(value) for one in self.until)

    def piece(self, text: Text, tokens: int) -> TableExtension:
        """As `Extension.piece`."""
        return TableExtension(self.lm, text, self.until, tokens, self.options, self._written(text))

    def resample_every(self, tokens: int) -> Pieces:
        """As `Extension.resample_every`."""
        return Pieces(self, tokens)

    def encode(self, value: Text) -> Any:
        """A draw as JSON: what it adds to the text."""
        return [str(value)[len(str(self.text)) :], value.log_prob]

    def decode(self, data: Any) -> Text:
        """The draw that `encode` wrote."""
        return self._text(*data)

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return f"{self!r} behind {str(self.text)!r}"

    def _blocks(self, block: str, p: float) -> Iterator[tuple[str, float]]:
        if self._ended(block):
            yield block, p
            return
        for token, q in self._next(block).table():
            if q > 0:
                yield from self._blocks(block + token, p * q)

    def _next(self, block: str) -> Categorical[str]:
        before = str(self.text) + block
        tokens = self.lm.next_tokens(before)
        if abs(math.fsum(tokens.values()) - 1) > 1e-9:
            raise ValueError(
                f"TableLM: the probabilities after {before!r} sum to {math.fsum(tokens.values())}, not to 1"
            )
        if self.options.plain:
            return Categorical.of(tokens)
        names = list(self.lm.alphabet)
        logits = np.array([math.log(p) if (p := tokens.get(c, 0.0)) else -math.inf for c in names])
        return Categorical(names, self.options.cut(logits).tolist())

    def _ended(self, block: str) -> bool:
        if not block:
            return False
        ends = self.lm.tokenizer.ends(self.lm.tokenizer.encode(block))
        return ends or len(block) >= self.max_tokens or any(one in self.before + block for one in self.until)

    def _written(self, text: Text) -> str:
        """Of the block."""
        return self.before + str(text)[len(str(self.text)) :]

    def _text(self, block: str, log_prob: float) -> Text:
        tokenizer = self.lm.tokenizer
        return Text(tokenizer, self.text.data + tokenizer.encode(block), self.text, log_prob)

    def __repr__(self) -> str:
        return f"TableExtension(until={self.until!r}, max_tokens={self.max_tokens}, {self.options!r})"
