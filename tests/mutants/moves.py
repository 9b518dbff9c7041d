"""Broken variants of what is built on SMC: resample-move, tempering, steering, islands, chains, nested inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ppl import (
    MCMC,
    PMMH,
    SMC,
    Bernoulli,
    Categorical,
    Importance,
    Islands,
    Multinomial,
    Population,
    Program,
    SingleSite,
    Systematic,
    Tempered,
    Trace,
    WithoutReplacement,
    collapse,
    factor,
    recorded,
    regenerate,
    sample,
    select,
)
from ppl.edit import Ledger, edited
from ppl.inference.ancestors import Ancestors
from ppl.inference.population import Kernel, Particles
from ppl.inference.systematic import WithoutReplacement as Optimal
from ppl.run import Run
from ppl.testing import assert_draws, assert_proper
from ppl.trace import answers_of, trace_of
from ppl.transforms import _hold_back
from ppl.walk import Walk
from tests.mutants.pool import Check
from tests.mutants.smc import Algorithm

MOVE = SingleSite()


class UnderThePrior(Particles[Any]):
    """Moves that forget what the factors and twists so far say."""

    async def rejuvenate(self, kernel: Kernel[Any], steps: int | None) -> Any:
        async def body(trace: Trace[Any]) -> Trace[Any]:
            proposed = await regenerate(trace, select("**"))
            return proposed.trace or trace

        return await super().rejuvenate(lambda _, trace: Program("prior", body, (trace,), {}), steps)


class UnderTheFullTarget(Particles[Any]):
    """Moves that look ahead: under the measure of the whole program, whose first steps are then taken."""

    async def rejuvenate(self, kernel: Kernel[Any], steps: int | None) -> Any:
        for particle in self.members:
            if not particle.active or steps is None:
                continue
            walk = particle.copy()
            while walk.active:
                await walk.advance()
            if walk.killed is None:
                whole = await kernel(particle.run.program, trace_of(walk.run))
                cut = Walk(Run(particle.run.program))
                while cut.active and cut.steps < steps:
                    cut.follow(answers_of(whole))
                if cut.active:
                    particle.run, particle.twists = cut.run, cut.twists
        return []


def resample_move(
    particles: type[Particles[Any]] = Particles, count: int = 1, *, only_resampled: bool = False, finished: bool = False
) -> Algorithm:
    """SMC with moves, with places to break it."""

    async def body(program: Program[Any]) -> Population[Any]:
        population, steps = particles(program, count), 0
        while True:
            await population.advance()
            steps += 1
            if not population.active:
                break
            dist = Multinomial(population.log_weights) if count > 1 else Systematic(population.log_weights)
            uneven = max(population.log_weights) - min(population.log_weights) > 0.1
            if uneven or count == 1:
                population.select(await sample("ancestors", dist), dist)
            if uneven or not only_resampled:
                if finished:
                    await _move_all(population, steps)
                else:
                    await population.rejuvenate(MOVE, steps)
        return population.population()

    return lambda program: Program("resample_move", body, (program,), {})


async def _move_all(population: Particles[Any], steps: int) -> None:
    """Moves whoever has returned as well, but only as long as somebody goes on."""
    for particle in population.members:
        if particle.log_weight == -math.inf:
            continue
        trace = trace_of(particle.run, steps=None if particle.run.done else steps)
        particle.move(await MOVE(trace.program, trace))


def smc_then(resample: Any, **fields: Any) -> Algorithm:
    return SMC(2, resample, **fields)


class ForgetsTheRest(Tempered):
    """Tempered resampling whose children all weigh the same."""

    def __call__(self, log_weights: Any, count: int | None = None) -> Ancestors:
        dist = super().__call__(log_weights, count)
        dist.child_log_weights = lambda ancestors: (
            [float(np.logaddexp.reduce(dist.log_weights) - math.log(len(dist.log_weights)))] * len(ancestors)
        )
        return dist


class EqualSurvivors(Optimal):
    """Optimal resampling whose survivors all weigh the same."""

    def child_log_weights(self, ancestors: Any) -> list[float]:
        return Ancestors.child_log_weights(self, ancestors)


class UnsharedWeight(Particles[Any]):
    """Each copy weighs as much as the particle, whether it was copied or had returned."""

    def expand(self, times: int) -> None:
        copies = [k for k, p in enumerate(self.members) for _ in range(times if p.active else 1)]
        self.replace(copies, [self.members[k].log_weight for k in copies])


def steering(particles: type[Particles[Any]], count: int = 2) -> Algorithm:
    """SMC steering, with places to break it."""

    async def body(program: Program[Any]) -> Population[Any]:
        population = particles(program, count)
        while True:
            population.expand(2)
            await population.advance()
            if not population.active:
                return population.population()
            dist = WithoutReplacement(population.log_weights, count)
            population.select(await sample("ancestors", dist), dist)

    return lambda program: Program("steering", body, (program,), {})


def annealed_to(last: float) -> Algorithm:
    """Tempering that stops before the whole likelihood is in."""

    async def body(program: Program[Any]) -> Any:
        ledger = Ledger()
        value = await edited(program, _hold_back, f"{program.name}/", ledger)
        await factor("temper", last * ledger.withheld)
        return value

    return lambda program: Importance(1)(Program(program.name, body, (program,), {}))


def last_factor_twice() -> Algorithm:
    """The weights of the end are counted by resampling, and once more."""

    async def body(program: Program[Any]) -> Population[Any]:
        population = await Importance(2)(program)
        if population.log_evidence == -math.inf:
            return population
        ancestors = await sample("ancestors", Multinomial(population.log_weights))
        return replace(
            population,
            values=tuple(population.values[a] for a in ancestors),
            log_weights=tuple(population.log_weights[a] for a in ancestors),
        )

    return lambda program: Program("twice", body, (program,), {})


def islands(level: Any) -> Algorithm:
    """Islands whose populations are taken together in another way."""

    async def body(program: Program[Any]) -> Population[Any]:
        populations = [await SMC(1)(program), await SMC(2, Systematic)(program)]
        values: list[Any] = []
        logs: list[float] = []
        for population in populations:
            values += population.values
            logs += level(population.log_weights)
        return Population(tuple(values), tuple(logs))

    return lambda program: Program("islands", body, (program,), {})


def _normalised(log_weights: Sequence[float]) -> list[float]:
    top = max(log_weights)
    return [w - top if top > -math.inf else w for w in log_weights]


def chains(*, evidence: bool = True, weighted_start: bool = True) -> Algorithm:
    """A Markov chain of one step, with places to break its start."""

    async def body(program: Program[Any]) -> Population[Any]:
        start = await Importance(2)(recorded(program))
        if start.log_evidence == -math.inf:
            return Population((None,), (-math.inf,))
        logs = start.log_weights if weighted_start else [w if w == -math.inf else 0.0 for w in start.log_weights]
        trace = await sample("start", Categorical(start.values, logs))
        trace = await MOVE(program, trace)  # pyright: ignore[reportArgumentType]
        return Population((trace.value,), (start.log_evidence if evidence else 0.0,))

    return lambda program: Program("chains", body, (program,), {})


def kept(*, level: bool) -> Algorithm:
    """Sampling importance resampling whose draws weigh 1, or what they weighed before."""

    async def body(program: Program[Any]) -> Population[Any]:
        population = await Importance(2)(program)
        if population.log_evidence == -math.inf:
            return population
        ancestors = await sample("kept", Systematic(population.log_weights))
        logs = [0.0 if level else population.log_weights[a] for a in ancestors]
        return Population(tuple(population.values[a] for a in ancestors), tuple(logs))

    return lambda program: Program("kept", body, (program,), {})


async def _noisy(program: Program[Any]) -> Any:
    theta = await sample("theta", Categorical.of({0: 1.0, 1: 2.0}))
    return theta, await collapse(Importance(1 + theta)(program))


def marginal(*, again: bool) -> Algorithm:
    """PMMH; `again`: the evidence of the old value is estimated anew at each step ("Monte Carlo within Metropolis")."""

    async def body(program: Program[Any]) -> Population[Any]:
        whole = Program("noisy", _noisy, (program,), {})
        start = await Importance(1)(recorded(whole))
        (trace,) = start.values
        if trace is None:
            return Population((None,), (-math.inf,))
        if again:
            fresh = await regenerate(trace, select("**/importance/**"))
            trace = trace if fresh.trace is None else fresh.trace
        trace = await PMMH("**/theta")(whole, trace)
        return Population((trace.value,), start.log_weights)

    return lambda program: Program("marginal", body, (program,), {})


def _against_noisy(algorithm: Algorithm, most: int) -> Check:
    """The marginal algorithms are of the program with a parameter."""

    def check(program: Program[Any]) -> None:
        whole = Program("noisy", _noisy, (program,), {})
        assert_proper(lambda _: algorithm(program), whole, most)

    return check


def _properly(algorithm: Algorithm, most: int = 1_000) -> Check:
    return lambda program: assert_proper(algorithm, program, most)


class OneForAll:
    """A coin whose batches share one toss: every lane sees the same draw."""

    family = "shared"

    def sample(self, key: Any) -> bool:
        return key.uniform() < 0.5

    @staticmethod
    def draw_many(keys: Any, dists: Any) -> list[bool]:
        return [keys[0].uniform() < 0.5] * len(dists)

    def log_prob(self, value: Any) -> float:
        return -math.log(2)


def _lanes(coin: Any) -> Check:
    """Pairs of neighbouring lanes are independent; false alarm 1e-6."""

    def check(program: Program[Any]) -> None:
        del program  # no program of the pool shows this: it is a mistake of a driver
        from ppl import parallel, run_many

        async def two() -> tuple[Any, ...]:
            return tuple(await parallel(sample("a", coin), sample("b", coin)))

        results = run_many([Program("two", two, (), {})] * 500, range(500))
        pairs = [result.value for result in results]
        assert_draws(pairs, {(a, b): 0.25 for a in (True, False) for b in (True, False)})

    return check


MOVES: dict[str, Check] = {
    "moves under the prior": _properly(resample_move(UnderThePrior)),
    "moves under the full and not the partial target": _properly(resample_move(UnderTheFullTarget)),
    "moves only after resampling": _properly(resample_move(count=2, only_resampled=True)),
    "runs that have returned are moved while others go on": _properly(resample_move(count=2, finished=True)),
    "tempered resampling forgets the rest of the weight": _properly(smc_then(ForgetsTheRest(Systematic, 0.5))),
    "survivors of optimal resampling weigh the same": _properly(SMC(2, EqualSurvivors, expand=2)),
    "copies weigh as much as those that were not copied": _properly(steering(UnsharedWeight)),
    "tempering stops before the whole likelihood is in": _properly(annealed_to(0.75)),
    "the last factor counts twice": _properly(last_factor_twice()),
    "islands are normalised before they are merged": _properly(islands(_normalised)),
    "islands of different size count by particle": _properly(islands(lambda logs: [w * 1.1 for w in logs])),
    "a chain forgets the evidence of its start": _properly(chains(evidence=False)),
    "a chain starts regardless of weight": _properly(chains(weighted_start=False)),
    "resampled draws weigh 1": _properly(kept(level=True)),
    "resampled draws keep their weights": _properly(kept(level=False)),
    "the old evidence is estimated again": _against_noisy(marginal(again=True), 3_000),
    "a draw is shared between lanes": _lanes(OneForAll()),
}

RIGHT: dict[str, Check] = {
    "resample-move": _properly(resample_move()),
    "resample-move of two": _properly(resample_move(count=2), 300),
    "steering": _properly(steering(Particles)),
    "tempering": _properly(annealed_to(1.0)),
    "islands": _properly(islands(lambda logs: logs)),
    "islands of the library": _properly(Islands(2, SMC(1))),
    "chains": _properly(chains()),
    "mcmc": _properly(MCMC(MOVE, 1, chains=1, start=Importance(1))),
    "marginal": _against_noisy(marginal(again=False), 500),
    "independent lanes": _lanes(Bernoulli(0.5)),
}
