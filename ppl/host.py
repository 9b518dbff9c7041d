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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, TypeVar

from ppl.effects import Call, Effect, Note, Sample, Weight
from ppl.groups import Group, Groups
from ppl.journal import Journal, Record
from ppl.program import Program
from ppl.request import Request
from ppl.run import Run
from ppl.source import Key, Keys, Source, source_of
from ppl.twists import Twists

T = TypeVar("T")
Observer = Callable[[str, Note], None]  # gets the address and the note


@dataclass(frozen=True)
class Result(Generic[T]):
    """What one run gave. A run killed by a weight of zero has no value; `killed` is the address that did it."""

    value: T | None
    log_weight: float
    """Natural log of the product of all factors, and of target over proposal for draws with a proposal."""
    killed: str | None = None
    calls: Mapping[str, int] = field(default_factory=dict, compare=False)
    """How often each `call` was performed, reward models among them, by name: for all particles together."""


def run(
    program: Program[T], seed: int | Key | Source, journal: Path | str | None = None, observers: Sequence[Observer] = ()
) -> Result[T]:
    """Run one program; see `run_many`."""
    return run_many([program], [seed], journal, observers)[0]


def run_many(
    programs: Iterable[Program[T]],
    seeds: Iterable[int | Key | Source],
    journal: Path | str | None = None,
    observers: Sequence[Observer] = (),
) -> list[Result[T]]:
    """Run programs together, sharing batched calls; each has its own seed.

    With a `journal`, every answer is appended to that file as soon as it is there. Started again, after whatever
    ended it, the same call reads the answers back and goes on: the results are those of an uninterrupted run, and no
    model is asked again for what the file holds.

    Raises:
        ValueError: as many seeds as programs are needed.
        JournalError: the file belongs to other programs, seeds or another version; names the first difference.
        Whatever a program, a distribution or a call raises, with a note that names the addresses.
    """
    return [
        Result(root.run.value if root.killed is None else None, root.log_weight, root.killed, root.calls)
        for root in play(programs, seeds, journal, observers)
    ]


def play(
    programs: Iterable[Program[T]], seeds: Iterable[int | Key | Source], journal: Path | str | None,
    observers: Sequence[Observer],
) -> list[Root[T]]:  # fmt: skip
    """`run_many`, for those who want to see the runs."""
    programs, sources = list(programs), [source_of(seed) for seed in seeds]
    if len(programs) != len(sources):
        raise ValueError(f"{len(programs)} programs but {len(sources)} seeds: each program needs a seed of its own")
    with Journal.opened(journal, programs, sources) as book, _fewer_collections():
        roots = [
            Root(Run(program), source, observers, book.record(i) if book else None)
            for i, (program, source) in enumerate(zip(programs, sources, strict=True))
        ]
        parts = [_Part(roots)]
        while any(part.active for part in parts):
            if len(parts) == 1:
                parts = parts[0].split()
            for part in parts:
                part.finish()
                part.begin()
        if book:
            book.close_all()
    return roots


class _Part(Generic[T]):
    """Runs that share batches: they advance in rounds, all at once."""

    def __init__(self, roots: list[Root[T]]) -> None:
        self.active = roots
        self._groups: list[Group] = []
        self._open = False  # a round has begun and is not finished

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
            groups: Groups = defaultdict(Group)
            for root in self.active:
                root.settle(groups)
            self.active = [root for root in self.active if root.active]
            self._groups, self._open = list(groups.values()), True
            for group in self._groups:
                group.begin()
            if not self.active:
                return

    def finish(self) -> None:
        """Finish the round: wait for the answers and pass them on."""
        for group in self._groups:
            group.finish()
        if self._open:
            for root in self.active:
                root.answer()
        self._groups, self._open = [], False


class Root(Generic[T]):
    """One top-level run with its weight."""

    __slots__ = (
        "_answers", "_keys", "_requests", "_twists", "calls", "killed", "log_weight", "observers", "record", "run",
        "source",
    )  # fmt: skip

    def __init__(self, run: Run[T], source: Source, observers: Sequence[Observer], record: Record | None) -> None:
        self.run = run
        self.source = source
        self._keys = source if isinstance(source, Keys) else None
        self.observers = observers
        self.record = record
        self.log_weight = 0.0
        self.killed: str | None = None
        self.calls = dict[str, int]()
        self._twists = Twists()
        self._requests: Sequence[Request | Run[Any]] = ()  # of this round; empty: the run waits for a whole batch
        self._answers: list[Any] = []

    @property
    def active(self) -> bool:
        return not self.run.done and self.killed is None

    def settle(self, groups: Groups) -> None:
        """Answer what needs no batch until only draws and calls are open; put those into their groups."""
        while self.active:
            run = self.run.focus
            effect = run.effect
            if effect is not None:
                if not self._settled(run):
                    self._requests = (run,)
                    self._group(groups, (effect,), self._address)
                    return
            elif run.batch is not None and self._keys:
                self._requests, batch = (), run.batch
                branches: Any = batch.effect.branches
                self._group(groups, branches, batch.address, self._keys.block(batch.address(0), len(branches)))
                return
            else:
                requests = run.requests()
                settled = [self._settled(request) for request in requests]
                if not any(settled):
                    self._requests = requests
                    self._group(groups, [request.effect for request in requests], self._address)
                    return
        if self.run.done:
            self.log_weight -= self._twists.total()

    def answer(self) -> None:
        """Pass on the answers that the groups of this round have given."""
        answers, self._answers = self._answers, []
        if not self._requests:
            if self.active:
                self.run.focus.answer_batch(answers)
            return
        for request, answer in zip(self._requests, answers, strict=True):
            effect = request.effect
            if effect is not None and effect.weighted and not self._weigh(answer[1], request):
                return
            request.answer(answer)

    def _address(self, index: int) -> str:
        return self._requests[index].address

    def _settled(self, request: Request | Run[Any]) -> bool:
        """Perform an effect that needs no batch; false if it does."""
        effect = request.effect
        kind = type(effect)
        if self.killed is not None:  # by an effect beside this one: the program must not see an impossible world
            return True
        if kind is Call or (kind is Sample and self._keys):
            return False
        answer = None
        if isinstance(effect, Weight):
            run = request.run if isinstance(request, Request) else request
            if not self._weigh(self._twists.change(effect, run), request):
                return True
        elif isinstance(effect, Note):
            for observer in self.observers:
                observer(request.address, effect)
        else:
            assert isinstance(effect, Sample) and not isinstance(self.source, Keys)
            answer = self.source.draw(request.address, effect.dist)
            if effect.weighted and not self._weigh(answer[1], request):
                return True
        request.answer(answer)
        return True

    def _weigh(self, log_weight: float, request: Request | Run[Any]) -> bool:
        """Multiply the weight; whether the run lives."""
        self.log_weight += log_weight
        if self.log_weight == -math.inf:
            self.killed = request.address
        return self.killed is None

    def _group(
        self, groups: Groups, effects: Sequence[Effect[Any]], address: Callable[[int], str], block: bytes = b""
    ) -> None:
        """Put draws and calls into their groups; `block` holds the digests of the draws' keys, if they are made."""
        answers = self._answers = [None] * len(effects)
        record, family = self.record, effects[0].family
        if block and record is None and type(effects[0]) is Sample and all(e.family is family for e in effects):
            group = groups[Sample, family]  # what follows, for all of them at once
            if not group.effects:
                group.address = partial(address, 0)
            group.effects += effects
            group.answers += zip(repeat(answers), range(len(effects)), strict=False)
            group.keys.append(block)
            return
        for i, effect in enumerate(effects):
            kind = type(effect)
            if kind is Call:
                self.calls[effect.name] = self.calls.get(effect.name, 0) + 1
            if record is not None:
                known, answers[i] = record.take(address(i), effect, partial(map, address, range(len(effects))))
                if known:
                    continue
            group = groups[kind, effect.family]
            if not group.effects:
                group.address = partial(address, i)
            group.effects.append(effect)
            group.answers.append((answers, i))
            if record is not None:
                group.records[len(group.effects) - 1] = record, address(i)
            if kind is Sample:
                assert self._keys is not None
                digest = block[16 * i : 16 * i + 16] if block else self._keys.key(address(i)).digest
                group.keys.append(digest)


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
