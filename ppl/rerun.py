"""Replay: feed a run the answers of a log, and compare what it asks for with what is recorded there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ppl.effects import Effect, Parallel, Scan
from ppl.loop import Loop
from ppl.program import Program
from ppl.request import OPEN

if TYPE_CHECKING:
    from ppl.run import Run

Visit = Callable[[str, Effect[Any], Any, "Run[Any]"], None]  # gets address, effect, logged answer and run


class ReplayError(RuntimeError):
    """A program asked for something else than when its log was recorded: it is not deterministic."""


def replay(run: Run[Any], log: Sequence[Any], visit: Visit | None = None) -> None:
    """Feed the answers of a log, comparing what was asked with what is asked now."""
    for at in range(0, len(log), 3):
        name, kind, answer = log[at], log[at + 1], log[at + 2]
        run._held = visit is None and at + 4 < len(log) and log[at + 4] is Scan
        effect = run.effect
        if effect is not None and len(run.log) == at:
            if run._label(effect.name) != name or effect.kind != kind:
                raise _replay_error(run.address, run._label(effect.name), effect.kind, name, kind)
            if visit is not None:
                visit(run.address, effect, answer, run)
            run.answer(answer)
            continue
        if run.batch is not None and kind is Parallel:
            run._open(run.batch)
        if len(run.log) == at or run.log[at] != name or run.log[at + 1] is not kind:
            now = "the program returned" if run.done else "the program asks for a parallel or a scan"
            raise ReplayError(f"{run.scope}{name}: {now} where {_kind_name(kind)} was recorded")
        # What was recorded is open here, or has ended at once and the run is past it already.
        is_open = at + 3 == len(run.log) and run.effect is None and run.batch is None and not run.done
        if kind is Parallel:
            _replay_branches(run, answer, run.log[at + 2], is_open, visit)
        elif is_open:
            _replay_loop(run, answer, visit)
        elif run.log[at + 2].count != answer.count:
            raise ReplayError(f"{run.scope[:-1]}: the scan ended otherwise than it did when recorded")


def _replay_loop(run: Run[Any], recorded: Loop, visit: Visit | None) -> None:
    loop = run.loop
    assert loop is not None
    if visit is not None:  # visits every step
        for log in [*recorded.logs(), *([] if recorded.over else [recorded.log])]:
            if not log:  # a step that asked nothing: the run is past it, and perhaps past the whole scan
                continue
            if run.loop is not loop:
                raise ReplayError(f"{run.scope[:-1]}: the scan ended earlier than it did when recorded")
            if loop.run is not None:
                loop.run.replay(log, visit)
        return
    if loop.run is None or recorded.count:
        loop.jump(recorded, run.scope)
        if recorded.count:
            run._counts[recorded.name] = recorded.first + recorded.count - 1  # pyright: ignore[reportOptionalOperand]
        if run._iterate():
            run._advance(run._leave())
            return
    assert loop.run is not None
    loop.run.replay(recorded.log)


def _replay_branches(
    run: Run[Any], recorded: Sequence[Any], slots: Sequence[Any], is_open: bool, visit: Visit | None
) -> None:
    if len(recorded) != len(slots):
        raise ReplayError(
            f"{run.scope[:-1]}: replay met a parallel of {len(slots) // 3} where one of {len(recorded) // 3} was "
            "recorded"
        )
    branches = list(run._branches) if is_open else []  # the last answer closes them all
    for index in range(0, len(slots), 3):
        name, kind, answer = recorded[index : index + 3]
        if slots[index] != name or slots[index + 1] != kind:
            raise _replay_error(run.scope + slots[index], slots[index], slots[index + 1], name, kind)
        branch: Any = branches[index // 3] if is_open else None
        if kind is Program:
            if branch is not None:
                branch.replay(answer, visit)
            elif len(answer) != len(slots[index + 2]):
                raise ReplayError(f"{run.scope}{name}: the program returned where more was recorded")
        elif branch is not None and answer is not OPEN:
            if visit is not None:
                visit(branch.address, branch.effect, answer, run)
            branch.answer(answer)


def _replay_error(address: str, name: str, kind: Any, recorded_name: str, recorded_kind: Any) -> ReplayError:
    return ReplayError(
        f"{address}: replay met {name!r} ({_kind_name(kind)}) where {recorded_name!r} ({_kind_name(recorded_kind)}) "
        "was recorded; a program must be deterministic given its answers: put random or outside work into call(...)"
    )


def _kind_name(kind: Any) -> str:
    if isinstance(kind, tuple):
        return f"{kind[0].__name__} of log weight {kind[1]}"
    return kind.__name__ if isinstance(kind, type) else f"Factor of log weight {kind}"
