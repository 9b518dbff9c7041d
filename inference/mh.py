"""Metropolis-Hastings kernels that draw some sites of a trace again.

Wingate, Stuhlmueller and Goodman 2011, "Lightweight implementations of probabilistic programming languages via
transformational compilation"; the acceptance ratio as in `ppl.regenerate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ppl.distributions import Categorical, uniform
from ppl.inference.arguments import check_proposals, check_sites
from ppl.inference.kernels import accept, of_program
from ppl.language import sample
from ppl.program import Program
from ppl.regenerate import Proposals, regenerate
from ppl.select import Selection, select
from ppl.trace import Trace

T = TypeVar("T")
Sites = Selection | str


@dataclass(frozen=True)
class Suffix:
    """Go back to a site chosen at random among the n of the trace, and draw it and all behind it again.

    The natural kernel for text: what is kept is a prefix, which a language model need not read again. A program
    may have n' sites then, and goes back with another probability: the ratio contains n / n'.

    With `where`, a function of a trace that gives a log weight for each of its sites, in their order, the site is
    chosen by these: refinement that goes back to where a critic finds fault (as in Chakraborty et al. 2025, "Iterative
    agent decoding"). The ratio contains the probabilities of the choice, of the old trace and of the new one.

    Law: pi K = pi.

    Raises:
        ValueError: `where` gives not one weight per site, or only weights of zero.
    """

    where: Callable[[Trace[Any]], Sequence[float]] | None = None

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("suffix", _suffix, (program, trace, self), {})

    def start(self, trace: Trace[Any]) -> Categorical[int]:
        """Which of the sites of a trace, by number, is drawn again."""
        if self.where is None:
            return uniform(range(len(trace.choices)))
        log_weights = list(self.where(trace))
        if len(log_weights) != len(trace.choices):
            raise ValueError(f"Suffix: where gave {len(log_weights)} log weights for {len(trace.choices)} sites: one "
                             "for each, in the order of trace.choices")  # fmt: skip
        return Categorical(range(len(log_weights)), log_weights)


@dataclass(frozen=True)
class SingleSite:
    """Draw one site again, chosen at random among the n that `sites` selects (all of them, if None), and keep the rest.

    The new value comes from the program, or by `proposals[glob](old value, distribution)` where the glob matches: a
    random walk. Sites that are no longer asked for disappear, and new ones are drawn; the ratio contains n / n'.

    Law: pi K = pi.
    """

    sites: Sites | None = None
    proposals: Proposals | None = None

    def __post_init__(self) -> None:
        check_sites("SingleSite", "**" if self.sites is None else self.sites)
        check_proposals("SingleSite", self.proposals or {}, 2)

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("single_site", _single_site, (program, trace, self), {})


@dataclass(frozen=True)
class Block:
    """Draw all selected sites again, at once; `proposals` as in `SingleSite`.

    Law: pi K = pi.
    """

    sites: Sites
    proposals: Proposals | None = None

    def __post_init__(self) -> None:
        check_sites("Block", self.sites)
        check_proposals("Block", self.proposals or {}, 2)

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("block", _block, (program, trace, self), {})


def PMMH(parameters: str, proposal: Callable[[Any, Any], Any] | None = None) -> Block:  # noqa: N802
    """Particle marginal Metropolis-Hastings, for a program that awaits `collapse(SMC(n)(...))`, or `stepwise`.

    Proposes the sites that the glob `parameters` matches by `proposal(old value, distribution)` (if None, from the
    prior), and makes the whole inner SMC anew: the estimates of the evidence, old and new, stand in the ratio as if
    they were exact. Behind `stepwise`, as `rejuvenate` of an outer SMC, this is SMC^2.

    Law: pi K = pi for traces, inner particles included (Andrieu, Doucet and Holenstein 2010, "Particle Markov chain
    Monte Carlo methods").
    """
    check_sites("PMMH", parameters)
    return Block("**", None if proposal is None else {parameters: proposal})


async def _suffix(program: Program[T], trace: Trace[T], config: Suffix) -> Trace[T]:
    trace = of_program(program, trace)
    sites = list(trace.choices)
    if not sites:
        return trace
    there = config.start(trace)
    start = await sample("start", there)
    proposed = await regenerate(trace, _among(sites[start:]))
    log_ratio = proposed.log_ratio
    if proposed.trace is not None:
        if [*proposed.trace.choices][:start] == sites[:start]:
            log_ratio += config.start(proposed.trace).log_prob(start) - there.log_prob(start)
        else:  # of branches side by side, cut off at another place
            log_ratio = -math.inf
    return await accept(trace, proposed.trace, log_ratio, sites[start])


async def _single_site(program: Program[T], trace: Trace[T], config: SingleSite) -> Trace[T]:
    trace = of_program(program, trace)
    chosen = select("**" if config.sites is None else config.sites)
    sites = [site for site in trace.choices if site in chosen]
    if not sites:
        return trace
    site = await sample("site", uniform(sites))
    proposed = await regenerate(trace, _among([site]), config.proposals)
    log_ratio = proposed.log_ratio
    if proposed.trace is not None:
        log_ratio += math.log(len(sites)) - math.log(sum(site in chosen for site in proposed.trace.choices))
    return await accept(trace, proposed.trace, log_ratio, site)


async def _block(program: Program[T], trace: Trace[T], config: Block) -> Trace[T]:
    trace = of_program(program, trace)
    selection = select(config.sites)
    if not any(site in selection for site in trace.choices):
        return trace
    proposed = await regenerate(trace, selection, config.proposals)
    return await accept(trace, proposed.trace, proposed.log_ratio, repr(selection))


def _among(sites: list[str]) -> Selection:
    return Selection(frozenset(sites).__contains__, f"{len(sites)} sites from {sites[0]}")
