"""Regular expressions as Python writes them, to automata: the language of `re.fullmatch`, nothing more or less.

Which characters `\\w`, `[^a]` or `(?i:k)` stand for is asked of `re` itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from re import _compiler, _constants, _parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

from ppl.grammar.dfa import DFA
from ppl.grammar.errors import RegexError
from ppl.grammar.nfa import BEGIN, DOLLAR, END, NFA, Part
from ppl.grammar.utf8 import ALL, Ranges, ranges_of, sequences

NOT_REGULAR: dict[str, str] = {
    "ASSERT": "look-ahead or look-behind, (?=...) or (?<=...)",
    "ASSERT_NOT": "look-ahead or look-behind, (?!...) or (?<!...)",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a condition on a group",
    "ATOMIC_GROUP": "an atomic group, (?>...)",
    "POSSESSIVE_REPEAT": "a possessive repetition, like a*+",
}
_HINTS = {
    "ASSERT": r"\(\?<?=", "ASSERT_NOT": r"\(\?<?!", "GROUPREF": r"\\[1-9]|\(\?P=", "GROUPREF_EXISTS": r"\(\?\(",
    "ATOMIC_GROUP": r"\(\?>", "POSSESSIVE_REPEAT": r"[*+?}]\+", "AT_BOUNDARY": r"\\b", "AT_NON_BOUNDARY": r"\\B",
}  # fmt: skip
_ANCHORS = {"AT_BEGINNING": BEGIN, "AT_BEGINNING_STRING": BEGIN, "AT_END_STRING": END, "AT_END": DOLLAR}


def compile_regex(pattern: str, max_states: int) -> DFA:
    """The automaton of a pattern.

    Raises:
        RegexError: it is no pattern, or holds what no regular language has.
        TooLargeError: it takes too many states.
    """
    nfa = NFA(max_states)
    return nfa.determined(part_of(pattern, nfa))


def part_of(pattern: str, nfa: NFA) -> Part:
    """A pattern as a part of an automaton; silent moves are in the order in which `re` tries them.

    Raises:
        RegexError: as `compile_regex`.
    """
    try:
        tree = _parser.parse(pattern)
    except re.error as error:
        where = "" if error.pos is None else f"\n  {pattern}\n  {' ' * error.pos}^"
        raise RegexError(f"{error.msg}{where}", error.pos) from None
    except (OverflowError, RecursionError) as error:
        raise RegexError(f"{pattern[:60]!r}: {error}") from None
    return _Builder(nfa, pattern).sequence(tree, tree.state.flags)


class _Builder:
    """From a tree of `re` to a part of an automaton."""

    def __init__(self, nfa: NFA, pattern: str) -> None:
        self.nfa = nfa
        self.pattern = pattern

    def sequence(self, nodes: Any, flags: int) -> Part:
        return self.nfa.joined([self.node(op, arg, flags) for op, arg in nodes])

    def node(self, op: Any, arg: Any, flags: int) -> Part:
        match op.name:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN" | "RANGE" | "CATEGORY":
                return self.nfa.sequences(sequences(_characters(op, arg, flags)))
            case "BRANCH":
                return self.nfa.either([self.sequence(branch, flags) for branch in arg[1]])
            case "SUBPATTERN":
                _, add, remove, inside = arg
                if add & (re.ASCII | re.UNICODE):
                    flags &= ~(re.ASCII | re.UNICODE)
                return self.sequence(inside, (flags | add) & ~remove)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, inside = arg
                return repeated(self.nfa, partial(self.sequence, inside, flags), least,
                                None if most is _constants.MAXREPEAT else most, op.name == "MIN_REPEAT")  # fmt: skip
            case "AT":
                return self.anchor(arg.name, flags)
            case "FAILURE":
                return self.nfa.nothing()
        name = str(op.name)
        raise self.refused(name, NOT_REGULAR.get(name, name))

    def anchor(self, name: str, flags: int) -> Part:
        if name not in _ANCHORS:
            raise self.refused(name, r"a word boundary, \b or \B")
        if flags & re.MULTILINE and name in ("AT_BEGINNING", "AT_END"):
            raise self.refused(name, "^ or $ at each line, (?m)")
        return self.nfa.empty(_ANCHORS[name])

    def refused(self, name: str, what: str) -> RegexError:
        """`re` does not say where a node stood: the first place that looks like it."""
        found = re.search(_HINTS.get(name, "(?!)"), self.pattern)
        at = found.start() if found else None
        where = f" at position {at}:\n  {self.pattern}\n  {' ' * at}^" if at is not None else f": {self.pattern[:80]!r}"
        return RegexError(f"{what} is not an operator of regular languages{where}", at)


def repeated(nfa: NFA, make: Callable[[], Part], least: int, most: int | None, lazy: bool = False) -> Part:
    """`make` adds one more copy; from `least` to `most` of them (None: any number)."""
    parts = [make() for _ in range(least)]
    if most is None:
        parts.append(nfa.starred(make(), lazy))
    elif most > least:
        parts.append(nfa.optional((make() for _ in range(most - least)), lazy))
    return nfa.joined(parts)


def _characters(op: Any, arg: Any, flags: int) -> Ranges:
    """The code points that one node stands for."""
    flags = flags & (re.IGNORECASE | re.ASCII | re.DOTALL)
    if op.name == "LITERAL" and not flags & re.IGNORECASE:
        return ranges_of([arg])
    return _asked(op, tuple(arg) if isinstance(arg, list) else arg, int(flags))


@lru_cache(1000)
def _asked(op: Any, arg: Any, flags: int) -> Ranges:
    """As `re` itself says, asked about every code point."""
    state = _parser.State()
    state.flags = flags | (0 if flags & re.ASCII else re.UNICODE)
    node = _parser.SubPattern(state, [(op, list(arg) if isinstance(arg, tuple) and op.name == "IN" else arg)])
    one = _compiler.compile(node, flags)
    return ranges_of(ord(character) for character in one.findall(_every_character()))


@lru_cache(1)
def _every_character() -> str:
    return "".join(chr(point) for low, high in ALL for point in range(low, high + 1))
