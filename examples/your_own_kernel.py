"""Write a Markov kernel, and prove that it leaves the posterior alone.

A kernel takes a program and one of its traces, and gives a program that returns another trace. Its law is pi K = pi:
from a trace of the posterior comes a trace of the posterior. This one draws one of the last sites again, and all behind
it. The number of sites may change on the way, so the way back has another probability: the ratio n / n'. The wrong one
forgets that, and is right on every program whose traces all have the same length.
"""

import math
from typing import TypeVar

import ppl
from ppl import Program, Trace, program, regenerate, sample, select
from ppl.testing import Branch, Draw, Score, Tiny, assert_invariant

T = TypeVar("T")


@program
async def go_back(target: Program[T], now: Trace[T]) -> Trace[T]:
    return await _go_back(now, count_sites=True)


@program
async def wrong(target: Program[T], now: Trace[T]) -> Trace[T]:
    return await _go_back(now, count_sites=False)


async def _go_back(now: Trace[T], count_sites: bool) -> Trace[T]:
    sites = list(now.choices)
    first = await sample("first", ppl.uniform(range(len(sites))))
    proposed = await regenerate(now, select(*sites[first:]))  # a new trace, and the ratio for a fixed selection
    if proposed.trace is None:  # it ran into a weight of zero
        return now
    log_ratio = proposed.log_ratio
    if count_sites:  # chosen among n sites here, among n' there
        log_ratio += math.log(len(sites)) - math.log(len(proposed.trace.choices))
    accepted = await sample("accept", ppl.Bernoulli(math.exp(min(log_ratio, 0.0))))
    return proposed.trace if accepted else now


if __name__ == "__main__":
    x, y = Draw(((1, 3),)), Draw(((1, 1),))
    fixed = Tiny((x, Score((1, 2)), y)).program()
    branching = Tiny((x, Score((1, 2)), Branch((), (y,)))).program()  # y is drawn if x is 0
    assert_invariant(go_back, fixed)
    assert_invariant(go_back, branching)
    print("go_back: right, whatever it draws")
    assert_invariant(wrong, fixed)
    print("wrong: right as long as all traces have the same sites")
    try:
        assert_invariant(wrong, branching)
    except AssertionError as error:
        print(f"wrong: {error}")
    # One step of a chain is not enough for an answer; `MCMC` makes many, from traces that an algorithm begins with.
    posterior = ppl.infer(branching, ppl.MCMC(go_back, samples=500, chains=4), seed=0)
    print(posterior.table(), ppl.measure(branching).posterior)
