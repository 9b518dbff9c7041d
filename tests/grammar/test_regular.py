"""Regular languages against `re.fullmatch`, and the laws of their algebra."""

from __future__ import annotations

import re
import time
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl.grammar import EmptyLanguageError, RegexError, Regular, TooLargeError, choice, everything, regex
from ppl.grammar.utf8 import ALL, sequences

ALPHABET = "ab\nK\u212aé"  # K and the Kelvin sign are one letter in two cases
TEXTS = ["".join(t) for n in range(5) for t in product(ALPHABET, repeat=n)]
SHORT = ["".join(t) for n in range(6) for t in product("ab\n", repeat=n)]

ATOMS = st.sampled_from([
    "a", "b", "é", "k", r"\n", ".", "[ab]", "[^a]", "[^b\n]", r"\w", r"\W", r"\d", r"\s", r"\S", "[a-é]", "",
    "[^\\s\\S]",
])  # fmt: skip


def _wider(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    times = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{1,3}?", "{0}"])
    flags = st.sampled_from(["(?i:", "(?s:", "(?a:", "(?-i:", "(?:", "("])
    anchors = st.sampled_from(["^", "$", r"\A", r"\Z"])
    return st.one_of(
        st.tuples(inside, inside).map("".join),
        st.tuples(inside, inside).map(lambda ab: f"(?:{ab[0]}|{ab[1]})"),
        st.tuples(inside, times).map(lambda at: f"(?:{at[0]}){at[1]}"),
        st.tuples(flags, inside).map(lambda fa: f"{fa[0]}{fa[1]})"),
        st.tuples(anchors, inside).map("".join),
        st.tuples(inside, anchors).map("".join),
    )


PATTERNS = st.recursive(ATOMS, _wider, max_leaves=6)


@settings(max_examples=300, deadline=None)
@given(PATTERNS)
def test_the_language_is_that_of_fullmatch(pattern: str) -> None:
    found, one = regex(pattern), re.compile(pattern)
    for text in TEXTS:
        assert (text in found) == (one.fullmatch(text) is not None), (pattern, text)
    for text in SHORT:
        assert (text in found) == (one.fullmatch(text) is not None), (pattern, text)


@pytest.mark.parametrize("pattern", [
    "a|ab", r"0(\.0)?", "a*?", "(a$)?\n", "(|a)$(\n|b)?", r"(?i)\u212a", "(?i:[J-L])", "(a|^)b", "($)+\n", r"a\Z|\Zb?",
    "(?s:.)+$",
])  # fmt: skip
def test_odd_corners(pattern: str) -> None:
    found, one = regex(pattern), re.compile(pattern)
    for text in [*TEXTS, "0", "0.0", "0.", "k", "\u212a", "j"]:
        assert (text in found) == (one.fullmatch(text) is not None), text


@settings(max_examples=60, deadline=None)
@given(PATTERNS, PATTERNS)
def test_algebra(left: str, right: str) -> None:
    a, b = regex(left), regex(right)
    results = {"|": a | b, "&": a & b, "-": a - b, "~": ~a}
    for text in TEXTS[:400]:
        p, q = text in a, text in b
        assert [text in x for x in results.values()] == [p or q, p and q, p and not q, not p]
    assert ~(a | b) == ~a & ~b and ~~a == a and a - b == a & ~b and (a | b) - b == a - b
    both, apart = a + b, a.difference(b)
    assert (apart is None) == (a == b)
    assert apart is None or (apart in a) != (apart in b)
    for text in TEXTS[:300]:
        cuts = range(len(text) + 1)
        assert (text in both) == any(text[:i] in a and text[i:] in b for i in cuts)
    assert a.repeat(0, 2) == choice([""]) | a | a + a and a.repeat(1) == a + a.repeat(0)


@settings(max_examples=60, deadline=None)
@given(PATTERNS)
def test_counts_and_texts(pattern: str) -> None:
    language = regex(pattern) & regex("(?s)[ab\n]*")
    inside = [text for text in SHORT if text in language]
    assert language.count(4) == sum(len(text) <= 4 for text in inside)
    texts = language.texts()
    listed = [text for text in (next(texts, None) for _ in range(len(inside))) if text is not None]
    assert listed == sorted(inside, key=lambda text: (len(text), text)) or len(listed) > len(inside) - 1
    assert language.finite == ((language & regex("(?s).{40,}")).empty)
    if not language.empty:
        assert language.shortest() in language and (not inside or len(language.shortest()) == min(map(len, inside)))


def test_automata_are_minimal() -> None:
    """No two states have the same future, and equal languages are equal arrays."""
    for one, other in (
        ("(a|b)*abb", "(b|a(?:a)*b(?:ab)*b?)*abb|[ab]*abb"),
        ("a{2,5}", "aa(a(aa?)?)?"),
        (r"[\w\W]", "(?s)."),
    ):
        a, b = regex(one).dfa, regex(other).dfa
        assert a == b and (a.next == b.next).all() and hash(regex(one)) == hash(regex(other))
    for pattern in ("(a|b)*a(a|b){4}", '[^"\n]{0,20}', r"\w+@\w+"):
        dfa = regex(pattern).dfa
        futures = {(bool(accept), row.tobytes()) for accept, row in zip(dfa.accept, dfa.next, strict=True)}
        assert len(futures) == dfa.size + 1  # a weaker thing than minimality, and cheap
    assert regex("(a|b)*a(a|b){4}").dfa.size == 32


def test_characters_of_all_lengths() -> None:
    for point in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF):
        assert (
            chr(point) in everything()
            and chr(point) in regex("(?s).")
            and chr(point) not in regex(f"[^\\U{point:08x}]")
        )
    assert (
        b"\xed\xa0\x80" not in everything()
        and b"\xc0\x80" not in everything()
        and b"\xf4\x90\x80\x80" not in everything()
    )
    count = sum(int(np.prod([high - low + 1 for low, high in one])) for one in sequences(ALL))
    assert count == 0x110000 - 0x800


@pytest.mark.parametrize(
    ("pattern", "message", "position"),
    [
        ("(a", "unterminated", 0), ("a{2,1}", "min repeat", 2), ("[z-a]", "bad character range", 1),
        ("*a", "nothing to repeat", 0),
        ("ab(?=c)", "look-ahead", 2), ("(?<!a)b", "look-ahead or look-behind", 0), (r"(a)\1", "back-reference", 3),
        (r"x\bx", "word boundary", 1), ("(?>a)", "atomic", 0), ("a*+", "possessive", 1), ("(?m)a$", "each line", None),
        (r"(a)?(?(1)b|c)", "condition on a group", 4),
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_named(pattern: str, message: str, position: int | None) -> None:
    with pytest.raises(RegexError, match=message) as caught:
        regex(pattern)
    assert caught.value.position == position


@pytest.mark.parametrize("make", [
    lambda: regex("(a{1000}){1000}"), lambda: regex("(a|b)*a(a|b){20}"), lambda: regex("((a{99}){99}){99}"),
    lambda: regex("(a|b)*a(a|b){10}", max_states=1000), lambda: regex("a{300}").repeat(300),
    lambda: regex("(a|b)*a(a|b){9}", max_states=1500) & regex("(a|b)*b(a|b){9}", max_states=1500),
])  # fmt: skip
def test_too_large_is_told_soon(make: Any) -> None:
    start = time.process_time()
    with pytest.raises(TooLargeError, match="max_states="):
        make()
    assert time.process_time() - start < 20  # without the limit: minutes, and all memory


def test_reading_byte_by_byte() -> None:
    language = regex("é+b")
    state = language.start()
    for byte in "éé".encode():
        assert language.mask(state)[byte] and not language.accepts(state)
        state = language.advance(state, bytes([byte]))
    assert language.mask(state).sum() == 2 and language.is_dead(language.advance(state, "a"))
    assert language.accepts(language.advance(state, "b"))


def test_choices_and_strings() -> None:
    language = choice(["cat", "caterpillar", "é"])
    assert sorted(language.texts()) == ["cat", "caterpillar", "é"] and language.finite
    assert list(("a" + choice(["b", "c"]) + "d").texts()) == ["abd", "acd"]
    assert "x" | regex("y") == regex("x|y") and "ab" - regex("a") == choice(["ab"]) and ("a" & regex("b")).empty
    assert str(regex("a|b")) == "<language a|b, 2 states>"
    for wrong in ("abc", ["a", 1]):
        with pytest.raises(TypeError, match="a list of strings"):
            choice(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(EmptyLanguageError, match="nothing to choose"):
        choice([])
    with pytest.raises(EmptyLanguageError, match="has no text"):
        (regex("a") & "b").shortest()
    with pytest.raises(TypeError, match="no regular language"):
        _ = regex("a") | 3  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(ValueError, match=r"repeat\(3, 2\)"):
        regex("a").repeat(3, 2)
    assert isinstance(regex("a").optional(), Regular)
