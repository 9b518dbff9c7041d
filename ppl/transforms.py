"""Programs made from programs by changing some of their effects: conditioned, intervened on, drawn from a proposal,
of another temperature.

Each is again a program, with the addresses of the first, for any algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from ppl.distributions import Distribution, as_distribution
from ppl.edit import Change, Edit, Ledger, edited
from ppl.effects import Effect, Factor, Note, Sample, Weight
from ppl.language import condition, factor, observe
from ppl.program import Program
from ppl.select import select
from ppl.weighted import Pairs, Proposed, Raised

T = TypeVar("T")


def conditioned(program: Program[T], values: Mapping[str, Any]) -> Program[T]:
    """`condition(program, values)`: see there.

    Law: conditioning on a draw is observing it: `condition(p, {a: v})` means p with `observe` at a.

    Raises:
        ValueError: a key cannot be an address of the program.
    """
    addresses = _checked(program, values)

    def edit(address: str, effect: Effect[Any], _: Ledger) -> Change | None:
        if not isinstance(effect, Sample) or address not in values:
            return None
        value = values[address]
        return Change(observe(effect.name, _target(effect.dist), value), lambda _: value)

    return _with(program, edit, addresses)


def intervene(program: Program[T], values: Mapping[str, Any]) -> Program[T]:
    """The program in which these addresses are set and not drawn: Pearl's `do`. Their probability does not count.

    An address that a path does not ask for changes nothing there.

    Raises:
        ValueError: a key cannot be an address of the program.
    """
    _checked(program, values)

    def edit(address: str, effect: Effect[Any], _: Ledger) -> Change | None:
        if not isinstance(effect, Sample) or address not in values:
            return None
        value = values[address]
        return Change(Note(effect.name, {"set to": value}), lambda _: value)

    return _with(program, edit)


def propose(
    program: Program[T], proposals: Mapping[str, Distribution[Any] | Callable[[Any], Distribution[Any]]]
) -> Program[T]:
    """The program in which draws come from other distributions, with weights that leave the meaning alone.

    `proposals` maps a glob of addresses (see `select`) to a distribution, or to a function that makes one of the
    program's own. The first pattern that matches counts. A proposal must be able to draw whatever the program can.

    Law: `measure(propose(p, qs)) == measure(p)`.
    """
    chosen = [(select(pattern), q) for pattern, q in proposals.items()]

    def edit(address: str, effect: Effect[Any], _: Ledger) -> Change | None:
        if isinstance(effect, Sample):
            pairs = isinstance(effect.dist, Pairs)  # of inference inside the program, which takes the weights itself
            target = _target(effect.dist.dist if isinstance(effect.dist, Pairs) else effect.dist)
            for selection, q in chosen:
                if address in selection:
                    made = q if hasattr(q, "log_prob") else q(target)  # pyright: ignore[reportCallIssue]
                    proposed = Proposed(target, as_distribution(made, f"propose(..., {selection!r})"))
                    return Change(Sample(effect.name, Pairs(proposed) if pairs else proposed))
        return None

    return _with(program, edit)


def tempered(program: Program[T], power: float) -> Program[T]:
    """The program with its factors to a power: prior times likelihood^power. Twists and proposals stay as they are.

    What has weight zero keeps it at any power. Law: `measure(tempered(p, 1)) == measure(p)`.

    Raises:
        ValueError: the power is negative or not finite.
    """
    _check_power("tempered", program, power, 0.0)

    def edit(address: str, effect: Effect[Any], _: Ledger) -> Change | None:
        if not isinstance(effect, Factor) or effect.log_weight == -math.inf:
            return None
        return Change(Factor(effect.name, power * effect.log_weight))

    return _with(program, edit)


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

    def edit(address: str, effect: Effect[Any], _: Ledger) -> Change | None:
        if not isinstance(effect, Sample):
            return None
        target, proposal = _target(effect.dist), effect.dist
        if isinstance(proposal, Proposed):
            proposal = proposal.proposal
        elif hasattr(proposal, "powered"):
            proposal = proposal.powered(alpha)  # pyright: ignore[reportAttributeAccessIssue]
        return Change(Sample(effect.name, Proposed(Raised(target, alpha), proposal)), suspend=True)

    return _with(program, edit)


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


def _checked(program: Program[Any], values: Mapping[str, Any]) -> frozenset[str]:
    """The addresses; `ValueError` for what cannot be one of this program."""
    for address in values:
        if "*" in address or not address.startswith(f"{program.name}/"):
            raise ValueError(
                f"{address!r} is no address of {program.name}: write whole addresses like '{program.name}/x:1', as "
                "trace(...) shows them; globs are for propose and select"
            )
    return frozenset(values)


def _with(program: Program[T], edit: Edit, needed: frozenset[str] = frozenset()) -> Program[T]:
    """The program, edited; a run that does not come to all the `needed` addresses has weight zero."""
    return Program(program.name, _start, (program, edit, needed), {})


async def _start(program: Program[T], edit: Edit, needed: frozenset[str]) -> T:
    ledger = Ledger()
    value = await edited(program, edit, f"{program.name}/", ledger)
    if missing := sorted(needed - ledger.addresses):
        await condition(f"never asked for {missing[0].replace('/', ' ').replace(':', ' ')}", False)
    return value


async def _annealed(program: Program[T], powers: Sequence[float]) -> T:
    ledger = Ledger()
    value = await edited(program, _hold_back, f"{program.name}/", ledger)
    for before, now in pairwise((0.0, *powers)):
        await factor("temper", (now - before) * ledger.withheld)
    return value


def _hold_back(_: str, effect: Effect[Any], ledger: Ledger) -> Change | None:
    if not isinstance(effect, Weight) or effect.log_weight == -math.inf:
        return None
    if isinstance(effect, Factor):
        ledger.withheld += effect.log_weight
    return Change(Note(effect.name, {"withheld": effect.log_weight}))
