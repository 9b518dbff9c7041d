"""Programs made from programs by changing some of their effects: conditioned, intervened on, drawn from a proposal,
of another temperature.

Each is again a program, with the addresses of the first, for any algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from ppl.distributions import Distribution, Pairs, Proposed, Raised, as_distribution
from ppl.effects import Effect, Factor, Last, Note, Parallel, Sample, Scan, Weight
from ppl.language import condition, factor, observe
from ppl.loop import pair
from ppl.program import Enter, Program
from ppl.request import address_of
from ppl.select import select

T = TypeVar("T")


class Change(NamedTuple):
    """What is performed instead of an effect."""

    effect: Effect[Any]
    give: Callable[[Any], Any] = lambda value: value
    """The program's answer from the answer."""
    suspend: bool = False
    """Whether a factor of 1 follows, at which SMC can act."""


@dataclass
class _Ledger:
    """What one run of an edited program has to remember."""

    addresses: set[str] = field(default_factory=set)
    """Those that have been edited."""
    withheld: float = 0.0
    """Log of the factors that have been held back."""

    def add(self, other: _Ledger, value: Any) -> Any:
        """Take over what a branch remembers; gives the value back."""
        self.addresses |= other.addresses
        self.withheld += other.withheld
        return value


Edit = Callable[[str, Effect[Any], _Ledger], Change | None]


def conditioned(program: Program[T], values: Mapping[str, Any]) -> Program[T]:
    """`condition(program, values)`: see there.

    Law: conditioning on a draw is observing it: `condition(p, {a: v})` means p with `observe` at a.

    Raises:
        ValueError: a key cannot be an address of the program.
    """
    addresses = _checked(program, values)

    def edit(address: str, effect: Effect[Any], _: _Ledger) -> Change | None:
        if not isinstance(effect, Sample) or address not in values:
            return None
        value = values[address]
        return Change(observe(effect.name, _target(effect.dist), value), lambda _: value)

    return Program(program.name, _start, (program, edit, addresses), {})


def intervene(program: Program[T], values: Mapping[str, Any]) -> Program[T]:
    """The program in which these addresses are set and not drawn: Pearl's `do`. Their probability does not count.

    An address that a path does not ask for changes nothing there.

    Raises:
        ValueError: a key cannot be an address of the program.
    """
    _checked(program, values)

    def edit(address: str, effect: Effect[Any], _: _Ledger) -> Change | None:
        if not isinstance(effect, Sample) or address not in values:
            return None
        value = values[address]
        return Change(Note(effect.name, {"set to": value}), lambda _: value)

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

    def edit(address: str, effect: Effect[Any], _: _Ledger) -> Change | None:
        if isinstance(effect, Sample):
            pairs = isinstance(effect.dist, Pairs)  # of inference inside the program, which takes the weights itself
            target = _target(effect.dist.dist if isinstance(effect.dist, Pairs) else effect.dist)
            for selection, q in chosen:
                if address in selection:
                    made = q if hasattr(q, "log_prob") else q(target)  # pyright: ignore[reportCallIssue]
                    proposed = Proposed(target, as_distribution(made, f"propose(..., {selection!r})"))
                    return Change(Sample(effect.name, Pairs(proposed) if pairs else proposed))
        return None

    return Program(program.name, _start, (program, edit, frozenset()), {})


def tempered(program: Program[T], power: float) -> Program[T]:
    """The program with its factors to a power: prior times likelihood^power. Twists and proposals stay as they are.

    What has weight zero keeps it at any power. Law: `measure(tempered(p, 1)) == measure(p)`.

    Raises:
        ValueError: the power is negative or not finite.
    """
    _check_power("tempered", program, power, 0.0)

    def edit(address: str, effect: Effect[Any], _: _Ledger) -> Change | None:
        if not isinstance(effect, Factor) or effect.log_weight == -math.inf:
            return None
        return Change(Factor(effect.name, power * effect.log_weight))

    return Program(program.name, _start, (program, edit, frozenset()), {})


def annealed(program: Program[T], powers: Sequence[float]) -> Program[T]:
    """The program that holds its factors back, and performs them at its end in portions.

    `powers` rises to 1. Behind the k-th portion the target is prior times likelihood^powers[k]: under SMC with
    `rejuvenate` this is likelihood tempering (Neal 2001, "Annealed importance sampling"; Chopin 2002, "A sequential
    particle filter method for static models"). A factor of weight zero is performed at once; twists, which would guide
    towards what is held back, are left out.

    Law: `measure(annealed(p, powers)) == measure(p)`.

    Raises:
        ValueError: the powers do not rise from above 0 to 1.
    """
    check_powers("annealed", powers)
    return Program(program.name, _annealed, (program, tuple(powers)), {})


def power(program: Program[T], alpha: float) -> Program[T]:
    """The program whose draws have the probability p^alpha each, not normalised: prior^alpha times likelihood.

    Behind each draw (or `parallel`) comes a factor of 1, so that SMC and its `rejuvenate` can act there. A
    distribution that has a method `powered(alpha)` is drawn from that one, and weighed: `Categorical` from its own
    power, a language model at temperature 1 / alpha.

    With `SMC(1, Systematic, rejuvenate=repeat(Suffix(), n))`, blocks of text and n moves behind each, this is the
    sampler of Karan and Du 2025, "Reasoning with Sampling".

    Raises:
        ValueError: alpha is not positive and finite.
    """
    _check_power("power", program, alpha, math.ulp(0.0))

    def edit(address: str, effect: Effect[Any], _: _Ledger) -> Change | None:
        if not isinstance(effect, Sample):
            return None
        target, proposal = _target(effect.dist), effect.dist
        if isinstance(proposal, Proposed):
            proposal = proposal.proposal
        elif hasattr(proposal, "powered"):
            proposal = proposal.powered(alpha)  # pyright: ignore[reportAttributeAccessIssue]
        return Change(Sample(effect.name, Proposed(Raised(target, alpha), proposal)), suspend=True)

    return Program(program.name, _start, (program, edit, frozenset()), {})


def _target(dist: Distribution[Any]) -> Distribution[Any]:
    return dist.target if isinstance(dist, Proposed) else dist


def check_powers(name: str, powers: Sequence[float]) -> None:
    """Raise `ValueError` unless the powers rise from above 0 to 1."""
    if not powers or powers[-1] != 1.0 or any(not a < b for a, b in pairwise((0.0, *powers))):
        raise ValueError(f"{name}: powers must rise to 1, like (0.1, 0.3, 1.0), not {powers}")


def _check_power(name: str, program: Any, power: Any, least: float) -> None:
    if not isinstance(program, Program):
        raise TypeError(f"{name} needs a program, like p(), not {program!r}")
    if not isinstance(power, int | float) or not least <= power < math.inf:
        raise ValueError(
            f"{name}: the power must be {'at least 0' if least == 0 else 'positive'} and finite, not {power!r}"
        )


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
    ledger = _Ledger()
    value = await _edited(program, edit, f"{program.name}/", ledger)
    if missing := sorted(needed - ledger.addresses):
        await condition(f"never asked for {missing[0].replace('/', ' ').replace(':', ' ')}", False)
    return value


async def _annealed(program: Program[T], powers: Sequence[float]) -> T:
    ledger = _Ledger()
    value = await _edited(program, _hold_back, f"{program.name}/", ledger)
    for before, now in pairwise((0.0, *powers)):
        await factor("temper", (now - before) * ledger.withheld)
    return value


def _hold_back(_: str, effect: Effect[Any], ledger: _Ledger) -> Change | None:
    if not isinstance(effect, Weight) or effect.log_weight == -math.inf:
        return None
    if isinstance(effect, Factor):
        ledger.withheld += effect.log_weight
    return Change(Note(effect.name, {"withheld": effect.log_weight}))


async def _edited(program: Program[T], edit: Edit, scope: str, ledger: _Ledger) -> T:
    """The program, its effects edited."""
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
        own = _Ledger()  # branches advance in any order, and are added up in theirs
        return Change(Program(branch.name, _edited, (branch, edit, address + "/", own), {}), partial(ledger.add, own))  # pyright: ignore[reportArgumentType]

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
            answers = await Parallel(tuple(changed.effect for changed in changes))
            answer = [changed.give(value) for changed, value in zip(changes, answers, strict=True)]
            if any(changed.suspend for changed in changes):
                await factor("~power", 0.0)
        elif isinstance(effect, Scan):
            answer = await _edited_scan(effect, edit, at, ledger)
        else:
            changed = change(effect, at.address(effect.name))
            answer = changed.give(await changed.effect)
            if changed.suspend:
                await factor("~power", 0.0)


Carry = tuple[Any, frozenset[str], float, str]  # the program's; what the ledger says; the name of the steps


async def _edited_scan(effect: Scan[Any, Any], edit: Edit, at: _Scope, ledger: _Ledger) -> Any:
    def step(state: Carry, index: int) -> Program[Any]:
        program = effect.program(state[0], index)
        inner = address_of(at.scope, program.name, at.counts.get(program.name, -1) + 1 + index) + "/"
        return Program(program.name, _edited_step, (program, edit, inner, state[1], state[2]), {})

    # The ledger travels in the carry: a replay does not make the steps again.
    start: Carry = (effect.carry, frozenset(), 0.0, "")
    (carry, edited, withheld, name), outputs = await Scan(step, start, range(len(effect.xs)))
    if outputs:
        at.counts[name] = at.counts.get(name, -1) + len(outputs)
    ledger.addresses |= edited
    ledger.withheld += withheld
    return carry, outputs


async def _edited_step(program: Program[Any], edit: Edit, scope: str, edited: frozenset[str], withheld: float) -> Any:
    ledger = _Ledger({*edited}, withheld)
    value = await _edited(program, edit, scope, ledger)
    carry, output = pair(value)
    state = carry, frozenset(ledger.addresses), ledger.withheld, program.name
    return Last(state, output) if type(value) is Last else (state, output)
