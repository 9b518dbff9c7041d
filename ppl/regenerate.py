"""From one trace to another: what Markov chains over programs are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ppl.choice import Choice, answer_with
from ppl.distributions import Distribution, as_distribution, is_weighted
from ppl.effects import Sample
from ppl.language import condition, factor
from ppl.program import Program
from ppl.request import Request
from ppl.run import Run
from ppl.select import Selection, select
from ppl.trace import Trace, trace_of
from ppl.walk import Ask, Walk, ask
from ppl.weighted import Proposed

T = TypeVar("T")
Proposals = Mapping[str, Callable[[Any, Distribution[Any]], Distribution[Any]]]
"""By glob of addresses: from the old value of a site, and its distribution there, what to draw the new one from."""


@dataclass(frozen=True)
class Regenerated(Generic[T]):
    """A proposed trace."""

    trace: Trace[T] | None
    """None when it cannot be: a kept value has lost its support, or the run was killed, or returned before the end."""
    log_ratio: float
    """Log of the Metropolis-Hastings ratio pi(t') q(t | t') / (pi(t) q(t' | t)), before the minimum with 0 (natural
    log); `-inf` without a trace. `pi` is the program's measure over traces."""


def recorded(program: Program[T], steps: int | None = None) -> Program[Trace[T]]:
    """The program, giving its trace: any algorithm can run it, so that a posterior is over traces.

    With `steps`, it stops behind so many factors and twists: what it means then is the target of SMC at that moment,
    among the runs that go on; those that have returned have weight zero.

    Law: the value of the trace has the meaning of the program.
    """
    if not isinstance(program, Program):
        raise TypeError(f"recorded needs a program, like p(), not {program!r}")
    return Program(program.name, _recorded, (program, steps), {})


def regenerate(
    trace: Trace[T], selection: Selection | str, proposals: Proposals | None = None
) -> Program[Regenerated[T]]:
    """Draw the selected sites of a trace again, and what comes to be asked for; keep the rest.

    A value that is kept although its distribution has changed is weighed by it; one whose support has vanished
    rejects the proposal (drawing it again would not be reversible: from there the value would be kept). Sites that
    are no longer asked for are dropped. Fresh draws come from the program, or from its own proposals; a selected site
    that a glob of `proposals` matches is drawn from `proposals[glob](old value, distribution)` instead, given that
    the trace has it. From a suspended trace comes one suspended as early, under the target of that moment.

    Law: accepting with probability min(1, exp(log_ratio)) leaves the posterior over traces invariant, for any
    selection that does not depend on the trace (Wingate, Stuhlmueller and Goodman 2011, "Lightweight implementations
    of probabilistic programming languages via transformational compilation"; the ratio as in Cusumano-Towner et al.
    2019, "Gen").

    Raises:
        ValueError: the trace has weight zero.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"regenerate needs a trace, like trace(program), not {trace!r}")
    return Program("regenerate", _regenerate, (trace, select(selection), proposals or {}), {})


def within(program: Program[Any], change: Callable[[Program[Any]], Program[Any]]) -> Program[Any]:
    """The changed program; of a `recorded` one, the changed program recorded: there its sites have their addresses."""
    if program.fn is _recorded:
        inner, steps = program.args
        return recorded(change(inner), steps)
    return change(program)


async def _recorded(program: Program[T], steps: int | None) -> Trace[T]:
    walk, before = Walk(Run(program)), 0.0
    while walk.active and walk.steps != steps:
        await walk.advance()
        if walk.log_weight != before:
            await factor((walk.killed or "weight").rpartition("/")[2].partition(":")[0], walk.log_weight - before)
        before = walk.log_weight
    await condition("goes on", steps is None or not walk.run.done)
    return trace_of(walk.run, steps=steps)


async def _regenerate(trace: Trace[T], selection: Selection, proposals: Proposals) -> Regenerated[T]:
    if trace.killed is not None:
        raise ValueError(f"regenerate: the trace was killed at {trace.killed}; a chain starts at a possible trace")
    walk, change = Walk(Run(trace.program)), _Change(trace, selection, proposals)
    try:
        while walk.active and walk.steps != trace.steps:
            await walk.advance(change.given)
    except _Impossible:
        return Regenerated(None, -math.inf)
    if walk.killed is not None or (trace.steps is not None and walk.run.done):
        return Regenerated(None, -math.inf)
    return Regenerated(trace_of(walk.run, steps=trace.steps), walk.log_weight + change.log_ratio())


class _Impossible(Exception):
    """The proposed trace, or the way back from it, has probability zero."""


class _Change:
    """What becomes of the sites of a trace, and the ratio of the draws."""

    def __init__(self, trace: Trace[Any], selection: Selection, proposals: Proposals) -> None:
        self.trace = trace
        self.selection = selection
        self.proposals = [(select(pattern), make) for pattern, make in proposals.items()]
        self.changed = False  # until something is drawn, all is as in the old trace
        self.gained = 0.0  # log density of the draws here over the old one, of sites that have both; less their weights
        self.kept: set[str] = set()

    def given(self, request: Request) -> Any:
        """The answer to a request, or what to ask."""
        effect, address = request.effect, request.address
        if isinstance(effect, Sample):
            if address in self.trace.choices:
                old = self.trace.choices[address]
                if address not in self.selection:
                    if not self.changed:  # nor has its distribution
                        self.kept.add(address)
                        self.gained -= old.log_weight
                        return old.draw
                    return self._keep(effect, old, old.value, 0.0)
                for selection, make in self.proposals:
                    if address in selection:
                        return self._near(effect, old, make)
            self.changed = True
        elif not self.changed:  # the call was made with these arguments, the note sent
            return self.trace.calls.get(address)
        return ask(request)

    def _keep(self, effect: Sample[Any], old: Choice, value: Any, log_back: float) -> Any:
        """Answer with the value. `log_back`: probability of the proposal back to the old one over that of this one."""
        change = effect.dist.log_prob(value) - old.log_prob + log_back
        if change == -math.inf:
            raise _Impossible
        self.kept.add(old.address)
        self.gained += change
        answer = answer_with(value, effect, old.address)
        if effect.weighted:
            self.gained -= answer[1]  # which the walk counts
        return answer

    def _near(self, effect: Sample[Any], old: Choice, make: Callable[[Any, Any], Distribution[Any]]) -> Ask:
        self.changed = True
        where = f"the proposal for {old.address}"
        there = as_distribution(make(old.value, _target(effect.dist)), where)
        if is_weighted(there):
            raise TypeError(f"{where}: {there!r} weighs its draws; a kernel needs a distribution without weights")

        def then(value: Any) -> Any:
            back = as_distribution(make(value, _target(old.dist)), where)
            return self._keep(effect, old, value, back.log_prob(old.value) - there.log_prob(value))

        return Ask(lambda: Sample(effect.name, there), then)

    def log_ratio(self) -> float:
        """Of all but the weight of the new trace."""
        dropped = math.fsum(c.log_weight for address, c in self.trace.choices.items() if address not in self.kept)
        return self.gained - self.trace.log_likelihood - self.trace.log_twist - dropped


def _target(dist: Any) -> Any:
    return dist.target if isinstance(dist, Proposed) else dist
