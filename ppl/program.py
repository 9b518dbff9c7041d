"""Programs, and runs of programs.

A `Program` is a description that can be started any number of times. A `Run` is one execution: it is suspended at
an effect, and is fully described by the log of answers it has received. Clone, condition and resume are all
"start again and feed the log back", since a program is deterministic given its answers.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from ppl.effects import Effect, Factor, Parallel, Twist, dropped

T = TypeVar("T")
P = ParamSpec("P")


class ReplayError(RuntimeError):
    """A program asked for something else than when its log was recorded: it is not deterministic."""


class Program(Generic[T]):
    """An async function with its arguments: starts as often as one likes, `await`s inside other programs."""

    __slots__ = ("args", "fn", "kwargs", "name")

    def __init__(
        self, name: str, fn: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.name = name
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def start(self) -> Coroutine[Any, Any, T]:
        """A fresh coroutine of the program's body."""
        return self.fn(*self.args, **self.kwargs)

    def __await__(self) -> Generator[Any, Any, T]:
        yield _Enter(self.name)
        try:
            value = yield from self.start().__await__()
        except GeneratorExit:
            raise
        except BaseException:
            yield _EXIT
            raise
        yield _EXIT
        return value

    def __repr__(self) -> str:
        return f"<program {self.name}>"


def program(fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Program[T]]:
    """Make an `async def` a generation program: calling it gives a `Program`, which does not run yet.

    Raises:
        TypeError: `fn` is not an `async def` function.
    """
    if not inspect.iscoroutinefunction(fn):
        raise TypeError(f"@program needs an `async def` function, not {fn!r}")

    @functools.wraps(fn)
    def make(*args: P.args, **kwargs: P.kwargs) -> Program[T]:
        return Program(fn.__name__, fn, args, kwargs)

    return make


class _Enter:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_EXIT = object()
OPEN = object()  # in a log: a branch of a `parallel` that has no answer yet


def _scope(outer: str, name: str, occurrence: int) -> str:
    return f"{outer}{name}:{occurrence}/" if occurrence else f"{outer}{name}/"


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
        suffix = f":{self.occurrence}" if self.occurrence else ""
        return f"{self.run.scope}{self.effect.name}{suffix}"

    def answer(self, value: Any) -> None:
        """Give the answer; the run goes on to its next effect once nothing else is open."""
        run = self.run
        if run.pending is self:
            effect = self.effect
            run.pending = None
            run.log += (effect.name, effect.kind, value)
            run._resume(value)
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
        name, occurrence = self.effect.branches[index].name, self.occurrences[index]
        return f"{self.run.scope}{name}:{occurrence}" if occurrence else f"{self.run.scope}{name}"


class Twists:
    """The twists that stand on one run, by scope and name: a new value replaces the old one."""

    __slots__ = ("_standing",)

    def __init__(self) -> None:
        self._standing: dict[str, float] = {}

    def copy(self) -> Twists:
        """The same twists, standing on another run."""
        other = Twists()
        other._standing = dict(self._standing)
        return other

    def change(self, request: Request) -> float:
        """By how much a factor or twist changes the log weight."""
        effect = request.effect
        if type(effect) is Factor:
            return effect.log_weight
        assert isinstance(effect, Twist)
        key = request.run.scope + effect.name
        change = effect.log_weight - self._standing.get(key, 0.0)
        if effect.log_weight > -math.inf:  # a path killed by -inf stays dead: nothing is divided out again
            self._standing[key] = effect.log_weight
        return change

    def total(self) -> float:
        """What is divided out when the run returns."""
        return sum(self._standing.values())


class Run(Generic[T]):
    """One execution of a program, suspended until its `requests()` are answered.

    `log` is a flat list of (name, kind, answer), three items an effect: so small because thousands of runs keep theirs.
    `kind` is what replay compares (see `Effect.kind`). The answer of a `Parallel` is again such a list, an
    item a branch, with `OPEN` where there is no answer yet and the log of the branch where that is a program.
    `Run(program, log)` replays a log, complete or not. `pending` is the one open request, None inside a `Parallel`.

    Raises:
        ReplayError: on replay, an effect differs from the recorded one.
        TypeError: the program awaited something else than an effect or a program, or dropped an effect.
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
        self._resume(None)
        if log:
            self._replay(log)

    def requests(self) -> list[Request]:
        """The effects that wait for an answer: one, or one per open branch of a `parallel`; none when done."""
        if self.pending is not None:
            return [self.pending]
        if self.batch is not None:
            self._open(self.batch)
        out: list[Request] = []
        for branch in self._branches:
            if type(branch) is Request:
                out.append(branch)
            elif branch is not None:
                out.extend(branch.requests())  # pyright: ignore[reportAttributeAccessIssue]
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
        self.log += (batch.effect.name, batch.effect.kind, slots)
        self.batch = None
        self._resume(answers)

    def _close(self, index: int, value: Any) -> None:
        """Branch `index` of the open `parallel` has its answer; after the last one the run goes on."""
        self._branches[index] = None
        self._answers[index] = value
        self._waiting -= 1
        if not self._waiting:
            self._resume(self._answers)

    def _resume(self, answer: Any) -> None:
        """Send the answer and open the next effect for its answer."""
        effect = self._next(answer)
        if type(effect) is Parallel:
            self._fork(effect)
        elif effect is not None:
            counts, name = self._counts, effect.name  # inlined _count
            counts[name] = (occurrence := counts.get(name, 0)) + 1
            self.pending = Request(self, 0, effect, occurrence)

    def _next(self, answer: Any) -> Effect[Any] | None:
        """Send the answer and go on to the next effect; None when the program returns."""
        while True:
            try:
                effect = self._send(answer)
            except StopIteration as stop:
                self._check_dropped()
                self.done, self.value = True, stop.value
                if self._parent is not None:
                    run, index = self._parent
                    run._close(index, stop.value)
                return None
            except Exception as error:
                dropped.clear()
                error.add_note(f"raised in {self.scope[:-1]}, after {len(self.log) // 3} answered effects")
                raise
            if dropped:
                self._check_dropped()
            if isinstance(effect, Effect):
                return effect
            answer = self._enter_or_exit(effect)

    def _count(self, name: str) -> int:
        occurrence = self._counts.get(name, 0)
        self._counts[name] = occurrence + 1
        return occurrence

    def _enter_or_exit(self, signal: Any) -> None:
        if type(signal) is _Enter:
            occurrence = self._count(signal.name)
            self._outer.append((self.scope, self._counts))
            self.scope, self._counts = _scope(self.scope, signal.name, occurrence), {}
        elif signal is _EXIT:
            self.scope, self._counts = self._outer.pop()
        else:
            raise TypeError(
                f"{self.scope[:-1]} awaited {signal!r}: a program may await effects (sample, factor, call, ...) and "
                "other programs only; wrap other work in call(...)"
            )

    def _check_dropped(self) -> None:
        if dropped:
            names = ", ".join(dropped)
            dropped.clear()
            raise TypeError(f"{self.scope[:-1]}: {names} was made but never awaited")

    def _fork(self, effect: Parallel) -> None:
        batch = Batch(self, effect, [self._count(branch.name) for branch in effect.branches])
        if effect.programs:
            self._open(batch)
        else:
            self.batch = batch
            if not effect.branches:
                self.answer_batch([])

    def _open(self, batch: Batch) -> None:
        """Make a request of each effect and a run of each program of a `parallel`."""
        effect, self.batch = batch.effect, None
        slots: list[Any] = []
        branches: list[Request | Run[Any] | None] = [None] * len(effect.branches)
        self.log += (effect.name, effect.kind, slots)
        self._branches, self._answers, self._waiting = branches, [None] * len(branches), len(branches)
        for index, (branch, occurrence) in enumerate(zip(effect.branches, batch.occurrences, strict=True)):
            if isinstance(branch, Effect):
                branches[index] = Request(self, index, branch, occurrence)
                slots += (branch.name, branch.kind, OPEN)
            else:
                run = Run(branch, _scope=_scope(self.scope, branch.name, occurrence), _parent=(self, index))
                branches[index] = None if run.done else run
                slots += (branch.name, Program, run.log)

    def _replay(self, log: Sequence[Any]) -> None:
        """Feed the answers of a log, comparing what was asked with what is asked now."""
        for at in range(0, len(log), 3):
            name, kind, answer = log[at], log[at + 1], log[at + 2]
            if (request := self.pending) is not None:
                effect = request.effect
                if effect.name != name or effect.kind != kind:
                    raise _replay_error(name, kind, request)
                self.log += (name, kind, answer)
                # As in Request.answer and _resume, but the one request object serves every effect of the log.
                effect = self._next(answer)
                if effect is not None and type(effect) is not Parallel:
                    request.effect, request.occurrence = effect, self._count(effect.name)
                    continue
                self.pending = None
                if effect is not None:
                    self._fork(effect)
            elif self.done or kind is not Parallel:
                now = "the program returned" if self.done else "the program asks for a parallel"
                raise ReplayError(f"{self.scope}{name}: {now} where {_kind_name(kind)} was recorded")
            else:
                self._replay_branches(answer)

    def _replay_branches(self, slots: Sequence[Any]) -> None:
        if self.batch is not None:
            self._open(self.batch)
        branches = list(self._branches)  # replaying the last one closes them all
        if 3 * len(branches) != len(slots):
            raise ReplayError(
                f"{self.scope[:-1]}: replay met a parallel of {len(branches)} where one of {len(slots) // 3} was "
                "recorded"
            )
        for index, branch in enumerate(branches):
            name, kind, answer = slots[3 * index : 3 * index + 3]
            if isinstance(branch, Request):
                if branch.effect.name != name or branch.effect.kind != kind:
                    raise _replay_error(name, kind, branch)
                if answer is not OPEN:
                    branch.answer(answer)
            elif branch is not None:
                branch._replay(answer)


def _replay_error(name: str, kind: Any, request: Request) -> ReplayError:
    now = request.effect
    return ReplayError(
        f"{request.address}: replay met {now.name!r} ({_kind_name(now.kind)}) where {name!r} ({_kind_name(kind)}) was "
        "recorded; a program must be deterministic given its answers: put random or outside work into call(...)"
    )


def _kind_name(kind: Any) -> str:
    return f"{kind.__name__}" if isinstance(kind, type) else f"log weight {kind}"
