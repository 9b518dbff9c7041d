"""Sets of JSON values, before anything is written as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import product
from typing import Any

from ppl.grammar import json_text
from ppl.grammar.errors import GrammarError
from ppl.grammar.regular import Regular, choice, everything, regex

NONE = regex("[^\\s\\S]")


@dataclass(frozen=True)
class Array:
    """Arrays: the first items, those behind them, how many, and what some item must be."""

    first: tuple[Values, ...] = ()
    rest: Values | None = None
    """None: anything."""
    least: int = 0
    most: int | None = None
    some: tuple[Values, ...] = ()

    def __and__(self, other: Array) -> Array:
        longest = max(len(self.first), len(other.first))
        mosts = [most for most in (self.most, other.most) if most is not None]
        return Array(
            tuple(both(self.item(i), other.item(i)) for i in range(longest)), meet(self.rest, other.rest),
            max(self.least, other.least), min(mosts, default=None), self.some + other.some,
        )  # fmt: skip

    def item(self, i: int) -> Values | None:
        return self.first[i] if i < len(self.first) else self.rest


@dataclass(frozen=True)
class Object:
    """Objects: the properties that are named, in order, which must be there, what others may be, and how many."""

    named: Mapping[str, Values] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    others: Values | None = None
    """None: nothing is said of them, and none are written."""
    patterns: tuple[tuple[str, Values], ...] = ()
    names: Regular | None = None
    least: int = 0
    most: int | None = None

    def __and__(self, other: Object) -> Object:
        keys = list(dict.fromkeys([*self.named, *other.named]))
        named = {key: both(self.value(key), other.value(key)) for key in keys}
        mosts = [most for most in (self.most, other.most) if most is not None]
        names = self.names if other.names is None else other.names if self.names is None else self.names & other.names
        if (self.patterns or other.patterns) and (self.others or other.others) and self.patterns != other.patterns:
            raise GrammarError("additionalProperties beside different patternProperties in allOf")
        return Object(named, tuple(dict.fromkeys(self.required + other.required)), meet(self.others, other.others),
                      tuple(dict.fromkeys(self.patterns + other.patterns)), names, max(self.least, other.least),
                      min(mosts, default=None))  # fmt: skip

    def value(self, key: str) -> Values | None:
        """What the property may be; None: anything."""
        said = [values for pattern, values in self.patterns if key in searched(pattern)]
        if key in self.named:
            said.append(self.named[key])
        elif not said and self.others is not None:
            said.append(self.others)
        return reduce(both, said) if said else None


@dataclass(frozen=True)
class Values:
    """A set of JSON values: texts of numbers, contents of strings, and alternatives of arrays and of objects.

    `calls` are definitions whose values are in it too: those that hold themselves. `spelled` are ways to write numbers
    of it that a schema itself uses, like -2.0.
    """

    words: frozenset[str] = frozenset()
    """Of "null", "true", "false"."""
    number: Regular = NONE
    string: Regular = NONE
    array: tuple[Array, ...] = ()
    object: tuple[Object, ...] = ()
    calls: frozenset[str] = frozenset()
    spelled: frozenset[str] = frozenset()

    def __or__(self, other: Values) -> Values:
        return Values(self.words | other.words, self.number | other.number, self.string | other.string,
                      self.array + other.array, self.object + other.object, self.calls | other.calls,
                      self.spelled | other.spelled)  # fmt: skip

    def __and__(self, other: Values) -> Values:
        """Raises `GrammarError` for calls and something else than anything."""
        for one, more in ((self, other), (other, self)):
            if one.calls and (more == one or more == anything() or more == Values()):
                return more if more == Values() else one
        if self.calls or other.calls:
            raise GrammarError(f"{', '.join(sorted(self.calls | other.calls))} is recursive, and what is asked of it "
                               "beside its definition is not implemented")  # fmt: skip
        return Values(
            self.words & other.words, self.number & other.number, self.string & other.string,
            tuple(a & b for a, b in product(self.array, other.array)),
            tuple(a & b for a, b in product(self.object, other.object)), spelled=self.spelled | other.spelled,
        )  # fmt: skip

    def without(self, other: Values) -> Values | None:
        """What is not in `other`; None if that cannot be said, of arrays or objects of which some are."""
        if self.calls or other.calls:
            return None
        parts = []
        for mine, theirs in ((self.array, other.array), (self.object, other.object)):
            some = [one for one in theirs if one not in (Array(), Object())]
            if mine and theirs and some and len(some) == len(theirs):
                return None
            parts.append(() if theirs and len(some) < len(theirs) else mine)
        return Values(self.words - other.words, self.number - other.number, self.string - other.string, *parts)

    @property
    def scalar(self) -> bool:
        return not self.array and not self.object and not self.calls


@lru_cache(1)
def anything() -> Values:
    return Values(frozenset(["null", "true", "false"]), json_text.numbers(), everything(), (Array(),), (Object(),))


def both(a: Values | None, b: Values | None) -> Values:
    return anything() if (met := meet(a, b)) is None else met


def meet(a: Values | None, b: Values | None) -> Values | None:
    return b if a is None else a if b is None else a & b


@lru_cache(100)
def searched(pattern: str) -> Regular:
    """Strings in which the pattern is found."""
    return regex(f"(?s:.*)(?:{pattern})(?s:.*)")


def constant(value: Any) -> Values:
    """One value."""
    if value is None or isinstance(value, bool):
        return Values(frozenset([json.dumps(value)]))
    if isinstance(value, str):
        return Values(string=choice([value]))
    if isinstance(value, list):
        return Values(array=(Array(tuple(map(constant, value)), Values(), len(value), len(value)),))
    if isinstance(value, dict):
        named = {key: constant(one) for key, one in value.items()}
        return Values(object=(Object(named, tuple(value), Values()),))
    return Values(number=json_text.scalar(value), spelled=frozenset([json.dumps(value)]))
