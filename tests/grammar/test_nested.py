"""Automata that call one another, and recursive schemas: against a naive reader, and against `jsonschema`."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from test_constrained import table_lm

from ppl import measure, program, sample
from ppl.grammar import EmptyLanguageError, GrammarError, Regular, UnsupportedSchemaError, json_schema, regex
from ppl.grammar.nested import Nested, call
from ppl.grammar.nfa import NFA

LETTERS = b"ab"


def automaton(words: list[list[int | None]]) -> Regular:
    """Of some words: letters, calls, and None for any number of letters a."""
    nfa = NFA(1000)
    parts = []
    for word in words:
        pieces = [nfa.empty()]
        for one in word:
            pieces.append(nfa.starred(nfa.literal(b"a")) if one is None else
                          nfa.literal(call(one) if one < 10 else bytes([one])))  # fmt: skip
        parts.append(nfa.joined(pieces))
    return Regular(nfa.determined(nfa.either(parts)), "words")


symbols = st.sampled_from([*LETTERS, *LETTERS, 1, 2, None])
systems = st.lists(st.lists(st.lists(symbols, min_size=1, max_size=3), min_size=1, max_size=3), min_size=3, max_size=3)


def naive(system: list[list[list[int | None]]], longest: int) -> list[set[bytes]]:
    """The texts of each automaton, to a length, by iteration from none."""
    texts: list[set[bytes]] = [set() for _ in system]
    stars = {b"a" * n for n in range(longest + 1)}
    while True:
        fresh = []
        for words in system:
            found = set[bytes]()
            for word in words:
                ways = {b""}
                for one in word:
                    options = stars if one is None else texts[one] if one < 10 else {bytes([one])}
                    ways = {a + b for a in ways for b in options if len(a) + len(b) <= longest}
                found |= ways
            fresh.append(found)
        if fresh == texts:
            return texts
        texts = fresh


@settings(max_examples=200, deadline=None, database=None)
@given(systems)
def test_against_a_naive_reader(system: list[list[list[int | None]]]) -> None:
    """Members, what may follow, how much is needed, of all texts to length 5.

    Fails if one way to read hides another.
    """
    longest = 8
    right = naive(system, longest)[0]
    try:
        language = Nested([automaton(words).dfa for words in system], ["A", "B"])
    except EmptyLanguageError:
        assert not right
        return
    except GrammarError as error:
        if "is defined as itself" not in str(error):
            raise
        return
    for text in (bytes(some) for n in range(6) for some in product(LETTERS, repeat=n)):
        state = language.advance(language.start(), text)
        assert (text in language) == language.accepts(state) == (text in right)
        longer = [len(one) - len(text) for one in right if one.startswith(text)]
        if longer:
            assert language.needs(state) == min(longer) and not language.is_dead(state)
        elif language.needs(state) < longest - len(text):
            raise AssertionError(f"{text!r} needs less than there is")
        if text in right and (language.complete(state) or max(longer) > 0):
            assert language.complete(state) == (max(longer) == 0)


def test_sums_and_choices() -> None:
    brackets = Nested([automaton([[ord("a"), 1, ord("b")]]).dfa, automaton([[ord("a"), 1, ord("b")], [98]]).dfa], ["A"])
    assert "aabbb" in brackets and "aabbbb" in brackets + "b" and "aabbb" not in brackets + "b"
    assert "baabbb" in "b" + brackets and "aabbb" not in "b" + brackets
    assert "x" in brackets | "x" and "aabbb" in brackets | "x" and "x" in ("x" | brackets)
    assert "abb" in brackets & regex(".{0,4}") and "aabbb" not in brackets & regex(".{0,4}")
    brackets.check = lambda text: False
    with pytest.raises(TypeError, match="checked when they are finished"):
        _ = brackets + "b"


class Node(BaseModel):
    value: int
    children: list[Node] = []
    left: Node | None = None


TREE: dict[str, Any] = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}
MUTUAL: dict[str, Any] = {
    "$defs": {
        "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "additionalProperties": False},
        "b": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}, {"enum": [1, "x"]}]},
    },
    "anyOf": [{"$ref": "#/$defs/b"}, {"type": "null"}],
}
NARROWED: dict[str, Any] = {
    "$defs": {"n": {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"type": "integer"}}}},
    "allOf": [{"$ref": "#/$defs/n"}, {"required": ["b"]}],
}
EITHER: dict[str, Any] = {
    "oneOf": [{"type": "integer"}, {"$ref": "#/$defs/l"}],
    "$defs": {"l": {"type": "array", "items": {"oneOf": [{"type": "integer"}, {"$ref": "#/$defs/l"}]}}},
}
ROOT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"anyOf": [{"$ref": "#"}, {"const": 0}]}},
    "required": ["a"],
}
SCHEMAS: list[Any] = [TREE, MUTUAL, NARROWED, EITHER, ROOT, Node.model_json_schema()]
values = st.recursive(
    st.sampled_from([0, 1, None, "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.fixed_dictionaries({}, optional={"value": inner, "a": inner, "b": inner, "children": inner, "left": inner})
    ),
    max_leaves=6,
)


ORDER = ["value", "children", "left", "a", "b"]


def ordered(value: Any) -> Any:
    """Properties in the order of the schemas."""
    if isinstance(value, dict):
        return {name: ordered(value[name]) for name in sorted(value, key=ORDER.index)}
    return list(map(ordered, value)) if isinstance(value, list) else value


@cache
def language_of(i: int) -> Any:
    return json_schema(SCHEMAS[i])


@pytest.mark.parametrize("i", range(len(SCHEMAS)))
def test_recursive_schemas(i: int) -> None:
    """Against `jsonschema`: values that are drawn, and texts that the language writes."""
    validator = jsonschema.Draft202012Validator(SCHEMAS[i])
    parts = [SCHEMAS[i], *SCHEMAS[i].get("$defs", {}).values()]
    names = {name for part in parts for name in part.get("properties", {})}

    def said(value: Any) -> bool:
        """Whether a value has only properties that the schema names: others are left out."""
        if isinstance(value, dict):
            return value.keys() <= names and all(map(said, value.values()))
        return all(map(said, value)) if isinstance(value, list) else True

    @settings(max_examples=400, deadline=None, database=None)
    @given(values)
    def check(value: Any) -> None:
        text = json.dumps(ordered(value))
        assert (text in language_of(i)) == (validator.is_valid(value) and said(value))

    check()
    rng, seen, language = np.random.default_rng(i), set[str](), language_of(i)
    for _ in range(200):
        text, state = b"", language.start()
        while not language.accepts(state) or (not language.complete(state) and rng.random() < 0.8):
            options = {byte: language.advance(state, bytes([byte])) for byte in range(32, 127)}
            alive = [byte for byte, to in options.items() if not language.is_dead(to)]
            if len(text) > 40 and not language.complete(state):  # home by the shortest way
                alive = [min(alive, key=lambda byte: language.needs(options[byte]))]
            byte = int(rng.choice(alive))
            text, state = text + bytes([byte]), options[byte]
        assert validator.is_valid(json.loads(text)), text
        seen.add(text.decode())
    assert len(seen) > 5 and max(map(len, seen)) > 12


anything_at_all = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(anything_at_all, st.integers(0, 100), st.sampled_from('[]{},": 1ax'))
def test_any_value_to_any_depth(value: Any, at: int, letter: str) -> None:
    text, language = json.dumps(value, ensure_ascii=False), anything()
    assert text in language and language.complete(language.advance(language.start(), text)) == (text[-1] in ']}"el')
    other = text[: at % (len(text) + 1)] + letter + text[at % (len(text) + 1) :]
    try:
        right = json.dumps(json.loads(other), ensure_ascii=False) == other
    except ValueError:
        right = False
    assert not right or other in language
    if other in language:
        json.loads(other)


@cache
def anything() -> Any:
    return json_schema(True, depth=None)


def test_deep_texts_are_no_trouble() -> None:
    text = "[" * 5000 + "]" * 5000
    assert text in anything() and text[:-1] not in anything()


@pytest.mark.parametrize(
    ("schema", "kind", "words"),
    [
        ({"$ref": "#"}, EmptyLanguageError, "no text of it comes to an end"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, GrammarError, "# is defined as itself"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, EmptyLanguageError, "by the sch"),
        ({"oneOf": [{"type": "array", "maxItems": 0}, {"$ref": "#/$defs/t"}], "$defs": TREE["$defs"]},
         UnsupportedSchemaError, "/oneOf: branches 0 and 1"),
        ({"not": {"$ref": "#/$defs/t"}, "$defs": TREE["$defs"]}, UnsupportedSchemaError, "/not: 'not' of some"),
    ],
)  # fmt: skip
def test_what_cannot_be(schema: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        json_schema(schema)


def test_in_a_model() -> None:
    """Blocks of a recursive schema, and one whose finished texts are checked: by brute force over all blocks."""
    letters = ["[", "]", ", ", "."]
    lm = table_lm(letters, ".", 3)
    unique = {**TREE, "$defs": {"t": {**TREE["$defs"]["t"], "uniqueItems": True}}}
    cases: list[tuple[Any, Any]] = [(TREE, {}), (unique, {"on_unsupported": "superset"})]
    for schema, how in cases:
        language: Any = json_schema(schema, **how)
        validator = jsonschema.Draft202012Validator(schema)

        @program
        async def write(pieces: int | None, language: Any = language) -> str:
            dist = lm.extend(lm.text("["), grammar=language, max_tokens=7)
            return str(await sample("json", dist if pieces is None else dist.resample_every(pieces)))[1:]

        right = {}
        for n in range(1, 8):
            for block in product(letters[:3], repeat=n):
                text = "".join(block)
                try:
                    good = validator.is_valid(json.loads(text)) and json.dumps(json.loads(text)) == text
                except ValueError:
                    good = False
                if good:
                    at, p = "[", 1.0
                    for token in block:
                        p, at = p * lm.next_tokens(at)[token], at + token
                    right[text] = p
        assert len(right) == (3 if how else 4)  # [[], []] is not unique
        for pieces in (None, 2):
            found = {text: p for text, p in dict(measure(write(pieces))).items() if p > 0}
            assert found == pytest.approx(right, abs=1e-12)
