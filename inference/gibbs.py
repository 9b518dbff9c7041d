"""Particle Gibbs: conditional SMC as a Markov kernel.

Andrieu, Doucet and Holenstein 2010, "Particle Markov chain Monte Carlo methods"; ancestor sampling: Lindsten, Jordan
and Schoen 2014, "Particle Gibbs with ancestor sampling".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ppl.choice import answer_with
from ppl.distributions import Categorical, uniform
from ppl.effects import Call, Sample
from ppl.inference.ancestors import rotated
from ppl.inference.arguments import check_count, check_resampler
from ppl.inference.kernels import moved, of_program
from ppl.inference.population import Particle, Particles
from ppl.inference.resampling import Multinomial, Resampler
from ppl.language import parallel, sample
from ppl.program import Program
from ppl.request import Request
from ppl.run import Run
from ppl.trace import Trace, answers_of, trace_of
from ppl.walk import Walk, ask

T = TypeVar("T")


@dataclass(frozen=True)
class ParticleGibbs:
    """SMC in which one of the particles is the trace so far, kept alive to the end; the next trace is one of them.

    `resample` is any scheme; each has a conditional law (`Ancestors.given`). With `ancestor_sampling`, the past of the
    kept particle is drawn anew at each resampling, among all the particles: it mixes where early choices are stuck,
    and costs a replay of the kept future, its factors and calls, for each particle and step. A past counts only if
    the kept future fits behind it: the same sites in each step, no value of probability zero.

    Law: pi K = pi.

    Raises:
        ValueError: fewer than 2 particles.
    """

    particles: int
    resample: Resampler = Multinomial
    ancestor_sampling: bool = False

    def __post_init__(self) -> None:
        check_count("ParticleGibbs", "particles", self.particles)
        check_resampler("ParticleGibbs", self.resample)
        if self.particles < 2:
            raise ValueError("ParticleGibbs: one particle alone is the trace so far and never moves; give 2 or more")

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("particle_gibbs", _particle_gibbs, (program, trace, self), {})


async def _particle_gibbs(program: Program[T], trace: Trace[T], config: ParticleGibbs) -> Trace[T]:
    kept = of_program(program, trace)
    particles = Particles(program, config.particles)
    particles.members[0].follows = kept
    steps, blocks = 0, list[list[str]]()
    while True:
        await particles.advance()
        steps += 1
        if not particles.active or steps == kept.steps:
            break
        # The kept particle is in slot 0, but some schemes favour places: for these, any particle may be the first.
        dist, first, ancestor = config.resample(particles.log_weights), 0, 0
        if not dist.cyclic:
            first = await sample("first", uniform(range(config.particles)))
            dist = config.resample(rotated(particles.log_weights, first))
        if config.ancestor_sampling and dist.resamples and particles.members[0].active:
            blocks = blocks or _blocks(kept)
            ancestor, kept = await _new_past(particles.members, kept, blocks[steps:])
        ancestors = await sample("ancestors", dist.given((ancestor - first) % config.particles))
        if dist.resamples:
            weights = dist.child_log_weights(ancestors)
            particles.replace([(a + first) % config.particles for a in ancestors], weights)
            particles.members[0].follows = kept
    log_weights = particles.log_weights
    if kept.steps is not None:  # the target is of those that go on
        log_weights = [-math.inf if p.run.done else p.log_weight for p in particles.members]
    chosen = await sample("pick", Categorical(range(config.particles), log_weights))
    new = kept if chosen == 0 else trace_of(particles.members[chosen].run, steps=kept.steps)
    return moved(trace, new, "particle gibbs", chosen != 0)


async def _new_past(
    members: list[Particle[T]], kept: Trace[T], blocks: Sequence[Sequence[str]]
) -> tuple[int, Trace[T]]:
    """The particle whose past the kept future goes on from, and the whole trace that it then is."""
    joined = await parallel(*[Program("join", _join, (member, kept, blocks), {}) for member in members])
    chosen = await sample("ancestor", Categorical(range(len(members)), [log_weight for log_weight, _ in joined]))
    return chosen, kept if chosen == 0 else trace_of(joined[chosen][1], steps=kept.steps)


def _blocks(trace: Trace[Any]) -> list[list[str]]:
    """The addresses of the draws that a trace makes in each of its steps."""
    walk, blocks, known = Walk(Run(trace.program)), list[list[str]](), answers_of(trace)
    while walk.active and walk.steps != trace.steps:
        block: list[str] = []

        def given(request: Request, block: list[str] = block) -> Any:
            if isinstance(request.effect, Sample):
                block.append(request.address)
            return known(request)

        walk.follow(given)
        blocks.append(block)
    return blocks


class _Misfit(Exception):
    """The kept future does not fit behind this past."""


async def _join(member: Particle[T], kept: Trace[T], blocks: Sequence[Sequence[str]]) -> tuple[float, Run[T] | None]:
    """Let the kept future follow on a particle: log weight times density of the future, and the whole run."""
    if member.log_weight == -math.inf:
        return -math.inf, None
    walk = member.copy()
    densities: list[float] = []  # of the kept draws, less the weights that the walk counts
    drawn: list[str] = []

    def given(request: Request) -> Any:
        effect, address = request.effect, request.address
        if isinstance(effect, Call):
            return kept.calls[address] if member.follows is not None else ask(request)
        if not isinstance(effect, Sample):
            return None
        if address not in kept.choices:
            raise _Misfit
        old = kept.choices[address]
        density = effect.dist.log_prob(old.value)
        if density == -math.inf:
            raise _Misfit
        drawn.append(address)
        densities.append(density)
        answer = answer_with(old.value, effect, address)
        if effect.weighted:
            densities.append(-answer[1])
        return answer

    try:
        for block in blocks:
            drawn.clear()
            if not walk.active:
                raise _Misfit
            await walk.advance(given)
            if walk.killed is not None or drawn != [*block]:
                raise _Misfit
        if walk.run.done != (kept.end is not None and kept.end.run.done):
            raise _Misfit
    except _Misfit:
        return -math.inf, None
    return walk.log_weight + math.fsum(densities), walk.run
