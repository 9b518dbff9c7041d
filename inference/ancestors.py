"""What every resampling scheme has: distributions over ancestor vectors, and the same given a child of one particle.

An ancestor vector a says that new particle i is a child of old particle a[i]. The weights of children make up for how
often each particle is chosen: with e_k expected children, M children and N old particles, a child of k has
w_k / e_k * M / N, so that the mean weighted child is unbiased for the mean weighted particle.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from itertools import accumulate, chain, product, repeat
from typing import Any, TypeVar

import numpy as np

from ppl.inference import weights
from ppl.source import Key

Vector = tuple[int, ...]
R = TypeVar("R", tuple[int, ...], list[float])
Weights = Sequence[float] | np.ndarray[Any, Any]


# (log weights, number of children = as many) -> law of ancestors; a Callable type has no optional parameters
Resampler = Callable[..., "Ancestors"]


class Ancestors:
    """Distribution over vectors of `count` ancestors (default: as many as there are log weights).

    Each scheme is a subclass with `sample`, `log_prob`, a finite `table`, and `draw_given`.

    Raises:
        ValueError: all weights are zero, or one is nan or +inf, when a draw or a probability is asked for.
    """

    resamples = True  # False: everyone is their own child and keeps their weight
    cyclic = True
    """Whether the law of the number of children does not depend on which particle of a cycle is called the first."""

    def __init__(self, log_weights: Weights | None = None, count: int | None = None) -> None:
        if log_weights is None:
            name = type(self).__name__
            raise TypeError(f"{name} is a distribution made from log weights: pass the class, as in SMC(n, {name})")
        self.log_weights = floats(log_weights)
        self.count = len(self.log_weights) if count is None else count
        if self.count < 1:
            raise ValueError(f"{type(self).__name__}: there must be at least 1 child, not {self.count}")

    @cached_property
    def weights(self) -> list[float]:
        """Normalised weights w_k."""
        found = weights.normalise(self.log_weights)
        if math.isnan(found[0]):  # one that is nan or +inf makes all nan
            raise ValueError("a log weight is nan or +inf; it must be finite or -inf")
        return found

    @cached_property
    def expected(self) -> Sequence[float]:
        """Expected number of children of each particle; they sum to the number of children."""
        return [self.count * w for w in self.weights]

    @cached_property
    def bounds(self) -> list[float]:
        """count (w_1 + ... + w_k) for each k, the last exactly count; k owns the interval up to its own."""
        return scaled(self.weights, self.count)

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

    def child_log_weights(self, ancestors: Vector) -> list[float]:
        """The log weight of each child, not normalised: the mean weighted child is unbiased.

        Here all are equal to the old mean weight, as e_k is proportional to w_k.
        """
        return [weights.log_mean_exp(self.log_weights)] * len(ancestors)

    def given(self, reference: int) -> Conditional:
        """The law given that child 0 is a child of particle `reference`: see `Conditional`.

        Raises:
            ValueError: there is no such particle, or it has weight zero and so no child.
        """
        return Conditional(self, reference)

    def draw_given(self, reference: int, key: Key) -> Vector:
        """One draw of `given(reference)`, which has checked the reference."""
        raise NotImplementedError(f"{type(self).__name__} has no conditional form")


class Conditional:
    """The ancestor vectors of `base` given that child 0 is a child of `reference`, as conditional SMC needs them.

    The law of `base` size-biased by (children of the reference) / e_reference, where one of these children, any with
    the same probability, is moved to slot 0 by rotating the vector (Andrieu, Doucet and Holenstein 2010, "Particle
    Markov chain Monte Carlo methods"; Chopin and Singh 2015, "On particle Gibbs sampling").

    A conditional SMC that keeps its reference in slot 0 leaves the posterior invariant if `base.cyclic`. The rotation
    matters: were only the one child moved, its siblings that came before it would come after it.
    """

    def __init__(self, base: Ancestors, reference: int) -> None:
        if not 0 <= reference < len(base.log_weights):
            raise ValueError(f"there is no particle {reference} among {len(base.log_weights)} to be the reference")
        if base.log_weights[reference] == -math.inf:
            raise ValueError(f"the reference, particle {reference}, has weight zero: it has no children")
        self.base = base
        self.reference = reference

    @property
    def resamples(self) -> bool:
        return self.base.resamples

    @property
    def family(self) -> Hashable:
        return (Conditional, self.base.family)

    def child_log_weights(self, ancestors: Vector) -> list[float]:
        """As without the condition."""
        return self.base.child_log_weights(ancestors)

    def sample(self, key: Key) -> Vector:
        """One ancestor vector; its first entry is the reference."""
        return self.base.draw_given(self.reference, key)

    def table(self) -> list[tuple[Vector, float]]:
        """Every ancestor vector with its probability.

        Raises:
            ValueError: the weight of the reference is below rounding, so that the table of `base` has no child of it.
        """
        out: dict[Vector, float] = {}
        for vector, p in self.base.table():
            for i in _places(vector, self.reference):
                moved = rotated(vector, i)
                out[moved] = out.get(moved, 0.0) + p / self.base.expected[self.reference]
        if not out:
            raise ValueError(f"the reference, particle {self.reference}, has a weight below rounding: no table has it")
        return list(out.items())

    def log_prob(self, value: Vector) -> float:
        """Natural log of the probability of one ancestor vector: summed over the slots its first entry may be from."""
        mean = self.base.expected[self.reference]
        if not value or value[0] != self.reference or mean == 0.0:
            return -math.inf
        sources = [self.base.log_prob(rotated(value, i)) for i in range(len(value))]
        return weights.logsumexp(sources) - math.log(mean)


def floats(x: Weights) -> list[float]:
    """As Python floats, that is float64: arithmetic of numpy's float32 would stay float32."""
    return x.tolist() if isinstance(x, np.ndarray) else list(map(float, x))


def rotated(row: R, i: int) -> R:
    """A tuple or list as a cycle, from entry i on."""
    return row[i:] + row[:i]


def _places(vector: Vector, k: int) -> list[int]:
    return [i for i, a in enumerate(vector) if a == k]


LARGE = 512  # from here on array calls are faster than loops


def cumulative(p: Sequence[float]) -> list[float]:
    """Cumulative sums; an entry of zero leaves the sum exactly as it is."""
    if len(p) < LARGE:
        return list(accumulate(p))
    # Extended precision, where the machine has it: rounding 10^6 equal terms one way would add up to 1e-10.
    return np.cumsum(np.asarray(p, np.float64), dtype=np.longdouble).astype(np.float64).tolist()


def scaled(p: Sequence[float], total: int) -> list[float]:
    """Cumulative sums of p, scaled so that the last is exactly `total`."""
    cdf = cumulative(p)
    return [total * (c / cdf[-1]) for c in cdf]


def pick(bounds: list[float], points: Sequence[float]) -> Vector:
    """The owner of the interval that each point of [0, bounds[-1]) falls into; an empty interval owns none."""
    below = math.nextafter(bounds[-1], 0.0)  # a point that was rounded up to the end would fall off it
    if len(points) < LARGE:
        return tuple([bisect_right(bounds, min(point, below)) for point in points])
    return tuple(np.searchsorted(bounds, np.minimum(points, below), "right").tolist())


def within(bounds: Sequence[float], k: int, u: float) -> float:
    """The point at the share u in [0, 1) of the interval of k."""
    low, high = bounds[k - 1] if k else 0.0, bounds[k]
    return max(low, min(low + u * (high - low), math.nextafter(high, low)))


def whole_and_rest(expected: Sequence[float]) -> tuple[list[int], list[float]]:
    """floor(e_k) and e_k - floor(e_k) of each."""
    # e_k an ulp below an integer must count as that integer, or the child it is sure of is left to chance; e_k that
    # far above one, and it would get a chance of rounding size.
    whole = [math.floor(e * (1 + 1e-12)) for e in expected]
    rest = [e - n if e - n > 1e-12 * e else 0.0 for e, n in zip(expected, whole, strict=True)]
    return whole, rest


def vector_of(counts: Sequence[int]) -> Vector:
    """Each index as often as its count says, in order."""
    return tuple(chain.from_iterable(map(repeat, range(len(counts)), counts)))


def positive(p: Sequence[float]) -> list[tuple[int, float]]:
    return [(k, q) for k, q in enumerate(p) if q > 0.0]


def products(slots: Iterable[list[tuple[int, float]]]) -> list[tuple[Vector, float]]:
    """The table of independent slots."""
    return [(tuple(k for k, _ in row), math.prod(p for _, p in row)) for row in product(*slots)]


def log(p: float) -> float:
    return math.log(p) if p > 0.0 else -math.inf
