"""Runs of programs.

A `Run` is one execution: it is suspended at an effect, and is fully described by the log of answers it has received.
Clone, condition and resume are all "start again and feed the log back", since a program is deterministic given its
answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ppl.effects import Effect, Parallel, Scan
from ppl.loop import Loop
from ppl.program import EXIT, Enter, ForgottenAwait, Program, dropped
from ppl.request import OPEN, Batch, Request, address_of
from ppl.rerun import Visit, replay

T = TypeVar("T")


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
        "_answers", "_branches", "_counts", "_held", "_outer", "_parent", "_send", "_waiting", "batch", "done",
        "effect", "log", "loop", "occurrence", "program", "scope", "twist_scope", "value",
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
        """Feed the answers of a log, comparing what was asked with what is asked now; `visit` sees each of them."""
        replay(self, log, visit)
