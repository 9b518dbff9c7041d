"""What a run waits for: one effect, or a whole `parallel` of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl.effects import Effect, Parallel

if TYPE_CHECKING:
    from ppl.run import Run

OPEN = object()  # in a log: a branch of a `parallel` that has no answer yet


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


def address_of(scope: str, name: str, occurrence: int) -> str:
    """The address of a site in a scope (which ends in `/`); occurrence 0 is not shown."""
    return f"{scope}{name}:{occurrence}" if occurrence else scope + name
