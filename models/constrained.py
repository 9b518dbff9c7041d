"""Blocks that obey a grammar, with exact weights: what `extend(text, grammar=...)` denotes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl.models.draw import Options
from ppl.models.extension import Extension
from ppl.models.guide import Guide
from ppl.models.pieces import Pieces
from ppl.models.text import Text
from ppl.models.tokenizer import TOKEN_BYTES
from ppl.source import Key
from ppl.weighted import Proposed

if TYPE_CHECKING:
    from ppl.models.decode import Stop
    from ppl.models.language_model import LanguageModel


class Restricted(Extension):
    """The measure p(block) * 1[block is in the language], or times its weight: it can be scored, not drawn.

    A piece of a block may be any that can still come out right in the `horizon` tokens that are left.
    """

    __slots__ = ("guide", "horizon", "start")

    def __init__(
        self, lm: LanguageModel, text: Text, until: tuple[str, ...], max_tokens: int, options: Options, guide: Guide,
        state: Any = None, horizon: int | None = None, start: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(lm, text, until, max_tokens, options, guide.automaton.start() if state is None else state)
        self.guide = guide
        self.horizon = max_tokens if horizon is None else horizon
        self.start = len(text) if start is None else start
        """Tokens before the block."""

    @property
    def family(self) -> Hashable:
        return type(self), *super().family, self.guide, self.horizon  # pyright: ignore[reportGeneralTypeIssues]

    @property
    def drawn_by(self) -> Hashable:
        return self.lm.engine, self.options, self.guide, self.horizon

    @staticmethod
    def log_prob_many(dists: Sequence[Any], values: Sequence[Text]) -> list[float]:
        """Nats, summed over the tokens of the block, and log of its weight."""
        sums = Extension.log_prob_many(dists, values)
        return [x + dist.log_weight(value) if x > -math.inf else x
                for dist, value, x in zip(dists, values, sums, strict=True)]  # fmt: skip

    def can_write(self, value: Any) -> bool:
        return self.log_weight(value) > -math.inf

    def log_weight(self, value: Any) -> float:
        """What the grammar says of a block, nats: -inf if it is none, 0 for a piece that can still become one."""
        if not isinstance(value, Text) or not value.data.startswith(self.text.data):
            return -math.inf
        block = np.frombuffer(value.data[len(self.text.data) :], "<i4").tolist()
        room = self.lm.engine.capacity - len(self.text)
        limit, state = min(self.max_tokens, room), self.state
        if not 1 <= len(block) <= limit:
            return -math.inf
        for token in block:
            if self.guide.over(state):
                return -math.inf
            state = self.guide.automaton.advance(state, token)
        over, left = self.guide.over(state), min(self.horizon, room) - len(block)
        ahead = self.guide.ahead(state, left)
        if ahead == -math.inf or (not over and len(block) < limit):
            return -math.inf
        if not over and left > 0:
            return 0.0
        return ahead if self.guide.passes(value, self.start) else -math.inf

    def stopped(self, value: Text) -> bool:
        return value.full or self.guide.over(self._matched(value))

    def piece(self, text: Text, tokens: int) -> Restricted:
        return type(self)(self.lm, text, self.until, tokens, self.options, self.guide, self._matched(text),
                          self.horizon - (len(text) - len(self.text)), self.start)  # fmt: skip

    def powered(self, alpha: float) -> Restricted:
        return type(self)(self.lm, self.text, self.until, self.max_tokens, self.options.powered(alpha), self.guide,
                          self.state, self.horizon, self.start)  # fmt: skip

    def ahead(self, text: Text) -> float:
        """log psi of a text that has some of the block, nats: see `ppl.grammar.lookahead`."""
        left = min(self.horizon, self.lm.engine.capacity - len(self.text)) - (len(text) - len(self.text))
        return self.guide.ahead(self._matched(text), left)

    def encode(self, value: Text) -> Any:
        return [*super().encode(value), value.log_q]

    def decode(self, data: Any) -> Text:
        *plain, log_q = data
        text = super().decode(plain)
        text.log_q = log_q
        return text

    def _matched(self, text: Text) -> int:
        return self.guide.walk(self.state, np.frombuffer(text.data[len(self.text.data) :], "<i4").tolist())

    def _since(self) -> str:
        written = len(self.text) - self.start
        return f", grammar={self.guide.name}" + (f" behind {written} tokens" if written else "")


class Steered(Restricted):
    """The law by which such blocks are drawn: token by token, p(token) * psi(behind it), normalised."""

    __slots__ = ()

    @property
    def stop(self) -> Stop:
        """What steers, on the device."""
        return self.guide.steered

    @staticmethod
    def begin_many(keys: Sequence[Key], dists: Sequence[Any]) -> Callable[[], list[Text]]:
        data = np.frombuffer(b"".join([key.digest[:8] for key in keys]), "<u4").reshape(-1, 2)
        finish = _begun(dists, [dist.text for dist in dists], data)

        def texts() -> list[Text]:
            out = finish()
            for dist, text in zip(dists, out, strict=True):
                text.drawn_by = dist.drawn_by
                dist.lm.tokens += (len(text.data) - len(dist.text.data)) // TOKEN_BYTES
            return out

        return texts

    @staticmethod
    def log_prob_many(dists: Sequence[Any], values: Sequence[Text]) -> list[float]:
        """Nats, summed over the tokens of the block; `-inf` for a block that cannot be drawn."""
        out = [-math.inf] * len(dists)
        open_: list[int] = []
        for i, (dist, value) in enumerate(zip(dists, values, strict=True)):
            known = dist._known(value)
            if known is not None:
                out[i] = known
            elif dist.can_write(value):
                open_.append(i)
        if open_:
            some, texts = [dists[i] for i in open_], [dists[i].text for i in open_]
            blocks = [values[i].tokens[len(dists[i].text) :] for i in open_]
            written = _begun(some, texts, np.zeros((len(some), 2), np.uint32), blocks)()
            for i, text in zip(open_, written, strict=True):
                assert text.log_q is not None
                out[i] = text.log_q
        return out

    def _known(self, value: Text) -> float | None:
        parent = value.parent
        if value.drawn_by != self.drawn_by or parent is None or parent.key != self.text.key:
            return None
        return value.log_q


class Local(Steered):
    """Each token from the model among those behind which the block can still come out right.

    This is what most libraries mean by constrained generation. It is a distribution, but not the model's conditional
    one: it does not ask how probable a good end is.
    """

    __slots__ = ()

    @property
    def stop(self) -> Stop:
        return self.guide.masked

    @property
    def drawn_by(self) -> Hashable:
        return *super().drawn_by, "local"  # pyright: ignore[reportGeneralTypeIssues]

    def resample_every(self, tokens: int) -> Pieces:
        raise ValueError("resample_every: a locally constrained block has no weights to resample by")


class OfTarget:
    """What a weighted distribution over blocks says of itself as its target does."""

    __slots__ = ()
    target: Any

    @property
    def text(self) -> Text:
        return self.target.text

    @property
    def until(self) -> tuple[str, ...]:
        return self.target.until

    @property
    def max_tokens(self) -> int:
        return self.target.max_tokens

    def stopped(self, value: Text) -> bool:
        """As `Extension.stopped`."""
        return self.target.stopped(value)

    def ahead(self, text: Text) -> float:
        """log psi of a text that has some of the block, nats."""
        return self.target.ahead(text)

    def resample_every(self, tokens: int) -> Pieces:
        """The same block, written in pieces of so many tokens: see `ppl.models.pieces`."""
        return Pieces(self, tokens)

    def can_write(self, value: Any) -> bool:
        """Whether `value` is the text with one whole block behind it."""
        return self.target.can_write(value)

    def __repr__(self) -> str:
        return repr(self.target)


class Constrained(OfTarget, Proposed[Text]):
    """p(block) * 1[block is in the language], drawn by `Steered` with the exact weight p/q."""

    __slots__ = ()
    target: Restricted
    proposal: Steered

    @classmethod
    def of(
        cls, lm: LanguageModel, text: Text, until: tuple[str, ...], max_tokens: int, options: Options, guide: Guide
    ) -> Constrained:
        parts = lm, text, until, max_tokens, options, guide
        return cls(Restricted(*parts), Steered(*parts))

    def piece(self, text: Text, tokens: int) -> Constrained:
        """As `Extension.piece`."""
        return Constrained(self.target.piece(text, tokens), self.proposal.piece(text, tokens))

    def powered(self, alpha: float) -> Constrained:
        """As `Extension.powered`."""
        return Constrained(self.target.powered(alpha), self.proposal.powered(alpha))


def _begun(
    dists: Sequence[Steered], texts: Sequence[Text], keys: np.ndarray, forced: Sequence[np.ndarray] | None = None
) -> Callable[[], list[Text]]:
    one, states = dists[0], np.array([dist.state for dist in dists], np.int32)
    return one.lm.engine.decode(texts, keys, one.stop, one.max_tokens, one.options, states, one.horizon, forced)
