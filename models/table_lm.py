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
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from ppl.distributions import Categorical
from ppl.grammar.regular import Regular
from ppl.models.blocks import Blocks
from ppl.models.checked import Rejected, step
from ppl.models.constrained import Constrained
from ppl.models.draw import Options
from ppl.models.extension import missed
from ppl.models.guide import Guide
from ppl.models.pieces import Pieces
from ppl.models.reader import Reader
from ppl.models.rejection import Given, Urn, outcomes
from ppl.models.stops import check_block, stop_table
from ppl.models.text import Text, Tokenizer
from ppl.source import Key

NextTokens = Callable[[str], Mapping[str, float]]
Block = tuple[int, ...]  # tokens


class TableLM(Blocks["TableExtension"]):
    """`next_tokens(text)` gives the probability of each next token; those of one text sum to 1.

    `alphabet` lists the tokens, characters or strings, `eos` those among them that end a text. `text` and `extend` are
    those of `LanguageModel`, so a program written for one runs on the other; here `measure` can enumerate it.

    Raises:
        ValueError: `eos` is not in the alphabet.
    """

    def __init__(self, alphabet: str | Sequence[str], next_tokens: NextTokens, eos: str | Sequence[str] = "") -> None:
        super().__init__()
        self.alphabet = tuple(alphabet)
        if missing := set(eos) - set(self.alphabet):
            raise ValueError(f"TableLM: eos {''.join(missing)!r} is not in the alphabet {alphabet!r}")
        self.tokenizer = Tokenizer(_backend(self.alphabet), [self.alphabet.index(c) for c in eos])
        self.next_tokens = next_tokens

    def text(self, text: str) -> Text:
        """The tokens of a prompt; of several that fit, the longest."""
        return Text.of(self.tokenizer, text)

    @property
    def _vocab_size(self) -> int:
        return len(self.alphabet)

    def _check_stops(self, until: tuple[str, ...]) -> None:
        """Any string will do: one that no token writes is never seen."""

    def _stop_table(self, until: tuple[str, ...]) -> np.ndarray:
        return stop_table(self.tokenizer, until, self._vocab_size)

    def _guide(self, grammar: Regular, stops: np.ndarray, finish: bool) -> Guide:
        """All tokens are taken to be equally probable."""
        size = self._vocab_size
        return Guide.of(grammar, self._vocabulary, stops, finish, np.full(size, 1 / size))

    def _blocks(self, parts: tuple[Any, ...], guide: Guide | Reader | None, local: bool) -> Any:
        if guide is None:
            return TableExtension(*parts)
        if isinstance(guide, Reader):
            return TableChecked(TableRestricted(*parts, guide=guide))
        if local:
            return TableLocal(*parts, guide=guide)
        return Constrained(TableRestricted(*parts, guide=guide), TableSteered(*parts, guide=guide))

    def __repr__(self) -> str:
        return f"<table language model of {self.tokenizer.size} tokens>"


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
        return type(self)

    def sample(self, key: Key) -> Text:
        block, log_prob = (), 0.0
        while not self._ended(block):
            tokens = self._next(block)
            token = tokens.sample(key.fold(str(len(block))))
            block, log_prob = (*block, token), log_prob + tokens.log_prob(token)
        return self._text(block, log_prob)

    def log_prob(self, value: Any) -> float:
        if not isinstance(value, Text) or not value.data.startswith(self.text.data):
            return -math.inf
        block, total = self._block(value), 0.0
        for at, token in enumerate(block):
            if self._ended(block[:at]):
                return -math.inf
            total += self._next(block[:at]).log_prob(token)
        return total if self._ended(block) else -math.inf

    def table(self) -> list[tuple[Text, float]]:
        """Every block that can be written, with its probability."""
        return [(self._text(block, math.log(p)), p) for block, p in self._blocks((), 1.0)]

    def can_write(self, value: Any) -> bool:
        """Whether `value` is the text with one whole block behind it, that has a probability."""
        return self.log_prob(value) > -math.inf

    def misses(self, target: Any) -> str | None:
        """What this, as a proposal, cannot draw of the target, in words: see `Proposed`."""
        return missed(self, target) if isinstance(target, TableExtension) else None

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
        """A draw as JSON: the tokens that it adds to the text."""
        return [list(self._block(value)), value.log_prob]

    def decode(self, data: Any) -> Text:
        """The draw that `encode` wrote."""
        return self._text(*data)

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return f"{self!r} behind {str(self.text)!r}"

    def _blocks(self, block: Block, p: float) -> Iterator[tuple[Block, float]]:
        if self._ended(block):
            yield block, p
            return
        for token, q in self._next(block).table():
            if q > 0:
                yield from self._blocks((*block, token), p * q)

    def _next(self, block: Block) -> Categorical[int]:
        before = str(self.text) + self._read(block)
        tokens = self.lm.next_tokens(before)
        if abs(math.fsum(tokens.values()) - 1) > 1e-9:
            raise ValueError(
                f"TableLM: the probabilities after {before!r} sum to {math.fsum(tokens.values())}, not to 1"
            )
        logits = [math.log(p) if (p := tokens.get(c, 0.0)) else -math.inf for c in self.lm.alphabet]
        if not self.options.plain:
            logits = self.options.cut(np.array(logits)).tolist()
        return Categorical(range(len(logits)), logits)

    def _ended(self, block: Block) -> bool:
        if not block:
            return False
        written = self.before + self._read(block)
        ends = block[-1] in self.lm.tokenizer.eos
        return ends or len(block) >= self.max_tokens or any(one in written for one in self.until)

    def _read(self, block: Block) -> str:
        return "".join([self.lm.alphabet[token] for token in block])

    def _block(self, value: Text) -> Block:
        """The tokens of a value behind the text."""
        return tuple(value.tokens[len(self.text) :].tolist())

    def _written(self, text: Text) -> str:
        """Of the block."""
        return self.before + self._read(self._block(text))

    def _text(self, block: Sequence[int], log_prob: float) -> Text:
        return Text(self.lm.tokenizer, self.text.data + np.array(block, "<i4").tobytes(), self.text, log_prob)

    def __repr__(self) -> str:
        return f"TableExtension(until={self.until!r}, max_tokens={self.max_tokens}, {self.options!r})"


class TableRestricted(TableExtension):
    """As `constrained.Restricted`: a measure, that is scored and not drawn."""

    __slots__ = ("guide", "horizon", "start", "state")

    def __init__(
        self,
        *parts: Any,
        guide: Guide | Reader,
        state: Any = None,
        horizon: int | None = None,
        start: int | None = None,
    ) -> None:
        super().__init__(*parts)
        self.guide = guide
        self.start = len(self.text) if start is None else start
        self.state = guide.automaton.start() if state is None else state
        self.horizon = self.max_tokens if horizon is None else horizon

    def log_prob(self, value: Any) -> float:
        if not isinstance(value, Text) or not value.data.startswith(self.text.data):
            return -math.inf
        block = self._block(value)
        if not 1 <= len(block) <= self.max_tokens or self._ended(block[:-1]):
            return -math.inf
        log_weight = self._log_weight(block)
        if log_weight == -math.inf:
            return log_weight
        return log_weight + sum(TableExtension._next(self, block[:i]).log_prob(token) for i, token in enumerate(block))

    def table(self) -> list[tuple[Text, float]]:
        """Every block of the language, with its probability under the model times its weight: the evidence in all."""
        return [
            (self._text(block, math.log(p)), p * weight)
            for block, p in self._blocks((), 1.0)
            if (weight := math.exp(self._log_weight(block)))
        ]

    def powered(self, alpha: float) -> TableRestricted:
        return self._like(self.text, self.max_tokens, self.options.powered(alpha), self.state, self.horizon)

    def stopped(self, value: Text) -> bool:
        return self.guide.over(self._matched(self._block(value)))

    def piece(self, text: Text, tokens: int) -> TableRestricted:
        block = self._block(text)
        return self._like(text, tokens, self.options, self._matched(block), self.horizon - len(block))

    def ahead(self, text: Text) -> float:
        """As `constrained.Restricted.ahead`."""
        block = self._block(text)
        return self.guide.ahead(self._matched(block), self.horizon - len(block))

    def _like(self, text: Text, tokens: int, options: Options, state: int, horizon: int) -> TableRestricted:
        return type(self)(
            self.lm, text, self.until, tokens, options, guide=self.guide, state=state, horizon=horizon, start=self.start
        )

    def _matched(self, block: Block) -> int:
        return self.guide.walk(self.state, block)

    def _ended(self, block: Block) -> bool:
        return bool(block) and (self.guide.over(self._matched(block)) or len(block) >= self.max_tokens)

    def _log_weight(self, block: Block) -> float:
        """As `constrained.Restricted.log_weight`."""
        state, left = self._matched(block), self.horizon - len(block)
        ahead = self.guide.ahead(state, left)
        if ahead > -math.inf and left > 0 and not self.guide.over(state):
            return 0.0
        return ahead if self.guide.passes(self._text(block, 0.0), self.start) else -math.inf

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, grammar={self.guide.name})"


class TableSteered(TableRestricted):
    """As `constrained.Steered`."""

    __slots__ = ()
    log_prob = TableExtension.log_prob
    table = TableExtension.table

    def _next(self, block: Block) -> Categorical[int]:
        """Where no token is left, token 0, as `draw.pick` does."""
        plain, state, left = super()._next(block), self._matched(block), self.horizon - len(block) - 1
        behind = [self.guide.automaton.advance(state, token) for token in plain.values]
        logits = [math.log(p) + self._steer(to, left) if p else -math.inf
                  for to, p in zip(behind, plain.probabilities, strict=True)]  # fmt: skip
        return Categorical(plain.values, logits) if max(logits) > -math.inf else Categorical([0], [0.0])

    def _steer(self, state: int, left: int) -> float:
        return self.guide.ahead(state, left)

    def _text(self, block: Sequence[int], log_prob: float) -> Text:
        """A text's `log_prob` is the model's, as where a device draws."""
        block = tuple(block)
        return super()._text(block, sum(TableExtension._next(self, block[:i]).log_prob(t) for i, t in enumerate(block)))


class TableLocal(TableSteered):
    """As `constrained.Local`."""

    __slots__ = ()

    def _steer(self, state: int, left: int) -> float:
        return 0.0 if self.guide.ahead(state, left) > -math.inf else -math.inf

    def resample_every(self, tokens: int) -> Pieces:
        raise ValueError("resample_every: a locally constrained block has no weights to resample by")


class TableChecked(Rejected):
    """As `checked.Checked`; fewer tokens are checked beside, so that all that can happen can be listed."""

    __slots__ = ()
    extra, patience = 1, 2
    target: TableRestricted

    @property
    def family(self) -> Hashable:
        return type(self)

    def sample(self, key: Key) -> tuple[Text, float]:
        target, block, log_weight = self.target, (), 0.0
        state = target.state
        while not target._ended(block):
            urn = Urn(self._masses(block), key.fold(str(len(block))))
            token, log_w, state = self._step(urn, block, state)
            block, log_weight = (*block, token), log_weight + log_w
        return (text := self._text(block)), self.passed(text, log_weight)

    def table(self) -> list[tuple[tuple[Text, float], float]]:
        """Every block that can be drawn, with every weight that it can have, and how probable that is."""
        return [((text := self._text(block), self.passed(text, log_weight)), p)
                for block, log_weight, p in self._blocks((), self.target.state)]  # fmt: skip

    def _blocks(self, block: Block, state: int) -> Iterator[tuple[Block, float, float]]:
        """All ways to go on: the block, log of the weight of what is added, its probability."""
        if self.target._ended(block):
            yield block, 0.0, 1.0
            return
        masses = self._masses(block).tolist()
        steps: dict[tuple[int, float, int], float] = {}
        for step_, p in outcomes(lambda choose: self._step(Given(masses, choose), block, state)):
            steps[step_] = steps.get(step_, 0.0) + p
        for (token, log_w, to), p in steps.items():
            for whole, log_rest, rest in self._blocks((*block, token), to):
                yield whole, log_w + log_rest, p * rest

    def _step(self, source: Any, block: Block, state: int) -> tuple[int, float, int]:
        guide: Any = self.target.guide
        return step(source, guide, state, self.target.horizon - len(block) - 1, self.extra, self.patience)

    def _masses(self, block: Block) -> np.ndarray:
        return np.array(TableExtension._next(self.target, block).probabilities)

    def _text(self, block: Block) -> Text:
        log_prob = sum(TableExtension._next(self.target, block[:i]).log_prob(token) for i, token in enumerate(block))
        return self.target._text(block, log_prob)


def _backend(alphabet: Sequence[str]) -> tokenizers.Tokenizer:
    """One token for each string of the alphabet; a text is cut into the longest."""
    if all(len(token) == 1 for token in alphabet):
        return Tokenizer.of_characters("".join(alphabet)).backend
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token=""))
    longest = sorted(alphabet, key=len, reverse=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex("|".join(map(re.escape, longest))), "isolated"
    )
    backend.decoder = tokenizers.decoders.Fuse()
    return backend
