"""The host driver: performs effects for real, in rounds.

In each round every run advances to the effects it waits for; these are grouped by family, over all runs and at
any nesting depth; each family is answered by one batched call. The key of a draw is folded from the seed of its own
run and its address, so the answers do not depend on what else is in the batch:
`run_many(ps, seeds)[i] == run(ps[i], seeds[i])`.
"""

from __future__ import annotations

import gc
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ppl.effects import Call, Note, Sample, Weight
from ppl.program import Program
from ppl.run import Request, Run
from ppl.source import Key, Keys, Source, Tape, begin_draws, source_of
from ppl.twists import Twists

T = TypeVar("T")
Observer = Callable[[str, Note], None]  # gets the address and the note


@dataclass(frozen=True)
class Trace(Generic[T]):
    """What one run did: its value and log weight. A run killed by a weight of zero has no value."""

    value: T | None
    log_weight: float


def run(program: Program[T], seed: int | Key | Source, observers: Sequence[Observer] = ()) -> Trace[T]:
    """Run one program; see `run_many`."""
    return run_many([program], [seed], observers)[0]


def run_many(
    programs: Iterable[Program[T]], seeds: Iterable[int | Key | Source], observers: Sequence[Observer] = ()
) -> list[Trace[T]]:
    """Run programs together, sharing batched calls; each has its own seed.

    Raises:
        ValueError: as many seeds as programs are needed.
        Whatever a program, a distribution or a call raises, with a note that names the addresses.
    """
    programs, seeds = list(programs), list(seeds)
    if len(programs) != len(seeds):
        raise ValueError(f"{len(programs)} programs but {len(seeds)} seeds: each program needs a seed of its own")
    roots = [_Root(Run(p), source_of(seed), observers) for p, seed in zip(programs, seeds, strict=True)]
    parts = [_Part(roots)]
    with _fewer_collections():
        while any(part.active for part in parts):
            if len(parts) == 1:
                parts = parts[0].split()
            for part in parts:
                part.finish()
                part.begin()
    return [Trace(root.run.value if root.log_weight > -math.inf else None, root.log_weight) for root in roots]


class _Part(Generic[T]):
    """Runs that share batches: they advance in rounds, all at once."""

    def __init__(self, roots: list[_Root[T]]) -> None:
        self.active = roots
        self._groups: list[_Group] = []

    @property
    def waits(self) -> bool:
        """Whether the open round waits for a device."""
        return any(group.waits for group in self._groups)

    def split(self) -> list[_Part[T]]:
        """Two halves, if a device is at work: while it works for one, the host advances the other."""
        if not self.waits or len(self.active) < 2:
            return [self]
        self.finish()
        middle = (len(self.active) + 1) // 2
        return [_Part(self.active[:middle]), _Part(self.active[middle:])]

    def begin(self) -> None:
        """Play rounds until one waits for a device, and leave that one unfinished.

        In a round every run advances to what it waits for, and one batched call is started for each family.
        """
        while not self.waits:
            self.finish()
            groups: Groups = defaultdict(_Group)
            for root in self.active:
                root.settle(groups)
            self.active = [root for root in self.active if root.active]
            self._groups = list(groups.values())
            for group in self._groups:
                group.begin()
            if not self.active:
                return

    def finish(self) -> None:
        """Finish the round: wait for the answers and pass them on."""
        for group in self._groups:
            group.finish()
        if self._groups:
            for root in self.active:
                root.answer()
        self._groups = []


class _Root(Generic[T]):
    """One top-level run with its weight."""

    __slots__ = ("_answers", "_grouped", "_keys", "_requests", "_twists", "log_weight", "observers", "run", "source")

    def __init__(self, run: Run[T], source: Source, observers: Sequence[Observer]) -> None:
        self.run = run
        self.source = source
        self._keys = source if isinstance(source, Keys) else None
        self._grouped = {Call, Sample} if self._keys else {Call}  # what is answered in batches
        self.observers = observers
        self.log_weight = 0.0
        self._twists = Twists()
        self._requests: list[Request] = []  # of this round; empty when the run waits for a whole batch
        self._answers: list[Any] = []

    @property
    def active(self) -> bool:
        return not self.run.done and self.log_weight > -math.inf

    def settle(self, groups: Groups) -> None:
        """Answer what needs no batch until only draws and calls are open; put those into their groups."""
        self._requests = []
        while self.active:
            batch = self.run.batch
            if batch is not None and self._grouped.issuperset(map(type, batch.effect.branches)):
                self._group(groups, batch.effect.branches, batch.address)
                return
            requests = self.run.requests()
            immediate = [request for request in requests if type(request.effect) not in self._grouped]
            for request in immediate:
                answer = self._perform(request)
                if self.log_weight == -math.inf:  # the program must not see an impossible world
                    return
                request.answer(answer)
            if not immediate:
                self._requests = requests
                self._group(groups, [request.effect for request in requests], self._address)
                return
        if self.run.done:
            self.log_weight -= self._twists.total()

    def answer(self) -> None:
        """Pass on the answers that the groups of this round have given."""
        answers, self._answers = self._answers, []
        if self._requests:
            for request, answer in zip(self._requests, answers, strict=True):
                request.answer(answer)
        elif self.active:
            self.run.answer_batch(answers)

    def _address(self, index: int) -> str:
        return self._requests[index].address

    def _group(self, groups: Groups, effects: Sequence[Any], address: Callable[[int], str]) -> None:
        answers = self._answers = [None] * len(effects)
        for i, effect in enumerate(effects):
            kind = type(effect)
            group = groups[kind, effect.family]
            if not group.effects:
                group.address = partial(address, i)
            group.effects.append(effect)
            group.answers.append((answers, i))
            if kind is Sample:
                assert self._keys is not None
                group.keys.append(self._keys.key(address(i)))

    def _perform(self, request: Request) -> Any:
        effect = request.effect
        if isinstance(effect, Weight):
            self.log_weight += self._twists.change(request)
        elif isinstance(effect, Note):
            for observer in self.observers:
                observer(request.address, effect)
        else:
            assert isinstance(effect, Sample) and isinstance(self.source, Tape)
            return self.source.draw(request.address, effect.dist)
        return None


class _Group:
    """Effects of one family, answered by one batched call where there is one."""

    __slots__ = ("_finish", "address", "answers", "effects", "keys", "waits")

    def __init__(self) -> None:
        self.effects: list[Any] = []
        self.keys: list[Key] = []  # of draws
        self.answers: list[tuple[list[Any], int]] = []  # where each answer goes
        self.address: Callable[[], str] = str  # of the first effect
        self._finish: Callable[[], Sequence[Any]] = list
        self.waits = False  # for a device

    def begin(self) -> None:
        with self._noting():
            if self.keys:
                self._finish, self.waits = begin_draws(self.keys, [effect.dist for effect in self.effects])
            elif (batch := self.effects[0].batch) is not None:
                self._finish = partial(batch, [effect.args for effect in self.effects])
            else:
                self._finish = lambda: [effect.fn(*effect.args) for effect in self.effects]

    def finish(self) -> None:
        with self._noting():
            answers = self._finish()
        if len(answers) != len(self.effects):
            raise ValueError(
                f"{self.address()}: the batched call for {self.effects[0]!r} gave {len(answers)} answers "
                f"to {len(self.effects)} questions"
            )
        for (place, i), answer in zip(self.answers, answers, strict=True):
            place[i] = answer

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"while answering {len(self.effects)} effects, the first at {self.address()}")
            raise


Groups = defaultdict[tuple[type, Hashable], _Group]


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Collect garbage less often: a round makes and drops thousands of small objects, none of them in cycles.

    At Python's default threshold, collections take as long as the runs themselves. The old one is restored.
    """
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(before[0], 100_000), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
