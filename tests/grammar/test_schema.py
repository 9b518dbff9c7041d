"""JSON schemas: what is written is valid, what is valid in our form is written, the rest is refused by its pointer."""

from __future__ import annotations

import dataclasses
import json
import random
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl import measure, program, sample
from ppl.grammar import EmptyLanguageError, Regular, UnsupportedSchemaError, json_schema, json_text, regex
from ppl.models import TableLM


def walk(language: Regular, rng: random.Random) -> str:
    """A random text, not much longer than it must be."""
    data, state, dfa = bytearray(), 0, language.dfa
    while True:
        ways = np.flatnonzero(dfa.next[state] < dfa.size)
        if dfa.accept[state] and (not len(ways) or rng.random() < 0.3):
            return data.decode()
        if rng.random() < min(0.9, len(data) / 60):
            near = dfa.distance[dfa.next[state][ways]]
            ways = ways[near == near.min()]
        data.append(rng.choice(ways.tolist()))
        state = int(dfa.next[state, data[-1]])


def valid(schema: Any, value: Any) -> bool:
    checker = jsonschema.FormatChecker()
    return jsonschema.Draft202012Validator(schema, format_checker=checker).is_valid(value)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "é\n"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
}
CASES: list[tuple[Any, list[Any], list[Any]]] = [  # schema, values that are written, values that are not
    (PERSON, [{"name": "é", "age": 0}, {"name": "x", "age": 150, "tags": ["a", "é\n"]}],
     [{"name": "", "age": 1}, {"age": 1}, {"name": "a", "age": 151}, {"name": "a", "age": -1},
      {"name": "a", "age": 1, "x": 1}, {"name": "a", "age": 1, "tags": ["c"]}, {"name": "a" * 9, "age": 1}]),
    ({"type": ["integer", "null"]}, [0, -12, 7, None], [1.5, "1", True]),
    ({"type": "number", "exclusiveMinimum": -1.5, "maximum": 99.25}, [-1.4, -1, 0, 99.25, 0.5], [-1.5, 99.26, -2, 100]),
    ({"type": "integer", "multipleOf": 7}, [0, 7, -14, 98], [1, 13]),
    ({"type": "string", "pattern": "^a+$"}, ["a", "aaa"], ["b", "", "ab"]),
    ({"type": "string", "pattern": "[\"\\\\]"}, ["\"", "a\\b"], ["a"]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-13-01", "0000-01-01"]),
    ({"type": "string", "format": "date-time"}, ["2024-02-29T23:59:59Z"], ["2024-02-29"]),
    ({"type": "string", "minLength": 2, "maxLength": 2}, ["éé", "\"\n", "😀a"], ["a", "abc"]),
    ({"enum": [1, "one", None, [1, {"a": 2}], True]}, [1, "one", None, [1, {"a": 2}], True], [2, "two", False, []]),
    ({"const": {"b": 1, "a": [True]}}, [{"b": 1, "a": [True]}], [{"b": 1}, {}]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}, [[], ["a"], ["a", 1]],
     [[1], ["a", 1, 1], ["a", "b"]]),
    ({"type": "array", "items": {"type": "integer"}, "contains": {"const": 5}, "minItems": 2},
     [[5, 1], [1, 5], [5, 5, 5]], [[5], [1, 2], []]),
    ({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]}, ["a", 5], [4, None]),
    ({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]}, [-1, 6], [0, 5]),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "string"}, "a": {"minimum": 3}}}], "type": "object"},
     [{"a": 3}, {"a": 4, "b": "x"}], [{"a": 2}, {"b": "x"}, {"a": 3, "b": 1}]),
    ({"type": "integer", "not": {"multipleOf": 2}}, [1, -3], [2, 0]),
    ({"type": "string", "not": {"enum": ["a", "b"]}}, ["c", "", "ab"], ["a", "b"]),
    ({"type": ["string", "integer"], "if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"minLength": 2}},
     [3, "ab"], [2, "a"]),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
     [{}, {"a": 1}, {"a": 1, "b": True, "c": False}, {"z": True}], [{"a": True}, {"b": 1}]),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
     [{}, {"x": 1, "xy": 2}], [{"y": 1}, {"x": "a"}]),
    ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 1, "maxProperties": 2},
     [{"a": 1}, {"b": None, "c": []}], [{}, {"a": 1, "b": 2, "c": 3}]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
      "dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 2}], [{"a": 1}]),
    ({"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, "v": {"type": t}}, "required": ["kind", "v"]}
                for k, t in (("s", "string"), ("i", "integer"))]},
     [{"kind": "s", "v": "x"}, {"kind": "i", "v": 3}], [{"kind": "s", "v": 3}, {"kind": "x", "v": 3}]),
    ({"$defs": {"p": {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 2}, "n": {"type": "integer"}},
      "$ref": "#/$defs/p"}, [[], [1, 2]], [[1, 2, 3], ["a"]]),
    ({"$defs": {"x": {"$anchor": "here", "type": "integer"}}, "$ref": "#here"}, [1, -2], ["a", []]),
    ({"enum": [-2.0, 3, [1.0]]}, [-2.0, -2, 3, [1.0], [1]], [2, "a"]),
    ({"type": "integer", "not": {"const": 1.0}}, [2, 0], [1]),
    (True, [1, "a", None, [1, {"a": 2}], {"b": {}}], []),
    ({"type": "object", "propertyNames": {"pattern": "^[ab]$"}, "additionalProperties": {"type": "integer"}},
     [{"a": 1, "b": 2}], [{"c": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "right", "wrong"), CASES, ids=range(len(CASES)))
def test_what_is_written_is_valid(schema: Any, right: list[Any], wrong: list[Any]) -> None:
    rng = random.Random(0)
    for closed in (True, False):
        try:
            language = json_schema(schema, closed=closed)
        except UnsupportedSchemaError:
            assert not closed and "minProperties" in schema  # a name could come twice
            continue
        for value in right:
            assert valid(schema, value) and json.dumps(value, ensure_ascii=False) in language, value
        for value in wrong:
            text = json.dumps(value, ensure_ascii=False)
            assert text not in language or (not closed and valid(schema, value)), value
        for _ in range(60):
            assert isinstance(language, Regular)
            text = walk(language, rng)
            assert text in language and valid(schema, json.loads(text)), text


@settings(max_examples=150, deadline=None)
@given(st.decimals(-200, 200, places=2), st.lists(st.decimals(-210, 210, places=3), min_size=1, max_size=20))
def test_bounds_are_exact(bound: Decimal, values: list[Decimal]) -> None:
    languages = {
        ">=": json_text.at_least(bound), ">": json_text.at_least(bound, True), "<=": json_text.at_most(bound),
        "<": json_text.at_most(bound, True),
    }  # fmt: skip
    for value in [*values, bound]:
        truth = {">=": value >= bound, ">": value > bound, "<=": value <= bound, "<": value < bound}
        for text in {f"{value:f}", f"{value.normalize():f}", f"{value:f}0" if "." in f"{value:f}" else f"{value:f}.0"}:
            for sign, language in languages.items():
                assert (text in language) == truth[sign], (sign, text)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_strings_have_one_text(value: str) -> None:
    text, everything = json.dumps(value, ensure_ascii=False), json_schema({"type": "string"})
    assert text in everything and list(json_text.scalar(value).texts()) == [text]
    escaped = json.dumps(value)
    assert (escaped in everything) == (escaped == text)


@pytest.mark.parametrize(
    ("schema", "pointer", "words"),
    [
        ({"type": "array", "uniqueItems": True}, "/uniqueItems", "uniqueItems"),
        ({"properties": {"a/b": {"type": "string", "format": "iri"}}}, "/properties/a~1b/format", "'iri' is none"),
        ({"type": "string", "pattern": "a(?=b)"}, "/pattern", "look-ahead"),
        ({"type": "number", "multipleOf": 0.1}, "/multipleOf", "whole numbers"),
        ({"$ref": "http://example.com/x"}, "/$ref", "within the schema"),
        ({"not": {"type": "object", "required": ["a"]}}, "/not", "'not' of some"),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "/oneOf", "anyOf"),
        ({"type": "object", "maxProperties": 1}, "/maxProperties", "could come twice"),
        ({"unevaluatedProperties": False}, "/unevaluatedProperties", "not implemented"),
        ({"type": "text"}, "/type", "'text' is none of"),
        ({"type": "string", "minLength": -1}, "/minLength", "no count"),
        ({"$ref": "#/$defs/x"}, "/$ref", "leads nowhere"),
        ({"$ref": "#here"}, "/$ref", "leads nowhere"),
        ({"$defs": {"x": {"$id": "http://x", "$defs": {"y": {}}}}, "$ref": "#/$defs/x"}, "/$ref", "has an \\$id"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused_by_its_pointer(schema: Any, pointer: str, words: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=words) as caught:
        json_schema(schema)
    assert caught.value.pointer == pointer and pointer in str(caught.value)


@pytest.mark.parametrize("schema", [
    False, {"type": "integer", "minimum": 3, "maximum": 2}, {"enum": []},
    {"allOf": [{"type": "string"}, {"type": "null"}]},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    {"type": "array", "items": False, "minItems": 1}, {"type": "string", "minLength": 3, "maxLength": 2},
])  # fmt: skip
def test_what_nothing_is_valid_by_is_told(schema: Any) -> None:
    with pytest.raises(EmptyLanguageError, match="no value is valid"):
        json_schema(schema)


def test_what_is_no_schema_is_told() -> None:
    with pytest.raises(TypeError, match="not JSON"):
        json_schema("{")
    with pytest.raises(TypeError, match="neither a schema nor a type"):
        json_schema(object())
    with pytest.raises(TypeError, match="is no schema"):
        json_schema({"items": 3})


def test_types_have_schemas() -> None:
    from pydantic import BaseModel

    class Colour(Enum):
        RED = "red"
        BLUE = "blue"

    class Call(BaseModel):
        city: str
        colour: Colour
        unit: Literal["C", "F"] = "C"

    @dataclasses.dataclass
    class Point:
        x: int
        y: float | None = None

    assert '{"city": "Rome", "colour": "red"}' in json_schema(Call)
    assert '{"city": "Rome", "colour": "blue", "unit": "F"}' in json_schema(Call)
    assert '{"city": "Rome", "colour": "green"}' not in json_schema(Call)
    assert '{"x": 3, "y": null}' in json_schema(Point) and '{"x": 3.5}' not in json_schema(Point)
    assert "[1, 2]" in json_schema(list[int]) and '"red"' in json_schema(Colour)


def test_supersets_are_checked_at_the_end() -> None:
    """Also in a program: what is not valid has weight 0, and the evidence is that of what is."""
    schema = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 2}, "minItems": 2, "maxItems": 2,
              "uniqueItems": True}  # fmt: skip
    language: Any = json_schema(schema, on_unsupported="superset")
    assert "[1, 2]" in language and "[1, 1]" not in language and language.check is not None
    met = language & regex(r"\[1.*")
    assert "[1, 2]" in met and "[1, 1]" not in met and "[2, 1]" not in met
    for wrong in (lambda: ~language, lambda: language | "a", lambda: language + "a", lambda: "a" + language):
        with pytest.raises(TypeError, match="checked when they are finished"):
            wrong()
    letters = ["[", "]", ", ", "1", "2"]
    lm = TableLM(letters, lambda text: dict(zip(letters, (0.1, 0.2, 0.3, 0.25, 0.15), strict=True)))

    @program
    async def write(every: int | None) -> str:
        dist = lm.extend(lm.text("1"), grammar=language, max_tokens=6)
        return str(await sample("json", dist if every is None else dist.resample_every(every)))[1:]

    p = 0.1 * 0.25 * 0.3 * 0.15 * 0.2
    for every in (None, 2):
        assert dict(measure(write(every))) == pytest.approx({"[1, 2]": p, "[2, 1]": p}, abs=1e-15)


def test_thirty_optional_properties_are_no_trouble() -> None:
    language: Any = json_schema({"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(30)}})
    assert language.dfa.size < 500 and '{"k3": 1, "k29": -2}' in language and '{"k3": 1, "k2": 2}' not in language
