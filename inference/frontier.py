"""Prefixes of runs for searches: brought on together, branched, compared by their scores.

Searches are optimisers. They look for values of large weight and do not preserve the meaning of a program: what they
give is a population of solutions whose weights are scores, without an evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ppl.distributions import Categorical
from ppl.effects import Sample, Weight
from ppl.inference.population import Particle, Particles, Population
from ppl.program import Program

T = TypeVar("T")


class Frontier(Generic[T]):
    """The prefixes of a search, and the solutions that it has found.

    A prefix ends behind a factor or twist, where SMC would resample; its score is its log weight: all factors so far,
    and the twists that stand. A solution's is the log of its weight.
    """

    def __init__(self, program: Program[T]) -> None:
        self._particles = Particles(program, 1)
        self.root = self._particles.members[0]
        self.found: list[Particle[T]] = []
        self.steps = 0
        """That prefixes were brought on by, all together."""

    def fresh(self, count: int) -> list[Particle[T]]:
        """So many independent runs, from the beginning."""
        return [child(self.root) for _ in range(count)]

    async def advance(self, members: Sequence[Particle[T]]) -> list[Particle[T]]:
        """Bring prefixes one step on; those that go on from there. Solutions are `found`, the dead are dropped."""
        going, ended = await self.scout(members)
        self.found += ended
        return going

    async def scout(self, members: Sequence[Particle[T]]) -> tuple[list[Particle[T]], list[Particle[T]]]:
        """As `advance`, without keeping what is found: those that go on, and those that have returned."""
        self.steps += len(members)
        self._particles.members = list(members)
        await self._particles.advance()
        alive = [particle for particle in members if particle.log_weight > -math.inf]
        return [p for p in alive if p.active], [p for p in alive if not p.active]

    async def finish(self, members: Sequence[Particle[T]]) -> None:
        """Bring prefixes to their end, each once."""
        while members:
            members = await self.advance(members)

    async def ahead(self, members: Sequence[Particle[T]], steps: int) -> list[float]:
        """The score of each prefix, or what a copy of it has come to `steps` steps later."""
        scouts = [child(member) for member in members] if steps else members
        going = scouts
        for _ in range(steps):
            going = (await self.scout(going))[0]
        return [scout.log_weight for scout in scouts]

    def population(self, diagnostics: Mapping[str, Any] | None = None) -> Population[T]:
        """The solutions; one dead particle if there is none."""
        values = tuple(particle.run.value for particle in self.found) or (None,)
        scores = tuple(particle.log_weight for particle in self.found) or (-math.inf,)
        return Population(values, scores, (), self._particles.killed, diagnostics, normalised=True)


def child(parent: Particle[T]) -> Particle[T]:
    """A copy, to go on from the same place."""
    return parent.child(parent.log_weight)


def children(parent: Particle[T], count: int) -> list[Particle[T]]:
    """`count` copies of a prefix to go on with, of which one is the prefix itself.

    Nothing is tried twice: where the next effect is a draw of at most so many values, there is one for each value, and
    one alone where nothing is drawn before the next step.
    """
    effect, values = parent.run.focus.effect, None
    if isinstance(effect, Weight) or parent.run.done:
        count = min(count, 1)
    elif isinstance(effect, Sample) and type(effect.dist) is Categorical:
        values = [value for value, p in effect.dist.table() if p > 0]
        values = values if len(values) <= count else None
    if count < 1:
        return []
    out = [*[child(parent) for _ in range(count - 1 if values is None else len(values) - 1)], parent]
    for one, value in zip(out, values or (), strict=False):
        one.run.focus.answer(value)
        one.finish()
    return out


def best(members: Sequence[Particle[T]], scores: Sequence[float], count: int) -> list[int]:
    """The indices of the `count` best prefixes, the best first; of those that have written the same, one counts."""
    out: list[int] = []
    for i in sorted(range(len(members)), key=lambda i: -scores[i]):
        if len(out) < count and not any(_same(members[i], members[j]) for j in out):
            out.append(i)
    return out


def _same(one: Particle[Any], other: Particle[Any]) -> bool:
    """Whether two prefixes have the same answers behind them, as far as these can be compared."""
    if one.log_weight != other.log_weight or len(one.run.log) != len(other.run.log):
        return False
    try:
        return bool(one.run.log == other.run.log)
    except (TypeError, ValueError):  # arrays
        return False
