"""Tests of the tests: broken algorithms must be rejected by `assert_proper`.

Each mutant is a mistake that someone could make; the pool holds programs small enough to take milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppl import Categorical, Multinomial, Program, Systematic, collapse, factor, sample, uniform
from ppl.effects import Weight
from ppl.inference import weights
from ppl.inference.population import Particle, Particles, Population
from ppl.inference.resampling import Adaptive, Ancestors, Keep, Resampler, Vector
from ppl.run import Run
from ppl.testing import Branch, Draw, Guide, Loop, Score, Steer, Steps, Stop, Tiny, assert_proper, assert_same_measure
from ppl.twists import Twists

COIN = Draw(((1, 2),))
FAIR = Draw(((1, 1), (3, 1)))
POOL = [
    Tiny((COIN, Score((1, 3)), FAIR, Score((2, 1)))),
    Tiny((COIN, Score((0, 2)), FAIR, Score((1, 0.5)))),
    Tiny((COIN, Stop(), Score((3,)), FAIR, Score((1, 2)))),
    Tiny((COIN, Guide("a", (1, 3)), FAIR, Guide("a", (2, 0.5)), Score((1, 2)))),
    Tiny((FAIR, Guide("a", (2, 3)), Branch((Score((2,)), Score((3,))), (Guide("b", (3,)),)), COIN, Guide("a", (1, 2)))),
    Tiny((Loop(((1, 1, 1),), (Score((2, 0.5)),)),)),
    Tiny((Steer(((1, 3),)), Score((1, 2)), Steps(2, (Steer(((2, 1), (1, 1))), Score((1, 0.5)))))),
]
Algorithm = Callable[[Program[Any]], Program[Any]]


def smc(
    particles: type[Particles[Any]] = Particles,
    resample: Resampler = Multinomial,
    *,
    select_when_kept: bool = False,
    resample_at_end: bool = False,
) -> Algorithm:
    """SMC as in `ppl.inference.smc`, with places to break it."""

    async def body(program: Program[Any]) -> Population[Any]:
        population = particles(program, 2)
        while True:
            await population.advance()
            if not population.active and not (resample_at_end and np.max(population.log_weights) > -math.inf):
                return population.population()
            dist = resample(population.log_weights)
            ancestors = await sample("ancestors", dist)
            if dist.resamples or select_when_kept:
                population.select(ancestors)
            if not population.active:
                return population.population()

    return lambda program: Program("smc", body, (program,), {})


class NoReset(Particles[Any]):
    """Children keep their parent's weight."""

    def select(self, ancestors: Sequence[int]) -> None:
        old = list(self.log_weights)
        super().select(ancestors)
        for member, a in zip(self.members, ancestors, strict=True):
            member.log_weight = old[a]


class EvidenceLost(Particles[Any]):
    """Children have weight 1: what the weights said of the evidence is forgotten."""

    def select(self, ancestors: Sequence[int]) -> None:
        super().select(ancestors)
        for member in self.members:
            member.log_weight = 0.0


class EvidenceOfTheLiving(Particles[Any]):
    """Dead particles are left out of the mean weight."""

    def select(self, ancestors: Sequence[int]) -> None:
        logw = np.array(self.log_weights)
        level = weights.log_mean_exp(logw[logw > -math.inf].tolist())
        super().select(ancestors)
        for member in self.members:
            member.log_weight = level


class MeanOfLogs(Particles[Any]):
    """The evidence is averaged on the log scale."""

    def select(self, ancestors: Sequence[int]) -> None:
        logw = np.array(self.log_weights)
        level = float(logw[logw > -math.inf].mean())
        super().select(ancestors)
        for member in self.members:
            member.log_weight = level


class ReweightFinished(Particles[Any]):
    """A finished particle takes its last weight again in each later round."""

    async def advance(self) -> None:
        finished = [(member, member.log_weight) for member in self.members if member.run.done]
        await super().advance()
        for member, log_weight in finished:
            member.log_weight += log_weight


class Stuck(Particles[Any]):
    """Resampling sets the weights and forgets to move the particles."""

    def select(self, ancestors: Sequence[int]) -> None:
        super().select(range(len(ancestors)))


class DrawsUnweighed(Particles[Any]):
    """What a draw from a proposal weighs is forgotten."""

    def _weigh_draw(self, particle: Particle[Any], draw: tuple[Any, float], address: str) -> bool:
        return draw[1] > -math.inf


class DrawsUpsideDown(Particles[Any]):
    """Proposal over target."""

    def _weigh_draw(self, particle: Particle[Any], draw: tuple[Any, float], address: str) -> bool:
        return super()._weigh_draw(particle, (draw[0], -draw[1] if draw[1] > -math.inf else draw[1]), address)


class OfParticle(Particles[Any]):
    """Particles of another class."""

    kind: type[Particle[Any]] = Particle

    def __init__(self, program: Program[Any], count: int) -> None:
        super().__init__(program, count)
        self.members = [self.kind(p.run, p.log_weight, p.twists, p.origin) for p in self.members]


class TwistsStay(OfParticle):
    """Twists are not divided out at return."""

    class kind(Particle[Any]):  # noqa: N801
        def finish(self) -> None:
            pass

        def child(self, log_weight: float) -> Particle[Any]:
            return type(self)(self.run.clone(), log_weight, self.twists.copy(), self.origin)


class TwistsNotInherited(OfParticle):
    """A child does not know which twists its weight contains."""

    class kind(Particle[Any]):  # noqa: N801
        def child(self, log_weight: float) -> Particle[Any]:
            return type(self)(self.run.clone(), log_weight, Twists(), self.origin)


class TwistsShared(OfParticle):
    """A child writes its twists where its parent reads them."""

    class kind(Particle[Any]):  # noqa: N801
        def child(self, log_weight: float) -> Particle[Any]:
            return type(self)(self.run.clone(), log_weight, self.twists, self.origin)


class AddedTwists(Twists):
    """A new twist multiplies without the old one being taken out."""

    def copy(self) -> AddedTwists:
        other = AddedTwists()
        other._standing = dict(self._standing)
        return other

    def change(self, effect: Weight, run: Run[Any]) -> float:
        super().change(effect, run)
        return effect.log_weight


class TwistsAdded(Particles[Any]):
    """Particles with `AddedTwists`."""

    def __init__(self, program: Program[Any], count: int) -> None:
        super().__init__(program, count)
        for member in self.members:
            member.twists = AddedTwists()


class OneUniformTooFew(Systematic):
    """Systematic resampling at u = 1/2 always: right on average over weights, wrong for each."""

    def table(self) -> list[tuple[Vector, float]]:
        return [(self.at(0.5), 1.0)]


class Uniform(Ancestors):
    """Any living parent, whatever its weight."""

    def table(self) -> list[tuple[Vector, float]]:
        return Multinomial(np.where(np.array(self.weights) > 0, 0.0, -np.inf).tolist()).table()


class Tempered(Ancestors):
    """Parents chosen by squared weight."""

    def table(self) -> list[tuple[Vector, float]]:
        with np.errstate(divide="ignore"):
            return Multinomial((2 * np.log(self.weights)).tolist()).table()


class RoundedResidual(Ancestors):
    """Sure children, and the rest all to the heaviest."""

    def table(self) -> list[tuple[Vector, float]]:
        sure = np.floor(np.array(self.weights) * self.count + 1e-12).astype(int)
        sure[int(np.argmax(self.weights))] += self.count - sure.sum()
        return [(tuple(np.repeat(np.arange(self.count), sure).tolist()), 1.0)]


def _keep(log_weights: Sequence[float]) -> Ancestors:
    return Keep(log_weights)


def importance(*, counted: float = 1.0, dead: bool = True) -> Algorithm:
    """Importance sampling; weights to the power `counted`, and the dead redrawn (not `dead`) instead of kept."""

    async def body(program: Program[Any]) -> Population[Any]:
        particles = Particles(program, 2)
        while particles.active:
            await particles.advance()
        logw = np.array(particles.log_weights) * counted
        values = tuple(member.run.value for member in particles.members)
        living = np.flatnonzero(logw > -math.inf)
        if not dead and living.size:
            return Population(tuple(values[i] for i in living), tuple(logw[living].tolist()))
        return Population(values, tuple(logw.tolist()))

    return lambda program: Program("importance", body, (program,), {})


async def _uniform_pick(populations: Program[Population[Any]]) -> Any:
    population = await populations
    await factor("evidence", population.log_evidence)
    return await sample("pick", uniform([v for v in population.values if v is not None]))


async def _no_evidence(populations: Program[Population[Any]]) -> Any:
    population = await populations
    if population.log_evidence == -math.inf:
        await factor("dead", -math.inf)
    return await sample("pick", Categorical(population.values, population.log_weights))


async def _summed_evidence(populations: Program[Population[Any]]) -> Any:
    population = await populations
    await factor("evidence", weights.logsumexp(population.log_weights))
    return await sample("pick", Categorical(population.values, population.log_weights))


def _properly(algorithm: Algorithm) -> Callable[[Program[Any]], None]:
    return lambda program: assert_proper(algorithm, program)


def _collapsed_by(body: Any) -> Callable[[Program[Any]], None]:
    def check(program: Program[Any]) -> None:
        assert_same_measure(Program("collapse", body, (smc()(program),), {}), program)

    return check


MUTANTS = {
    "weights are not reset after resampling": _properly(smc(NoReset)),
    "evidence is lost at resampling": _properly(smc(EvidenceLost)),
    "dead particles do not count for the evidence": _properly(smc(EvidenceOfTheLiving)),
    "evidence is the mean of log weights": _properly(smc(MeanOfLogs)),
    "finished particles are weighted again": _properly(smc(ReweightFinished)),
    "weights are reset but nobody moves": _properly(smc(Stuck)),
    "draws from a proposal are not weighed": _properly(smc(DrawsUnweighed)),
    "draws are weighed by proposal over target": _properly(smc(DrawsUpsideDown)),
    "twists are not divided out": _properly(smc(TwistsStay)),
    "children do not inherit twists": _properly(smc(TwistsNotInherited)),
    "children share the twists of their parent": _properly(smc(TwistsShared)),
    "a new twist does not replace the old": _properly(smc(TwistsAdded)),
    "systematic resampling without its uniform": _properly(smc(resample=OneUniformTooFew)),
    "ancestors regardless of weight": _properly(smc(resample=Uniform)),
    "ancestors by squared weight": _properly(smc(resample=Tempered)),
    "residual resampling without its random part": _properly(smc(resample=RoundedResidual)),
    "adaptive resets the weights that it kept": _properly(smc(resample=_keep, select_when_kept=True)),
    "resampled at the end, with weights kept": _properly(smc(NoReset, resample_at_end=True)),
    "importance with square roots of weights": _properly(importance(counted=0.5)),
    "importance without the dead": _properly(importance(dead=False)),
    "collapse picks uniformly": _collapsed_by(_uniform_pick),
    "collapse forgets the evidence": _collapsed_by(_no_evidence),
    "collapse sums where it should average": _collapsed_by(_summed_evidence),
}


def _rejected(check: Callable[[Program[Any]], None]) -> bool:
    for tiny in POOL:
        try:
            check(tiny.program())
        except AssertionError:
            return True
    return False


def test_the_unbroken_algorithms_pass() -> None:
    """Without this, a pool on which everything fails would count as a perfect score."""
    honest = [smc(), smc(resample=Adaptive(Multinomial, 0.75)), smc(resample=Systematic), importance()]
    assert not [algorithm for algorithm in honest if _rejected(_properly(algorithm))]
    assert not _rejected(lambda program: assert_same_measure(collapse(smc()(program)), program))
    assert not _rejected(_properly(smc(resample_at_end=True)))  # wasteful, but proper


def test_every_mutant_is_rejected() -> None:
    survivors = [name for name, check in MUTANTS.items() if not _rejected(check)]
    print(f"{len(MUTANTS) - len(survivors)}/{len(MUTANTS)} mutants rejected")
    assert not survivors
