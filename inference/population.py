"""Weighted particles: runs of one program that advance together, and what is left when they have finished."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ppl.distributions import Categorical
from ppl.effects import Effect, Factor, Weight
from ppl.inference import weights
from ppl.inference.kernels import Kernel, check_trace
from ppl.inference.resampling import Ancestors
from ppl.language import factor, parallel, sample
from ppl.program import Program
from ppl.request import Request
from ppl.run import Run
from ppl.trace import Move, Trace, answers_of, trace_of
from ppl.twists import Twists
from ppl.walk import Walk

T = TypeVar("T")


class Particle(Walk[T]):
    """A run with its log weight; `origin` is the index of the first-generation particle it descends from."""

    __slots__ = ("follows", "origin")

    def __init__(self, run: Run[T], log_weight: float, twists: Twists, origin: int) -> None:
        super().__init__(run, twists, log_weight)
        self.origin = origin
        self.follows: Trace[T] | None = None
        """The trace whose draws and calls this particle takes over, in conditional SMC."""

    def child(self, log_weight: float) -> Particle[T]:
        """A copy with another weight; its run is a replay."""
        return Particle(self.run.clone(), log_weight, self.twists.copy(), self.origin)

    def move(self, trace: Trace[T]) -> None:
        """Go where a trace ends; the weight stays."""
        assert trace.end is not None
        self.run, self.twists = trace.end.run.clone(), trace.end.twists.copy()


@dataclass(frozen=True)
class Step:
    """The population just before the resampling decision at one suspension."""

    ess: float
    """Effective sample size, a count."""
    log_evidence: float
    """Estimate of the log evidence of the target up to here."""
    unique: int
    """Distinct first-generation ancestors of the particles of positive weight."""
    resampled: bool


class NoEvidence(ValueError):
    """The algorithm gives draws from the posterior, or solutions with scores, and no estimate of the evidence."""


@dataclass(frozen=True)
class Population(Generic[T]):
    """Finished particles: values with log weights, properly weighted for the program's measure.

    E[mean of exp(log_weights) f(values)] = measure(program)(f). A particle of weight zero has value None.
    """

    values: tuple[T | None, ...]
    log_weights: tuple[float, ...]
    """Not normalised."""
    steps: tuple[Step, ...] = ()
    killed: Counter[str] | None = None
    """How many particles each site gave weight zero."""
    diagnostics: Mapping[str, Any] | None = None
    """What the algorithm says of its own quality, e.g. r-hat of a Markov chain."""
    normalised: bool = False
    """Whether the weights are known up to a constant only, as those of Markov chains, or are the scores of a search:
    then there is no evidence."""

    @property
    def log_evidence(self) -> float:
        """log of the mean weight; exp of it is unbiased for the evidence Z.

        Raises:
            NoEvidence: the particles are draws from the normalised posterior, or what a search has found.
        """
        if self.normalised:
            raise NoEvidence(
                "this algorithm (Markov chains that start anywhere, or a search) does not estimate the evidence: "
                "Importance, SMC and MCMC do"
            )
        return weights.log_mean_exp(self.log_weights)

    @property
    def ess(self) -> float:
        """Effective sample size of the weights, a count."""
        return weights.ess(self.log_weights)


class Particles(Generic[T]):
    """The moving population of an algorithm."""

    def __init__(self, program: Program[T], count: int) -> None:
        if count < 1:
            raise ValueError(f"a population needs at least 1 particle, not {count}")
        self.members = [Particle(Run(program), 0.0, Twists(), i) for i in range(count)]
        self.killed: Counter[str] = Counter()

    @property
    def active(self) -> bool:
        return any(particle.active for particle in self.members)

    @property
    def log_weights(self) -> list[float]:
        """Not normalised."""
        return [particle.log_weight for particle in self.members]

    async def advance(self) -> None:
        """Bring every particle past its next factor or twist, or to its return; draws go out as batches."""
        moving: list[Particle[T]] = []
        for particle in self.members:
            if particle.active:
                if particle.follows is None:
                    moving.append(particle)
                else:
                    particle.follow(answers_of(particle.follows))
        while moving:
            asked: list[Effect[Any]] = []
            waiting: list[tuple[Particle[T], Run[Any], Sequence[Request] | None]] = []  # None: for the run's one effect
            for particle in moving:
                run = particle.run if particle.run.loop is None else particle.run.focus
                effect = run.effect
                if effect is None:
                    self._ask(particle, run, asked, waiting)
                elif type(effect) is Factor and effect.log_weight > -math.inf:  # `_weigh`, for the most frequent
                    particle.log_weight += effect.log_weight
                    run.answer(None)
                    if particle.run.done:
                        particle.finish()
                elif isinstance(effect, Weight):
                    self._weigh(particle, effect, run, run)
                else:
                    asked.append(effect.raw if effect.weighted else effect)  # pyright: ignore[reportAttributeAccessIssue]
                    waiting.append((particle, run, None))
            if not asked:
                return
            answers = iter(await parallel(*asked))
            moving = []
            for particle, run, requests in waiting:
                if requests is None:
                    answer = next(answers)
                    if not run.effect.weighted or self._weigh_draw(particle, answer, run.address):  # pyright: ignore[reportOptionalMemberAccess]
                        run.answer(answer)
                else:
                    self._answer(particle, requests, [next(answers) for _ in requests])
                if particle.run.done:
                    particle.finish()
                elif particle.log_weight > -math.inf:
                    moving.append(particle)

    def _ask(
        self, particle: Particle[T], run: Run[Any], asked: list[Effect[Any]],
        waiting: list[tuple[Particle[T], Run[Any], Sequence[Request] | None]],
    ) -> None:  # fmt: skip
        """Of a particle with several open effects: perform a factor or twist, or ask for all of them."""
        requests = run.requests()
        for request in requests:
            if isinstance(request.effect, Weight):
                self._weigh(particle, request.effect, request.run, request)
                return
        asked += [request.effect.raw if request.effect.weighted else request.effect for request in requests]  # pyright: ignore[reportAttributeAccessIssue]
        waiting.append((particle, run, requests))

    def _answer(self, particle: Particle[T], requests: Sequence[Request], answers: Sequence[Any]) -> None:
        """Give a particle the answers to several effects, as long as their weights let it live."""
        for request, answer in zip(requests, answers, strict=True):
            if request.effect.weighted and not self._weigh_draw(particle, answer, request.address):
                return
            request.answer(answer)

    def _weigh(self, particle: Particle[T], effect: Weight, run: Run[Any], asker: Run[Any] | Request) -> None:
        """Perform a factor or twist."""
        particle.log_weight += particle.twists.change(effect, run)
        if particle.log_weight == -math.inf:
            self.killed[asker.address] += 1
        else:
            asker.answer(None)
            if particle.run.done:
                particle.finish()

    def _weigh_draw(self, particle: Particle[T], draw: tuple[Any, float], address: str) -> bool:
        """Take on the weight of a properly weighted draw; whether the particle lives."""
        particle.log_weight += draw[1]
        if particle.log_weight == -math.inf:
            self.killed[address] += 1
        return particle.log_weight > -math.inf

    def select(self, ancestors: Sequence[int], dist: Ancestors) -> None:
        """Replace the population by the children of a resampling."""
        self.replace(ancestors, dist.child_log_weights(ancestors))

    def expand(self, times: int) -> None:
        """Make `times` of each particle that has more to run; the mean weight stays."""
        copies = [times if particle.active else 1 for particle in self.members]
        ancestors = [k for k, count in enumerate(copies) for _ in range(count)]
        growth = math.log(len(ancestors) / len(self.members))
        logw = [
            particle.log_weight - math.log(count) + growth for particle, count in zip(self.members, copies, strict=True)
        ]
        self.replace(ancestors, [logw[k] for k in ancestors])

    def replace(self, ancestors: Sequence[int], log_weights: Sequence[float]) -> None:
        """Replace the population by children of these weights.

        The first child of a particle keeps its run, only further children replay.
        """
        old, used = self.members, set[int]()
        members: list[Particle[T]] = []
        for a, log_weight in zip(ancestors, log_weights, strict=True):
            parent = old[a]
            if a in used:
                members.append(parent.child(log_weight))
            else:
                used.add(a)
                parent.log_weight, parent.follows = log_weight, None
                members.append(parent)
        self.members = members

    async def rejuvenate(self, kernel: Kernel[T], steps: int | None) -> tuple[list[Move], bool]:
        """Move each particle by a kernel, under the target of SMC behind so many steps (None: of the program).

        The weights stay. Behind `steps`, particles that have returned stay as they are, whatever the others do: a move
        that depends on the population would not leave it properly weighted. Gives what the kernels tried, and whether
        anything changed.
        """
        living = [p for p in self.members if (p.log_weight > -math.inf if steps is None else p.active)]
        before = [trace_of(particle.run, steps=steps) for particle in living]
        after = await parallel(*[kernel(trace.program, trace) for trace in before])
        changed = False
        for particle, old, new in zip(living, before, after, strict=True):
            if check_trace(kernel, old, new).end is not old.end:
                particle.move(new)
                changed = True
        return [move for trace in after for move in trace.moves], changed

    def step(self, resampled: bool) -> Step:
        """The diagnostics of this moment."""
        logw = self.log_weights
        unique = len({particle.origin for particle in self.members if particle.log_weight > -math.inf})
        return Step(weights.ess(logw), weights.log_mean_exp(logw), unique, resampled)

    def population(self, steps: Sequence[Step] = (), diagnostics: Mapping[str, Any] | None = None) -> Population[T]:
        """What remains when nothing is active."""
        values = tuple(p.run.value if p.log_weight > -math.inf else None for p in self.members)
        return Population(values, tuple(self.log_weights), tuple(steps), self.killed, diagnostics)


def collapse(populations: Program[Population[T]]) -> Program[T]:
    """Pick one particle by weight and factor the evidence in: the bridge from an algorithm back to a program.

    Law: `measure(collapse(algorithm(p))) == measure(p)` for every properly weighting algorithm
    (Scibior et al. 2018, "Denotational validation of higher-order Bayesian inference").
    """
    return Program("collapse", _collapse, (populations,), {})


async def _collapse(populations: Program[Population[T]]) -> T:
    population = await populations
    if not isinstance(population, Population):
        raise TypeError(
            f"collapse needs a program of a Population, like SMC(2)(p); {populations!r} gave {population!r}"
        )
    await factor("evidence", population.log_evidence)
    return await sample("pick", Categorical(population.values, population.log_weights))  # pyright: ignore[reportReturnType]
