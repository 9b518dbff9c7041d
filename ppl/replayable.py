"""Whether a program is deterministic given its answers: see `ppl.testing.assert_replayable`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ppl import codec
from ppl.distributions import Categorical
from ppl.effects import Call, Effect, Sample, Weight
from ppl.program import Program
from ppl.run import Run
from ppl.trace import replay, trace
from ppl.weighted import Proposed

Answer = Callable[[str, Sample[Any]], Any]  # the logged answer to a draw at an address
Asked = dict[str, str]  # what was asked at each address

ADVICE = (
    "A program must be deterministic given its answers: put random or outside work (time, files, servers) into "
    "call(...), leave arguments and globals as they are, and sort what comes out of a set"
)
_EVERY = 64  # after so many effects, only each 16th prefix is replayed: the cost is quadratic


def check_seed(program: Program[Any], seed: int, answer: Answer) -> None:
    """Check one run; `AssertionError` if it does not replay."""
    check_run(program, answer)
    try:
        one = trace(program, seed)
        again = replay(program, one)
    except Exception as error:  # it has run to its end before
        raise _failure(program, f"its trace raised {type(error).__name__}: {error}") from error
    for part in ("choices", "factors", "twists"):
        first, second = getattr(one, part), getattr(again, part)
        for address in first:
            a, b = _plain(first[address]), _plain(second.get(address))
            if a != b:
                raise _failure(program, f"{address}: {a} became {b} in the replay of a trace")
    if not _equal(one.value, again.value):
        raise _failure(program, f"its value {one.value!r} became {again.value!r} in the replay of a trace")


def check_run(program: Program[Any], answer: Answer) -> None:
    """Run a program, and at each of its effects start again with the answers so far: it must come to the same point."""
    run, asked, count = Run(program), Asked(), 0
    while not run.done:
        requests = run.requests()
        # The order of the host driver: draws and calls when nothing else is open.
        for request in [r for r in requests if not isinstance(r.effect, Sample | Call)] or requests:
            asked |= {r.address: _print(r.effect) for r in run.requests()}
            if count < _EVERY or count % 16 == 0:
                _check_prefix(program, run, asked)
            count += 1
            effect, given = request.effect, None
            log_weight = effect.log_weight if isinstance(effect, Weight) else 0.0
            if isinstance(effect, Sample):
                given = answer(request.address, effect)
                log_weight = given[1] if effect.weighted else 0.0
            elif isinstance(effect, Call):
                given = effect.fn(*effect.args)
            if log_weight == -math.inf:  # the program must not see an impossible world
                return
            request.answer(given)
    _check_prefix(program, run, asked)


def _check_prefix(program: Program[Any], run: Run[Any], asked: Asked) -> None:
    """What the answers so far lead to, step by step, and as clones replay, which jump over finished steps of a scan."""
    visited = Asked()

    def visit(address: str, effect: Effect[Any], answer: Any, _: Run[Any]) -> None:
        visited[address] = _print(effect)

    try:
        stepped = Run(program, run.log, visit)
        cloned = Run(program, run.log)
    except Exception as error:
        _compare(program, asked, visited)
        what = f"started again with the same answers, it raised {type(error).__name__}: {error}"
        raise _failure(program, what) from error
    _compare(program, asked, visited)
    for again in (stepped, cloned):
        if again.done != run.done:
            raise _failure(program, f"it {_state(run)}, and started again with the same answers, it {_state(again)}")
        _compare(program, asked, {r.address: _print(r.effect) for r in again.requests()})
        if run.done and not _equal(run.value, again.value):
            raise _failure(program, f"it returned {run.value!r}, and given the same answers again, {again.value!r}")


def _compare(program: Program[Any], asked: Asked, again: Asked) -> None:
    for address, now in again.items():
        if (before := asked.get(address)) != now:
            first = f"{before} first" if before else "nothing first"
            raise _failure(program, f"{address}: it asked for {first}, and given the same answers again, for {now}")


def _failure(program: Program[Any], what: str) -> AssertionError:
    return AssertionError(f"{program.name} does not replay: {what}. {ADVICE}")


def _state(run: Run[Any]) -> str:
    return "returned" if run.done else f"asked for {', '.join(r.address for r in run.requests())}"


def _print(effect: Effect[Any]) -> str:
    """What an effect asks, the same in every execution."""
    if isinstance(effect, Sample):
        return f"a draw from {_dist(effect.dist)}"
    if isinstance(effect, Weight):
        return f"a {type(effect).__name__.lower()} of log weight {effect.log_weight!r}"
    if isinstance(effect, Call):
        return f"a call of {codec.sketch(effect.fn)}({', '.join(codec.sketch(arg) for arg in effect.args)})"
    return f"a {type(effect).__name__.lower()}"


def _dist(dist: Any) -> str:
    if isinstance(dist, Proposed):
        return f"{_dist(dist.target)} by {_dist(dist.proposal)}"
    if isinstance(dist, Categorical):
        return codec.sketch({"Categorical": [[codec.sketch(value), p] for value, p in dist.table()]})
    return f"{type(dist).__name__} {codec.sketch(dist)}"


def _plain(site: Any) -> str:
    """A choice or a log weight of a trace."""
    if hasattr(site, "log_prob"):
        return f"{codec.sketch(site.value)} of log probability {site.log_prob!r}"
    return "nothing" if site is None else f"log weight {site!r}"


def _equal(a: Any, b: Any) -> bool:
    """Objects that compare by identity, and have no JSON form, need only be of one type."""
    same = a == b
    return (isinstance(same, bool) and same) or codec.sketch(a) == codec.sketch(b)
