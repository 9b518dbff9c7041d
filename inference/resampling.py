"""Resampling: distributions over ancestor vectors.

An ancestor vector a says that new particle i is a child of old particle a[i]. Each scheme is a distribution made from
log weights, with `sample`, `log_prob` and a finite `table`, and each is unbiased: E[number of children of k] = N w_k.
Chopin and Papaspiliopoulos 2020, "An Introduction to Sequential Monte Carlo", chapter 9.

    >>> import numpy as np
    >>> dict(Systematic(np.log([0.75, 0.25])).table())
    {(0, 0): 0.5, (0, 1): 0.5}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ppl.inference import weights
from ppl.source import Key

Vector = tuple[int, ...]
Resampler = Callable[[np.ndarray], "Ancestors"]
_BELOW_ONE = math.nextafter(1.0, 0.0)


class Ancestors:
    """Distribution over ancestor vectors of N particles with the given log weights.

    Raises:
        ValueError: all weights are zero.
    """

    resamples = True  # new particles are equally weighted; False: they keep their weights

    def __init__(self, log_weights: np.ndarray) -> None:
        self.weights = weights.normalise(log_weights)
        cdf = np.cumsum(self.weights)
        self.cdf = cdf / cdf[-1]  # ends in exactly 1

    @property
    def count(self) -> int:
        return len(self.weights)

    @property
    def family(self) -> Hashable:
        return type(self)

    def sample(self, key: Key) -> Vector:
        """One ancestor vector."""
        raise NotImplementedError

    def table(self) -> list[tuple[Vector, float]]:
        """Every ancestor vector with its probability."""
        raise NotImplementedError

    def log_prob(self, value: Vector) -> float:
        """Natural log of the probability of one ancestor vector."""
        raise NotImplementedError

    def pick(self, points: Any) -> Vector:
        """The particles at points of [0, 1) of the cumulated weights; none of zero weight."""
        # A point that rounded up to 1 would fall off the end.
        return tuple(np.searchsorted(self.cdf, np.minimum(points, _BELOW_ONE), side="right").tolist())


class Multinomial(Ancestors):
    """N independent draws (Gordon, Salmond and Smith 1993)."""

    def sample(self, key: Key) -> Vector:
        return self.pick(key.uniforms(self.count))

    def table(self) -> list[tuple[Vector, float]]:
        return _products([_positive(self.weights)] * self.count)

    def log_prob(self, value: Vector) -> float:
        return _log(math.prod(self.weights[list(value)].tolist()))


class Stratified(Ancestors):
    """One independent draw in each stratum [i/N, (i+1)/N) (Kitagawa 1996)."""

    def sample(self, key: Key) -> Vector:
        return self.pick((np.arange(self.count) + key.uniforms(self.count)) / self.count)

    def table(self) -> list[tuple[Vector, float]]:
        return _products([_positive(self._stratum(i)) for i in range(self.count)])

    def log_prob(self, value: Vector) -> float:
        return _log(math.prod(float(self._stratum(i)[a]) for i, a in enumerate(value)))

    def _stratum(self, i: int) -> np.ndarray:
        """Probabilities of the ancestor of slot i: the overlap of each weight's interval with [i, i+1) / N."""
        high = np.clip(self.cdf * self.count, i, i + 1)
        return np.diff(high, prepend=float(i))


class Systematic(Ancestors):
    """One uniform number shared by all strata (Kitagawa 1996; Carpenter, Clifford and Fearnhead 1999)."""

    def sample(self, key: Key) -> Vector:
        return self._at(key.uniform())

    def _at(self, u: float) -> Vector:
        return self.pick((np.arange(self.count) + u) / self.count)

    def table(self) -> list[tuple[Vector, float]]:
        # The ancestor vector is piecewise constant in u: it changes at the fractional parts of N * cdf.
        cuts = np.unique(np.concatenate([[0.0, 1.0], np.mod(self.cdf * self.count, 1.0)]))
        out: dict[Vector, float] = {}
        for low, high in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            vector = self._at((low + high) / 2)
            out[vector] = out.get(vector, 0.0) + high - low
        return list(out.items())

    def log_prob(self, value: Vector) -> float:
        slots, chosen = np.arange(self.count), list(value)
        high = self.cdf * self.count
        low = np.concatenate([[0.0], high[:-1]])
        return _log(min(1.0, float((high[chosen] - slots).min())) - max(0.0, float((low[chosen] - slots).max())))


class Residual(Ancestors):
    """floor(N w_k) sure children of each particle, the rest multinomial on what is left (Liu and Chen 1998)."""

    def __init__(self, log_weights: np.ndarray) -> None:
        super().__init__(log_weights)
        expected = self.weights * self.count
        # N w_k an ulp below an integer must count as that integer, or the child it is sure of is left to chance.
        sure = np.floor(expected + 1e-12 * self.count)
        self._sure: Vector = tuple(np.repeat(np.arange(self.count), sure.astype(int)).tolist())[: self.count]
        rest = np.maximum(expected - sure, 0.0)
        self._free = self.count - len(self._sure)
        if self._free:
            self.rest = rest / rest.sum()
            cdf = np.cumsum(self.rest)
            self.cdf = cdf / cdf[-1]

    def sample(self, key: Key) -> Vector:
        return self._sure + (self.pick(key.uniforms(self._free)) if self._free else ())

    def table(self) -> list[tuple[Vector, float]]:
        if not self._free:
            return [(self._sure, 1.0)]
        return [(self._sure + tail, p) for tail, p in _products([_positive(self.rest)] * self._free)]

    def log_prob(self, value: Vector) -> float:
        sure = len(self._sure)
        if value[:sure] != self._sure:
            return -math.inf
        return _log(math.prod(self.rest[list(value[sure:])].tolist())) if self._free else 0.0


class Keep(Ancestors):
    """No resampling: everyone is their own parent and keeps their weight."""

    resamples = False

    def sample(self, key: Key) -> Vector:
        return tuple(range(self.count))

    def table(self) -> list[tuple[Vector, float]]:
        return [(tuple(range(self.count)), 1.0)]

    def log_prob(self, value: Vector) -> float:
        return 0.0 if value == tuple(range(self.count)) else -math.inf


@dataclass(frozen=True)
class Adaptive:
    """Resample by `scheme` only when the effective sample size is below `threshold` * N (Liu and Chen 1995)."""

    scheme: Resampler = Systematic
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"Adaptive: threshold is a share of N in [0, 1], not {self.threshold}")

    def __call__(self, log_weights: np.ndarray) -> Ancestors:
        enough = weights.ess(log_weights) >= self.threshold * len(log_weights)
        return Keep(log_weights) if enough else self.scheme(log_weights)


def _positive(p: np.ndarray) -> list[tuple[int, float]]:
    return [(k, q) for k, q in enumerate(p.tolist()) if q > 0.0]


def _products(slots: Iterable[list[tuple[int, float]]]) -> list[tuple[Vector, float]]:
    """The table of independent slots."""
    return [(tuple(k for k, _ in row), math.prod(p for _, p in row)) for row in product(*slots)]


def _log(p: float) -> float:
    return math.log(p) if p > 0.0 else -math.inf
