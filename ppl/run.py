"""Runs of programs.

A `Run` is one execution: it is suspended at an effect, and is fully described by the log of answers it has received.
Clone, condition and resume are all "start again and feed the log back", since a program is deterministic given its
answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ppl.effects import Effect, Parallel, Scan
from ppl.loop import Loop
from ppl.program import EXIT, Enter, ForgottenAwait, Program, dropped

T = TypeVar("T")
Visit = Callable[[str, Effect[Any], Any, "Run[Any]"], None]  # gets address, effect, logged answer and run
OPEN = object()  # in a log: a branch of a `parallel` that has no answer yet


class ReplayError(RuntimeError):
    """A program asked for something else than when its log was recorded: it is not deterministic."""


class Request:
    """One effect of a run that waits for its answer."""

    __slots__ = ("effect", "index", "occurrence", "run")

    def __init__(self, run: Run[Any], index: int | None, effect: Effect[Any], occurrence: int) -> None:
        self.run = run
        self.index = index  # which branch of a `parallel`; None: the effect stands alone
        self.effect = effect
        self.occurrence = occurrence

    @property
    def address(self) -> str:
        """Path of (name, occurrence) through enclosing calls, e.g. `solve/step:3`; occurrence 0 is not shown."""
        return address_of(self.run.scope, self.effect.name, self.occurrence)

    def answer(self, value: Any) -> None:
        """Give the answer; the run goes on to its next effect once nothing else is open."""
        run, index = self.run, self.index
        if index is None:
            run.answer(value)
        else:
            run.log[-1][3 * index + 2] = value
            run.close(index, value[0] if self.effect.weighted else value)


class Batch:
    """The draws and calls of a `parallel` of nothing else, all open: answered at once by `Run.answer_batch`."""

    __slots__ = ("effect", "occurrences", "run")

    def __init__(self, run: Run[Any], effect: Parallel, occurrences: list[int]) -> None:
        self.run = run
        self.effect = effect
        self.occurrences = occurrences

    def address(self, index: int) -> str:
        """As `Request.address`, of one branch."""
        return address_of(self.run.scope, self.effect.branches[index].name, self.occurrences[index])


class Run(Generic[T]):
    """One execution of a program, suspended until its `requests()` are answered.

    `log` is a flat list of (name, kind, answer), three items an effect: so small because thousands of runs keep
    theirs. `kind` is what replay compares (see `Effect.kind`). The answer of a `Parallel` is again such a list, three
    items a branch: `OPEN` where an effect has no answer yet, the log of the branch where that is a program. The
    answer of a `Scan` is a `Loop`. `Run(program, log)` replays a log, complete or not.

    `effect` is the one open effect outside a `Parallel`; `batch` stands for those of a `Parallel` of draws and calls
    alone, until `requests()` asks for them one by one; `loop` is the open `Scan`.

    Raises:
        ReplayError: on replay, an effect differs from the recorded one.
        TypeError: the program awaited something else than an effect or a program, dropped an effect, or changed a
            value that its clones share.
        ValueError: the name of a site contains `/` or `:`, which separate the parts of an address.
    """

    __slots__ = (
        "_answers", "_branches", "_counts", "_held", "_outer", "_parent", "_send", "_waiting", "batch", "done", "effect",
        "log", "loop", "occurrence", "program", "scope", "twist_scope", "value",
    )  # fmt: skip

    def __init__(
        self,
        program: Program[T],
        log: Sequence[Any] = (),
        visit: Visit | None = None,
        *,
        _scope: str | None = None,
        _twist_scope: tuple[int, str] = (0, ""),
        _parent: tuple[Run[Any], int] | None = None,
    ) -> None:
        if not isinstance(program, Program):
            raise TypeError(f"expected a program (what calling a @ppl.program function gives), not {program!r}")
        self.program = program
        self.log: list[Any] = []
        self.done = False
        self.value: T | None = None
        self.scope = f"{program.name}/" if _scope is None else _scope
        self.twist_scope = _twist_scope
        self._outer: list[tuple[str, dict[str, int]]] = []  # scopes entered by awaiting sub-programs
        self._counts: dict[str, int] = {}
        self._parent = _parent
        self.effect: Effect[Any] | None = None
        self.occurrence = 0
        self.batch: Batch | None = None
        self.loop: Loop | None = None
        self._branches: Sequence[Request | Run[Any] | None] = ()
        self._answers: list[Any] = []  # of the branches of the open `parallel`
        self._waiting = 0  # branches still open
        # A replay that goes to a later step of a `scan` need not make the first.
        self._held = bool(log) and visit is None and log[1] is Scan
        if program.shared:
            program.check_arguments()
        self._send = program.start().send
        self._advance(None)
        if log:
            self.replay(log, visit)

    def __del__(self) -> None:
        if hasattr(self, "_send"):
            known = len(dropped)
            with suppress(RuntimeError):  # of a program that awaits in a `finally`: nobody is left to answer
                self._send.__self__.close()
            del dropped[known:]  # what a discarded run had made, and would have awaited later, is not forgotten

    @property
    def address(self) -> str:
        """Of the one open effect: path of (name, occurrence) through enclosing calls, e.g. `solve/step:3`."""
        assert self.effect is not None
        return address_of(self.scope, self.effect.name, self.occurrence)

    @property
    def focus(self) -> Run[Any]:
        """The run that asks: this one, or that of the current step of its open `scan`."""
        run = self
        while run.loop is not None:
            assert run.loop.run is not None
            run = run.loop.run
        return run

    def requests(self) -> list[Request]:
        """The effects that wait for an answer: one, or one per open branch of a `parallel`; none when done."""
        if self.effect is not None:
            return [Request(self, None, self.effect, self.occurrence)]
        if self.loop is not None:
            return self.focus.requests()
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

    def answer(self, value: Any) -> None:
        """The answer of the one open effect; the run goes on to its next one."""
        effect = self.effect
        assert effect is not None
        name = effect.name
        self.log += (self.scope + name if self._outer else name, effect.kind, value)
        if effect.weighted:
            value = value[0]
        self.effect = None
        self._advance(value)

    def answer_batch(self, answers: list[Any]) -> None:
        """The answers of the whole `batch`, in order."""
        batch = self.batch
        assert batch is not None
        branches = batch.effect.branches
        slots: list[Any] = [None] * (3 * len(branches))
        slots[::3], slots[1::3] = [b.name for b in branches], [b.kind for b in branches]  # pyright: ignore[reportAttributeAccessIssue]
        slots[2::3] = answers
        self.log += (self._label(batch.effect.name), Parallel, slots)
        self.batch = None
        self._advance(answers)

    def close(self, index: int, value: Any) -> None:
        """Branch `index` of the open `parallel`, or the step of the open `scan`, has ended."""
        if self.loop is not None:
            self.loop.ended(value)
            if self._iterate():
                self._advance(self._leave())
            return
        self._branches[index] = None  # pyright: ignore[reportIndexIssue]
        self._answers[index] = value
        self._waiting -= 1
        if not self._waiting:
            self._advance(self._answers)

    def _advance(self, answer: Any) -> None:
        """Send the answer, and go on to the next effect that waits for one."""
        known = len(dropped)
        while True:
            try:
                effect = self._send(answer)
            except StopIteration as stop:
                if len(dropped) > known:
                    self._check_dropped(known)
                self._return(stop.value)
                return
            except Exception as error:
                del dropped[known:]
                error.add_note(f"raised in {self.scope[:-1]}, after {len(self.log) // 3} answered effects")
                raise
            if len(dropped) > known:
                self._check_dropped(known)
            if not isinstance(effect, Effect):
                answer = self._enter_or_exit(effect)
                continue
            kind = type(effect)
            if kind is Parallel:
                if not self._fork(effect):  # pyright: ignore[reportArgumentType]
                    return
                answer = self._answers
            elif kind is Scan:
                if not self._begin_loop(effect):  # pyright: ignore[reportArgumentType]
                    return
                answer = self._leave()
            else:
                name, counts = effect.name, self._counts
                if name in counts:
                    self.occurrence = counts[name] = counts[name] + 1
                else:
                    self.occurrence = self._count(name)
                self.effect = effect
                return

    def _return(self, value: Any) -> None:
        if isinstance(value, Effect | Program):
            raise TypeError(f"{self.scope[:-1]} returned {value!r}: did you forget `await`?") from None
        self.done, self.value = True, value
        if self.program.shared:
            self.program.check_arguments()
        if self._parent is not None:
            run, index = self._parent
            run.close(index, value)

    def _label(self, name: str) -> str:
        """The name under which the log holds an effect of the current scope."""
        return self.scope + name if self._outer else name

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
            scope = address_of(self.scope, signal.name, self._count(signal.name)) + "/"
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
        lost = dropped[known:]
        del dropped[known:]
        if effects := ", ".join(name for name in lost if not name.startswith("<")):
            raise TypeError(f"{self.scope[:-1]}: {effects} was made but never awaited")
        warnings.warn(f"{self.scope[:-1]}: {', '.join(lost)} was made but never awaited", ForgottenAwait, stacklevel=2)

    # `parallel`

    def _fork(self, effect: Parallel) -> bool:
        """Open the branches of a `parallel`; true if there is nothing to wait for."""
        counts, occurrences = self._counts, list[int]()
        for branch in effect.branches:
            name = branch.name
            if name in counts:
                count = counts[name] = counts[name] + 1
            else:
                count = self._count(name)
            occurrences.append(count)
        batch = Batch(self, effect, occurrences)
        if not effect.simple or not occurrences:
            return self._open(batch)
        self.batch = batch
        return False

    def _open(self, batch: Batch) -> bool:
        """Make a request of each effect and a run of each program; true if all programs have returned at once."""
        effect, self.batch = batch.effect, None
        count = len(effect.branches)
        slots: list[Any] = []
        branches: list[Request | Run[Any] | None] = [None] * count
        self.log += (self._label(effect.name), Parallel, slots)
        # One more than there are: a branch that returns at once must not send this run on.
        self._branches, self._answers, self._waiting = branches, [None] * count, count + 1
        for index, (branch, occurrence) in enumerate(zip(effect.branches, batch.occurrences, strict=True)):
            if isinstance(branch, Effect):
                branches[index] = Request(self, index, branch, occurrence)
                slots += (branch.name, branch.kind, OPEN)
            else:
                run = Run(
                    branch,
                    _scope=address_of(self.scope, branch.name, occurrence) + "/",
                    _twist_scope=self.twist_scope,
                    _parent=(self, index),
                )
                branches[index] = None if run.done else run
                slots += (branch.name, Program, run.log)
        self._waiting -= 1
        return not self._waiting

    # `scan`

    def _begin_loop(self, effect: Scan[Any, Any]) -> bool:
        """Start the first step; true if there is nothing to wait for."""
        self.loop = Loop(effect)
        self.log += (self._label(effect.name), Scan, self.loop)
        return not self._held and self._iterate()

    def _iterate(self) -> bool:
        """Start steps until one waits for an answer; true if there is no further step."""
        loop = self.loop
        assert loop is not None
        while not loop.over:
            program = loop.program(self.scope)
            occurrence = self._count(program.name)
            if loop.first is None:
                loop.first, loop.name = occurrence, program.name
            occurrence = self._counts[program.name] = loop.first + loop.count  # a replay leaves steps out
            scope = address_of(self.scope, program.name, occurrence) + "/"
            length, before = self.twist_scope
            # For twists all steps are one scope, which is no other's: no address has a star in it.
            own = f"{before}{self.scope[length:]}{address_of('', program.name, loop.first)}*/"
            run = Run(program, _scope=scope, _twist_scope=(len(scope), own))
            loop.log = run.log
            if not run.done:
                run._parent = self, 0
                loop.run = run
                return False
            loop.ended(run.value)
        return True

    def _leave(self) -> tuple[Any, list[Any]]:
        """The answer of the loop that is over."""
        loop, self.loop = self.loop, None
        assert loop is not None
        return loop.carry, loop.outputs()

    # replay

    def replay(self, log: Sequence[Any], visit: Visit | None = None) -> None:
        """Feed the answers of a log, comparing what was asked with what is asked now."""
        for at in range(0, len(log), 3):
            name, kind, answer = log[at], log[at + 1], log[at + 2]
            self._held = visit is None and at + 4 < len(log) and log[at + 4] is Scan
            effect = self.effect
            if effect is not None and len(self.log) == at:
                if self._label(effect.name) != name or effect.kind != kind:
                    raise _replay_error(self.address, self._label(effect.name), effect.kind, name, kind)
                if visit is not None:
                    visit(self.address, effect, answer, self)
                self.answer(answer)
                continue
            if self.batch is not None and kind is Parallel:
                self._open(self.batch)
            if len(self.log) == at or self.log[at] != name or self.log[at + 1] is not kind:
                now = "the program returned" if self.done else "the program asks for a parallel or a scan"
                raise ReplayError(f"{self.scope}{name}: {now} where {_kind_name(kind)} was recorded")
            # What was recorded is open here, or has ended at once and the run is past it already.
            is_open = at + 3 == len(self.log) and self.effect is None and not self.done
            if kind is Parallel:
                self._replay_branches(answer, self.log[at + 2], is_open, visit)
            elif is_open:
                self._replay_loop(answer, visit)
            elif self.log[at + 2].count != answer.count:
                raise ReplayError(f"{self.scope[:-1]}: the scan ended otherwise than it did when recorded")

    def _replay_loop(self, recorded: Loop, visit: Visit | None) -> None:
        loop = self.loop
        assert loop is not None
        if visit is not None:  # visits every step
            for log in [*recorded.logs(), *([] if recorded.over else [recorded.log])]:
                if self.loop is not loop:
                    raise ReplayError(f"{self.scope[:-1]}: the scan ended earlier than it did when recorded")
                if loop.run is not None:
                    loop.run.replay(log, visit)
            return
        if loop.run is None or recorded.count:
            loop.jump(recorded, self.scope)
            if self._iterate():
                self._advance(self._leave())
                return
        assert loop.run is not None
        loop.run.replay(recorded.log)

    def _replay_branches(
        self, recorded: Sequence[Any], slots: Sequence[Any], is_open: bool, visit: Visit | None
    ) -> None:
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
                branch.replay(answer, visit)
            elif kind is Program:
                if len(answer) != len(slots[index + 2]):
                    raise ReplayError(f"{self.scope}{name}: the program returned where more was recorded")
            elif branch is not None and answer is not OPEN:
                if visit is not None:
                    visit(branch.address, branch.effect, answer, self)
                branch.answer(answer)


def address_of(scope: str, name: str, occurrence: int) -> str:
    """The address of a site in a scope (which ends in `/`); occurrence 0 is not shown."""
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
