"""Markov chain Monte Carlo: chains of traces, several at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from ppl.distributions import Bernoulli, Categorical
from ppl.inference.arguments import check_algorithm, check_count, check_kernel, check_numbers
from ppl.inference.chains import Chain, diagnose
from ppl.inference.importance import Importance
from ppl.inference.kernels import Kernel, check_trace, moved
from ppl.inference.population import Population
from ppl.language import note, parallel, sample
from ppl.program import Program
from ppl.regenerate import recorded
from ppl.trace import Trace, replay
from ppl.transforms import tempered

T = TypeVar("T")
Start = Callable[[Program[Any]], Program[Population[Any]]]


@dataclass(frozen=True)
class MCMC:
    """`chains` Markov chains of `samples` draws each, `thin` steps of the kernel apart, after `warmup` steps.

    `start` is any algorithm that weighs properly: the chains begin at traces picked from its particles, and all draws
    weigh what it says of the evidence. So a population of chains is properly weighted after any number of steps, and
    tends to the posterior with their number. Its values stand chain after chain.

    Law: `measure(collapse(MCMC(kernel, ...)(p))) == measure(p)`. All chains die when all particles of `start` do.

    Diagnostics: "acceptance" and "tried" (of moves, by site, over all chains and steps), "r_hat" and "n_eff" (by site,
    of draws that are numbers and are always there, and of "log_joint"), "draws" (the same as arrays [chains, samples]),
    "chains".

    Raises:
        ValueError: a count below 1, or a negative warmup.
    """

    kernel: Kernel[Any]
    samples: int = 250
    warmup: int = 0
    chains: int = 4
    thin: int = 1
    start: Start = Importance(64)

    def __post_init__(self) -> None:
        _check("MCMC", self)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("mcmc", _chains, (program, self, (1.0,)), {})


@dataclass(frozen=True)
class ParallelTempering:
    """Chains that are ladders of traces, one for each power of the likelihood: hot ones move, and pass their finds on.

    In a step each trace moves by `kernel` under its own power (`ppl.transforms.tempered`), then each pair of neighbours
    changes places with probability min(1, pi_a(y) pi_b(x) / (pi_a(x) pi_b(y))). The draws are those of the first power,
    which must be 1. Other fields as in `MCMC`; acceptance of the swaps is under "swap 0-1" etc.

    Law: the product of the tempered posteriors stays invariant, so the draws have the posterior of the program. Their
    weights are known up to a constant only: there is no evidence.

    Swendsen and Wang 1986; Geyer 1991, "Markov chain Monte Carlo maximum likelihood".

    Raises:
        ValueError: as `MCMC`, or the powers do not fall from 1.
    """

    kernel: Kernel[Any]
    powers: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)
    samples: int = 250
    warmup: int = 0
    chains: int = 4
    thin: int = 1
    start: Start = Importance(64)

    def __post_init__(self) -> None:
        _check("ParallelTempering", self)
        powers = check_numbers("ParallelTempering", "powers", self.powers)
        object.__setattr__(self, "powers", powers)
        if powers[:1] != (1.0,) or any(not a > b >= 0 for a, b in pairwise(powers)):
            raise ValueError(f"ParallelTempering: powers must fall from 1, like (1.0, 0.5, 0.1), not {self.powers}")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("parallel_tempering", _chains, (program, self, self.powers), {})


def _check(name: str, config: MCMC | ParallelTempering) -> None:
    """Raise `ValueError` or `TypeError` for fields of no sense."""
    for field, least in (("samples", 1), ("chains", 1), ("thin", 1), ("warmup", 0)):
        check_count(name, field, getattr(config, field), least)
    check_kernel(name, config.kernel)
    check_algorithm(f"{name}: start", config.start)


async def _chains(program: Program[T], config: MCMC | ParallelTempering, powers: tuple[float, ...]) -> Population[T]:
    rungs = [program if power == 1.0 else tempered(program, power) for power in powers]
    starts = await parallel(*[config.start(recorded(rung)) for rung in rungs])
    log_weight = math.fsum(start.log_evidence for start in starts)
    if log_weight == -math.inf:
        killed = sum((start.killed or Counter() for start in starts), Counter[str]())
        return Population((None,), (-math.inf,), killed=killed, normalised=len(rungs) > 1)
    places = [Categorical(range(len(start.values)), start.log_weights) for start in starts] * config.chains
    begun = iter(await parallel(*[sample("start", place) for place in places]))
    chains = [Chain[T]([start.values[next(begun)] for start in starts]) for _ in range(config.chains)]
    steps = config.warmup + config.samples * config.thin
    for step in range(1, steps + 1):
        kernels = [
            config.kernel(rung, trace) for chain in chains for rung, trace in zip(rungs, chain.ladder, strict=True)
        ]
        found = iter(await parallel(*kernels))
        ladders = [[check_trace(config.kernel, trace, next(found)) for trace in chain.ladder] for chain in chains]
        if len(rungs) > 1:
            ladders = await parallel(*[Program("swaps", _swaps, (rungs, tuple(ladder)), {}) for ladder in ladders])
        keep = step > config.warmup and (step - config.warmup) % config.thin == 0
        for chain, ladder in zip(chains, ladders, strict=True):
            chain.visit(ladder, keep)
        await note("mcmc", step=step, steps=steps)
    values = [value for chain in chains for value in chain.values]
    weights = (log_weight,) * len(values)
    return Population(tuple(values), weights, diagnostics=diagnose(chains), normalised=len(rungs) > 1)


async def _swaps(rungs: Sequence[Program[T]], traces: Sequence[Trace[T]]) -> list[Trace[T]]:
    """Neighbours change places: a Metropolis-Hastings step on the product of the rungs' targets."""
    ladder = list(traces)
    for a, b in pairwise(range(len(rungs))):
        new = replay(rungs[a], ladder[b]), replay(rungs[b], ladder[a])
        log_ratio = sum(trace.log_joint for trace in new) - ladder[a].log_joint - ladder[b].log_joint
        accepted = await sample("swap", Bernoulli(math.exp(min(log_ratio, 0.0))))
        here, there = new if accepted else (ladder[a], ladder[b])
        ladder[a] = moved(ladder[a], here, f"swap {a}-{b}", accepted)
        ladder[b] = replace(there, moves=ladder[b].moves)
    return ladder
