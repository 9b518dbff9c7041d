"""What the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable


def best(f: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    f()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


def best_cpu(f: Callable[[], object], repeats: int = 5) -> float:
    """As `best`, of processor time: what other programs on the machine do counts less."""
    f()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        f()
        times.append(time.process_time() - start)
    return min(times)
