"""Importance sampling with the program's own draws as proposal (likelihood weighting)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ppl.inference.population import Particles, Population
from ppl.program import Program

T = TypeVar("T")


@dataclass(frozen=True)
class Importance:
    """`particles` independent runs, each weighted by the product of its factors.

    Best-of-N, majority voting and weighted best-of-N are three votes on this one population.

    Law: `measure(collapse(Importance(n)(p))) == measure(p)`.

    Raises:
        ValueError: fewer than 1 particle.
    """

    particles: int

    def __post_init__(self) -> None:
        check_particles("Importance", self.particles)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("importance", _importance, (program, self.particles), {})


async def _importance(program: Program[T], count: int) -> Population[T]:
    particles = Particles(program, count)
    while particles.active:
        await particles.advance()
    return particles.population()


def check_particles(algorithm: str, count: int, what: str = "particles") -> None:
    """Raise `ValueError` unless `count` is a positive int."""
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{algorithm}: {what} must be an integer of at least 1, not {count!r}")
