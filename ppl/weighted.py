"""Properly weighted distributions, and the measures that they aim at: draws that come with their weights.

See `Distribution`: a draw is a pair (value, log weight), and the program sees the value.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Generic, TypeVar

from ppl import codec
from ppl.distributions import Distribution, is_weighted, log_probs, table
from ppl.source import Key, begin_draws

T = TypeVar("T")


class Proposed(Generic[T]):
    """`target`, drawn from `proposal`: a properly weighted distribution of log weight log target - log proposal.

    A target that is properly weighted itself stands for what it aims at, its own `target`.

    The proposal must be able to draw whatever the target can. A proposal with a method `misses(target)` says in words
    what it cannot draw, or None.

    Raises:
        ValueError: it says so.
    """

    __slots__ = ("proposal", "target")
    weighted = True

    def __init__(self, target: Distribution[T], proposal: Distribution[T]) -> None:
        if is_weighted(target):
            target = getattr(target, "target", target)
        if hasattr(proposal, "misses") and (missed := proposal.misses(target)):  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"{proposal!r} as a proposal for {target!r}: {missed}")
        self.target = target
        self.proposal = proposal

    @property
    def family(self) -> Hashable:
        return Proposed, self.target.family, self.proposal.family

    def sample(self, key: Key) -> tuple[T, float]:
        return self.draw_many([key], [self])[0]

    def log_prob(self, value: Any) -> float:
        return self.target.log_prob(value)

    @staticmethod
    def log_prob_many(dists: Sequence[Proposed[T]], values: Sequence[Any]) -> Sequence[float]:
        return log_probs([dist.target for dist in dists], values)

    def table(self) -> list[tuple[tuple[T, float], float]]:
        """Pairs (value, log weight) with the probabilities under the proposal.

        Raises:
            NotFinite: the proposal has no table.
            ValueError: the proposal cannot draw a value that the target can.
        """
        rows = table(self.proposal)
        drawn = [value if not is_weighted(self.proposal) else value[0] for value, _ in rows]  # pyright: ignore[reportIndexIssue]
        if hasattr(self.target, "table"):
            for value, p in table(self.target):
                if value not in drawn:
                    raise ValueError(f"{self!r}: the proposal cannot draw {value!r}, of probability {p:.3g}")
        pairs = self._weigh([self] * len(rows), [value for value, _ in rows])
        return [(pair, p) for pair, (_, p) in zip(pairs, rows, strict=True)]

    def misses(self, target: Any) -> str | None:
        """As a proposal itself: what the proposal says."""
        return self.proposal.misses(target) if hasattr(self.proposal, "misses") else None  # pyright: ignore[reportAttributeAccessIssue]

    def weigh(self, value: T) -> float:
        """log target - log proposal at a value: the weight that a draw of it has."""
        return self._weigh([self], [value])[0][1]

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return f"Proposed({codec.sketch(self.target)}, {codec.sketch(self.proposal)})"

    def encode(self, draw: tuple[T, float]) -> Any:
        """A draw as JSON, by the target's own `encode` if it has one."""
        store = getattr(self.target, "encode", codec.encode)
        return [store(draw[0]), codec.encode(draw[1])]

    def decode(self, data: Any) -> tuple[T, float]:
        """The draw that `encode` wrote."""
        return getattr(self.target, "decode", codec.decode)(data[0]), codec.decode(data[1])

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Proposed[T]]) -> list[tuple[T, float]]:
        return Proposed._weigh(dists, begin_draws(keys, [dist.proposal for dist in dists])[0]())

    @staticmethod
    def _weigh(dists: Sequence[Proposed[T]], draws: Sequence[Any]) -> list[tuple[T, float]]:
        before = [0.0] * len(draws)
        if is_weighted(dists[0].proposal):
            draws, before = zip(*draws, strict=True)
        log_p = log_probs([dist.target for dist in dists], draws)
        log_q = log_probs([dist.proposal for dist in dists], draws)
        for dist, value, q in zip(dists, draws, log_q, strict=True):
            if not -math.inf < q < math.inf:
                raise ValueError(f"{dist!r}: the proposal drew {value!r} and gives it log probability {q}")
        return [(value, w + p - q) for value, w, p, q in zip(draws, before, log_p, log_q, strict=True)]

    def __repr__(self) -> str:
        return f"Proposed({self.target!r}, {self.proposal!r})"


class Pairs(Generic[T]):
    """What a properly weighted distribution draws, as values: for who takes the weights on himself."""

    __slots__ = ("decode", "dist", "encode")
    wraps = True  # drawn in one batch, as `dist` is

    def __init__(self, dist: Distribution[T]) -> None:
        self.dist = dist
        for name in ("encode", "decode"):
            setattr(self, name, getattr(dist, name, getattr(codec, name)))

    @property
    def family(self) -> Hashable:
        return Pairs, self.dist.family

    def sample(self, key: Key) -> tuple[T, float]:
        return self.dist.sample(key)  # pyright: ignore[reportReturnType]

    def log_prob(self, value: Any) -> float:
        """Of a pair, that it is drawn: where the value determines the weight, that of the value under the proposal."""
        if not isinstance(self.dist, Proposed):
            raise TypeError(f"{self.dist!r} does not say how probable a pair of value and weight is")
        drawn, log_weight = value
        log_prob = self.dist.proposal.log_prob(drawn)
        if log_prob == -math.inf or not math.isclose(log_weight, self.dist.weigh(drawn), abs_tol=1e-9):
            return -math.inf
        return log_prob

    def table(self) -> list[tuple[tuple[T, float], float]]:
        """The pairs with their probabilities."""
        return table(self.dist)  # pyright: ignore[reportReturnType]

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return codec.sketch(self.dist)

    def __repr__(self) -> str:
        return f"Pairs({self.dist!r})"


class Raised(Generic[T]):
    """The measure p^alpha of a distribution: a target for `Proposed`, not normalised, that cannot be drawn from."""

    __slots__ = ("alpha", "dist")

    def __init__(self, dist: Distribution[T], alpha: float) -> None:
        self.dist = dist
        self.alpha = alpha

    @property
    def family(self) -> Hashable:
        return Raised, self.dist.family

    def sample(self, key: Key) -> T:
        raise TypeError(f"{self!r} cannot be drawn, only scored")

    def log_prob(self, value: Any) -> float:
        """alpha log p, natural log."""
        return self.alpha * self.dist.log_prob(value)

    @staticmethod
    def log_prob_many(dists: Sequence[Raised[T]], values: Sequence[Any]) -> list[float]:
        scores = log_probs([raised.dist for raised in dists], values)
        return [raised.alpha * score for raised, score in zip(dists, scores, strict=True)]

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return f"Raised({codec.sketch(self.dist)}, {self.alpha})"

    def encode(self, draw: T) -> Any:
        """A draw as JSON, by the distribution's own `encode` if it has one."""
        return getattr(self.dist, "encode", codec.encode)(draw)

    def decode(self, data: Any) -> T:
        """The draw that `encode` wrote."""
        return getattr(self.dist, "decode", codec.decode)(data)

    def __repr__(self) -> str:
        return f"Raised({self.dist!r}, {self.alpha})"
