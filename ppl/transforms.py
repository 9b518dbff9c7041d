"""Programs made from programs by changing some of their draws: conditioned, intervened on, drawn from a proposal.

Each is again a program, with the addresses of the first, for any algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

from ppl.distributions import Distribution, Proposed, as_distribution
from ppl.effects import Effect, Last, Note, Parallel, Sample, Scan
from ppl.language import condition, observe
from ppl.loop import pair
from ppl.program import Enter, Program
from ppl.request import address_of
from ppl.select import select

T = TypeVar("T")
Change = tuple[Effect[Any], Callable[[Any], Any]]  # the effect to perform, and the program's answer from its answer
Edit = Callable[[str, Sample[Any]], Change | None]


def conditioned(program: Program[T], values: Mapping[str, Any]) -> Program[T]:
    """`condition(program, values)`: see there.

    Law: conditioning on a draw is observing it: `condition(p, {a: v})` means p with `observe` at a.

    Raises:
        ValueError: a key cannot be an address of the program.
    """
    addresses = _checked(program, values)

    def edit(address: str, effect: Sample[Any]) -> Change | None:
        if address not in values:
            return None
        value = values[address]
        dist = effect.dist.target if isinstance(effect.dist, Proposed) else effect.dist
        return observe(effect.name, dist, value), lambda _: value

    return Program(program.name, _start, (program, edit, addresses), {})


def intervene(program: Program[T], values: Mapping[str, Any]) -> Program[T]:
    """The program in which these addresses are set and not drawn: Pearl's `do`. Their probability does not count.

    An address that a path does not ask for changes nothing there.

    Raises:
        ValueError: a key cannot be an address of the program.
    """
    _checked(program, values)

    def edit(address: str, effect: Sample[Any]) -> Change | None:
        if address not in values:
            return None
        value = values[address]
        return Note(effect.name, {"set to": value}), lambda _: value

    return Program(program.name, _start, (program, edit, frozenset()), {})


def propose(
    program: Program[T], proposals: Mapping[str, Distribution[Any] | Callable[[Any], Distribution[Any]]]
) -> Program[T]:
    """The program in which draws come from other distributions, with weights that leave the meaning alone.

    `proposals` maps a glob of addresses (see `select`) to a distribution, or to a function that makes one of the
    program's own. The first pattern that matches counts. A proposal must be able to draw whatever the program can.

    Law: `measure(propose(p, qs)) == measure(p)`.
    """
    chosen = [(select(pattern), q) for pattern, q in proposals.items()]

    def edit(address: str, effect: Sample[Any]) -> Change | None:
        target = effect.dist.target if isinstance(effect.dist, Proposed) else effect.dist
        for selection, q in chosen:
            if address in selection:
                made = q if hasattr(q, "log_prob") else q(target)  # pyright: ignore[reportCallIssue]
                proposal = as_distribution(made, f"propose(..., {selection!r})")
                return Sample(effect.name, Proposed(target, proposal)), lambda value: value
        return None

    return Program(program.name, _start, (program, edit, frozenset()), {})


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


class _Met:
    """The addresses that have been edited."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()


class _Signal:
    """Passes on what is no effect."""

    def __init__(self, signal: Any) -> None:
        self.signal = signal

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.signal)


def _checked(program: Program[Any], values: Mapping[str, Any]) -> frozenset[str]:
    """The addresses; `ValueError` for what cannot be one of this program."""
    for address in values:
        if "*" in address or not address.startswith(f"{program.name}/"):
            raise ValueError(
                f"{address!r} is no address of {program.name}: write whole addresses like '{program.name}/x:1', as "
                "trace(...) shows them; globs are for propose and select"
            )
    return frozenset(values)


async def _start(program: Program[T], edit: Edit, needed: frozenset[str]) -> T:
    met = _Met()
    value = await _edited(program, edit, f"{program.name}/", met)
    if missing := sorted(needed - met.addresses):
        await condition(f"never asked for {missing[0].replace('/', ' ').replace(':', ' ')}", False)
    return value


async def _edited(program: Program[T], edit: Edit, scope: str, met: _Met) -> T:
    """The program, its draws edited."""
    send, at, answer = program.start().send, _Scope(scope), None

    def change(effect: Effect[Any], address: str) -> Change:
        changed = edit(address, effect) if isinstance(effect, Sample) else None
        if changed is None:
            return effect, lambda value: value
        met.addresses.add(address)
        effect._awaited = True
        return changed

    def branch(branch: Effect[Any] | Program[Any]) -> tuple[Any, Callable[[Any], Any]]:
        address = at.address(branch.name)
        if isinstance(branch, Effect):
            return change(branch, address)
        return Program(branch.name, _edited, (branch, edit, address + "/", met), {}), lambda value: value

    while True:
        try:
            effect = send(answer)
        except StopIteration as stop:
            return stop.value
        if not isinstance(effect, Effect):
            at.signal(effect)
            answer = await _Signal(effect)
        elif isinstance(effect, Parallel):
            changes = [branch(b) for b in effect.branches]
            answers = await Parallel(tuple(changed for changed, _ in changes))
            answer = [give(value) for (_, give), value in zip(changes, answers, strict=True)]
        elif isinstance(effect, Scan):
            answer = await _edited_scan(effect, edit, at, met)
        else:
            changed, give = change(effect, at.address(effect.name))
            answer = give(await changed)


async def _edited_scan(effect: Scan[Any, Any], edit: Edit, at: _Scope, met: _Met) -> Any:
    def step(state: tuple[Any, frozenset[str], str], index: int) -> Program[Any]:
        program = effect.program(state[0], index)
        inner = address_of(at.scope, program.name, at.counts.get(program.name, -1) + 1 + index) + "/"
        return Program(program.name, _edited_step, (program, edit, inner, state[1]), {})

    # What has been edited and the name of the steps travel in the carry: a replay does not make the steps again.
    start: tuple[Any, frozenset[str], str] = (effect.carry, frozenset(), "")
    (carry, edited, name), outputs = await Scan(step, start, range(len(effect.xs)))
    if outputs:
        at.counts[name] = at.counts.get(name, -1) + len(outputs)
    met.addresses |= edited
    return carry, outputs


async def _edited_step(program: Program[Any], edit: Edit, scope: str, edited: frozenset[str]) -> Any:
    met = _Met()
    value = await _edited(program, edit, scope, met)
    carry, output = pair(value)
    state = carry, edited | met.addresses, program.name
    return Last(state, output) if type(value) is Last else (state, output)
