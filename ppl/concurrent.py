"""Several blocking calls at once, in threads; many quick ones in one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

THREADS = 64
PATIENCE = 1e-3  # seconds without any answer that make the calls worth a thread each
MISSING: Any = object()  # in the place of an answer that did not come


class Calls:
    """Calls under way from the moment this is made.

    One thread makes them in turn as long as it gets on: a thousand checks of a string need no thousand threads. Once
    a call takes longer than a millisecond, as a server does, the others start as well, up to 64 at a time.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self.answers: list[Any] = [MISSING] * len(calls)
        self._calls = calls
        self._next = iter(range(len(calls)))  # `next` of a range is one step of the interpreter: threads can share it
        self._left = len(calls)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        if len(calls) > 1:
            self._start(1)
            before = -1
            while not self._ended.wait(PATIENCE) and before != self._left:
                before = self._left
            if not self._ended.is_set():
                self._start(min(len(calls), THREADS) - 1)

    def finish(self) -> list[Any]:
        """The answers, once all are there.

        Raises:
            Whatever the first call to fail raised; `answers` holds what the others gave.
        """
        if len(self._calls) == 1:
            self._work()
        elif self._calls:
            self._ended.wait()
        if self._error is not None:
            raise self._error
        return self.answers

    def _start(self, count: int) -> None:
        for _ in range(count):
            context = copy_context()
            threading.Thread(target=context.run, args=(self._work,), daemon=True).start()

    def _work(self) -> None:
        for i in self._next:
            if self._error is None:  # after a failure, what has not begun is left alone
                try:
                    self.answers[i] = self._calls[i]()
                except BaseException as error:
                    self._error = self._error or error
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._ended.set()
