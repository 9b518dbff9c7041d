"""Automata over bytes that may be in several states at once: what expressions are put together from.

Thompson 1968, "Regular expression search algorithm"; subset construction of Rabin and Scott 1959.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ppl.grammar.dfa import DFA
from ppl.grammar.errors import TooLargeError

BEGIN, END, DOLLAR = 1, 2, 3  # moves that read nothing, where the text begins or ends (see `_Reader`)


class Part(NamedTuple):
    """A piece of an automaton, from one state to another."""

    first: int
    last: int


class NFA:
    """An automaton under construction; each method adds a part and gives it.

    Raises:
        TooLargeError: more than `most` states.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.edges: list[list[tuple[int, int, int]]] = []
        """Of each state: (lowest byte, highest byte, next state)."""
        self.silent: list[list[tuple[int, int]]] = []
        """Of each state, moves that read nothing, the preferred ones first: (0 or the condition, next state)."""

        self.behind: dict[int, int] = {}
        """Of where a round of a repetition begins or ends, where all end: `re` begins no round behind an empty one."""

    def state(self) -> int:
        if len(self.edges) >= 10 * self.most:
            raise TooLargeError(f"the expression takes more than {10 * self.most} states: repeat less, or raise the "
                                f"limit, max_states={self.most}")  # fmt: skip
        self.edges.append([])
        self.silent.append([])
        return len(self.edges) - 1

    def link(self, first: int, last: int, condition: int = 0) -> None:
        self.silent[first].append((condition, last))

    def empty(self, condition: int = 0) -> Part:
        part = Part(self.state(), self.state())
        self.link(*part, condition)
        return part

    def nothing(self) -> Part:
        """The empty language."""
        return Part(self.state(), self.state())

    def sequences(self, sequences: Iterable[tuple[tuple[int, int], ...]]) -> Part:
        """One of several sequences of ranges of bytes; common ends are shared."""
        part = Part(self.state(), self.state())
        ends: dict[tuple[tuple[int, int], ...], int] = {(): part.last}

        def state_before(rest: tuple[tuple[int, int], ...]) -> int:
            if rest not in ends:
                ends[rest] = self.state()
                self.edges[ends[rest]].append((*rest[0], state_before(rest[1:])))
            return ends[rest]

        for sequence in sequences:
            if sequence:
                self.edges[part.first].append((*sequence[0], state_before(sequence[1:])))
            else:
                self.link(*part)
        return part

    def literal(self, data: bytes) -> Part:
        return self.sequences([tuple((byte, byte) for byte in data)])

    def joined(self, parts: Iterable[Part]) -> Part:
        """One behind the other."""
        first = last = self.state()
        for part in parts:
            self.link(last, part.first)
            last = part.last
        return Part(first, last)

    def either(self, parts: Iterable[Part]) -> Part:
        out = self.nothing()
        for part in parts:
            self.link(out.first, part.first)
            self.link(part.last, out.last)
        return out

    def starred(self, part: Part, lazy: bool = False) -> Part:
        """Any number of times; `lazy` prefers few of them, which only those tell apart who read by preference."""
        around = Part(self.state(), self.state())
        self.link(part.last, around.first)
        self.behind[part.last] = self.behind[around.first] = around.last
        for to in (around.last, part.first) if lazy else (part.first, around.last):
            self.link(around.first, to)
        return around

    def optional(self, parts: Iterable[Part], lazy: bool = False) -> Part:
        """As many of these, one behind the other, as one likes."""
        first = at = self.state()
        last = self.state()
        for part in parts:
            for to in (last, part.first) if lazy else (part.first, last):
                self.link(at, to)
            at = part.last
        self.link(at, last)
        return Part(first, last)

    def embedded(self, dfa: DFA) -> Part:
        """The language of another automaton."""
        first, last = len(self.edges), self.nothing().last  # `nothing` makes two states: the first is left alone
        places = [self.state() for _ in range(dfa.size)]
        for state, place in enumerate(places):
            row = dfa.next[state]
            cuts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), 256]
            for low, high in pairwise(cuts):
                if row[low] < dfa.size:
                    self.edges[place].append((low, high - 1, places[row[low]]))
            if dfa.accept[state]:
                self.link(place, last)
        if places:
            self.link(first, places[0])
        return Part(first, last)

    def cuts(self) -> list[int]:
        """Where classes of bytes begin that no edge tells apart; 256 ends the last."""
        ends = {edge for edges in self.edges for low, high, _ in edges for edge in (low, high + 1)}
        return sorted({0, 256} | ends)

    def determined(self, part: Part) -> DFA:
        """The minimal automaton of a part.

        Raises:
            TooLargeError: more than `most` states.
        """
        reader = _Reader(self, part.last)
        known = {reader.closure([part.first * 3], True): 0}
        queue, rows = list(known), list[dict[int, int]]()
        while len(rows) < len(queue):
            row: dict[int, int] = {}
            for symbol, items in reader.moves(queue[len(rows)]).items():
                following = reader.closure(items, False)
                if not following:
                    continue
                if following not in known:
                    if len(known) >= self.most:
                        raise TooLargeError(f"the language needs an automaton of more than {self.most} states: make it "
                                            "simpler or shorter, or raise the limit, max_states=")  # fmt: skip
                    known[following] = len(queue)
                    queue.append(following)
                row[symbol] = known[following]
            rows.append(row)
        table = np.full((len(rows), len(reader.cuts) - 1), len(rows), np.int32)
        for state, row in enumerate(rows):
            table[state, list(row)] = list(row.values())
        accept = np.array([reader.accepts(items) for items in queue], bool)
        return DFA.minimal(table, accept, np.repeat(np.arange(table.shape[1]), np.diff(reader.cuts)))


class _Reader:
    """Reads bytes in all states at once.

    An item is 3 * state + what may still come: 0 anything, 1 a newline and then the end, 2 the end. Behind `$` it is 1
    or 2, behind `\\Z` 2.
    """

    def __init__(self, nfa: NFA, last: int) -> None:
        self.nfa = nfa
        self.last = last
        self.cuts = nfa.cuts()
        if any(condition == DOLLAR for moves in nfa.silent for condition, _ in moves):
            self.cuts = sorted({10, 11, *self.cuts})
        self.newline = bisect_left(self.cuts, 10)
        index = {cut: i for i, cut in enumerate(self.cuts)}
        self.edges = [[(index[low], index[high + 1], to) for low, high, to in edges] for edges in nfa.edges]
        self.known: dict[tuple[frozenset[int], bool], frozenset[int]] = {}

    def closure(self, items: Iterable[int], begin: bool) -> frozenset[int]:
        """All items that are reached without reading; of these the ones that read something, or accept."""
        key = frozenset(items), begin
        if key not in self.known:
            seen, stack = set(key[0]), list(key[0])
            while stack:
                state, rest = divmod(stack.pop(), 3)
                for condition, to in self.nfa.silent[state]:
                    for then in _through(condition, rest, begin):
                        if 3 * to + then not in seen:
                            seen.add(3 * to + then)
                            stack.append(3 * to + then)
            self.known[key] = frozenset(i for i in seen if self.edges[i // 3] or i // 3 == self.last)
        return self.known[key]

    def moves(self, items: frozenset[int]) -> dict[int, set[int]]:
        """Class of bytes -> items behind it."""
        out: dict[int, set[int]] = {}
        for item in items:
            state, rest = divmod(item, 3)
            if rest == 2:
                continue
            for low, high, to in self.edges[state]:
                if rest == 0:
                    for symbol in range(low, high):
                        out.setdefault(symbol, set()).add(3 * to)
                elif low <= self.newline < high:
                    out.setdefault(self.newline, set()).add(3 * to + 2)
        return out

    def accepts(self, items: frozenset[int]) -> bool:
        return 3 * self.last in items or 3 * self.last + 2 in items


def _through(condition: int, rest: int, begin: bool) -> tuple[int, ...]:
    """What may still come behind a silent move, in each way to take it."""
    if condition == 0 or (condition == BEGIN and begin):
        return (rest,)
    if condition == END:
        return (2,) if rest != 1 else ()
    if condition == DOLLAR:
        return (1, 2) if rest == 0 else (rest,)
    return ()
