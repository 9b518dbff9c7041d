"""Lexers as `lark` runs them, as automata: the first terminal that matches is taken, as `re` prefers, not the longest.

A scanner of lark is the alternation of its terminals in their order. `re` tries alternatives in order, too, so which
one matches and how far follows from the order of preference in which an automaton is in several states at once: once a
state accepts, all that is less preferred is given up (Cox 2010, "Regular expression matching in the wild").
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ppl.grammar.errors import RegexError, TooLargeError
from ppl.grammar.nfa import NFA
from ppl.grammar.rx import part_of

SKIP = "$SKIP"  # what ignored terminals are called

# What `common.ESCAPED_STRING` says with a look-behind: the shortest up to a quote that no backslash escapes.
_ESCAPED = re.compile(r"""(\\?["'])\.\*\?\(\?<!\\\\\)\(\\\\\\\\\)\*\?\1""")


class Lexer:
    """An automaton over bytes that reads one lexeme of these terminals.

    `next` [states + 1, 256]: the last state is dead. State 0 is where a lexeme begins, and nothing leads back to it.
    `match` lists for each state the terminal that is read, or None: the last one before the automaton dies is the
    lexeme's. `ahead`: those that more bytes can lead to, with the fewest bytes it takes.

    `patterns` are the terminals in order of preference, `ignored` the names of some that are no part of what is parsed.
    `keywords[name]` are (name, pattern) of those that a lexeme of the terminal `name` is instead where its text is just
    that; lark does not ask then whether they are ignored.

    Raises:
        RegexError: a pattern that is not regular.
        TooLargeError: more than `most` states.
    """

    def __init__(
        self, patterns: Sequence[tuple[str, str]], keywords: Mapping[str, Sequence[tuple[str, str]]],
        ignored: frozenset[str], most: int,
    ) -> None:  # fmt: skip
        reader = _Reader(patterns, keywords, ignored, most)
        start = reader.start()
        queue, number, rows = [start], dict[Any, int](), list[dict[int, int]]()
        for at in queue:
            row: dict[int, int] = {}
            for symbol in range(len(reader.cuts) - 1):
                following = reader.step(at, symbol)
                if not following[0]:
                    continue
                if following not in number:
                    if len(queue) >= most:
                        raise TooLargeError(f"the lexer needs more than {most} states: raise the limit, max_states=")
                    number[following] = len(queue)
                    queue.append(following)
                row[symbol] = number[following]
            rows.append(row)
        table = np.full((len(queue) + 1, len(reader.cuts) - 1), len(queue), np.int32)
        for state, row in enumerate(rows):
            table[state, list(row)] = list(row.values())
        self.next = np.repeat(table, np.diff(reader.cuts), axis=1).tolist()
        self.match = [None, *(reader.matched(at) for at in queue[1:]), None]
        self.dead = len(queue)
        self.ahead = _ahead([set(row.values()) for row in rows], self.match)


def terminal(definition: Any) -> tuple[str, str]:
    """Name and pattern of a terminal of lark."""
    return definition.name, _ESCAPED.sub(r"\1(?:[^\1\\\\\\n]|\\\\.)*\1", definition.pattern.to_regexp())


def _ahead(arrows: list[set[int]], match: Sequence[str | None]) -> list[dict[str, int]]:
    """Of each state: the terminals that one byte or more lead to, and how many it takes at least."""
    out = [dict[str, int]() for _ in arrows]
    into: list[list[int]] = [[] for _ in arrows]
    for state, row in enumerate(arrows):
        for to in row:
            into[to].append(state)
    for name in sorted({name for name in match if name is not None}):
        frontier, steps = [state for state, one in enumerate(match[:-1]) if one == name], 0
        while frontier:
            steps += 1
            reached = {source for state in frontier for source in into[state] if name not in out[source]}
            for source in reached:
                out[source][name] = steps
            frontier = sorted(reached)
    return out


State = tuple[tuple[int, ...], frozenset[int]]


class _Reader:
    """A state: those of the automaton of the terminals, the preferred ones first, and those of the keywords."""

    def __init__(
        self, patterns: Sequence[tuple[str, str]], keywords: Mapping[str, Sequence[tuple[str, str]]],
        ignored: frozenset[str], most: int,
    ) -> None:  # fmt: skip
        self.nfa, self.ignored = NFA(most), ignored
        self.accepts: dict[int, str] = {}
        self.firsts = [self._add(*one) for one in patterns]
        self.words: dict[str, list[tuple[int, str]]] = {}
        self.first_words: set[int] = set()
        for name, several in keywords.items():
            self.words[name] = []
            for word, pattern in several:
                part = _part(word, pattern, self.nfa)
                self.first_words.add(part.first)
                self.words[name].append((part.last, word))
        self.cuts = self.nfa.cuts()
        self.moves = [self._by_symbol(edges) for edges in self.nfa.edges]
        self.ends_of_words = {last for several in self.words.values() for last, _ in several}

    def start(self) -> State:
        return self.preferred(self.firsts), self.closed(self.first_words)

    def step(self, state: State, symbol: int) -> State:
        """Behind a byte of this class."""
        main = [to for one in state[0] for to in self.moves[one].get(symbol, ())]
        words = {to for one in state[1] for to in self.moves[one].get(symbol, ())}
        return self.preferred(main), self.closed(words)

    def matched(self, state: State) -> str | None:
        """The terminal that is read here; what accepts is the last one."""
        name = self.accepts.get(state[0][-1])
        if name in self.ignored:
            return SKIP
        for last, word in self.words.get(name, ()) if name is not None else ():
            if last in state[1]:
                return word
        return name

    def preferred(self, states: Iterable[int]) -> tuple[int, ...]:
        """What is reached without reading, in order, up to the first that accepts."""
        out, seen, stack = list[int](), set[int](), list(reversed(list(states)))
        while stack:
            state = stack.pop()
            if state in seen:
                if state in self.nfa.behind:
                    stack.append(self.nfa.behind[state])
                continue
            seen.add(state)
            if state in self.accepts:
                return (*out, state)
            if self.nfa.edges[state]:
                out.append(state)
            stack.extend(to for _, to in reversed(self.nfa.silent[state]))
        return tuple(out)

    def closed(self, states: Iterable[int]) -> frozenset[int]:
        """What is reached without reading."""
        seen, stack = set(states), list(states)
        while stack:
            for _, to in self.nfa.silent[stack.pop()]:
                if to not in seen:
                    seen.add(to)
                    stack.append(to)
        return frozenset(one for one in seen if self.nfa.edges[one] or one in self.ends_of_words)

    def _add(self, name: str, pattern: str) -> int:
        part = _part(name, pattern, self.nfa)
        self.accepts[part.last] = name
        return part.first

    def _by_symbol(self, edges: list[tuple[int, int, int]]) -> dict[int, list[int]]:
        out: dict[int, list[int]] = {}
        for low, high, to in edges:
            for symbol in range(bisect_left(self.cuts, low), bisect_left(self.cuts, high + 1)):
                out.setdefault(symbol, []).append(to)
        return out


def _part(name: str, pattern: str, nfa: NFA) -> Any:
    before = len(nfa.silent)
    try:
        part = part_of(pattern, nfa)
    except RegexError as error:
        raise RegexError(f"terminal {name}: {error}", error.position) from None
    if any(condition for moves in nfa.silent[before:] for condition, _ in moves):
        raise RegexError(f"terminal {name}, {pattern!r}: ^ and $ say where a text begins and ends, not a lexeme", None)
    return part
