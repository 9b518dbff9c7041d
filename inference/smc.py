"""Sequential Monte Carlo over the factors and twists of a program (a particle filter).

Gordon, Salmond and Smith 1993; Del Moral, Doucet and Jasra 2006; as a transformer of programs: Scibior et al. 2018.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ppl.distributions import Categorical
from ppl.inference.arguments import check_count, check_kernel, check_numbers, check_resampler
from ppl.inference.chains import Acceptance
from ppl.inference.kernels import Kernel
from ppl.inference.population import Particles, Population, Step
from ppl.inference.resampling import Adaptive, Resampler
from ppl.language import factor, note, sample
from ppl.program import Program
from ppl.transforms import annealed, check_powers

T = TypeVar("T")
Report = Callable[[Step], Awaitable[None]]


@dataclass(frozen=True)
class SMC:
    """`particles` runs advance from factor to factor; `resample` decides, at each, who goes on.

    `resample` is a scheme (`Multinomial`, `Stratified`, `Systematic`, `Residual`, `SSP`: at every factor),
    `Adaptive(scheme, threshold)` (only when the effective sample size is low), or `Tempered(scheme)` (by tempered
    weights, the rest of which the children carry).

    `rejuvenate`, a kernel such as `Suffix()`, moves every particle that goes on at each factor, under the target of
    that moment, and all of them once at the end (resample-move: Gilks and Berzuini 2001, "Following a moving target").

    `temper`, rising powers such as (0.1, 0.3, 1.0), holds the factors back: the runs end first, and the likelihood
    comes in portions, with moves between (Chopin 2002); pointless without `rejuvenate`.

    `expand` runs that many copies of each particle to the next factor, of which `particles` remain: SMC steering (Lew
    et al. 2023, "Sequential Monte Carlo Steering of Large Language Models using Probabilistic Programs"), whose
    resampling is `WithoutReplacement`. The last copies are not resampled, so more may be left.

    Law: `measure(collapse(SMC(n, ...)(p))) == measure(p)`.

        >>> from ppl import collapse, measure
        >>> from ppl.tiny import Draw, Score, Tiny
        >>> coin = Tiny((Draw(((1, 3),)), Score((1, 2)))).program()
        >>> measure(collapse(SMC(2)(coin))) == measure(coin)
        True

    Diagnostics: "acceptance" of the moves and how often they were "tried", by site.

    Raises:
        ValueError: fewer than 1 particle or copy, or powers that do not rise to 1.
    """

    particles: int
    resample: Resampler = Adaptive()
    rejuvenate: Kernel[Any] | None = None
    temper: tuple[float, ...] | None = None
    expand: int = 1

    def __post_init__(self) -> None:
        check_count("SMC", "particles", self.particles)
        check_count("SMC", "expand", self.expand)
        check_resampler("SMC", self.resample)
        if self.rejuvenate is not None:
            check_kernel("SMC: rejuvenate", self.rejuvenate)
        if self.temper is not None:
            object.__setattr__(self, "temper", check_numbers("SMC", "temper", self.temper))
            check_powers("SMC: temper", self.temper)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("smc", _smc, (program, self, _note), {})


def stepwise(smc: SMC, program: Program[T]) -> Program[T]:
    """As `collapse(smc(program))`, but what each step adds to the evidence is a factor of its own.

    So an outer SMC can resample whole inner populations as they come: with `rejuvenate=PMMH(...)` it is SMC^2 (Chopin,
    Jacob and Papaspiliopoulos 2013, "SMC^2: an efficient algorithm for sequential analysis of state space models").

    Law: `measure(stepwise(smc, p)) == measure(p)`.
    """
    if not isinstance(smc, SMC) or not isinstance(program, Program):
        raise TypeError(f"stepwise needs an SMC(...) and a program, not {smc!r} and {program!r}")
    return Program("stepwise", _stepwise, (program, smc), {})


async def _smc(program: Program[T], config: SMC, report: Report) -> Population[T]:
    if config.temper is not None:
        program = annealed(program, config.temper)
    particles, steps, moves = Particles(program, config.particles), list[Step](), Acceptance()
    while True:
        if config.expand > 1:
            particles.expand(config.expand)
        await particles.advance()
        if not particles.active:  # nothing is resampled at the end
            break
        logw = particles.log_weights
        dist = config.resample(logw) if config.expand == 1 else config.resample(logw, config.particles)
        steps.append(particles.step(dist.resamples))
        await report(steps[-1])
        ancestors = await sample("ancestors", dist)
        if dist.resamples:
            particles.select(ancestors, dist)
        if config.rejuvenate is not None:  # whether or not they were resampled, which depends on where they are
            moves.count(*await particles.rejuvenate(config.rejuvenate, len(steps)))
    steps.append(particles.step(resampled=False))
    await report(steps[-1])
    if config.rejuvenate is None:
        return particles.population(steps)
    moves.count(*await particles.rejuvenate(config.rejuvenate, None))
    return particles.population(steps, moves.diagnostics())


async def _note(step: Step) -> None:
    await note("smc", step=step)


async def _stepwise(program: Program[T], smc: SMC) -> T:
    level = 0.0

    async def report(step: Step) -> None:
        nonlocal level
        await factor("evidence", step.log_evidence - level)
        level = step.log_evidence

    population = await _smc(program, smc, report)
    return await sample("pick", Categorical(population.values, population.log_weights))  # pyright: ignore[reportReturnType]
