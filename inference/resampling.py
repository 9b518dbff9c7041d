"""Resampling: distributions over ancestor vectors.

An ancestor vector a says that new particle i is a child of old particle a[i]. Each scheme is a distribution made from
log weights, with `sample`, `log_prob` and a finite `table`, and each is unbiased: E[number of children of k] = N w_k.
Chopin and Papaspiliopoulos 2020, "An Introduction to Sequential Monte Carlo", chapter 9.

    >>> for ancestors, probability in Systematic([math.log(3), 0.0]).table():
    ...     print(ancestors, round(probability, 12))
    (0, 0) 0.5
    (0, 1) 0.5
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise, product

from ppl.inference import weights
from ppl.source import Key

Vector = tuple[int, ...]
Resampler = Callable[[Sequence[float]], "Ancestors"]


class Ancestors:
    """Distribution over ancestor vectors of N particles with the given log weights.

    Raises:
        ValueError: all weights are zero, when a draw or a probability is asked for.
    """

    resamples = True  # new particles are equally weighted; False: they keep their weights

    def __init__(self, log_weights: Sequence[float] | None = None) -> None:
        if log_weights is None:
            name = type(self).__name__
            raise TypeError(f"{name} is a distribution made from log weights: pass the class, as in SMC(n, {name})")
        self.log_weights = [float(w) for w in log_weights]
        self.count = len(self.log_weights)

    @cached_property
    def weights(self) -> list[float]:
        """Normalised weights w_k."""
        return weights.normalise(self.log_weights)

    @cached_property
    def bounds(self) -> list[float]:
        """N (w_1 + ... + w_k) for each k, the last exactly N: particle k owns the interval from the bound before it."""
        cdf = list(accumulate(self.weights))
        return [self.count * (c / cdf[-1]) for c in cdf]

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


class Multinomial(Ancestors):
    """N independent draws (Gordon, Salmond and Smith 1993)."""

    def sample(self, key: Key) -> Vector:
        return _pick(self.bounds, [self.count * u for u in key.uniforms(self.count)])

    def table(self) -> list[tuple[Vector, float]]:
        return _products([_positive(self.weights)] * self.count)

    def log_prob(self, value: Vector) -> float:
        return _log(math.prod(self.weights[a] for a in value))


class Stratified(Ancestors):
    """One independent draw in each stratum [i/N, (i+1)/N) (Kitagawa 1996)."""

    def sample(self, key: Key) -> Vector:
        return _pick(self.bounds, [i + u for i, u in enumerate(key.uniforms(self.count))])

    def table(self) -> list[tuple[Vector, float]]:
        return _products([_positive(self._stratum(i)) for i in range(self.count)])

    def log_prob(self, value: Vector) -> float:
        return _log(math.prod(self._stratum(i)[a] for i, a in enumerate(value)))

    def _stratum(self, i: int) -> list[float]:
        """Probabilities of the ancestor of slot i: the overlap of each particle's interval with [i, i+1)."""
        inside = [min(max(bound, i), i + 1) for bound in self.bounds]
        return [high - low for low, high in pairwise([float(i), *inside])]


class Systematic(Ancestors):
    """One uniform number shared by all strata (Kitagawa 1996; Carpenter, Clifford and Fearnhead 1999)."""

    def sample(self, key: Key) -> Vector:
        return self.at(key.uniform())

    def at(self, u: float) -> Vector:
        """The ancestor vector for the uniform number u in [0, 1)."""
        return _pick(self.bounds, [i + u for i in range(self.count)])

    def table(self) -> list[tuple[Vector, float]]:
        # The ancestor vector is piecewise constant in u: it changes at the fractional parts of the bounds.
        cuts = sorted({0.0, 1.0, *(bound % 1.0 for bound in self.bounds)})
        out: dict[Vector, float] = {}
        for low, high in pairwise(cuts):
            vector = self.at((low + high) / 2)
            out[vector] = out.get(vector, 0.0) + high - low
        return list(out.items())

    def log_prob(self, value: Vector) -> float:
        bounds = [0.0, *self.bounds]
        high = min(1.0, *(bounds[a + 1] - i for i, a in enumerate(value)))
        low = max(0.0, *(bounds[a] - i for i, a in enumerate(value)))
        return _log(high - low)


class Residual(Ancestors):
    """floor(N w_k) sure children of each particle, the rest multinomial on what is left (Liu and Chen 1998)."""

    @cached_property
    def sure(self) -> Vector:
        """The ancestors that are not left to chance."""
        # N w_k an ulp below an integer must count as that integer, or the child it is sure of is left to chance.
        copies = [math.floor(self.count * w + 1e-12 * self.count) for w in self.weights]
        return tuple(k for k, n in enumerate(copies) for _ in range(n))[: self.count]

    @cached_property
    def rest(self) -> list[float]:
        """Probabilities of the other ancestors."""
        copies = Counter(self.sure)
        left = [max(self.count * w - copies[k], 0.0) for k, w in enumerate(self.weights)]
        total = math.fsum(left)
        return [x / total for x in left]

    def sample(self, key: Key) -> Vector:
        free = self.count - len(self.sure)
        if not free:
            return self.sure
        bounds = list(accumulate(self.rest))
        return self.sure + _pick(bounds, [u * bounds[-1] for u in key.uniforms(free)])

    def table(self) -> list[tuple[Vector, float]]:
        free = self.count - len(self.sure)
        if not free:
            return [(self.sure, 1.0)]
        return [(self.sure + tail, p) for tail, p in _products([_positive(self.rest)] * free)]

    def log_prob(self, value: Vector) -> float:
        sure = len(self.sure)
        if value[:sure] != self.sure:
            return -math.inf
        return _log(math.prod(self.rest[a] for a in value[sure:])) if sure < self.count else 0.0


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

    def __call__(self, log_weights: Sequence[float]) -> Ancestors:
        enough = weights.ess(log_weights) >= self.threshold * len(log_weights)
        return Keep(log_weights) if enough else self.scheme(log_weights)


def _pick(bounds: list[float], points: Iterable[float]) -> Vector:
    """The owner of the interval that each point of [0, bounds[-1]) falls into; an empty interval owns none."""
    below = math.nextafter(bounds[-1], 0.0)  # a point that was rounded up to the end would fall off it
    return tuple([bisect_right(bounds, min(point, below)) for point in points])


def _positive(p: Sequence[float]) -> list[tuple[int, float]]:
    return [(k, q) for k, q in enumerate(p) if q > 0.0]


def _products(slots: Iterable[list[tuple[int, float]]]) -> list[tuple[Vector, float]]:
    """The table of independent slots."""
    return [(tuple(k for k, _ in row), math.prod(p for _, p in row)) for row in product(*slots)]


def _log(p: float) -> float:
    return math.log(p) if p > 0.0 else -math.inf
