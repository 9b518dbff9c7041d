"""Runs of programs.

A `Run` is one execution: it is suspended at an effect, and is fully described by the log of answers it has received.
Clone, condition and resume are all "start again and feed the log back", since a program is deterministic given its
answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ppl.effects import Effect, Parallel, dropped
from ppl.program import EXIT, Enter, Program

T = TypeVar("T")
OPEN = object()  # in a log: a branch of a `parallel` that has no answer yet


class ReplayError(RuntimeError):
    """A program asked for something else than when its log was recorded: it is not deterministic."""


class Request:
    """One effect of a run that waits for its answer."""

    __slots__ = ("effect", "index", "occurrence", "run")

    def __init__(self, run: Run[Any], index: int, effect: Effect[Any], occurrence: int) -> None:
        self.run = run
        self.index = index  # which branch of a `parallel`
        self.effect = effect
        self.occurrence = occurrence

    @property
    def address(self) -> str:
        """Path of (name, occurrence) through enclosing calls, e.g. `solve/step:3`; occurrence 0 is not shown."""
        return _address(self.run.scope, self.effect.name, self.occurrence)

    def answer(self, value: Any) -> None:
        """Give the answer; the run goes on to its next effect once nothing else is open."""
        run = self.run
        if run.pending is self:
            effect = self.effect
            run.pending = None
            run.log += (run.label(effect.name), effect.kind, value)
            run._advance(value)
        else:
            run.log[-1][3 * self.index + 2] = value
            run._close(self.index, value)


class Batch:
    """The effects of a `parallel` without programs, all open: answered at once by `Run.answer_batch`."""

    __slots__ = ("effect", "occurrences", "run")

    def __init__(self, run: Run[Any], effect: Parallel, occurrences: list[int]) -> None:
        self.run = run
        self.effect = effect
        self.occurrences = occurrences

    def address(self, index: int) -> str:
        """As `Request.address`, of one branch."""
        return _address(self.run.scope, self.effect.branches[index].name, self.occurrences[index])


class Run(Generic[T]):
    """One execution of a program, suspended until its `requests()` are answered.

    `log` is a flat list of (name, kind, answer), three items an effect: so small because thousands of runs keep
    theirs. `kind` is what replay compares (see `Effect.kind`). The answer of a `Parallel` is again such a list, three
    items a branch: `OPEN` where an effect has no answer yet, the log of the branch where that is a program.
    `Run(program, log)` replays a log, complete or not.

    `pending` is the one open request outside a `Parallel`; `batch` stands for those of a `Parallel` of effects alone,
    until `requests()` asks for them one by one.

    Raises:
        ReplayError: on replay, an effect differs from the recorded one.
        TypeError: the program awaited something else than an effect or a program, or dropped an effect.
        ValueError: the name of a site contains `/` or `:`, which separate the parts of an address.
    """

    __slots__ = (
        "_answers", "_branches", "_counts", "_outer", "_parent", "_send", "_waiting", "batch",
        "done", "log", "pending", "program", "scope", "value",
    )  # fmt: skip

    def __init__(
        self,
        program: Program[T],
        log: Sequence[Any] = (),
        *,
        _scope: str | None = None,
        _parent: tuple[Run[Any], int] | None = None,
    ) -> None:
        if not isinstance(program, Program):
            raise TypeError(f"expected a program (what calling a @ppl.program function gives), not {program!r}")
        self.program = program
        self.log: list[Any] = []
        self.done = False
        self.value: T | None = None
        self.scope = f"{program.name}/" if _scope is None else _scope
        self._outer: list[tuple[str, dict[str, int]]] = []  # scopes entered by awaiting sub-programs
        self._counts: dict[str, int] = {}
        self._parent = _parent
        self.pending: Request | None = None
        self.batch: Batch | None = None
        self._branches: list[Request | Run[Any] | None] = []
        self._answers: list[Any] = []  # of the branches of the open `parallel`
        self._waiting = 0  # branches still open
        self._send = program.start().send
        self._advance(None)
        if log:
            self._replay(log)

    def __del__(self) -> None:
        if hasattr(self, "_send"):
            known = len(dropped)
            with suppress(RuntimeError):  # of a program that awaits in a `finally`: nobody is left to answer
                self._send.__self__.close()
            del dropped[known:]  # what a discarded run had made, and would have awaited later, is not forgotten

    def requests(self) -> list[Request]:
        """The effects that wait for an answer: one, or one per open branch of a `parallel`; none when done."""
        if self.pending is not None:
            return [self.pending]
        if self.batch is not None:
            self._open(self.batch)
        out: list[Request] = []
        for branch in self._branches:
            if isinstance(branch, Request):
                out.append(branch)
            elif branch is not None:
                out.extend(branch.requests())
        return out

    def result(self) -> T:
        """What the program returned.

        Raises:
            RuntimeError: it has not returned yet.
        """
        if not self.done:
            raise RuntimeError(f"{self.program!r} has not returned: {len(self.requests())} requests are open")
        return self.value  # pyright: ignore[reportReturnType]

    def clone(self) -> Run[T]:
        """An independent run at the same point, by replay. A finished run is its own clone."""
        return self if self.done else Run(self.program, self.log)

    def answer_batch(self, answers: list[Any]) -> None:
        """The answers of the whole `batch`, in order."""
        batch = self.batch
        assert batch is not None
        branches = batch.effect.branches
        slots: list[Any] = [None] * (3 * len(branches))
        slots[::3], slots[1::3] = [b.name for b in branches], [b.kind for b in branches]  # pyright: ignore[reportAttributeAccessIssue]
        slots[2::3] = answers
        self.log += (self.label(batch.effect.name), Parallel, slots)
        self.batch = None
        self._advance(answers)

    def label(self, name: str) -> str:
        """The name under which the log holds an effect of the current scope."""
        return self.scope + name if self._outer else name

    def _close(self, index: int, value: Any) -> None:
        """Branch `index` of the open `parallel` has its answer; after the last one the run goes on."""
        self._branches[index] = None
        self._answers[index] = value
        self._waiting -= 1
        if not self._waiting:
            self._advance(self._answers)

    def _advance(self, answer: Any) -> None:
        """Send the answer, and go on to the next effect that waits for one."""
        effect = self._next(answer)
        while type(effect) is Parallel:
            if not self._fork(effect):
                return
            effect = self._next(self._answers)
        if effect is not None:
            self.pending = Request(self, 0, effect, self._count(effect.name))

    def _next(self, answer: Any) -> Effect[Any] | None:
        """Send the answer and go on to the next effect; None when the program returns."""
        known = len(dropped)
        while True:
            try:
                effect = self._send(answer)
            except StopIteration as stop:
                self._check_dropped(known)
                if isinstance(stop.value, Effect | Program):
                    raise TypeError(f"{self.scope[:-1]} returned {stop.value!r}: did you forget `await`?") from None
                self.done, self.value = True, stop.value
                if self._parent is not None:
                    run, index = self._parent
                    run._close(index, stop.value)
                return None
            except Exception as error:
                del dropped[known:]
                error.add_note(f"raised in {self.scope[:-1]}, after {len(self.log) // 3} answered effects")
                raise
            if len(dropped) > known:
                self._check_dropped(known)
            if isinstance(effect, Effect):
                return effect
            answer = self._enter_or_exit(effect)

    def _count(self, name: str) -> int:
        """How often the name has been used in this scope; counts this use."""
        counts = self._counts
        if name in counts:
            counts[name] += 1
            return counts[name]
        if not isinstance(name, str):
            raise TypeError(f"{self.scope[:-1]}: the name of a site must be a string, not {name!r}")
        if "/" in name or ":" in name:
            raise ValueError(f"{self.scope}{name}: the name of a site must not contain '/' or ':'")
        counts[name] = 0
        return 0

    def _enter_or_exit(self, signal: Any) -> None:
        if type(signal) is Enter:
            scope = _address(self.scope, signal.name, self._count(signal.name)) + "/"
            self._outer.append((self.scope, self._counts))
            self.scope, self._counts = scope, {}
        elif signal is EXIT:
            self.scope, self._counts = self._outer.pop()
        else:
            raise TypeError(
                f"{self.scope[:-1]} awaited {signal!r}: a program may await effects (sample, factor, call, ...) and "
                "other programs only; wrap other work in call(...)"
            )

    def _check_dropped(self, known: int) -> None:
        if names := ", ".join(dropped[known:]):
            del dropped[known:]
            raise TypeError(f"{self.scope[:-1]}: {names} was made but never awaited")

    def _fork(self, effect: Parallel) -> bool:
        """Open the branches of a `parallel`; true if there is nothing to wait for."""
        batch = Batch(self, effect, [self._count(branch.name) for branch in effect.branches])
        if effect.programs or not effect.branches:
            return self._open(batch)
        self.batch = batch
        return False

    def _open(self, batch: Batch) -> bool:
        """Make a request of each effect and a run of each program; true if all programs have returned at once."""
        effect, self.batch = batch.effect, None
        count = len(effect.branches)
        slots: list[Any] = []
        branches: list[Request | Run[Any] | None] = [None] * count
        self.log += (self.label(effect.name), Parallel, slots)
        # One more than there are: a branch that returns at once must not send this run on.
        self._branches, self._answers, self._waiting = branches, [None] * count, count + 1
        for index, (branch, occurrence) in enumerate(zip(effect.branches, batch.occurrences, strict=True)):
            if isinstance(branch, Effect):
                branches[index] = Request(self, index, branch, occurrence)
                slots += (branch.name, branch.kind, OPEN)
            else:
                run = Run(branch, _scope=_address(self.scope, branch.name, occurrence) + "/", _parent=(self, index))
                branches[index] = None if run.done else run
                slots += (branch.name, Program, run.log)
        self._waiting -= 1
        return not self._waiting

    def _replay(self, log: Sequence[Any]) -> None:
        """Feed the answers of a log, comparing what was asked with what is asked now."""
        for at in range(0, len(log), 3):
            name, kind, answer = log[at], log[at + 1], log[at + 2]
            request = self.pending
            if request is not None:
                effect = request.effect
                if self.label(effect.name) != name or effect.kind != kind:
                    raise _replay_error(request.address, self.label(effect.name), effect.kind, name, kind)
                request.answer(answer)
                continue
            if self.batch is not None and kind is Parallel:
                self._open(self.batch)
            if len(self.log) == at or self.log[at] != name or kind is not Parallel:
                now = "the program returned" if self.done else "the program asks for a parallel"
                raise ReplayError(f"{self.scope}{name}: {now} where {_kind_name(kind)} was recorded")
            # The parallel is open here, or its programs have returned at once and the run is past it already.
            self._replay_branches(answer, self.log[at + 2], at + 3 == len(self.log))

    def _replay_branches(self, recorded: Sequence[Any], slots: Sequence[Any], is_open: bool) -> None:
        if len(recorded) != len(slots):
            raise ReplayError(
                f"{self.scope[:-1]}: replay met a parallel of {len(slots) // 3} where one of {len(recorded) // 3} was "
                "recorded"
            )
        branches = list(self._branches) if is_open else []  # the last answer closes them all
        for index in range(0, len(slots), 3):
            name, kind, answer = recorded[index : index + 3]
            if slots[index] != name or slots[index + 1] != kind:
                raise _replay_error(self.scope + slots[index], slots[index], slots[index + 1], name, kind)
            branch = branches[index // 3] if is_open else None
            if isinstance(branch, Run):
                branch._replay(answer)
            elif branch is not None and answer is not OPEN:
                branch.answer(answer)


def _address(scope: str, name: str, occurrence: int) -> str:
    return f"{scope}{name}:{occurrence}" if occurrence else scope + name


def _replay_error(address: str, name: str, kind: Any, recorded_name: str, recorded_kind: Any) -> ReplayError:
    return ReplayError(
        f"{address}: replay met {name!r} ({_kind_name(kind)}) where {recorded_name!r} ({_kind_name(recorded_kind)}) "
        "was recorded; a program must be deterministic given its answers: put random or outside work into call(...)"
    )


def _kind_name(kind: Any) -> str:
    if isinstance(kind, tuple):
        return f"{kind[0].__name__} of log weight {kind[1]}"
    return kind.__name__ if isinstance(kind, type) else f"Factor of log weight {kind}"
