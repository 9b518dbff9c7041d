"""Selections: which sites of a program are meant.

>>> select("solve/step:*").matches("solve/step:3")
True
>>> "solve/step" in select("solve/step:*") & ~select("**:0")
True
"""

from __future__ import annotations

import re
from collections.abc import Callable


class Selection:
    """A set of addresses, given by what they look like; `|`, `&`, `-` and `~` combine sets."""

    __slots__ = ("_text", "matches")

    def __init__(self, matches: Callable[[str], bool], text: str) -> None:
        self.matches = matches
        self._text = text

    def __contains__(self, address: str) -> bool:
        return self.matches(address)

    def __or__(self, other: Selection) -> Selection:
        return Selection(lambda a: self.matches(a) or other.matches(a), f"({self} | {other})")

    def __and__(self, other: Selection) -> Selection:
        return Selection(lambda a: self.matches(a) and other.matches(a), f"({self} & {other})")

    def __sub__(self, other: Selection) -> Selection:
        return self & ~other

    def __invert__(self) -> Selection:
        return Selection(lambda a: not self.matches(a), f"~{self}")

    def __repr__(self) -> str:
        return self._text


def select(*patterns: str | Callable[[str], bool] | Selection) -> Selection:
    """The addresses that match any of the patterns.

    A pattern is a function of the address, or a glob of the whole address: `*` stands for any characters but `/`, `**`
    for any at all, `?` for one, and `:*` for every occurrence of a name, the first included.

    Raises:
        TypeError: a pattern is neither a string nor a function.
    """
    out: Selection | None = None
    for pattern in patterns:
        if isinstance(pattern, Selection):
            one = pattern
        elif isinstance(pattern, str):
            regex = re.compile(_regex(pattern))
            one = Selection(lambda a, regex=regex: regex.fullmatch(a) is not None, f"select({pattern!r})")
        elif callable(pattern):
            one = Selection(pattern, f"select({getattr(pattern, '__name__', 'function')})")
        else:
            raise TypeError(f"select({pattern!r}): a pattern is an address like 'solve/step:*', or a function of one")
        out = one if out is None else out | one
    return out or Selection(lambda _: False, "select()")


def _regex(pattern: str) -> str:
    """The regular expression of a glob."""
    translate = {":*": r"(:\d+)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(:\*(?=/|$)|\*\*|\*|\?)", pattern)
    return "".join(translate.get(part, re.escape(part)) for part in parts)
