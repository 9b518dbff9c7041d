"""Grammars from what people have at hand: Python types, and terms of `outlines`."""

from __future__ import annotations

import datetime
import types
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from ppl.grammar import formats
from ppl.grammar.cfg import cfg
from ppl.grammar.language import Language
from ppl.grammar.regular import Regular, choice, regex
from ppl.grammar.schema import json_schema

_PLAIN: dict[Any, Regular] = {
    int: regex("0|-?[1-9][0-9]*"),
    float: regex(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"),
    bool: choice(["true", "false"]),
    None: choice(["null"]),
    type(None): choice(["null"]),
}
_DATES = {datetime.date: formats.date, datetime.time: formats.time, datetime.datetime: formats.date_time}


def of(what: Any) -> Regular | Language:
    """The language of texts that write a value of a type.

    `int`, `float` (without an exponent), `bool` (true, false), `datetime.date` and so on; `Literal` and `Enum` as their
    texts, without quotes; `X | Y`; what has a JSON schema (pydantic models, dataclasses, TypedDict, `list[int]`) as
    JSON. Terms of `outlines.types` by their pattern, which is then taken for what it says: see `regex`; grammars of
    theirs as `cfg` takes them. A language is itself, and so is whatever is a `Language`.

    Raises:
        TypeError: there is no language for it.
        GrammarError: as for `regex` and `json_schema`.
    """
    if isinstance(what, Regular) or (isinstance(what, Language) and not isinstance(what, type)):
        return what
    if isinstance(what, str):
        raise TypeError(f"grammar={what!r}: a string may be a pattern or a text: say regex(...) or choice([...])")
    if type(what).__module__.startswith("outlines."):
        return _term(what)
    if isinstance(what, bool | dict):
        return json_schema(what)
    if what in _PLAIN:
        return _PLAIN[what]
    if what in _DATES:
        return _DATES[what]()
    if get_origin(what) in (Union, types.UnionType):
        first, *rest = [_regular(of(one), what) for one in get_args(what)]
        for one in rest:
            first |= one
        return first
    if get_origin(what) is Literal or (isinstance(what, type) and issubclass(what, Enum)):
        values = get_args(what) if get_origin(what) is Literal else [one.value for one in what]
        return choice([value if isinstance(value, str) else repr(value) for value in values])
    return json_schema(what)


def _regular(one: Regular | Language, what: Any) -> Regular:
    if not isinstance(one, Regular):
        raise TypeError(f"{what!r}: {one!r} is no regular language, so it cannot be one of several")
    return one


def _term(term: Any) -> Regular | Language:
    """A term of `outlines`."""
    from outlines.types import CFG, JsonSchema
    from outlines.types.dsl import to_regex

    if isinstance(term, CFG):
        return cfg(term.definition)
    return json_schema(term.schema) if isinstance(term, JsonSchema) else regex(to_regex(term))
