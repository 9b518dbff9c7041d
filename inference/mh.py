"""Metropolis-Hastings kernels that draw some sites of a trace again.

Wingate, Stuhlmueller and Goodman 2011, "Lightweight implementations of probabilistic programming languages via
transformational compilation"; the acceptance ratio as in `ppl.regenerate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ppl.distributions import uniform
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

    Law: pi K = pi.
    """

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("suffix", _suffix, (program, trace), {})


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


async def _suffix(program: Program[T], trace: Trace[T]) -> Trace[T]:
    trace = of_program(program, trace)
    sites = list(trace.choices)
    if not sites:
        return trace
    start = await sample("start", uniform(range(len(sites))))
    proposed = await regenerate(trace, _among(sites[start:]))
    log_ratio = proposed.log_ratio
    if proposed.trace is not None:
        log_ratio += math.log(len(sites)) - math.log(len(proposed.trace.choices))
        if [*proposed.trace.choices][:start] != sites[:start]:  # of branches side by side, cut off at another place
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
