"""Distributions: a protocol, and the small finite ones that programs and algorithms need on the host."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from ppl.source import Key, uniforms

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


class NotFinite(TypeError):
    """The distribution has no finite table of outcomes, so it cannot be enumerated."""


@runtime_checkable
class Distribution(Protocol[T_co]):
    """What `sample` draws from.

    Optional, for distributions whose outcomes can be listed: `table() -> [(value, probability)]`. Optional, for batches
    of distributions of equal `family`: a static `draw_many(keys, dists) -> [value]`, or, for work on a device, a
    static `begin_many(keys, dists)` that starts the draws and returns a function that waits for them; and a static
    `log_prob_many(dists, values) -> [float]`.

    A distribution with a true attribute `weighted` is *properly weighted*: its draws (and the values of its table) are
    pairs (value, log_w) with E[exp(log_w) f(value)] = the measure that it denotes, `f` integrated; `log_prob` is of a
    value alone, under that measure.
    """

    @property
    def family(self) -> Hashable:
        """Distributions of equal family are drawn by one batched call."""
        ...

    def sample(self, key: Key) -> T_co:
        """A draw; the same key gives the same value."""
        ...

    def log_prob(self, value: Any) -> float:
        """Natural log of the probability (or density) of `value`; `-inf` outside the support."""
        ...


def table(dist: Distribution[T]) -> list[tuple[T, float]]:
    """The outcomes of a finite distribution with their probabilities, impossible ones left out.

    Raises:
        NotFinite: the distribution has no `table`.
    """
    make = getattr(dist, "table", None)
    if make is None:
        raise NotFinite(f"{type(dist).__name__} has no finite table of outcomes")
    return [(value, p) for value, p in make() if p > 0.0]


class Categorical(Generic[T]):
    """One of `values`, with probabilities proportional to exp(log_weights).

    `Categorical.of({value: weight})` takes weights that are not logs, `uniform(values)` none.

    Raises:
        TypeError: `values` is a mapping.
        ValueError: no values, lengths that differ, a weight that is `nan` or `+inf`, or all weights `-inf`.
    """

    __slots__ = ("_cdf", "probabilities", "values")
    weighted = False

    def __init__(self, values: Sequence[T], log_weights: Sequence[float]) -> None:
        if isinstance(values, Mapping):
            raise TypeError(f"Categorical({values!r}, ...): use Categorical.of(...) for a table of weights")
        self.values = values if isinstance(values, tuple) else tuple(values)
        count = len(self.values)
        if count == 0:
            raise ValueError("Categorical needs at least one value")
        logw = [float(w) for w in log_weights]
        if len(logw) != count:
            raise ValueError(f"Categorical: {count} values but {len(logw)} log_weights")
        top = max(logw)
        if not -math.inf < top < math.inf or any(w != w for w in logw):
            raise ValueError(f"Categorical: log_weights {logw} need a finite maximum and no nan")
        weights = [math.exp(w - top) for w in logw]
        total = math.fsum(weights)
        self.probabilities = [w / total for w in weights]
        self._cdf: list[float] = []

    @staticmethod
    def of(table: Mapping[U, float]) -> Categorical[U]:
        """From a mapping value -> probability (or unnormalised weight, not negative)."""
        if any(not w >= 0 for w in table.values()):
            raise ValueError(f"Categorical.of: weights must not be negative or nan: {table}")
        return Categorical(tuple(table), [math.log(w) if w else -math.inf for w in table.values()])

    @property
    def family(self) -> Hashable:
        return Categorical

    def sample(self, key: Key) -> T:
        return self._at(key.uniform())

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Categorical[T]]) -> list[T]:
        return [dist._at(u) for dist, u in zip(dists, uniforms(keys), strict=True)]

    def _at(self, u: float) -> T:
        cdf = self._cdf
        if not cdf:
            cdf = self._cdf = list(accumulate(self.probabilities))
        # The first value whose cumulative probability exceeds u * total: it has positive probability, and it exists.
        return self.values[bisect_right(cdf, u * cdf[-1])]

    def log_prob(self, value: Any) -> float:
        p = sum(p for v, p in self.table() if v == value)
        return math.log(p) if p > 0 else -math.inf

    def table(self) -> list[tuple[T, float]]:
        return list(zip(self.values, self.probabilities, strict=True))

    def powered(self, alpha: float) -> Categorical[T]:
        """The distribution proportional to the power of this one."""
        return Categorical(self.values, [alpha * math.log(p) if p else -math.inf for p in self.probabilities])

    def __repr__(self) -> str:
        inside = ", ".join(f"{v!r}: {p:.4g}" for v, p in self.table()[:6])
        return f"Categorical({{{inside}{', ...' if len(self.values) > 6 else ''}}})"


def Bernoulli(p: float) -> Categorical[bool]:  # noqa: N802
    """True with probability `p`.

    Raises:
        ValueError: `p` is not within [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"Bernoulli: p must lie in [0, 1], not {p}")
    return Categorical.of({True: p, False: 1.0 - p})


def uniform(values: Sequence[T]) -> Categorical[T]:
    """Equally likely values."""
    return Categorical(values, [0.0] * len(values))


def log_probs(dists: Sequence[Distribution[Any]], values: Sequence[Any]) -> Sequence[float]:
    """Natural logs of the probabilities of values under distributions of one family, in one batch if it has one."""
    many = getattr(type(dists[0]), "log_prob_many", None)
    if many is not None:
        return many(dists, values)
    return [dist.log_prob(value) for dist, value in zip(dists, values, strict=True)]


def as_distribution(dist: Any, where: str) -> Distribution[Any]:
    """`dist` itself, or its wrapper if it is one of numpyro's.

    Raises:
        TypeError: it is not a distribution.
    """
    if hasattr(dist, "family") and hasattr(dist, "log_prob"):
        return dist
    if any(kind.__module__.startswith("numpyro.") for kind in type(dist).__mro__):
        from ppl.numpyro_bridge import wrap

        return wrap(dist)
    raise TypeError(f"{where}: {dist!r} is not a distribution: it needs `family`, `sample(key)` and `log_prob(value)`")


def is_weighted(dist: Distribution[Any]) -> bool:
    """Whether draws are pairs of a value and a log weight."""
    return getattr(dist, "weighted", False)


def log_odds(log_p: float) -> float:
    """log(p / (1 - p)) of a log probability; finite unless p is exactly 0 or 1."""
    if log_p == 0.0:
        return math.inf
    return log_p - math.log(-math.expm1(log_p))
