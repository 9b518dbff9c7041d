"""Grammars from types and from terms of outlines."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest

from ppl.grammar import RegexError, choice, of, regex
from ppl.models import TableLM


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("what", "right", "wrong"),
    [
        (int, ["0", "-12"], ["", "01", "1.0"]),
        (float, ["1.5", "-0.25", "3"], ["1e3", "."]),
        (bool, ["true"], ["True"]),
        (None, ["null"], ["None"]),
        (int | None, ["3", "null"], ["x"]),
        (Literal["yes", "no", 3], ["yes", "no", "3"], ["maybe", '"yes"']),
        (Unit, ["celsius"], ["C"]),
        (datetime.date, ["2024-02-29"], ["2023-02-29"]),
        (Point, ['{"x": 3}'], ["3"]),
        (list[int], ["[1, 2]"], ["[1,2]"]),
        (regex("a+"), ["a"], ["b"]),
    ],
    ids=str,
)
def test_types(what: Any, right: list[str], wrong: list[str]) -> None:
    assert all(holds(what, text) for text in right) and not any(holds(what, text) for text in wrong)


def holds(what: Any, text: str) -> bool:
    language: Any = of(what)
    return text in language


def test_terms_of_outlines_are_what_they_say() -> None:
    """Also those that its own index loses: see docs/grammar.md."""
    from outlines import types

    assert holds(types.number, "1.0") and holds(types.number, "12")
    assert holds(types.hex_color, "#000000")
    assert of(types.either("a", "ab")) == choice(["a", "ab"])
    assert holds(types.JsonSchema('{"type": "object", "properties": {"a": {"type": "integer"}}}'), '{"a": 1}')
    assert holds(types.CFG('start: "(" start ")" | "x"'), "((x))")
    with pytest.raises(RegexError, match="look-ahead"):
        of(types.Regex("(?=a)b"))


def test_a_string_is_ambiguous() -> None:
    lm = TableLM("ab", lambda text: {"a": 0.5, "b": 0.5})
    with pytest.raises(TypeError, match=r"a pattern or a text: say regex\(\.\.\.\) or choice"):
        lm.extend(lm.text("a"), grammar="ab")
    assert lm.extend(lm.text("a"), grammar=Literal["ab"]).text == lm.text("a")
    with pytest.raises(TypeError, match="neither a schema nor a type"):
        lm.extend(lm.text("a"), grammar=object())
