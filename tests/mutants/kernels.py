"""Broken variants of kernels: `assert_invariant` must reject each.

`metropolis`, `conditional_smc` and `tree_walk` are those of the library, with places to break them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ppl import (
    Bernoulli,
    Categorical,
    Kernel,
    Multinomial,
    ParticleGibbs,
    Program,
    SingleSite,
    Stratified,
    Suffix,
    Systematic,
    Trace,
    TreeWalk,
    parallel,
    recorded,
    regenerate,
    replay,
    sample,
    tempered,
    uniform,
)
from ppl.inference import gibbs
from ppl.inference.ancestors import Ancestors, Vector
from ppl.inference.mcmc import _swaps
from ppl.inference.population import Particles
from ppl.select import Selection
from ppl.testing import assert_invariant, assert_same_measure
from ppl.trace import trace_of
from tests.mutants.pool import Check

Ratio = Callable[[Trace[Any], Trace[Any], float], float]  # log acceptance ratio from the two traces and the right one


def metropolis(
    *, suffix: bool = False, ratio: Ratio = lambda old, new, right: right, counts: bool = True
) -> Kernel[Any]:
    """Single-site or suffix Metropolis-Hastings."""

    async def body(program: Program[Any], trace: Trace[Any]) -> Trace[Any]:
        sites = list(trace.choices)
        start = await sample("site", uniform(range(len(sites))))
        chosen = sites[start:] if suffix else [sites[start]]
        proposed = await regenerate(trace, Selection(chosen.__contains__, "chosen"))
        if proposed.trace is None:
            return trace
        log_ratio = ratio(trace, proposed.trace, proposed.log_ratio)
        if counts:
            log_ratio += math.log(len(sites)) - math.log(len(proposed.trace.choices))
        return proposed.trace if await sample("accept", Bernoulli(math.exp(min(log_ratio, 0.0)))) else trace

    return lambda program, trace: Program("metropolis", body, (program, trace), {})


def redraws_what_is_impossible() -> Kernel[Any]:
    """A kept value whose support has vanished is drawn again, although from there it would be kept."""

    async def body(program: Program[Any], trace: Trace[Any]) -> Trace[Any]:
        sites = list(trace.choices)
        chosen = [await sample("site", uniform(sites))]
        while True:
            proposed = await regenerate(trace, Selection(chosen.__contains__, "chosen"))
            if proposed.trace is not None or len(chosen) == len(sites):
                break
            chosen = [*chosen, next(site for site in sites if site not in chosen)]
        if proposed.trace is None:
            return trace
        log_ratio = proposed.log_ratio + math.log(len(sites)) - math.log(len(proposed.trace.choices))
        return proposed.trace if await sample("accept", Bernoulli(math.exp(min(log_ratio, 0.0)))) else trace

    return lambda program, trace: Program("redraws", body, (program, trace), {})


def near_without_density() -> Kernel[Any]:
    """A walk that is not symmetric, accepted as if it were."""

    def near(old: Any, dist: Any) -> Categorical[Any]:
        return Categorical(dist.values, [1.5 * (value > old) for value in dist.values])

    async def body(program: Program[Any], trace: Trace[Any]) -> Trace[Any]:
        site = next(iter(trace.choices))
        proposed = await regenerate(trace, Selection(site.__eq__, site), {"**": near})
        if proposed.trace is None:
            return trace
        log_ratio = proposed.trace.log_joint - trace.log_joint
        return proposed.trace if await sample("accept", Bernoulli(math.exp(min(log_ratio, 0.0)))) else trace

    return lambda program, trace: Program("near", body, (program, trace), {})


class SortedGiven:
    """The reference in slot 0 and the other children sorted: upper order statistics, and not independent ones."""

    def __init__(self, base: Ancestors, reference: int) -> None:
        self.rows = {}
        for vector, p in base.table():
            row = (reference, *sorted(vector)[1:])
            self.rows[row] = self.rows.get(row, 0.0) + p
        self.family = SortedGiven

    def table(self) -> list[tuple[Vector, float]]:
        return list(self.rows.items())

    def sample(self, key: Any) -> Any: ...

    def log_prob(self, value: Any) -> float:
        return math.log(self.rows[value])


class FreshGiven(SortedGiven):
    """The unconditional law, its first child replaced by the reference."""

    def __init__(self, base: Ancestors, reference: int) -> None:
        super().__init__(base, reference)
        self.rows = {}
        for vector, p in base.table():
            row = (reference, *vector[1:])
            self.rows[row] = self.rows.get(row, 0.0) + p


Given = Callable[[Ancestors, int], Any]


def conditional_smc(
    particles: int = 2,
    resample: Callable[..., Ancestors] = Multinomial,
    *,
    given: Given = lambda dist, reference: dist.given(reference),
    pinned: bool = True,
    own_value: bool = True,
    ahead: int = 0,
    pick: Callable[[Sequence[float]], Sequence[float]] = lambda log_weights: log_weights,
) -> Kernel[Any]:
    """Particle Gibbs. `own_value`: the reference has its value, else its weight alone. `ahead`: steps it is ahead."""

    async def body(program: Program[Any], kept: Trace[Any]) -> Trace[Any]:
        population = Particles(program, particles)
        first = population.members[0]
        first.follows = kept if own_value else None
        log_weights = _weights_of(kept)
        steps = 0
        while True:
            await population.advance()
            steps += 1
            if not own_value or ahead:
                at = min(steps + ahead, len(log_weights)) - 1
                population.members[0].log_weight = max(log_weights[at], -1e9)
            if not population.active:
                break
            dist = resample(population.log_weights, particles)
            ancestors = await sample("ancestors", given(dist, 0) if pinned else dist)
            population.select(ancestors, dist)
            if own_value and (pinned or ancestors[0] == 0):
                population.members[0].follows = kept
        chosen = await sample("pick", Categorical(range(particles), pick(population.log_weights)))
        return trace_of(population.members[chosen].run)

    return lambda program, trace: Program("conditional", body, (program, trace), {}) if trace.steps is None else None  # pyright: ignore


def _weights_of(trace: Trace[Any]) -> list[float]:
    """The log weight of a trace behind each of its steps."""
    from ppl.run import Run
    from ppl.trace import answers_of
    from ppl.walk import Walk

    walk, out = Walk(Run(trace.program)), []
    while walk.active:
        walk.follow(answers_of(trace))
        out.append(walk.log_weight)
    return out


class Changed:
    """A kernel of the library, with one function of a module replaced while it runs."""

    def __init__(self, kernel: Kernel[Any], module: Any, name: str, change: Callable[..., Any]) -> None:
        self.kernel, self.module, self.name, self.change = kernel, module, name, change

    def __call__(self, program: Program[Any], trace: Trace[Any]) -> Program[Any]:
        return Program("changed", self._run, (program, trace), {})

    async def _run(self, program: Program[Any], trace: Trace[Any]) -> Trace[Any]:
        right = getattr(self.module, self.name)
        setattr(self.module, self.name, self.change(right))
        try:
            return await self.kernel(program, trace)
        finally:
            setattr(self.module, self.name, right)


def _joined(weight: float, future: float) -> Callable[..., Any]:
    """Ancestor weights with other powers of the past's weight and of the future's density."""

    def change(right: Callable[..., Any]) -> Callable[..., Any]:
        async def join(member: Any, kept: Any, blocks: Any) -> Any:
            total, trace = await right(member, kept, blocks)
            if trace is None:
                return total, trace
            return weight * member.log_weight + future * (total - member.log_weight), trace

        return join

    return change


def walk_without(ratio: Callable[[float], float]) -> Kernel[Any]:
    """`TreeWalk`, its acceptance changed."""
    from ppl.inference import tree_walk

    class Chances:
        """`math` with another exp."""

        inf = math.inf

        @staticmethod
        def exp(x: float) -> float:
            return math.exp(min(ratio(x), 0.0))

    return Changed(TreeWalk(2), tree_walk, "math", lambda _: Chances)


def mixture_by_state() -> Kernel[Any]:
    """Which kernel comes depends on the trace."""

    async def body(program: Program[Any], trace: Trace[Any]) -> Trace[Any]:
        odd = len([*trace.choices.values()]) + sum(map(bool, trace.values()))
        return await (Suffix() if odd % 2 else _nothing)(program, trace)

    return lambda program, trace: Program("mixture", body, (program, trace), {})


def _nothing(program: Program[Any], trace: Trace[Any]) -> Program[Trace[Any]]:
    async def body() -> Trace[Any]:
        return trace

    return Program("nothing", body, (), {})


def _invariant(kernel: Kernel[Any]) -> Check:
    return lambda program: assert_invariant(kernel, program, 600)


# Swaps are checked on the pair of a program and its tempered form.


async def _pair(program: Program[Any], swaps: Any) -> Any:
    rungs = [program, tempered(program, 0.5)]
    traces = await parallel(*[recorded(rung) for rung in rungs])
    if swaps is not None:
        traces = await Program("swaps", swaps, (rungs, tuple(traces)), {})
    return tuple((tuple(sorted(trace.items())), trace.value) for trace in traces)


def _swapping(swaps: Any) -> Check:
    def check(program: Program[Any]) -> None:
        moved, still = (Program("pair", _pair, (program, how), {}) for how in (swaps, None))
        assert_same_measure(moved, still, 1_000)

    return check


def _swap(ratio: Callable[[float], float]) -> Any:
    async def swaps(rungs: Sequence[Program[Any]], traces: Sequence[Trace[Any]]) -> list[Trace[Any]]:
        a, b = traces
        new = replay(rungs[0], b), replay(rungs[1], a)
        log_ratio = ratio(sum(trace.log_joint for trace in new) - a.log_joint - b.log_joint)
        return list(new) if await sample("swap", Bernoulli(math.exp(min(log_ratio, 0.0)))) else [a, b]

    return swaps


def _stale(old: Trace[Any], new: Trace[Any], right: float) -> float:
    return right - (new.log_likelihood - old.log_likelihood)


def _joint(old: Trace[Any], new: Trace[Any], right: float) -> float:
    return new.log_joint - old.log_joint


def _flat(log_weights: Sequence[float]) -> list[float]:
    return [0.0 if w > -math.inf else w for w in log_weights]


def _gibbs_with(change: Callable[..., Any]) -> Check:
    return _invariant(Changed(ParticleGibbs(2, ancestor_sampling=True), gibbs, "_join", change))


KERNELS: dict[str, Check] = {
    "suffix moves without n/n'": _invariant(metropolis(suffix=True, counts=False)),
    "single-site moves without n/n'": _invariant(metropolis(counts=False)),
    "all moves are accepted": _invariant(metropolis(ratio=lambda *_: 0.0, counts=False)),
    "the ratio is upside down": _invariant(metropolis(ratio=lambda old, new, right: -right)),
    "the ratio forgets the factors": _invariant(metropolis(ratio=_stale)),
    "the ratio is of the joint densities alone": _invariant(
        metropolis(ratio=lambda a, b, _: b.log_joint - a.log_joint)
    ),
    "a value that has become impossible is drawn again": _invariant(redraws_what_is_impossible()),
    "the density of a proposal is left out": _invariant(near_without_density()),
    "conditional ancestors are sorted": _invariant(conditional_smc(given=SortedGiven)),
    "conditional systematic resampling with a fresh uniform": _invariant(
        conditional_smc(2, Systematic, given=FreshGiven)
    ),
    "conditional stratified resampling from the first place": _invariant(conditional_smc(3, Stratified)),
    "the reference is not pinned": _invariant(conditional_smc(pinned=False)),
    "the reference has its weight and not its value": _invariant(conditional_smc(own_value=False)),
    "the reference is weighed a step ahead": _invariant(conditional_smc(ahead=1)),
    "the next reference is picked uniformly": _invariant(
        conditional_smc(pick=lambda logw: [min(w, 0.0) * 0 for w in logw])
    ),
    "ancestor sampling without the future": _gibbs_with(_joined(1.0, 0.0)),
    "ancestor sampling without the past's weight": _gibbs_with(_joined(0.0, 1.0)),
    "the walk on the tree accepts all": _invariant(walk_without(lambda _: 0.0)),
    "the walk on the tree is upside down": _invariant(walk_without(lambda x: -x)),
    "the choice of a kernel depends on the trace": _invariant(mixture_by_state()),
    "swaps are upside down": _swapping(_swap(lambda x: -x)),
    "swaps are always accepted": _swapping(_swap(lambda _: 0.0)),
}

RIGHT: dict[str, Check] = {
    "suffix": _invariant(metropolis(suffix=True)),
    "single site": _invariant(metropolis()),
    "conditional smc": _invariant(conditional_smc()),
    "conditional systematic": _invariant(conditional_smc(2, Systematic)),
    "ancestor sampling": _invariant(
        Changed(ParticleGibbs(2, ancestor_sampling=True), gibbs, "_join", _joined(1.0, 1.0))
    ),
    "walk": _invariant(walk_without(lambda x: x)),
    "swaps": _swapping(_swap(lambda x: x)),
    "the library's swaps": _swapping(_swaps),
    "the library's single site": _invariant(SingleSite()),
}
