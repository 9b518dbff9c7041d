"""Blocking calls run at once; quick ones in turn; what fails loses nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from ppl import Importance, call, infer, parallel, program, run, sample, uniform
from ppl.concurrent import MISSING, Calls


def test_slow_calls_overlap() -> None:
    """Each waits until eight are under way: in turn they would wait for ever."""
    barrier = threading.Barrier(8, timeout=20)

    def meets(x: int) -> int:
        barrier.wait()
        return x

    @program
    async def waits() -> int:
        return await call(meets, await sample("x", uniform(range(100))))

    values = infer(waits(), Importance(8), 0).population.values
    assert len(values) == 8 and None not in values


def test_different_functions_overlap_too() -> None:
    barrier = threading.Barrier(2, timeout=20)

    def one() -> int:
        return barrier.wait() * 0 + 1

    def two() -> int:
        return barrier.wait() * 0 + 2

    @program
    async def both() -> list[int]:
        return await parallel(call(one), call(two))

    assert run(both(), 0).value == [1, 2]


def test_quick_calls_need_no_crowd() -> None:
    threads: set[int] = set()

    def quick(i: int) -> int:
        threads.add(threading.get_ident())
        return i

    calls = Calls([lambda i=i: quick(i) for i in range(2000)])
    assert calls.finish() == [*range(2000)]
    assert len(threads) <= 64


def test_answers_are_in_order_whatever_the_order_of_ending() -> None:
    def late(i: int) -> int:
        time.sleep(0.01 * (5 - i))
        return i

    assert Calls([lambda i=i: late(i) for i in range(5)]).finish() == [0, 1, 2, 3, 4]


def test_the_first_failure_is_raised_and_the_rest_is_kept() -> None:
    def fails(i: int) -> int:
        if i == 1:
            raise ValueError("broken")
        return i

    calls = Calls([lambda i=i: fails(i) for i in range(3)])
    with pytest.raises(ValueError, match="broken"):
        calls.finish()
    assert calls.answers[0] == 0 and calls.answers[1] is MISSING


def test_one_call_runs_in_the_thread_of_the_caller() -> None:
    seen: list[Any] = []
    Calls([lambda: seen.append(threading.current_thread())]).finish()
    assert seen == [threading.current_thread()]
    assert Calls([]).finish() == []
