"""Run a program with some of its effects changed, at their addresses: what `ppl.transforms` is made of."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ppl.effects import Effect, Last, Parallel, Scan
from ppl.language import factor
from ppl.loop import pair
from ppl.program import Enter, Program
from ppl.request import address_of

T = TypeVar("T")


class Change(NamedTuple):
    """What is performed instead of an effect."""

    effect: Effect[Any]
    give: Callable[[Any], Any] = lambda value: value
    """The program's answer from the answer."""
    suspend: bool = False
    """Whether a factor of 1 follows, at which SMC can act."""


@dataclass
class Ledger:
    """What one run of an edited program has to remember."""

    addresses: set[str] = field(default_factory=set)
    """Those that have been edited."""
    withheld: float = 0.0
    """Log of the factors that have been held back."""

    def add(self, other: Ledger, value: Any) -> Any:
        """Take over what a branch remembers; gives the value back."""
        self.addresses |= other.addresses
        self.withheld += other.withheld
        return value


Edit = Callable[[str, Effect[Any], Ledger], Change | None]


async def edited(program: Program[T], edit: Edit, scope: str, ledger: Ledger) -> T:
    """The value of the program, its effects edited; `scope` is the path of its addresses, which ends in `/`."""
    send, at, answer = program.start().send, _Scope(scope), None

    def change(effect: Effect[Any], address: str) -> Change:
        changed = edit(address, effect, ledger)
        if changed is None:
            return Change(effect)
        ledger.addresses.add(address)
        effect._awaited = True
        return changed

    def branch(branch: Effect[Any] | Program[Any]) -> Change:
        address = at.address(branch.name)
        if isinstance(branch, Effect):
            return change(branch, address)
        own = Ledger()  # branches advance in any order, and are added up in theirs
        return Change(Program(branch.name, edited, (branch, edit, address + "/", own), {}), partial(ledger.add, own))  # pyright: ignore[reportArgumentType]

    while True:
        try:
            effect = send(answer)
        except StopIteration as stop:
            return stop.value
        suspend = False
        if not isinstance(effect, Effect):
            at.signal(effect)
            answer = await _Signal(effect)
        elif isinstance(effect, Parallel):
            changes = [branch(b) for b in effect.branches]
            answers = await Parallel(tuple(changed.effect for changed in changes))
            answer = [changed.give(value) for changed, value in zip(changes, answers, strict=True)]
            suspend = any(changed.suspend for changed in changes)
        elif isinstance(effect, Scan):
            answer = await _edited_scan(effect, edit, at, ledger)
        else:
            changed = change(effect, at.address(effect.name))
            answer = changed.give(await changed.effect)
            suspend = changed.suspend
        if suspend:
            await factor("~power", 0.0)


Carry = tuple[Any, frozenset[str], float, str]  # the program's; what the ledger says; the name of the steps


async def _edited_scan(effect: Scan[Any, Any], edit: Edit, at: _Scope, ledger: Ledger) -> Any:
    def step(state: Carry, index: int) -> Program[Any]:
        program = effect.program(state[0], index)
        inner = address_of(at.scope, program.name, at.counts.get(program.name, -1) + 1 + index) + "/"
        return Program(program.name, _edited_step, (program, edit, inner, state[1], state[2]), {})

    # The ledger travels in the carry: a replay does not make the steps again.
    start: Carry = (effect.carry, frozenset(), 0.0, "")
    (carry, addresses, withheld, name), outputs = await Scan(step, start, range(len(effect.xs)))
    if outputs:
        at.counts[name] = at.counts.get(name, -1) + len(outputs)
    return ledger.add(Ledger({*addresses}, withheld), (carry, outputs))


async def _edited_step(
    program: Program[Any], edit: Edit, scope: str, addresses: frozenset[str], withheld: float
) -> Any:
    ledger = Ledger({*addresses}, withheld)
    value = await edited(program, edit, scope, ledger)
    carry, output = pair(value)
    state = carry, frozenset(ledger.addresses), ledger.withheld, program.name
    return Last(state, output) if type(value) is Last else (state, output)


class _Scope:
    """Where an edited program is: the same account of names that its run keeps."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.counts: dict[str, int] = {}
        self.outer: list[tuple[str, dict[str, int]]] = []

    def address(self, name: str) -> str:
        """The address of a site of this name, which it counts."""
        self.counts[name] = self.counts.get(name, -1) + 1
        return address_of(self.scope, name, self.counts[name])

    def signal(self, signal: Any) -> None:
        """A sub-program begins or ends."""
        if type(signal) is Enter:
            inner = self.address(signal.name) + "/"
            self.outer.append((self.scope, self.counts))
            self.scope, self.counts = inner, {}
        elif self.outer:
            self.scope, self.counts = self.outer.pop()


class _Signal:
    """Passes on what is no effect."""

    def __init__(self, signal: Any) -> None:
        self.signal = signal

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.signal)
