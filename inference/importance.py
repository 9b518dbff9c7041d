"""Importance sampling: independent runs with weights (likelihood weighting), and resampled ones (SIR)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ppl.inference.arguments import check_count, check_proposals
from ppl.inference.population import Particles, Population
from ppl.inference.resampling import Systematic
from ppl.language import sample
from ppl.program import Program
from ppl.regenerate import within
from ppl.transforms import propose

T = TypeVar("T")


@dataclass(frozen=True)
class Importance:
    """`particles` independent runs, each weighted by the product of its factors, and of target over proposal.

    Best-of-N, majority voting and weighted best-of-N are three votes on this one population. `proposals`, as in
    `ppl.propose`, are drawn from instead of the program's own distributions. `keep` is sampling importance resampling
    (Rubin 1987): of the particles, so many equally weighted ones are left, by systematic resampling.

    Law: `measure(collapse(Importance(n)(p))) == measure(p)`.

    Raises:
        ValueError: fewer than 1 particle, or kept one.
    """

    particles: int
    proposals: Mapping[str, Any] | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        check_count("Importance", "particles", self.particles)
        check_proposals("Importance", self.proposals or {}, 1)
        if self.keep is not None:
            check_count("Importance", "keep", self.keep)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("importance", _importance, (program, self), {})


async def _importance(program: Program[T], config: Importance) -> Population[T]:
    if config.proposals:
        program = within(program, lambda inner: propose(inner, config.proposals or {}))
    particles = Particles(program, config.particles)
    while particles.active:
        await particles.advance()
    population = particles.population()
    if config.keep is None or population.log_evidence == -math.inf:
        return population
    dist = Systematic(population.log_weights, config.keep)
    kept = await sample("kept", dist)
    values = tuple(population.values[k] for k in kept)
    return replace(population, values=values, log_weights=tuple(dist.child_log_weights(kept)))
