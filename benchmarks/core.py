"""Host cost of the language: per effect, per particle and site of SMC, and of enumeration."""

from __future__ import annotations

from collections.abc import Generator

from timing import best_cpu

import ppl
from ppl import Bernoulli, collapse, factor, program, sample, scan
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
        run.answer(1 if isinstance(run.effect, Sample) else None)
    return run


@program
async def tick(total: int, x: int) -> tuple[int, None]:
    total += await sample("x", COIN)
    await factor("f", -0.1)
    return total, None


@program
async def scanned(steps: int) -> int:
    return (await scan(tick, 0, range(steps)))[0]


@program
async def flips() -> tuple[bool, ...]:
    return tuple([await sample("x", COIN) for _ in range(10)])


def main() -> None:
    print("processor time, best of several; us = microseconds")
    bare = best_cpu(drive_bare) / (2 * SITES)
    print(f"bare coroutine, own loop, log:    {1e6 * bare:5.2f} us an effect: the limit")
    one = best_cpu(drive) / (2 * SITES)
    print(f"a run (log, addresses):           {1e6 * one:5.2f} us an effect, {one / bare:.1f} times the limit")
    run = drive()
    replay = best_cpu(lambda: Run(run.program, run.log)) / (2 * SITES)
    print(f"replay:                           {1e6 * replay:5.2f} us an effect, {replay / bare:.1f} times the limit")
    for n in (64, 1024):
        never = best_cpu(lambda n=n: ppl.infer(walk(), ppl.Importance(n), seed=0)) / (2 * n * SITES)
        always = best_cpu(lambda n=n: ppl.infer(walk(), ppl.SMC(n, ppl.Systematic), seed=0)) / (n * SITES)
        over = 1e6 * (never - bare)
        print(
            f"N = {n:4}, no resampling:           {1e6 * never:5.2f} us an effect and particle, with the program's own"
        )
        print(f"                                  {over:5.2f} us of it is host overhead (target 1.5)")
        print(f"N = {n:4}, resampling at each site: {1e6 * always:5.2f} us a site (2 effects) and particle (target 8)")
    for steps in (200, 2000):
        seconds = best_cpu(lambda steps=steps: ppl.infer(scanned(steps), ppl.SMC(20, ppl.Multinomial), seed=0), 1)
        print(f"scan of {steps:4} steps, N = 20:      {1e6 * seconds / (20 * steps):5.1f} us a step and particle")
    paths_of = sum(1 for _ in paths(flips()))
    seconds = best_cpu(lambda: ppl.measure(flips()), 3)
    print(f"measure, ten coins:               {paths_of} paths, {paths_of / seconds:,.0f} paths/s (target 20,000)")
    algorithm = collapse(ppl.SMC(2, ppl.Stratified)(short()))
    paths_of = sum(1 for _ in paths(algorithm))
    seconds = best_cpu(lambda: ppl.measure(algorithm), 3)
    print(f"measure of SMC(2, Stratified):    {paths_of} paths, {paths_of / seconds:,.0f} paths/s")


if __name__ == "__main__":
    main()
