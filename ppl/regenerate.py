"""From one trace to another: what Markov chains over programs are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ppl.choice import Choice, weigh
from ppl.effects import Sample, Twist, Weight
from ppl.language import factor, parallel
from ppl.program import Program
from ppl.request import Request
from ppl.run import Run
from ppl.select import Selection
from ppl.trace import Trace, trace_of

T = TypeVar("T")


@dataclass(frozen=True)
class Regenerated(Generic[T]):
    """A proposed trace."""

    trace: Trace[T] | None
    """None when it cannot be: a kept value has lost its support, or the run was killed."""
    log_ratio: float
    """Log of the Metropolis-Hastings ratio pi(t') q(t | t') / (pi(t) q(t' | t)), before the minimum with 0 (natural
    log); `-inf` without a trace. `pi` is the program's measure over traces."""


def recorded(program: Program[T]) -> Program[Trace[T]]:
    """The program, giving its trace: any algorithm can run it, so that a posterior is over traces.

    Law: the value of the trace has the meaning of the program.
    """
    return Program("recorded", _recorded, (program,), {})


def regenerate(trace: Trace[T], selection: Selection) -> Program[Regenerated[T]]:
    """Draw the selected sites of a trace again, and what comes to be asked for; keep the rest.

    A value that is kept although its distribution has changed is weighed by it; one whose support has vanished
    rejects the proposal (drawing it again would not be reversible: from there the value would be kept). Sites that
    are no longer asked for are dropped. Fresh draws come from the program, or from its proposals.

    Law: accepting with probability min(1, exp(log_ratio)) leaves the posterior over traces invariant, for any
    selection that does not depend on the trace (Wingate, Stuhlmueller and Goodman 2011, "Lightweight implementations
    of probabilistic programming languages via transformational compilation"; the ratio as in Cusumano-Towner et al.
    2019, "Gen").

    Raises:
        ValueError: the trace has weight zero.
    """
    return Program("regenerate", _regenerate, (trace, selection), {})


async def _recorded(program: Program[T]) -> Trace[T]:
    run = Run(program)
    while not run.done:
        for request in run.requests():
            effect = request.effect
            if effect.weighted:
                draw = await effect.raw  # pyright: ignore[reportAttributeAccessIssue]
                await factor(effect.name, draw[1])
                request.answer(draw)
            else:
                request.answer(await effect)
    return trace_of(run)


async def _regenerate(trace: Trace[T], selection: Selection) -> Regenerated[T]:
    if trace.killed is not None:
        raise ValueError(f"regenerate: the trace was killed at {trace.killed}; a chain starts at a possible trace")
    run = Run(trace.program)
    kept: set[str] = set()
    log_ratio = 0.0
    while not run.done:
        requests = run.requests()
        asked: list[Request] = []
        for request in requests:
            effect, address = request.effect, request.address
            if isinstance(effect, Weight):
                if effect.log_weight == -math.inf:
                    return Regenerated(None, -math.inf)
                if not isinstance(effect, Twist):
                    log_ratio += effect.log_weight
                request.answer(None)
            elif isinstance(effect, Sample) and address in trace.choices and address not in selection:
                old = trace.choices[address]
                change = effect.dist.log_prob(old.value) - old.log_prob
                if change == -math.inf:
                    return Regenerated(None, -math.inf)
                log_ratio += change
                kept.add(address)
                request.answer(_again(effect, old))
            else:
                asked.append(request)
        if asked and len(asked) == len(requests):
            answers = await parallel(*[r.effect.raw if isinstance(r.effect, Sample) else r.effect for r in asked])
            for request, answer in zip(asked, answers, strict=True):
                if request.effect.weighted:
                    log_ratio += answer[1]
                    if log_ratio == -math.inf:
                        return Regenerated(None, -math.inf)
                request.answer(answer)
    log_ratio -= math.fsum(trace.factors.values())
    log_ratio -= math.fsum(c.log_weight for address, c in trace.choices.items() if address not in kept)
    return Regenerated(trace_of(run), log_ratio)


def _again(effect: Sample[Any], old: Choice) -> Any:
    """The logged answer that gives a site its old value."""
    return (old.value, weigh(effect.dist, old.value, old.address)) if effect.weighted else old.value
