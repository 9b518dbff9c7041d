"""Resampling: distributions over ancestor vectors.

An ancestor vector a says that new particle i is a child of old particle a[i]. Each scheme is a distribution made from
log weights, with `sample`, `log_prob` and a finite `table`, and each says how to weight the children: `Ancestors`.
Here: the independent schemes and when to resample; comb-like ones are in `systematic`, pairwise rounding in `ssp`,
powers of the weights in `tempered`. Where children are equally weighted, E[number of children of k] = count w_k.
Chopin and Papaspiliopoulos 2020, "An Introduction to Sequential Monte Carlo", chapter 9.

    >>> for ancestors, probability in Systematic([math.log(3), 0.0]).table():
    ...     print(ancestors, round(probability, 12))
    (0, 0) 0.5
    (0, 1) 0.5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ppl.inference import weights
from ppl.inference.ancestors import (
    Ancestors,
    Conditional,
    Resampler,
    Vector,
    Weights,
    cumulative,
    floats,
    log,
    pick,
    positive,
    products,
    rotated,
    vector_of,
    whole_and_rest,
    within,
)  # fmt: skip
from ppl.inference.ssp import SSP
from ppl.inference.systematic import Systematic, WithoutReplacement
from ppl.source import Key

__all__ = [
    "SSP", "Adaptive", "Ancestors", "Conditional", "Keep", "Multinomial", "Resampler", "Residual", "Stratified",
    "Systematic", "Vector", "Weights", "WithoutReplacement",
]  # fmt: skip


class Multinomial(Ancestors):
    """Independent draws (Gordon, Salmond and Smith 1993)."""

    def sample(self, key: Key) -> Vector:
        return pick(self.bounds, [self.count * u for u in key.uniforms(self.count)])

    def table(self) -> list[tuple[Vector, float]]:
        return products([positive(self.weights)] * self.count)

    def log_prob(self, value: Vector) -> float:
        if len(value) != self.count:
            return -math.inf
        return math.fsum([log(self.weights[a]) for a in value])

    def draw_given(self, reference: int, key: Key) -> Vector:
        return (reference, *pick(self.bounds, [self.count * u for u in key.uniforms(self.count - 1)]))


class Stratified(Ancestors):
    """One independent draw in each stratum [i, i+1) of [0, count) (Kitagawa 1996)."""

    cyclic = False

    def sample(self, key: Key) -> Vector:
        return pick(self.bounds, [i + u for i, u in enumerate(key.uniforms(self.count))])

    def table(self) -> list[tuple[Vector, float]]:
        particles = range(len(self.bounds))
        return products([positive([self._overlap(k, i) for k in particles]) for i in range(self.count)])

    def log_prob(self, value: Vector) -> float:
        if len(value) != self.count:
            return -math.inf
        return math.fsum([log(self._overlap(a, i)) for i, a in enumerate(value)])

    def draw_given(self, reference: int, key: Key) -> Vector:
        """The stratum of a uniform point in the reference's interval is the reference's; the others are independent."""
        own, *us = key.uniforms(self.count)
        i = min(int(within(self.bounds, reference, own)), self.count - 1)
        strata = rotated(tuple(range(self.count)), i)[1:]
        return (reference, *pick(self.bounds, [j + u for j, u in zip(strata, us, strict=True)]))

    def _overlap(self, k: int, i: int) -> float:
        """Probability that the ancestor of slot i is k: how much of [i, i+1) its interval has."""
        low = self.bounds[k - 1] if k else 0.0
        return max(min(self.bounds[k], i + 1) - max(low, i), 0.0)


class Residual(Ancestors):
    """floor(count w_k) sure children of each particle, the rest multinomial on what is left (Liu and Chen 1998)."""

    @cached_property
    def _split(self) -> tuple[list[int], list[float]]:
        return whole_and_rest(self.expected)

    @cached_property
    def sure(self) -> Vector:
        """The ancestors that are not left to chance."""
        return vector_of(self._split[0])

    @cached_property
    def rest(self) -> list[float]:
        """Probabilities of the other ancestors."""
        left = self._split[1]
        total = math.fsum(left)
        return [x / total for x in left]

    def sample(self, key: Key) -> Vector:
        return self.sure + self._free(key.uniforms(self.count - len(self.sure)))

    def table(self) -> list[tuple[Vector, float]]:
        free = self.count - len(self.sure)
        if not free:
            return [(self.sure, 1.0)]
        return [(self.sure + tail, p) for tail, p in products([positive(self.rest)] * free)]

    def log_prob(self, value: Vector) -> float:
        sure = len(self.sure)
        if len(value) != self.count or value[:sure] != self.sure:
            return -math.inf
        return math.fsum([log(self.rest[a]) for a in value[sure:]]) if sure < self.count else 0.0

    def draw_given(self, reference: int, key: Key) -> Vector:
        """It is one of the reference's sure children, or else one of the free slots is the reference's."""
        free = self.count - len(self.sure)
        u, *us = key.uniforms(free + 1)
        own, rest = self._split[0][reference], self._split[1][reference]
        point = u * self.expected[reference]
        if own and (point < own or not rest):
            return rotated(self.sure + self._free(us), self.sure.index(reference) + min(int(point), own - 1))
        if not free:  # the weight of the reference is below rounding: it takes the place of another
            return (reference, *self.sure[:-1])
        i = min(int(free * (point - own) / rest), free - 1) if rest else 0
        tail = self._free(us[1:])
        return (reference, *tail[i:], *self.sure, *tail[:i])

    def _free(self, us: Sequence[float]) -> Vector:
        if not us:
            return ()
        bounds = cumulative(self.rest)
        return pick(bounds, [u * bounds[-1] for u in us])


class Keep(Ancestors):
    """No resampling: everyone is their own parent and keeps their weight.

    Raises:
        ValueError: another number of children than of particles is asked for.
    """

    resamples = False

    def __init__(self, log_weights: Weights | None = None, count: int | None = None) -> None:
        super().__init__(log_weights, count)
        if self.count != len(self.log_weights):
            raise ValueError(f"Keep: {len(self.log_weights)} particles that are kept are not {self.count}")

    @cached_property
    def expected(self) -> Sequence[float]:
        return [1.0] * self.count

    def child_log_weights(self, ancestors: Vector) -> list[float]:
        """The old weights."""
        return [self.log_weights[a] for a in ancestors]

    def sample(self, key: Key) -> Vector:
        return tuple(range(self.count))

    def table(self) -> list[tuple[Vector, float]]:
        return [(tuple(range(self.count)), 1.0)]

    def log_prob(self, value: Vector) -> float:
        return 0.0 if value == tuple(range(self.count)) else -math.inf

    def given(self, reference: int) -> Conditional:
        """Everyone stays in place: the reference must be particle 0.

        Raises:
            ValueError: the reference is another one, or has weight zero.
        """
        if reference != 0:
            raise ValueError(f"Keep: everyone stays in place, so the reference must be particle 0, not {reference}")
        return super().given(reference)

    def draw_given(self, reference: int, key: Key) -> Vector:
        return tuple(range(self.count))


@dataclass(frozen=True)
class Adaptive:
    """Resample by `scheme` only when the effective sample size is below `threshold` * N (Liu and Chen 1995).

    When another number of children than N is asked for, always: nothing can be kept.
    """

    scheme: Resampler = Systematic
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"Adaptive: threshold is a share of N in [0, 1], not {self.threshold}")

    def __call__(self, log_weights: Weights, count: int | None = None) -> Ancestors:
        logw = floats(log_weights)
        if count not in (None, len(logw)) or weights.ess(logw) < self.threshold * len(logw):
            return self.scheme(logw, count)
        return Keep(logw)
