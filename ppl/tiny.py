"""Small finite programs as data, for tests: a syntax tree with its interpreter.

Statements branch on the values drawn before, so that runs of one program meet different numbers of draws and
factors: many bugs of inference algorithms survive on programs of fixed length.

    >>> from ppl.measure import measure
    >>> measure(Tiny((Draw(((1, 3),)), Score((1, 2)))).program())
    Measure({(0,): 0.25, (1,): 1.5})
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ppl.distributions import Categorical, uniform
from ppl.language import Last, factor, observe, parallel, sample, scan, twist
from ppl.program import Program

T = TypeVar("T")
Row = tuple[int, ...]


class Node:
    """One statement. `perform` appends what it draws to `seen`, and says whether the program returns here."""

    async def perform(self, seen: list[int]) -> bool:
        raise NotImplementedError


Body = tuple[Node, ...]


@dataclass(frozen=True)
class Draw(Node):
    """Draw from one of the rows of integer weights; which one depends on the values drawn before."""

    rows: tuple[Row, ...]

    async def perform(self, seen: list[int]) -> bool:
        seen.append(await sample("x", categorical(self.rows, seen)))
        return False


@dataclass(frozen=True)
class Steer(Node):
    """As `Draw`, but drawn from equally likely values and weighed."""

    rows: tuple[Row, ...]

    async def perform(self, seen: list[int]) -> bool:
        dist = categorical(self.rows, seen)
        seen.append(await sample("x", dist, proposal=uniform(dist.values)))
        return False


@dataclass(frozen=True)
class Score(Node):
    """A factor; which of the weights (not logs) depends on the values drawn before."""

    weights: tuple[float, ...]

    async def perform(self, seen: list[int]) -> bool:
        await factor("score", log(pick(self.weights, seen)))
        return False


@dataclass(frozen=True)
class Look(Node):
    """An `observe` of a value under one of the rows; which one depends on the values drawn before.

    A value that the row does not hold, or of weight 0 there, is impossible. `batched` takes the way of distributions
    that score many values at once: a `call`, then a factor.
    """

    rows: tuple[Row, ...]
    value: int
    batched: bool = False

    async def perform(self, seen: list[int]) -> bool:
        dist = categorical(self.rows, seen)
        await observe("look", _Batched(dist) if self.batched else dist, self.value)
        return False


@dataclass(frozen=True)
class Guide(Node):
    """A twist of this name; which of the weights (not logs) depends on the values drawn before."""

    name: str
    weights: tuple[float, ...]

    async def perform(self, seen: list[int]) -> bool:
        await twist(self.name, log(pick(self.weights, seen)))
        return False


@dataclass(frozen=True)
class Branch(Node):
    """If the values drawn before sum to an odd number, one body, else the other."""

    odd: Body
    even: Body

    async def perform(self, seen: list[int]) -> bool:
        return await _perform(self.odd if sum(seen) % 2 else self.even, seen)


@dataclass(frozen=True)
class Loop(Node):
    """Repeat the body as often as a draw from the rows says."""

    rows: tuple[Row, ...]
    body: Body

    async def perform(self, seen: list[int]) -> bool:
        times = await sample("times", categorical(self.rows, seen))
        seen.append(times)
        for _ in range(times):
            if await _perform(self.body, seen):
                return True
        return False


@dataclass(frozen=True)
class Steps(Node):
    """A `scan` of so many steps of the body; a `Stop` inside ends it."""

    times: int
    body: Body

    async def perform(self, seen: list[int]) -> bool:
        def step(before: Row, _: int) -> Program[tuple[Row, None]]:
            return Program("step", _step, (self.body, before), {})

        seen[:], _ = await scan(step, tuple(seen), range(self.times))
        return False


@dataclass(frozen=True)
class Together(Node):
    """Independent draws as one `parallel`."""

    draws: tuple[Draw | Steer, ...]

    async def perform(self, seen: list[int]) -> bool:
        branches = []
        for draw in self.draws:
            dist = categorical(draw.rows, seen)
            branches.append(sample("x", dist, uniform(dist.values) if isinstance(draw, Steer) else None))
        seen += await parallel(*branches)
        return False


@dataclass(frozen=True)
class Fork(Node):
    """Sub-programs as one `parallel`; none sees what another draws."""

    bodies: tuple[Body, ...]

    async def perform(self, seen: list[int]) -> bool:
        for drawn in await parallel(*[Program("side", of_body, (body, tuple(seen)), {}) for body in self.bodies]):
            seen += drawn
        return False


@dataclass(frozen=True)
class Sub(Node):
    """An awaited sub-program; a `Stop` inside it ends the sub-program alone."""

    body: Body

    async def perform(self, seen: list[int]) -> bool:
        seen += await Program("sub", of_body, (self.body, tuple(seen)), {})
        return False


@dataclass(frozen=True)
class Stop(Node):
    """Return early if the values drawn before sum to an odd number."""

    async def perform(self, seen: list[int]) -> bool:
        return sum(seen) % 2 == 1


@dataclass(frozen=True)
class Tiny:
    """A small finite program as data. Its value is the tuple of all that it drew, so `measure` compares all."""

    body: Body

    def program(self) -> Program[Row]:
        """The program."""
        return Program("tiny", of_body, (self.body, ()), {})


async def _perform(body: Body, seen: list[int]) -> bool:
    for node in body:
        if await node.perform(seen):
            return True
    return False


async def of_body(body: Body, before: Row) -> Row:
    """What the body draws where these values were drawn before."""
    seen = list(before)
    await _perform(body, seen)
    return tuple(seen[len(before) :])


async def _step(body: Body, before: Row) -> tuple[Row, None]:
    seen = list(before)
    stopped = await _perform(body, seen)
    return Last(tuple(seen), None) if stopped else (tuple(seen), None)


class _Batched(Categorical[int]):
    """The same distribution, with a batch form of its score."""

    __slots__ = ()

    def __init__(self, plain: Categorical[int]) -> None:
        super().__init__(plain.values, [log(p) for p in plain.probabilities])

    @staticmethod
    def log_prob_many(dists: Sequence[_Batched], values: Sequence[int]) -> list[float]:
        return [dist.log_prob(value) for dist, value in zip(dists, values, strict=True)]


def pick(options: Sequence[T], seen: Sequence[int]) -> T:
    """One of the options; which depends on the values drawn before."""
    return options[sum(seen) % len(options)]


def categorical(rows: tuple[Row, ...], seen: Sequence[int]) -> Categorical[int]:
    """The distribution over column numbers of one of the rows."""
    return Categorical.of(dict(enumerate(pick(rows, seen))))


def log(weight: float) -> float:
    """Natural log; `-inf` of 0."""
    return math.log(weight) if weight else -math.inf
