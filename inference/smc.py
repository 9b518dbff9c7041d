"""Sequential Monte Carlo over the factors and twists of a program (a particle filter).

Gordon, Salmond and Smith 1993; Del Moral, Doucet and Jasra 2006; as a transformer of programs: Scibior et al. 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ppl.inference.importance import check_particles
from ppl.inference.population import Particles, Population, Step
from ppl.inference.resampling import Adaptive, Resampler
from ppl.language import note, sample
from ppl.program import Program

T = TypeVar("T")


@dataclass(frozen=True)
class SMC:
    """`particles` runs advance from factor to factor; `resample` decides, at each, who goes on.

    `resample` is a scheme (`Multinomial`, `Stratified`, `Systematic`, `Residual`: at every factor) or
    `Adaptive(scheme, threshold)` (only when the effective sample size is low).

    Law: `measure(collapse(SMC(n, resample)(p))) == measure(p)`.

        >>> from ppl import collapse, measure
        >>> from ppl.tiny import Draw, Score, Tiny
        >>> coin = Tiny((Draw(((1, 3),)), Score((1, 2)))).program()
        >>> measure(collapse(SMC(2)(coin))) == measure(coin)
        True

    Raises:
        ValueError: fewer than 1 particle.
    """

    particles: int
    resample: Resampler = Adaptive()

    def __post_init__(self) -> None:
        check_particles("SMC", self.particles)
        if not callable(self.resample):
            raise TypeError(f"SMC: resample must be a scheme like Systematic or Adaptive(...), not {self.resample!r}")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("smc", _smc, (program, self.particles, self.resample), {})


async def _smc(program: Program[T], count: int, resample: Resampler) -> Population[T]:
    particles, steps = Particles(program, count), list[Step]()
    while True:
        await particles.advance()
        if not particles.active:  # nothing is resampled at the end
            steps.append(particles.step(resampled=False))
            return particles.population(steps)
        dist = resample(particles.log_weights)
        steps.append(particles.step(dist.resamples))
        await note("smc", step=steps[-1])
        ancestors = await sample("ancestors", dist)
        if dist.resamples:
            particles.select(ancestors)
