"""How JSON values are written: for every string one text, for every number those without an exponent.

So a set of values is a set of texts, and what is said about values can be computed on texts: `-` is "is not".
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ppl.grammar.dfa import DFA
from ppl.grammar.nfa import NFA, Part
from ppl.grammar.regular import Regular, choice, regex

ESCAPED = [*range(0x20), 0x22, 0x5C]  # bytes that do not stand for themselves within quotes


def string(values: Regular) -> Regular:
    """The texts of these strings, as `json.dumps(s, ensure_ascii=False)` writes them."""
    dfa, nfa = values.dfa, NFA(4 * values.max_states)
    first, last = nfa.nothing()
    places = [nfa.state() for _ in range(dfa.size)]
    for state, place in enumerate(places):
        row = dfa.next[state].copy()
        for byte in ESCAPED:
            if row[byte] < dfa.size:
                part = nfa.literal(json.dumps(chr(byte))[1:-1].encode())
                nfa.link(place, part.first)
                nfa.link(part.last, places[row[byte]])
        row[ESCAPED] = dfa.size
        cuts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), 256]
        for low, high in pairwise(cuts):
            if row[low] < dfa.size:
                nfa.edges[place].append((low, high - 1, places[row[low]]))
        if dfa.accept[state]:
            nfa.link(place, last)
    if places:
        nfa.link(first, places[0])
    whole = nfa.joined([nfa.literal(b'"'), Part(first, last), nfa.literal(b'"')])
    return Regular(nfa.determined(whole), f"string {values.about}", values.max_states)


@lru_cache(1)
def numbers() -> Regular:
    """All of them, without an exponent."""
    return regex(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


@lru_cache(1)
def integers() -> Regular:
    """Numbers that are whole, also 1.0."""
    return regex(r"-?(0|[1-9][0-9]*)(\.0+)?")


@lru_cache(256)
def at_least(bound: Decimal, more: bool = False) -> Regular:
    """Numbers >= `bound`, or with `more` > it."""
    zero = regex(r"-?0(\.0+)?")
    if bound < 0:
        below = _absolute(-bound, not more)
        out = numbers() - ("-" + below)
        return out | zero
    positive = _absolute(bound, more)
    if bound == 0 and not more:
        return positive | zero
    return positive


def at_most(bound: Decimal, less: bool = False) -> Regular:
    """Numbers <= `bound`, or with `less` < it."""
    return numbers() - at_least(bound, not less)


def _absolute(bound: Decimal, more: bool) -> Regular:
    """Numbers without a sign >= `bound` >= 0, or with `more` > it."""
    whole, _, rest = f"{bound:f}".partition(".")
    rest = rest.rstrip("0")
    digits = len(whole)
    larger = [f"{whole[:i]}[{int(d) + 1}-9][0-9]{{{digits - i - 1}}}" for i, d in enumerate(whole) if d != "9"]
    larger.append(f"[1-9][0-9]{{{digits},}}")
    # Whole parts are compared digit by digit, then what is behind the point.
    behind = [f"{rest[:i]}[{int(d) + 1}-9][0-9]*" for i, d in enumerate(rest) if d != "9"]
    behind.append(f"{rest}0*[1-9][0-9]*")
    equal = rf"\.({'|'.join(behind)})"
    if not more:
        equal += "|" + (rf"\.{rest}0*" if rest else r"(\.0+)?")
    pattern = rf"({'|'.join(larger)})(\.[0-9]+)?|{whole}({equal})"
    return regex(pattern) & regex(r"(0|[1-9][0-9]*)(\.[0-9]+)?")


def multiples(step: int) -> Regular:
    """Whole numbers that `step` > 0 divides."""
    n = step
    # Remainders; then a point and zeros behind a multiple. The sign does not matter.
    table = np.full((n + 4, 12), n + 4, np.int64)  # columns: the digits, "-", "."
    table[0, 10], table[0, 0], table[1, 0] = 1, n + 2, n + 2
    for state in (0, 1):
        for digit in range(1, 10):
            table[state, digit] = 2 + digit % n
    for remainder in range(n):
        for digit in range(10):
            table[2 + remainder, digit] = 2 + (10 * remainder + digit) % n
    table[2, 11] = table[n + 2, 11] = n + 3
    zeros = np.append(table, np.full((1, 12), n + 5), 0)
    zeros[zeros == n + 4] = n + 5
    zeros[n + 3, 0] = zeros[n + 4, 0] = n + 4
    accept = np.zeros(n + 5, bool)
    accept[[2, n + 2, n + 4]] = True
    classes = np.full(256, 12)
    classes[ord("0") : ord("9") + 1] = range(10)
    classes[ord("-")], classes[ord(".")] = 10, 11
    dfa = DFA.minimal(np.append(zeros, np.full((n + 5, 1), n + 5), 1).astype(np.int32), accept, classes)
    return Regular(dfa, f"multiples of {step}")


def scalar(value: object) -> Regular:
    """The texts of one string, number, boolean or null."""
    if isinstance(value, str):
        return string(choice([value]))
    if value is None or isinstance(value, bool):
        return choice([json.dumps(value)])
    number = Decimal(str(value))
    return at_least(number) & at_most(number)
