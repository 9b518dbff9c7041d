"""Draws from what passes a check, with an unbiased estimate of how probable it is to pass, where few are checked.

Adaptive weighted rejection sampling (Lipkin et al. 2025, "Fast controlled generation from language models with adaptive
weighted rejection sampling"): draw without replacement until one passes. What passes is a draw from what can, exactly;
what is not known yet is estimated by a few more draws. The estimate is at least the mass of what was drawn: it is
never 0, however little passes. Where many were rejected and all that can pass are few, these are weighed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from ppl.source import Key

T = TypeVar("T")


class Source(Protocol):
    """Where the draws come from."""

    def draw(self) -> int | None:
        """One of what there is, as probable as its mass; None if there is no mass."""
        ...

    def keep(self, one: int, part: float) -> None:
        """Take away all but a part of the mass of one."""
        ...

    def coin(self, p: float) -> bool: ...
    def total(self) -> float: ...
    def mass(self, one: int) -> float: ...
    def choose(self, weights: Sequence[float]) -> int:
        """An index, as probable as its weight."""
        ...


def rejection(
    source: Source, passes: Callable[[int], float], extra: int, patience: int | None = None,
    candidates: Callable[[], tuple[Sequence[int], Sequence[float]] | None] | None = None,
) -> tuple[int | None, float]:  # fmt: skip
    """One that passes, as probable as mass * passes, and an unbiased estimate of the sum of these.

    `passes` says with what probability one passes. Of the draws that do not, that part of the mass that would have is
    kept; the rest is not drawn again, so that there are at most as many draws as there is to draw. Given the draw and
    all that was rejected, the estimate is right in expectation: what is known counts as it is, and of `extra` draws
    from the rest the mean. Without any that passes it is (None, 0).

    After `patience` rejections `candidates` is asked for all that may pass and `passes` of each: the draw is from these
    then, and the sum is exact. It may say None, that they are too many.
    """
    known, rejected = dict[int, float](), set[int]()
    while (one := source.draw()) is not None:
        if one in rejected:
            break  # drawn from the part that passes
        part = known.setdefault(one, passes(one))
        if part >= 1 or (part > 0 and source.coin(part)):
            break
        rejected.add(one)
        source.keep(one, part)
        if len(rejected) == patience and candidates is not None and (few := candidates()) is not None:
            weights = [
                source.mass(other) * (1.0 if other in rejected else part) for other, part in zip(*few, strict=True)
            ]
            total = sum(weights)
            return (few[0][source.choose(weights)], total) if total > 0 else (None, 0.0)
    if one is None:
        return None, 0.0
    estimate = 0.0
    for other, part in known.items():
        estimate += source.mass(other) * (1.0 if other in rejected else part)
        source.keep(other, 0.0)
    if (rest := source.total()) > 0:
        estimate += rest * sum(passes(other) for _ in range(extra) if (other := source.draw()) is not None) / extra
    return one, estimate


class Urn:
    """Real draws: `masses` float64 [n], not normalised; the uniforms are those of a key."""

    def __init__(self, masses: np.ndarray, key: Key) -> None:
        self._masses = masses.copy()
        self._uniforms = key.stream()
        self._sums: np.ndarray | None = None
        self._before: dict[int, float] = {}
        """Masses that were changed since the sums were taken."""
        self._spent = 0.0

    def draw(self) -> int | None:
        while True:
            if self._sums is None:
                self._sums, self._before, self._spent = np.cumsum(self._masses), {}, 0.0
            total = self._sums[-1]
            if not total > 0:
                return None
            one = int(self._sums.searchsorted(next(self._uniforms) * total, side="right"))
            if one == len(self._sums):  # rounded up
                one = int(self._sums.searchsorted(total))
            before = self._before.get(one)
            if before is None or next(self._uniforms) * before < self._masses[one]:
                return one

    def keep(self, one: int, part: float) -> None:
        mass = self._masses[one]
        self._before.setdefault(one, mass)
        self._spent += mass * (1 - part)
        self._masses[one] = mass * part
        if self._sums is not None and self._spent > self._sums[-1] / 2:
            self._sums = None  # so that half of the draws count at least

    def coin(self, p: float) -> bool:
        return next(self._uniforms) < p

    def total(self) -> float:
        return float(self._masses.sum())

    def mass(self, one: int) -> float:
        return float(self._masses[one])

    def choose(self, weights: Sequence[float]) -> int:
        sums = np.cumsum(weights)
        at = int(sums.searchsorted(next(self._uniforms) * sums[-1], side="right"))
        return at if at < len(sums) else int(sums.searchsorted(sums[-1]))  # rounded up


class Given:
    """Draws that are chosen: `choose` takes probabilities and gives an index."""

    def __init__(self, masses: Sequence[float], choose: Callable[[Sequence[float]], int]) -> None:
        self._masses = list(masses)
        self._choose = choose

    def draw(self) -> int | None:
        there = [i for i, mass in enumerate(self._masses) if mass > 0]
        total = sum(self._masses)
        return there[self._choose([self._masses[i] / total for i in there])] if there else None

    def keep(self, one: int, part: float) -> None:
        self._masses[one] *= part

    def coin(self, p: float) -> bool:
        return self._choose([p, 1 - p]) == 0

    def total(self) -> float:
        return sum(self._masses)

    def mass(self, one: int) -> float:
        return self._masses[one]

    def choose(self, weights: Sequence[float]) -> int:
        total = sum(weights)
        return self._choose([weight / total for weight in weights])


def outcomes(run: Callable[[Callable[[Sequence[float]], int]], T]) -> Iterator[tuple[T, float]]:
    """Every result of what is random by `choose` alone, with the probability of each way to it."""
    paths: list[tuple[int, ...]] = [()]
    while paths:
        path = _Path(paths.pop(), paths)
        result = run(path.choose)
        yield result, path.p


class _Path:
    """One way: the choices that are given, and then the first ones; the others are noted for later."""

    def __init__(self, given: tuple[int, ...], later: list[tuple[int, ...]]) -> None:
        self.given = given
        self.later = later
        self.taken: tuple[int, ...] = ()
        self.p = 1.0

    def choose(self, probabilities: Sequence[float]) -> int:
        if len(self.taken) < len(self.given):
            one = self.given[len(self.taken)]
        else:
            one, *others = [i for i, p in enumerate(probabilities) if p > 0]
            self.later.extend((*self.taken, other) for other in others)
        self.taken = (*self.taken, one)
        self.p *= probabilities[one]
        return one
