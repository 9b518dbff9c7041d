"""Effects of one family, answered together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ppl.concurrent import MISSING, Calls
from ppl.journal import Record
from ppl.source import KeyBlock, begin_draws


class Group:
    """Effects of one family, answered by one batched call where there is one."""

    __slots__ = ("_finish", "address", "answers", "effects", "keys", "records", "waits")

    def __init__(self) -> None:
        self.effects: list[Any] = []
        self.keys: list[bytes] = []  # digests of the draws, in pieces
        self.answers: list[tuple[list[Any], int]] = []  # where each answer goes
        self.records: dict[int, tuple[Record, str]] = {}  # where each answer is written, and its address
        self.address: Callable[[], str] = str  # of the first effect
        self._finish: Callable[[], Sequence[Any]] = list
        self.waits = False  # for a device

    def begin(self) -> None:
        with self._noting():
            if self.keys:
                keys = KeyBlock(b"".join(self.keys))
                self._finish, self.waits = begin_draws(keys, [effect.dist for effect in self.effects])
            elif (batch := self.effects[0].batch) is not None:
                self._finish = partial(batch, [effect.args for effect in self.effects])
            else:
                calls = Calls([partial(effect.fn, *effect.args) for effect in self.effects])
                self._finish = partial(self._wait, calls)

    def finish(self) -> None:
        with self._noting():
            answers = self._finish()
        if len(answers) != len(self.effects):
            raise ValueError(
                f"{self.address()}: the batched call for {self.effects[0]!r} gave {len(answers)} answers "
                f"to {len(self.effects)} questions"
            )
        self._write(answers)
        for (place, i), answer in zip(self.answers, answers, strict=True):
            place[i] = answer

    def _wait(self, calls: Calls) -> Sequence[Any]:
        try:
            return calls.finish()
        except Exception:
            self._write(calls.answers)  # what the others gave is not lost
            raise

    def _write(self, answers: Sequence[Any]) -> None:
        books = set()
        for i, (record, address) in self.records.items():
            if answers[i] is not MISSING:
                record.write(address, self.effects[i], answers[i])
                books.add(record.journal)
        for book in books:
            book.flush()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"while answering {len(self.effects)} effects, the first at {self.address()}")
            raise


Groups = defaultdict[tuple[type, Hashable], Group]
