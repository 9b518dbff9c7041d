"""What the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable


def best(f: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    f()
    times = []
    for _ in range(repeats):
        start = clock()
        f()
        times.append(clock() - start)
    return min(times)


def best_cpu(f: Callable[[], object], repeats: int = 5) -> float:
    """As `best`, of processor time: what other programs on the machine do counts less."""
    return best(f, repeats, time.process_time)
