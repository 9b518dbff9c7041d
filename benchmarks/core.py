"""Host cost of the language: per effect, per particle and site of SMC, and of enumeration."""

from __future__ import annotations

from collections.abc import Generator

from timing import best

import ppl
from ppl import Bernoulli, collapse, factor, program, sample
from ppl.effects import Sample
from ppl.measure import paths
from ppl.run import Run

SITES = 100


@program
async def walk() -> int:
    total = 0
    for _ in range(SITES):
        total += await sample("x", COIN)
        await factor("f", -0.1)
    return total


@program
async def short() -> tuple[bool, ...]:
    out = []
    for _ in range(2):
        out.append(await sample("x", COIN))
        await factor("f", 0.3 if out[-1] else -0.3)
    return tuple(out)


COIN = Bernoulli(0.5)


class Bare:
    """The least that awaiting can cost: a coroutine and a loop that answers it."""

    def __await__(self) -> Generator[object, int, int]:
        return (yield self)


async def bare_walk() -> int:
    total = 0
    for _ in range(SITES):
        total += await Bare()
        await Bare()
    return total


def drive_bare() -> None:
    coroutine = bare_walk()
    log = []
    try:
        coroutine.send(None)
        while True:
            log.append(1)
            coroutine.send(1)
    except StopIteration:
        pass


def drive() -> Run[int]:
    run = Run(walk())
    while not run.done:
        request = run.requests()[0]
        request.answer(1 if isinstance(request.effect, Sample) else None)
    return run


def main() -> None:
    bare = best(drive_bare) / (2 * SITES)
    print(f"bare coroutine, own loop, log:   {1e6 * bare:6.2f} us an effect")
    one = best(drive) / (2 * SITES)
    print(f"a run (requests, log, addresses):{1e6 * one:6.2f} us an effect, {one / bare:.1f} times bare")
    run = drive()
    replay = best(lambda: Run(run.program, run.log)) / (2 * SITES)
    print(f"replay:                          {1e6 * replay:6.2f} us an effect, {replay / bare:.1f} times bare")
    for n in (64, 1024):
        always = best(lambda n=n: ppl.infer(walk(), ppl.SMC(n, ppl.Systematic), seed=0), 2) / (n * SITES)
        never = best(lambda n=n: ppl.infer(walk(), ppl.Importance(n), seed=0), 2) / (n * SITES)
        print(f"N = {n:4}: importance {1e6 * never:5.1f} us a site and particle, SMC {1e6 * always:5.1f}")
    algorithm = collapse(ppl.SMC(2, ppl.Stratified)(short()))
    count = sum(1 for _ in paths(algorithm))
    seconds = best(lambda: ppl.measure(algorithm), 3)
    print(f"enumeration of SMC(2, Stratified): {count} paths, {count / seconds:,.0f} paths/s")


if __name__ == "__main__":
    main()
