"""Particle Gibbs and parallel tempering as they were published for language models: to compare with, not to use.

Puri et al. 2025, "A probabilistic inference approach to inference-time scaling of LLMs using particle-based Monte Carlo
methods", Algorithms 2 and 3, and its reference implementation its_hub. What is right is `ParticleGibbs` and
`ParallelTempering`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from ppl.distributions import Bernoulli, Categorical
from ppl.inference.arguments import check_count, check_numbers
from ppl.inference.population import Particles, Population
from ppl.inference.resampling import Multinomial
from ppl.language import parallel, sample
from ppl.program import Program
from ppl.trace import Trace, trace_of

T = TypeVar("T")
Reference = tuple[Trace[T], float]  # with its last weight


@dataclass(frozen=True)
class PublishedGibbs:
    """`iterations` filters of `particles` each, of which all but the first keep a particle of the one before.

    With more than one of the `powers` (inverse temperatures) there is a chain for each, whose weights it raises, and
    neighbours exchange their kept particles. The population is what the last iteration of all chains leaves, with the
    last weights as scores.

    Not invariant: at each step the kept particle competes by its *final* weight, whatever it is worth by then, with
    others by their weights so far (`tests/exact/test_published.py` shows by how much). With a reward that is read anew
    at each step (`Reward(..., use="odds_each_step")`) evidence counts several times as well.

    Raises:
        ValueError: fewer than 2 particles, no iterations, or powers that are not positive.
    """

    particles: int
    iterations: int = 4
    powers: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_count("PublishedGibbs", "particles", self.particles, 2)
        check_count("PublishedGibbs", "iterations", self.iterations)
        powers = check_numbers("PublishedGibbs", "powers", self.powers)
        if not powers or min(powers) <= 0:
            raise ValueError(f"PublishedGibbs: powers must be positive, not {self.powers}")
        object.__setattr__(self, "powers", powers)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("published_gibbs", _published, (program, self), {})


async def _published(program: Program[T], config: PublishedGibbs) -> Population[T]:
    chains: list[Particles[T]] = []
    kept: list[Reference[T] | None] = [None] * len(config.powers)
    for iteration in range(config.iterations):
        filters = [
            Program("filter", _filtered, (program, config.particles, power, reference), {})
            for power, reference in zip(config.powers, kept, strict=True)
        ]
        chains = await parallel(*filters)
        if iteration + 1 < config.iterations:
            kept = [await _reference(chain, power) for chain, power in zip(chains, config.powers, strict=True)]
            await _exchange(kept, config.powers)
    parts = [chain.population() for chain in chains]
    values = tuple(value for part in parts for value in part.values)
    scores = tuple(score for part in parts for score in part.log_weights)
    return Population(values, scores, killed=sum((part.killed for part in parts[1:]), parts[0].killed), normalised=True)


def _scores(particles: Particles[Any], power: float) -> list[float]:
    return [power * log_weight for log_weight in particles.log_weights]


async def _filtered(program: Program[T], count: int, power: float, reference: Reference[T] | None) -> Particles[T]:
    """One filter; the kept particle is in slot 0."""
    particles = Particles(program, count)
    if reference is not None:
        particles.members[0].follows = reference[0]
    while True:
        await particles.advance()
        if not particles.active:
            return particles
        scores = _scores(particles, power)
        if reference is not None:
            scores[0] = power * reference[1]
        if max(scores) == -math.inf:
            return particles
        free = await sample("ancestors", Multinomial(scores, count - (reference is not None)))
        ancestors = [*([] if reference is None else [0]), *free]
        members = particles.members  # each weight is of the last step alone: those that have returned keep it
        particles.replace(ancestors, [0.0 if members[a].active else members[a].log_weight for a in ancestors])
        if reference is not None:
            particles.members[0].follows = reference[0]


async def _reference(particles: Particles[T], power: float) -> Reference[T] | None:
    """A particle by its last weight; None where none is left."""
    scores = _scores(particles, power)
    if max(scores) == -math.inf:
        return None
    chosen = await sample("reference", Categorical(range(len(scores)), scores))
    return trace_of(particles.members[chosen].run), particles.members[chosen].log_weight


async def _exchange(kept: list[Reference[T] | None], powers: Sequence[float]) -> None:
    """Neighbours exchange what they keep with probability min(1, pi_a(y) pi_b(x) / (pi_a(x) pi_b(y))), eq. 4."""
    for a, b in pairwise(range(len(powers))):
        here, there = kept[a], kept[b]
        if here is not None and there is not None:
            log_ratio = (powers[a] - powers[b]) * (there[1] - here[1])
            if await sample("exchange", Bernoulli(math.exp(min(log_ratio, 0.0)))):
                kept[a], kept[b] = there, here
