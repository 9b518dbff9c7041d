"""Resampling with one uniform number: a comb of equally spaced points falls on intervals as long as e_k.

`Systematic` gives every particle the interval of its weight. `WithoutReplacement` keeps those sure of a child and
combs through the others, whose intervals are shorter than the gap: no particle has two children.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from ppl.inference.ancestors import Ancestors, Vector, log, pick, rotated, scaled, within
from ppl.source import Key


class Systematic(Ancestors):
    """One uniform number shared by all strata (Kitagawa 1996; Carpenter, Clifford and Fearnhead 1999).

    Conditionally (Chopin and Singh 2015): the comb goes through a uniform point of the reference's interval.
    """

    def sample(self, key: Key) -> Vector:
        return self.at(key.uniform())

    def at(self, u: float) -> Vector:
        """The ancestor vector for the uniform number u in [0, 1)."""
        return comb(self.bounds, u)

    def table(self) -> list[tuple[Vector, float]]:
        return comb_table(self.bounds)

    def log_prob(self, value: Vector) -> float:
        return comb_log_prob(self.bounds, value)

    def draw_given(self, reference: int, key: Key) -> Vector:
        return comb_given(self.bounds, reference, key.uniform())


class WithoutReplacement(Ancestors):
    """At most one child each, of unequal weights: optimal resampling, the least expected squared change of the weights.

    e_k = min(1, c w_k), with c such that they sum to `count`: who has c w_k >= 1 is kept with its own weight, the
    others are chosen systematically and have all the same weight. If no more than `count` particles have positive
    weight, all of these are kept, and there are fewer children than `count`. For a population of N that was expanded
    to more, as in SMC steering; with `count` = N everyone of positive weight is kept.
    (Fearnhead and Clifford 2003, "On-line inference for hidden Markov models via particle filters".)
    """

    @cached_property
    def expected(self) -> Sequence[float]:
        w = np.asarray(self.weights)
        alive = np.asarray(self.log_weights) > -math.inf
        if np.count_nonzero(alive) <= self.count:
            return alive.astype(float).tolist()
        w = np.where(alive, np.maximum(w, 1e-300), 0.0)  # exp may have underflowed; who is alive may be chosen
        heavy = np.sort(w)[::-1]
        tail = np.cumsum(heavy[::-1])[::-1]  # added from the lightest on, so that light tails are not rounded off
        # The fewest sure ones, n, that leave the heaviest of the others at most one child; n = count - 1 always does.
        gaps = self.count - np.arange(self.count)
        n = int(np.argmax(gaps * heavy[: self.count] <= tail[: self.count]))
        e = w * (gaps[n] / tail[n])
        return np.where(e >= 1 - 1e-12, 1.0, e).tolist()

    @cached_property
    def kept(self) -> Vector:
        """Who has a child for sure."""
        return tuple(k for k, e in enumerate(self.expected) if e == 1.0)

    @cached_property
    def others(self) -> Vector:
        """Who is left to chance."""
        return tuple(k for k, e in enumerate(self.expected) if 0.0 < e < 1.0)

    @cached_property
    def bounds(self) -> list[float]:
        """Of the intervals of `others`; the last is the number of children among them."""
        return scaled([self.expected[k] for k in self.others], self.count - len(self.kept)) if self.others else []

    @cached_property
    def _level(self) -> float:
        """w_k / e_k of those left to chance, log; w_k not normalised."""
        k = max(self.others, key=lambda k: self.expected[k])
        return self.log_weights[k] - math.log(self.expected[k])

    def child_log_weights(self, ancestors: Vector) -> list[float]:
        scale = math.log(len(ancestors) / len(self.log_weights))
        return [(self.log_weights[a] if self.expected[a] == 1.0 else self._level) + scale for a in ancestors]

    def sample(self, key: Key) -> Vector:
        return self._with(comb(self.bounds, key.uniform())) if self.others else self.kept

    def table(self) -> list[tuple[Vector, float]]:
        return [(self._with(teeth), p) for teeth, p in comb_table(self.bounds)] if self.others else [(self.kept, 1.0)]

    def log_prob(self, value: Vector) -> float:
        chosen = [a for a in value if self.expected[a] < 1.0]
        place = {k: i for i, k in enumerate(self.others)}
        if tuple(sorted({*self.kept, *chosen})) != tuple(value) or not place.keys() >= set(chosen):
            return -math.inf
        if not self.others:
            return 0.0
        return comb_log_prob(self.bounds, tuple(place[k] for k in chosen))

    def draw_given(self, reference: int, key: Key) -> Vector:
        if self.expected[reference] == 1.0:
            vector = self.sample(key)
        elif len(self.kept) == self.count:  # e of all others is below rounding
            return (reference, *self.kept[:-1])
        else:
            vector = self._with(comb_given(self.bounds, self.others.index(reference), key.uniform()))
        return rotated(vector, vector.index(reference))

    def _with(self, teeth: Vector) -> Vector:
        return tuple(sorted([*self.kept, *[self.others[i] for i in teeth]]))


def comb(bounds: list[float], u: float) -> Vector:
    """The owners of the points i + u."""
    total = round(bounds[-1])
    # A u this close to an end is on the wrong side of bounds that are integers up to rounding.
    slack = 1e-13 * total
    u = min(max(u, slack), 1.0 - slack)
    return pick(bounds, [i + u for i in range(total)])


def comb_table(bounds: list[float]) -> list[tuple[Vector, float]]:
    """The vector is piecewise constant in u: it changes at the fractional parts of the bounds."""
    cuts = sorted({0.0, 1.0, *(bound % 1.0 for bound in bounds)})
    out: dict[Vector, float] = {}
    for low, high in pairwise(cuts):
        vector = comb(bounds, (low + high) / 2)
        out[vector] = out.get(vector, 0.0) + high - low
    return list(out.items())


def comb_log_prob(bounds: list[float], value: Vector) -> float:
    """The length of the interval of u that gives this vector."""
    if len(value) != round(bounds[-1]):
        return -math.inf
    ends = [0.0, *bounds]
    high = min([1.0, *(ends[a + 1] - i for i, a in enumerate(value))])
    low = max([0.0, *(ends[a] - i for i, a in enumerate(value))])
    return log(high - low)


def comb_given(bounds: list[float], k: int, u: float) -> Vector:
    """The owners of the points of a comb through the share u of the interval of k, that point's first."""
    point = within(bounds, k, u)
    i = min(int(point), round(bounds[-1]) - 1)
    vector = comb(bounds, point - i)
    return (k, *rotated(vector, i)[1:])  # k, even if its interval is too short for its point to fall into
