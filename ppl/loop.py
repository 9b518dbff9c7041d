"""The state of a `scan`: how many steps have ended, and what they left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl.effects import Last, Scan
from ppl.program import Program, check_print, prints

if TYPE_CHECKING:
    from ppl.run import Run

Past = tuple["Past", list[Any], Any] | None  # of a step: those before it, its log, its output


class Loop:
    """One `scan` of one run.

    What has ended is a linked list that clones share, so a clone takes no longer after 2,000 steps than after one.
    """

    __slots__ = ("_marks", "carry", "count", "effect", "first", "log", "name", "over", "past", "run")

    def __init__(self, effect: Scan[Any, Any]) -> None:
        self.effect = effect
        self.carry = effect.carry
        self.count = 0  # steps that have ended
        self.over = not len(effect.xs)
        self.past: Past = None
        self.log: list[Any] = []  # of the current step
        self.run: Run[Any] | None = None  # of the current step
        self.name = ""  # of the steps
        self.first: int | None = None  # occurrence of that name at the first step
        self._marks = prints((self.carry,))

    def program(self, scope: str) -> Program[Any]:
        """The program of the next step."""
        try:
            program = self.effect.program(self.carry, self.count)
        except Exception as error:
            error.add_note(f"while making step {self.count} of a scan in {scope[:-1]}")
            raise
        if self.first is not None and program.name != self.name:
            raise TypeError(
                f"{scope[:-1]}: all steps of a scan must be calls of one program: after {self.name} came {program.name}"
            )
        return program

    def ended(self, value: Any) -> None:
        """The current step has returned `value`."""
        self.carry, output = pair(value)
        self.past = self.past, self.log, output
        self.run, self.log, self.count = None, [], self.count + 1
        self.over = self.count >= len(self.effect.xs) or type(value) is Last
        self._marks = prints((self.carry,), self.carry if isinstance(self.carry, tuple) else ())

    def jump(self, recorded: Loop, scope: str) -> None:
        """To the state of a recorded loop, the current step at its beginning."""
        for value, before in recorded._marks:
            check_print(f"{scope[:-1]}: the carry of a scan", value, before)
        self.carry, self.count, self.past = recorded.carry, recorded.count, recorded.past
        self.over, self._marks, self.run = recorded.over, recorded._marks, None
        self.name, self.first = recorded.name, recorded.first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loop) and self._state() == other._state()

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def _state(self) -> tuple[Any, ...]:
        return self.count, self.over, self.carry, self._steps(), self.log

    def logs(self) -> list[list[Any]]:
        """Of the steps that have ended, in order."""
        return [log for log, _ in self._steps()]

    def outputs(self) -> list[Any]:
        """Of the steps that have ended, in order."""
        return [output for _, output in self._steps()]

    def _steps(self) -> list[tuple[list[Any], Any]]:
        out, past = [], self.past
        while past is not None:
            past, log, output = past
            out.append((log, output))
        return out[::-1]


def pair(value: Any) -> tuple[Any, Any]:
    """What a step returned; `TypeError` unless that is a pair."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(f"a step of scan must return a pair (carry, output), not {value!r}")
    return value
