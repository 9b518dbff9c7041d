"""Srinivasan sampling process resampling: pairs of fractions are played off against each other.

Gerber, Chopin and Whiteley 2019, "Negative association, ordering and convergence of resampling methods" (Srinivasan
2001, "Distributions on level-sets with applications to approximation algorithms"; in survey sampling: the pivotal
method of Deville and Tille 1998). As near to e_k as systematic resampling, and negatively associated, hence consistent
for any order of the particles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from ppl.inference.ancestors import Ancestors, Vector, log, rotated, vector_of, whole_and_rest
from ppl.source import Key


class SSP(Ancestors):
    """floor(e_k) sure children, e_k = count w_k; the fractions are rounded one after the other, in pairs.

    A carrier holds the fraction f of all so far that is not rounded yet. It meets the next fraction p. If f + p < 1,
    one of the two takes f + p on and the other is rounded down; else one is rounded up and the other takes f + p - 1
    on. What is carried, and whether up or down, is no matter of chance: only who carries is, at each meeting anew.

        >>> [(ancestors, round(p, 12)) for ancestors, p in sorted(SSP([0.0, 0.0, 0.0, 0.0], 2).table())]
        [((0, 2), 0.25), ((0, 3), 0.25), ((1, 2), 0.25), ((1, 3), 0.25)]
    """

    cyclic = False

    @cached_property
    def _split(self) -> tuple[list[int], list[float]]:
        return whole_and_rest(self.expected)

    @cached_property
    def _fractional(self) -> list[int]:
        """Who has a fraction, in the order of meeting."""
        return [k for k, p in enumerate(self._split[1]) if p]

    @cached_property
    def _meetings(self) -> tuple[list[float], list[int], int]:
        """Of each after the first: probability that it becomes the carrier, and the loser's rounding; the last's."""
        takes, rounds = list[float](), list[int]()
        fractions = self._split[1]
        carried = fractions[self._fractional[0]] if self._fractional else 0.0
        for k in self._fractional[1:]:
            p = fractions[k]
            both = carried + p
            if both < 1.0 - 1e-12:
                takes.append(p / both)
                rounds.append(0)
                carried = both
            else:
                takes.append(min((1.0 - p) / (2.0 - both), 1.0))
                rounds.append(1)
                carried = max(both - 1.0, 0.0)
        return takes, rounds, round(carried)

    def sample(self, key: Key) -> Vector:
        takes = self._meetings[0]
        return self._vector([u < p for u, p in zip(key.uniforms(len(takes)), takes, strict=True)])

    def _vector(self, taken: Sequence[bool]) -> Vector:
        """The ancestors when at each meeting the newcomer becomes the carrier, or not."""
        counts = self._split[0].copy()
        if self._fractional:
            carrier, *newcomers = self._fractional
            _, rounds, last = self._meetings
            for k, take, up in zip(newcomers, taken, rounds, strict=True):
                if take:
                    carrier, k = k, carrier
                counts[k] += up
            counts[carrier] += last
        return vector_of(counts)

    def table(self) -> list[tuple[Vector, float]]:
        rows = [((), 1.0)]
        for take in self._meetings[0]:
            rows = [((*taken, b), p * q) for taken, p in rows for b, q in ((True, take), (False, 1.0 - take)) if q > 0]
        out: dict[Vector, float] = {}
        for taken, p in rows:
            vector = self._vector(taken)
            out[vector] = out.get(vector, 0.0) + p
        return list(out.items())

    def log_prob(self, value: Vector) -> float:
        """A forward pass over the meetings; of the carrier, only how it is to be rounded matters."""
        counts = self._split[0].copy()
        for a in value:
            counts[a] -= 1
        up = [-counts[k] for k in self._fractional]
        if len(value) != self.count or tuple(sorted(value)) != tuple(value) or not {0, 1} >= {*up}:
            return -math.inf
        if any(c for k, c in enumerate(counts) if not self._split[1][k]):
            return -math.inf
        if not up:
            return 0.0
        takes, rounds, last = self._meetings
        total, carrier = 0.0, [0.0, 0.0]  # log probability so far, and how the carrier is to be rounded, given that
        carrier[up[0]] = 1.0
        for newcomer, take, loser in zip(up[1:], takes, rounds, strict=True):
            enters = take * carrier[loser]
            stays = 1.0 - take if newcomer == loser else 0.0
            carrier = [c * stays for c in carrier]
            carrier[newcomer] += enters
            if not (p := sum(carrier)):
                return -math.inf
            total += math.log(p)
            carrier = [c / p for c in carrier]
        return total + log(carrier[last])

    def draw_given(self, reference: int, key: Key) -> Vector:
        """One of the reference's sure children, or else its fraction is rounded up and the others' as they may be."""
        u, *us = key.uniforms(len(self._meetings[0]) + 1)
        taken = [v < p for v, p in zip(us, self._meetings[0], strict=True)]
        which = int(u * self.expected[reference])
        if which >= self._split[0][reference] and self._split[1][reference]:
            self._round_up(reference, us, taken)
        vector = self._vector(taken)
        if not (copies := vector.count(reference)):  # its weight is below rounding: it takes the place of another
            return (reference, *vector[1:])
        return rotated(vector, vector.index(reference) + min(which, copies - 1))

    def _round_up(self, reference: int, us: Sequence[float], taken: list[bool]) -> None:
        """Play the meetings of the reference again, given that it is rounded up (an h-transform), up to its last."""
        takes, rounds, last = self._meetings
        first = self._fractional.index(reference)
        up = [float(last)]  # from the end: probability that the reference is rounded up if it carries into a meeting
        for take, loser in zip(reversed(takes[first:]), reversed(rounds[first:]), strict=True):
            up.append(take * loser + (1.0 - take) * up[-1])
        up.reverse()
        if first:
            wins, loses = takes[first - 1] * up[0], (1.0 - takes[first - 1]) * rounds[first - 1]
            taken[first - 1] = us[first - 1] * (wins + loses) < wins or not loses
            if not taken[first - 1]:
                return
        for j in range(first, len(takes)):
            before, after = up[j - first], up[j - first + 1]
            taken[j] = us[j] * before < takes[j] * rounds[j] or not after
            if taken[j]:
                return
