"""Reading a text from left to right by a probabilistic grammar: how probable it is, and to begin like this.

Earley's algorithm with probabilities (Stolcke 1995, "An efficient probabilistic context-free parsing algorithm that
computes prefix probabilities"), over a grammar in normal form. States are never changed, so that texts share what they
begin with. Weights are logs, in float64.
"""

from __future__ import annotations

import math
from collections import defaultdict

from ppl.grammar.normal_form import NormalForm, Trie, log_add

Waiting = dict[tuple["Column", int], float]


class Column:
    """A place in the text where a terminal has ended.

    `needed[A]`: log of how many A can begin here, on average over the derivations of what is before, times their
    probability; and the fewest bytes behind it. `waiting[C]`: of each (column, A) of a derivation of A that began there
    and goes on with C, log of its probability so far.
    """

    __slots__ = ("needed", "position", "waiting")

    def __init__(self, position: int, needed: dict[int, tuple[float, float]], waiting: dict[int, Waiting]) -> None:
        self.position = position
        self.needed = needed
        self.waiting = waiting


class State:
    """What is known of a text so far. Compared by identity: what can follow depends on all of the text."""

    __slots__ = ("length", "log_value", "log_weight", "open")

    def __init__(self, length: int, open_: list[tuple[Column, Trie]], log_value: float, log_weight: float) -> None:
        self.length = length
        self.open = open_
        """Terminals that may go on: where they began, and what of them is read."""
        self.log_value = log_value
        self.log_weight = log_weight

    @property
    def ends(self) -> bool:
        """Whether nothing can follow."""
        return not any(head in column.needed for column, node in self.open
                       for child in node.children.values() for head in child.under)  # fmt: skip

    def needs(self) -> float:
        """Bytes to the end of a text, at least."""
        return min((column.needed[head][1] + least for column, node in self.open for head, least in node.least.items()
                    if head in column.needed), default=math.inf)  # fmt: skip


def started(grammar: NormalForm) -> State:
    """Before the first byte."""
    if grammar.start < 0:
        return State(0, [], 0.0, grammar.log_empty)
    first = _column(grammar, 0, {grammar.start: (0.0, 0.0)}, {})
    return State(0, [(first, grammar.trie)], 0.0, grammar.log_empty)


def advanced(grammar: NormalForm, state: State, data: bytes) -> State:
    """Behind some bytes more."""
    for byte in data:
        if not state.open:
            return State(state.length + 1, [], -math.inf, -math.inf)
        state = _behind(grammar, state, byte)
    return state


def _behind(grammar: NormalForm, state: State, byte: int) -> State:
    length = state.length + 1
    alive: list[tuple[Column, Trie]] = []
    value = -math.inf
    complete: dict[Column, dict[int, float]] = {}
    for column, before in state.open:
        node = before.children.get(byte)
        wanted = [head for head in node.under if head in column.needed] if node else []
        if node is None or not wanted:
            continue
        alive.append((column, node))
        for head in wanted:
            value = log_add(value, column.needed[head][0] + node.under[head])
        if ends := {head: node.final[head] for head in wanted if head in node.final}:
            complete[column] = ends
    if not complete:
        return State(length, alive, value + grammar.log_some, -math.inf)
    weight, waiting = _completed(grammar, complete)
    direct: dict[int, tuple[float, float]] = {}
    for head, items in waiting.items():
        log, least = -math.inf, math.inf
        for (column, above), inner in items.items():
            needed, fewest = column.needed[above]
            log, least = log_add(log, needed + inner), min(least, fewest)
        direct[head] = log, least
    if direct:
        alive.append((_column(grammar, length, direct, waiting), grammar.trie))
    return State(length, alive, value + grammar.log_some, weight + grammar.log_some)


def _completed(
    grammar: NormalForm, complete: dict[Column, dict[int, float]]
) -> tuple[float, dict[int, Waiting]]:  # fmt: skip
    """From the terminals that end here: log of what the whole text is, and what waits for more.

    What ends here and began late is part of what began before, and of nothing that began later.
    """
    waiting: dict[int, Waiting] = defaultdict(dict)
    weight = -math.inf
    while complete:
        column = max(complete, key=lambda one: one.position)
        for one, inner in complete.pop(column).items():
            if column.position == 0 and one == grammar.start:
                weight = inner
            for rule in grammar.by_left.get(one, ()):
                if rule.head in column.needed:
                    items, log_p = waiting[rule.right], inner + rule.log_p
                    before = items.get((column, rule.head))
                    items[column, rule.head] = log_p if before is None else log_add(before, log_p)
            for (above, head), log_p in column.waiting.get(one, {}).items():
                found, whole = complete.setdefault(above, {}), log_p + inner
                found[head] = log_add(found[head], whole) if head in found else whole
    return weight, waiting


def _column(
    grammar: NormalForm, position: int, direct: dict[int, tuple[float, float]], waiting: dict[int, Waiting]
) -> Column:  # fmt: skip
    """A place where these are asked for: whatever they can begin with is asked for too."""
    needed: dict[int, tuple[float, float]] = {}
    for one, (log, least) in direct.items():
        for corner, log_p in grammar.corners[one]:
            before, fewest = needed.get(corner, (-math.inf, math.inf))
            needed[corner] = (
                log_add(before, log + log_p), min(fewest, least + float(grammar.corner_least[one, corner]))
            )  # fmt: skip
    return Column(position, needed, waiting)
