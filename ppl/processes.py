"""Work that processes share: each makes a state for itself, once, and answers questions with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

S = TypeVar("S")
Q = TypeVar("Q")
A = TypeVar("A")
_mine: dict[str, Any] = {}  # of a worker process: its state, or why there is none


def shared(
    make: Callable[[], S], ask: Callable[[S, Q], A], questions: Sequence[Q], jobs: int
) -> Iterator[tuple[int, A]]:
    """The answers `ask(make(), question)` as they come, each with the number of its question.

    Functions and questions must be possible to pickle. Whatever ends this, what is in work is waited for, and handed on
    before an exception is.

    Raises:
        BrokenProcessPool: a process died.
    """
    context = get_context("spawn")
    workers = ProcessPoolExecutor(jobs, context, _begin, (make, jobs, context.Value("i", 0)))
    futures: dict[Future[A], int] = {}
    try:
        for number, question in enumerate(questions):
            futures[workers.submit(_answer, ask, question)] = number
        for future in as_completed(list(futures)):
            yield futures.pop(future), future.result()
    except GeneratorExit:
        raise
    except BaseException:
        workers.shutdown(cancel_futures=True)
        for future, number in futures.items():
            if not future.cancelled() and future.exception() is None:
                yield number, future.result()
        raise
    finally:
        workers.shutdown(cancel_futures=True)


def _begin(make: Callable[[], Any], jobs: int, started: Any) -> None:
    """In a new process: it leaves Ctrl-C to the one that began it, and their cores to the other processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with started.get_lock():
        number = started.value
        started.value += 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: jobs])
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        _mine["state"] = make()
    except Exception as error:  # told where it is asked for: a process that cannot begin says nothing
        _mine["error"] = error


def _end_with_parent() -> None:
    """Whoever began this process may be killed: nobody else would end it."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(ask: Callable[[Any, Any], Any], question: Any) -> Any:
    if "error" in _mine:
        raise _mine["error"]
    return ask(_mine["state"], question)
