"""Broken variants of importance sampling, SMC and `collapse`: `assert_proper` must reject each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppl import Categorical, Multinomial, Program, Systematic, factor, sample, uniform
from ppl.effects import Weight
from ppl.inference import weights
from ppl.inference.population import Particle, Particles, Population
from ppl.inference.resampling import Ancestors, Keep, Resampler, Vector
from ppl.run import Run
from ppl.testing import assert_proper, assert_same_measure
from ppl.twists import Twists

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
                population.select(ancestors, dist)
            if not population.active:
                return population.population()

    return lambda program: Program("smc", body, (program,), {})


class NoReset(Particles[Any]):
    """Children keep their parent's weight."""

    def select(self, ancestors: Sequence[int], dist: Ancestors) -> None:
        old = list(self.log_weights)
        super().select(ancestors, dist)
        for member, a in zip(self.members, ancestors, strict=True):
            member.log_weight = old[a]


class EvidenceLost(Particles[Any]):
    """Children have weight 1: what the weights said of the evidence is forgotten."""

    def select(self, ancestors: Sequence[int], dist: Ancestors) -> None:
        super().select(ancestors, dist)
        for member in self.members:
            member.log_weight = 0.0


class EvidenceOfTheLiving(Particles[Any]):
    """Dead particles are left out of the mean weight."""

    def select(self, ancestors: Sequence[int], dist: Ancestors) -> None:
        logw = np.array(self.log_weights)
        level = weights.log_mean_exp(logw[logw > -math.inf].tolist())
        super().select(ancestors, dist)
        for member in self.members:
            member.log_weight = level


class MeanOfLogs(Particles[Any]):
    """The evidence is averaged on the log scale."""

    def select(self, ancestors: Sequence[int], dist: Ancestors) -> None:
        logw = np.array(self.log_weights)
        level = float(logw[logw > -math.inf].mean())
        super().select(ancestors, dist)
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

    def select(self, ancestors: Sequence[int], dist: Ancestors) -> None:
        super().select(range(len(ancestors)), dist)


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


class KeepReset(Keep):
    """Nobody is resampled, and all weights are set to their mean."""

    def child_log_weights(self, ancestors: Vector) -> list[float]:
        return Ancestors.child_log_weights(self, ancestors)


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
    "adaptive resets the weights that it kept": _properly(smc(resample=KeepReset, select_when_kept=True)),
    "resampled at the end, with weights kept": _properly(smc(NoReset, resample_at_end=True)),
    "importance with square roots of weights": _properly(importance(counted=0.5)),
    "importance without the dead": _properly(importance(dead=False)),
    "collapse picks uniformly": _collapsed_by(_uniform_pick),
    "collapse forgets the evidence": _collapsed_by(_no_evidence),
    "collapse sums where it should average": _collapsed_by(_summed_evidence),
}
