"""Context-free languages against lark itself: what it accepts, and what can still become that."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import lark
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ppl.grammar import EmptyLanguageError, GrammarError, RegexError, cfg
from ppl.grammar.cfg import CFG
from ppl.grammar.lexer import Lexer

JSON = r"""
start: value
?value: object | array | ESCAPED_STRING | SIGNED_NUMBER | "true" | "false" | "null"
array: "[" [value ("," value)*] "]"
object: "{" [pair ("," pair)*] "}"
pair: ESCAPED_STRING ":" value
%import common.ESCAPED_STRING
%import common.SIGNED_NUMBER
%import common.WS
%ignore WS
"""
KEYWORDS = r"""
start: statement+
statement: "if" NAME ";" | NAME "=" NAME ";"
NAME: /[a-z]+/
%ignore " "
"""
BACK = r"""
start: NUMBER (DOT X NUMBER?)*
NUMBER: /[0-9]+(\.[0-9]+)?/
DOT: "."
X: "x"
"""
COMMENTS = r"""
start: A (SLASH A)*
A: "a"
SLASH: "/"
COMMENT: /\/\*.*?\*\//
%ignore COMMENT
"""
SUMS = r"""
?start: term | start "+" term
?term: atom | term "*" atom
?atom: "1" | "(" start ")"
"""
EMPTY = r"""
start: part "c" part
part: | "a" part "b"
"""
CASES = [(JSON, '[]{,"1'), (KEYWORDS, "if =;"), (BACK, "1.x"), (COMMENTS, "a/*"), (SUMS, "1+*()"), (EMPTY, "abc")]


def accepted(text: str, grammar: CFG) -> bool:
    try:
        grammar.lark.parse(text)
    except lark.exceptions.LarkError:
        return False
    return True


def same_as_lark(grammar: CFG, letters: str, most: int) -> int:
    """How many texts lark accepts, all of them up to a length having been asked for, and their prefixes."""
    accept = {"".join(text) for n in range(most + 1) for text in product(letters, repeat=n)}
    accept = {text for text in accept if accepted(text, grammar)}
    prefixes = {text[:i] for text in accept for i in range(len(text) + 1)}
    shortest = {p: min(len(text) - len(p) for text in accept if text.startswith(p)) for p in prefixes}

    def walk(text: str, state: Any) -> None:
        assert grammar.accepts(state) == (text in accept), text
        assert text not in prefixes or not grammar.is_dead(state), text
        if text in prefixes:
            assert grammar.needs(state) <= shortest[text], text
        if len(text) < most and not grammar.is_dead(state):
            for letter in letters:
                walk(text + letter, grammar.advance(state, letter))

    walk("", grammar.start())
    return len(accept)


@pytest.mark.parametrize(("text", "letters"), CASES, ids=["json", "keywords", "back", "comments", "sums", "empty"])
def test_the_texts_that_lark_accepts(text: str, letters: str) -> None:
    assert same_as_lark(cfg(text), letters, 6 if len(letters) < 6 else 5) > 3


atoms = st.sampled_from(["a", "b", "ab", "[ab]", "a|ab", ".", "b?a"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{1,2}", "{1,2}?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(patterns, min_size=1, max_size=3))
@example(["(?:(?:aa|(?:a)*?))*"])  # behind a round that reads nothing none begins
@example(["a(?:(?:a)*?)*"])
@example(["(?:(?:[ab])??)*a"])
def test_lexemes_are_those_of_re(several: list[str]) -> None:
    """Fails with the longest match, with that of the shortest, and with lazy repetitions taken for greedy ones."""
    lexer = Lexer([(f"T{i}", pattern) for i, pattern in enumerate(several)], {}, frozenset(), 2000)
    alternatives = re.compile("|".join(f"(?P<T{i}>{pattern})" for i, pattern in enumerate(several)))
    for text in ("".join(letters) for n in range(1, 6) for letters in product("abc", repeat=n)):
        found = alternatives.match(text)
        if found and not found.end():
            continue  # lark takes no terminals that match nothing
        state, read = 0, None
        for i, byte in enumerate(text.encode()):
            state = lexer.next[state][byte]
            if lexer.match[state] is not None:
                read = lexer.match[state], i + 1
        assert read == (found and (found.lastgroup, found.end())), text


symbols = st.sampled_from(["one", "two", "A", "B", "C", '"ab"', '"c"'])
bodies = st.lists(st.lists(symbols, max_size=3).map(" ".join), min_size=1, max_size=3).map(" | ".join)
terminals = st.sampled_from(['"a"', "/a+/", "/a|ab/", "/[ab]/", "/b+?/", "/a.?c/", '"b"', "/ca*/", '"i"i'])


@settings(max_examples=250, deadline=None, database=None)
@given(bodies, bodies, bodies, terminals, terminals, terminals, st.booleans())
def test_random_grammars(start: str, one: str, two: str, a: str, b: str, c: str, ignore: bool) -> None:
    """Of those that lark takes."""
    text = f"start: {start}\none: {one}\ntwo: {two}\nA: {a}\nB: {b}\nC: {c}\n" + ('%ignore "c"\n' if ignore else "")
    try:
        grammar = cfg(text)
    except GrammarError:
        assume(False)
        return
    same_as_lark(grammar, "abc", 5)


def test_a_state_that_can_only_end_needs_nothing() -> None:
    one = cfg(SUMS)
    for text, needs in {"": 1, "(": 2, "((1+": 3, "((1)": 1, "1": 0, "1*": 1}.items():
        assert one.needs(one.advance(one.start(), text)) == needs
    assert one.needs(one.advance(one.start(), ")")) == float("inf")
    assert not one.complete(one.advance(one.start(), "1")) and not one.complete(None)
    closed = cfg('start: "(" start ")" | "x"')
    assert closed.complete(closed.advance(closed.start(), "(x)"))
    assert sum(closed.mask(closed.start())) == 2 and repr(closed).startswith('<language start: "("')


def test_texts_are_characters() -> None:
    """Of several bytes, and a terminal that asks for any character."""
    one = cfg('start: "é" /./ "字"')
    assert "éx字" in one and "é字字" in one and "éxx" not in one
    half = one.advance(one.start(), "é".encode()[:1])
    assert not one.is_dead(half) and not one.accepts(half) and one.is_dead(one.advance(half, b"\xa8"))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("start: (", GrammarError, "line 1"),
        ("start: other", GrammarError, "other"),
        ('start: start start | "a"', GrammarError, "conflict"),
        ('start: a | b\na: "x"\nb: "x"', GrammarError, "collision"),
        ("start: A | B\nA: /a+/\nB: /[ab]+/", GrammarError, "Collision"),
        ("%declare A\nstart: A", GrammarError, "A"),
        ("start: A\nA: /a(?=b)/", RegexError, "terminal A"),
        ("start: A\nA: /a$/", RegexError, "terminal A"),
        ("start: A\nA: /(?P<x>a)(?P=x)/", RegexError, "terminal A"),
        ("start: A\nA: /(a)\\1/", GrammarError, "open group"),
        ('start: "a" start', EmptyLanguageError, "no text"),
    ],
)
def test_what_is_no_grammar(text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        cfg(text)


def test_a_start_that_is_no_rule() -> None:
    with pytest.raises(GrammarError, match="begin"):
        cfg('start: "a"', start="begin")
