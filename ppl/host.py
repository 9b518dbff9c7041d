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
from typing import Any, Generic, TypeVar

from ppl.effects import Call, Note, Sample, Weight
from ppl.program import Program, Request, Run, Twists
from ppl.source import Key, Keys, Source, Tape, draw_many, source_of

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
    roots = [_Root(Run(p), source_of(seed), observers) for p, seed in zip(programs, seeds, strict=True)]
    active: list[_Root[T]] = roots
    with _fewer_collections():
        while active:
            groups: defaultdict[tuple[type, Hashable], list[tuple[Request, Source]]] = defaultdict(list)
            for root in active:
                for request in root.settle():
                    effect = request.effect
                    groups[type(effect), effect.family].append((request, root.source))
            for (kind, _), waiting in groups.items():
                _perform(kind, waiting)
            active = [root for root in active if root.active]
    return [Trace(root.run.value if root.log_weight > -math.inf else None, root.log_weight) for root in roots]


class _Root(Generic[T]):
    """One top-level run with its weight."""

    __slots__ = ("_twists", "log_weight", "observers", "run", "source")

    def __init__(self, run: Run[T], source: Source, observers: Sequence[Observer]) -> None:
        self.run = run
        self.source = source
        self.observers = observers
        self.log_weight = 0.0
        self._twists = Twists()

    @property
    def active(self) -> bool:
        return not self.run.done and self.log_weight > -math.inf

    def settle(self) -> list[Request]:
        """Answer what needs no batch until only draws and calls are open; return those."""
        while self.active:
            requests = self.run.requests()
            waiting = [request for request in requests if not self._answer(request)]
            if len(waiting) == len(requests):
                return waiting
        if self.run.done:
            self.log_weight -= self._twists.total()
        return []

    def _answer(self, request: Request) -> bool:
        effect = request.effect
        kind = type(effect)
        if kind is Call or (kind is Sample and type(self.source) is Keys):
            return False
        answer = None
        if isinstance(effect, Weight):
            self.log_weight += self._twists.change(request)
        elif isinstance(effect, Note):
            for observer in self.observers:
                observer(request.address, effect)
        else:
            assert isinstance(effect, Sample) and isinstance(self.source, Tape)
            answer = self.source.draw(request.address, effect.dist)
        request.answer(answer)
        return True


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


def _perform(kind: type, waiting: list[tuple[Request, Source]]) -> None:
    """Answer requests of one family by one batched call where there is one."""
    effects: list[Any] = [request.effect for request, _ in waiting]
    try:
        if kind is Sample:
            keys = [source.key(request.address) for request, source in waiting]  # pyright: ignore[reportAttributeAccessIssue]
            answers: Sequence[Any] = draw_many(keys, [effect.dist for effect in effects])
        elif effects[0].batch is not None:
            answers = effects[0].batch([effect.args for effect in effects])
        else:
            answers = [effect.fn(*effect.args) for effect in effects]
    except Exception as error:
        addresses = [request.address for request, _ in waiting]
        error.add_note(f"while answering {len(addresses)} effects, the first at {addresses[0]}")
        raise
    if len(answers) != len(waiting):
        raise ValueError(
            f"{waiting[0][0].address}: the batched call for {effects[0]!r} gave {len(answers)} answers "
            f"to {len(waiting)} questions"
        )
    for (request, _), answer in zip(waiting, answers, strict=True):
        request.answer(answer)
