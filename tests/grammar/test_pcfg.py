"""Probabilistic grammars against the definition: sums over derivations, listed or by fixed points of the rules."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checked import Asked, Oracle
from test_constrained import block, built, table_lm, tokens_of

from ppl import SMC, Importance, Systematic, collapse, infer, measure, program, sample
from ppl.distributions import NotFinite, table
from ppl.grammar import GrammarError, Rule, TooLargeError, Tree, pcfg, regex
from ppl.grammar.language import log_weight
from ppl.grammar.pcfg import PCFG
from ppl.source import Key
from ppl.testing import assert_draws

TERMINALS = [b"a", b"b", b"ab", b"ba", b"a", "é".encode()]
SUMS = """
    sum  -> term [0.6] | sum "+" term [0.4]   # left recursion
    term -> "x" [0.5] | "(" sum ")" [0.2]
          | "xy" [0.3]
"""


@st.composite
def grammars(draw: st.DrawFn, recursive: bool) -> PCFG:
    """Random rules, empty ones, chains and ambiguity among them; recursive ones may use any nonterminal anywhere."""
    names = ["S", "A", "B", "C"]
    rules: list[Rule] = []
    for i, head in enumerate(names):
        later = names if recursive else names[i + 1 :]
        symbols = st.sampled_from([*TERMINALS, *later, *later])
        bodies = draw(st.lists(st.lists(symbols, max_size=3), min_size=1, max_size=3))
        weights = [draw(st.integers(1, 4)) for _ in bodies] + [5 if recursive else 1]
        bodies.append([draw(st.sampled_from(TERMINALS))] if draw(st.booleans()) else [])
        rules += [Rule(head, tuple(body), w / sum(weights)) for body, w in zip(bodies, weights, strict=True)]
    return PCFG(rules)


def by_fixed_point(grammar: PCFG, text: bytes, rounds: int = 400) -> dict[tuple[str, int, int], float]:
    """P(head becomes text[i:j]) for all, straight from the rules, iterated from 0."""
    n, p = len(text), defaultdict[tuple[Any, int, int], float](float)
    for _ in range(rounds):
        fresh = defaultdict[tuple[Any, int, int], float](float)
        for rule in grammar.rules:
            for i in range(n + 1):
                ways = {i: rule.p}
                for one in rule.body:
                    more = defaultdict[int, float](float)
                    for at, q in ways.items():
                        if isinstance(one, bytes):
                            if text.startswith(one, at):
                                more[at + len(one)] += q
                        else:
                            for j in range(at, n + 1):
                                more[j] += q * p[one, at, j]
                    ways = more
                for j, q in ways.items():
                    fresh[rule.head, i, j] += q
        if all(math.isclose(fresh[at], p[at], rel_tol=1e-15) for at in fresh):
            return fresh
        p = fresh
    return p


@settings(max_examples=150, deadline=None, database=None)
@given(grammars(recursive=False))
def test_finite_grammars(grammar: PCFG) -> None:
    """Texts, prefixes, weights on the way and the device, against the list of all derivations.

    Fails without what becomes nothing, without chains, or where a terminal is part of another.
    """
    right = defaultdict[str, float](float)
    for tree, p in grammar.trees.table():
        right[str(tree)] += p
        assert math.exp(grammar.trees.log_prob(tree)) == pytest.approx(p, rel=1e-9)
    assert sum(right.values()) == pytest.approx(1)
    assert dict(grammar.table()) == pytest.approx(right)
    for text, p in right.items():
        assert grammar.prob(text) == pytest.approx(p, rel=1e-9)
        data = text.encode()
        for n in range(len(data) + 1):
            state = grammar.advance(grammar.start(), data[:n])
            going = {other: q for other, q in right.items() if other.encode().startswith(data[:n])}
            assert math.exp(grammar.log_value(state)) == pytest.approx(sum(going.values()), rel=1e-9)
            assert grammar.complete(state) == ({other.encode() for other in going} == {data[:n]})
            assert grammar.needs(state) == min(len(other.encode()) - n for other in going)
    others = ["".join(some) for n in range(4) for some in product("abé", repeat=n)]
    assert [grammar.prob(one) for one in others] == pytest.approx([right.get(one, 0.0) for one in others])
    assert all((one in grammar) == (one in right) for one in others)


@settings(max_examples=60, deadline=None, database=None)
@given(st.data())
def test_recursive_grammars(data: st.DataObject) -> None:
    """Texts against fixed points of the rules; prefixes by P(prefix) = P(text) + sum of P(prefix, one byte more)."""
    try:
        grammar = data.draw(grammars(recursive=True))
    except GrammarError as error:
        if "is not consistent" not in str(error):
            raise
        return
    for text in data.draw(st.lists(st.text("abé", max_size=4), min_size=3, max_size=3)):
        whole = text.encode()
        right = by_fixed_point(grammar, whole)[grammar.start_symbol, 0, len(whole)]
        assert grammar.prob(text) == pytest.approx(right, rel=1e-6, abs=1e-12)
        for n in range(len(whole) + 1):
            state = grammar.advance(grammar.start(), whole[:n])
            behind = [grammar.log_value(grammar.advance(state, bytes([byte]))) for byte in set(b"".join(TERMINALS))]
            some = math.exp(grammar.log_weight(state)) + sum(map(math.exp, behind))
            assert math.exp(grammar.log_value(state)) == pytest.approx(some, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("text", [
    'S -> "a" S "b" [0.5] | "b" [0.5]',
    'S -> S "a" [0.4] | "b" [0.6]',
    'S -> "a" S "a" [0.3] | "b" S "b" [0.3] | "a" [0.2] | [0.2]',
    'S -> A "b" [0.5] | "a" [0.5]\n A -> S [0.5] | "a" A [0.2] | [0.3]',
])  # fmt: skip
def test_all_texts_of_recursive_grammars(text: str) -> None:
    """Fails where a start symbol that is complete inside of a text passes for the whole: "ab" of the first grammar."""
    grammar, some = pcfg(text), 0
    for n in range(6):
        for letters in product("ab", repeat=n):
            one = "".join(letters)
            right = by_fixed_point(grammar, one.encode())["S", 0, n]
            assert grammar.prob(one) == pytest.approx(right, rel=1e-6, abs=1e-12)
            assert (one in grammar) == (right > 0)
            some += right > 0
    assert 3 <= some < 40


def test_the_inside_algorithm_on_the_device() -> None:
    """Against the chart, for the texts of many grammars at once, impossible ones among them."""

    @settings(max_examples=12, deadline=None, database=None)
    @given(grammars(recursive=False))
    def check(grammar: PCFG) -> None:
        texts = ["".join(some) for n in range(5) for some in product("abé", repeat=n)]
        right = np.array([grammar.log_prob(text) for text in texts])
        assert grammar.log_probs(texts) == pytest.approx(right, rel=1e-4, abs=1e-4)

    check()
    sums = pcfg(SUMS)
    texts = [sums.sample(Key.of(i)) for i in range(60)]
    assert sums.log_probs(texts) == pytest.approx([sums.log_prob(text) for text in texts], rel=1e-5)
    assert max(map(len, texts)) > 16  # more than one size of chart
    long = "x" + "+x" * 60
    assert sums.log_prob(long) == pytest.approx(sums.log_probs([long])[0], rel=1e-5)
    assert sums.log_prob(long) == pytest.approx(61 * math.log(0.5) + 60 * math.log(0.4) + math.log(0.6))


def test_what_a_float_cannot_hold() -> None:
    """A derivation that is 10^-357 times as probable as another, until the last letter: still exact."""
    grammar = pcfg(
        'S -> A "!" [0.5] | B "?" [0.5]\n A -> "a" A [0.001] | "a" [0.999]\n B -> "a" B [0.999] | "a" [0.001]'
    )
    for text, p in ((b"a" * 120 + b"!", 0.001), (b"a" * 120 + b"?", 0.999)):
        right = math.log(0.5) + 119 * math.log(p) + math.log(1 - p)
        assert grammar.log_prob(text.decode()) == pytest.approx(right)
        assert grammar.log_probs([text.decode()])[0] == pytest.approx(right, rel=1e-5)


def test_draws() -> None:
    grammar = pcfg('S -> A A [0.5] | "b" [0.3] | [0.2]\n A -> "a" [0.6] | "ab" [0.4]')
    assert_draws([grammar.sample(Key.of(i)) for i in range(4000)], dict(table(grammar)))
    assert_draws([grammar.trees.sample(Key.of(i)) for i in range(4000)], dict(table(grammar.trees)))
    sums = pcfg(SUMS)
    texts = Counter(sums.sample(Key.of(i)) for i in range(4000))
    assert texts["x"] / 4000 == pytest.approx(sums.prob("x"), abs=0.04)
    mean = sum(len(text) * n for text, n in texts.items()) / 4000
    assert mean == pytest.approx(sums.expected_bytes, rel=0.15)


def test_trees() -> None:
    grammar = pcfg(SUMS)
    tree = Tree("sum", (Tree("sum", (Tree("term", (b"x",)),)), b"+", Tree("term", (b"xy",))))
    assert str(tree) == "x+xy" and grammar.trees.log_prob(tree) == pytest.approx(math.log(0.4 * 0.6 * 0.5 * 0.3))
    for seed in range(20):
        one = grammar.trees.sample(Key.of(seed))
        assert str(one) == grammar.sample(Key.of(seed))
        assert grammar.trees.decode(grammar.trees.encode(one)) == one
    assert grammar.trees.log_prob(Tree("sum", (b"x",))) == grammar.trees.log_prob("x") == -math.inf
    deep = pcfg('S -> "a" S [0.9999] | "b" [0.0001]').trees.sample(Key.of(0))  # no recursion of Python's
    assert len(str(deep)) > 3000


def test_a_growth_of_one() -> None:
    """The edge of what is consistent: sums to 1, with texts of infinite length on average."""
    grammar = pcfg('S -> S S [0.5] | "a" [0.5]')
    assert grammar.growth == pytest.approx(1) and grammar.expected_bytes == math.inf
    catalan = [math.comb(2 * n, n) // (n + 1) for n in range(8)]
    right = [c * 0.5 ** (2 * n + 1) for n, c in enumerate(catalan)]
    assert [grammar.prob("a" * (n + 1)) for n in range(8)] == pytest.approx(right)
    left = 1 - sum(grammar.prob("a" * n) for n in range(6))
    assert grammar.prefix_prob("a" * 6) == pytest.approx(left)
    empty = pcfg("S -> S S [0.5] | [0.5]\n")
    assert empty.prob("") == pytest.approx(1) and empty.complete(empty.start()) and empty.prob("a") == 0
    mixed = pcfg('S -> S S [0.5] | [0.25] | "a" [0.25]')
    assert mixed.prob("") == pytest.approx(1 - math.sqrt(0.5), rel=1e-6)  # x = x^2 / 2 + 1/4


def test_too_long_a_draw_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppl.grammar.trees.LARGEST", 50)
    grammar = pcfg('S -> S S [0.5] | "a" [0.5]')
    with pytest.raises(TooLargeError, match="more than 50 symbols; a nonterminal becomes 1 others"):
        _ = [grammar.sample(Key.of(seed)) for seed in range(100)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('S -> "a" [0.4]', "the rules of S have probabilities that sum to 0.4, not to 1"),
        ('S -> A [1]', r"S -> A \[1\]: A has no rules; a terminal is quoted"),
        ('S -> S "a" [1]', "S derives no text"),
        ('S -> "a" A [1]\nA -> B [1]\nB -> A [1]', "S derives no text"),
        ('S -> S S [0.6] | "a" [0.4]', "replaced by 1.2 others on average"),
        ('S -> "a" [1.5] | "b" [-0.5]', "a probability is from 0 to 1"),
        ('S -> "a" [1]\n\n S = "b"', """line 3: 'S = "b"' is not of the form"""),
        ('| "a" [1]', "line 1: .* is not of the form"),
        ('S -> "a"', "line 1: .* is not of the form"),
        ("", "needs a rule"),
    ],
)  # fmt: skip
def test_bad_grammars(text: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        pcfg(text)


def test_half_a_character() -> None:
    with pytest.raises(GrammarError, match="is not whole characters"):
        PCFG([Rule("S", (b"\xc3",), 1.0)])


def test_notation() -> None:
    grammar = pcfg("""S -> 'it\\'s' N' [1e0]  # a comment with [0.5]
        N' -> "\\n" [.5] | [ 0.25 ] |
              "|" [0.25]""")
    assert dict(grammar.table()) == {"it's\n": 0.5, "it's": 0.25, "it's|": 0.25}
    assert repr(grammar.rules[0]) == "S -> \"it's\" N' [1]"
    with pytest.raises(NotFinite, match="S -> T -> S"):
        pcfg('S -> T "b" [0.5] | "a" [0.5]\nT -> S [1]').table()
    assert pcfg("S -> 'a' [1]").name == pcfg("S -> 'a' [1.0]").name


def test_in_a_program() -> None:
    grammar = pcfg('S -> A "b" [0.5] | A [0.5]\n A -> "a" [0.7] | "aa" [0.3]')

    @program
    async def write() -> str:
        tree = await sample("tree", grammar.trees)
        return str(tree) + await sample("text", grammar)

    found = dict(measure(write()))
    assert found["aba"] == pytest.approx(0.35 * 0.35) and sum(found.values()) == pytest.approx(1)
    assert infer(write(), Importance(50), seed=0).log_evidence == 0


LANGUAGES: list[Any] = [
    pcfg('S -> "a" S [0.4] | "b" [0.5] | "ab" [0.1]'),
    pcfg('S -> S S [0.3] | "a" [0.5] | "é" [0.2]') ** 0.5,
    pcfg('S -> T [0.5] | T "b" T [0.5]\n T -> "a" [0.3] | "aa" [0.2] | [0.5]'),
    regex("[^b]*b?") & pcfg('S -> "a" S [0.4] | "b" S [0.2] | "b" [0.4]'),
    pcfg('S -> "a" S [0.6] | "b" [0.4]') & pcfg('S -> "a" S [0.1] | "a" "b" [0.8] | "b" [0.1]') ** 2,
]
VOCABULARIES = [("ab.", "."), (["b", "aé", "a"], ""), (["a", "ab", "."], ".")]


class Weighed(Oracle):
    """Blocks times what the language says of them."""

    def blocks(self, prompt: str) -> dict[Any, float]:
        plain: dict[Any, float] = super().blocks(prompt)
        weights = {}
        for tokens, p in plain.items():
            written = "".join(tokens).rstrip(".") if self.lm.tokenizer.eos else "".join(tokens)
            state = self.language.advance(self.language.start(), written.encode())
            weights[tokens] = p * math.exp(log_weight(self.language, state))
        return weights


@pytest.mark.parametrize("seed", range(30))
def test_a_model_times_a_grammar(seed: int) -> None:
    """`measure` of a weighted language over all that rejection can do is p(block) * weight, whole and in pieces.

    Fails where the weight is counted twice, not at all, or only where a block has come to its limit.
    """
    rng = np.random.default_rng(seed)
    alphabet, eos = VOCABULARIES[seed % 3]
    language: Any = LANGUAGES[seed % 5]
    until, most, finish = [None, None, "b"][rng.integers(3)], int(rng.integers(1, 4)), bool(rng.random() < 0.3)
    lm = table_lm(alphabet, eos, seed, zeros=0.3)
    how: dict[str, Any] = {"grammar": language, "until": until, "max_tokens": most, "finish": finish}
    right = Weighed(lm, Asked(language), until, most, finish).blocks("a")  # pyright: ignore[reportArgumentType]
    if built(lambda: lm.extend(lm.text("a"), **how)) is None:
        assert not right
        return
    for pieces in (None, 1, 2):
        assert dict(measure(block(lm, "a", pieces, **how))) == pytest.approx(right, abs=1e-12)
    if most == 2:
        assert dict(measure(collapse(SMC(2, Systematic)(block(lm, "a", 1, **how))))) == pytest.approx(right, abs=1e-12)
    dist: Any = lm.extend(lm.text("a"), **how)
    for text, p in dist.target.table():
        assert math.exp(dist.log_prob(text)) == pytest.approx(right[tokens_of(lm, text, "a")])
        assert p == pytest.approx(right[tokens_of(lm, text, "a")])


def test_a_weight_that_rises_is_refused() -> None:
    class Rising:
        """Counts a text more the longer it is."""

        def start(self) -> int:
            return 0

        def advance(self, state: int, data: bytes) -> int:
            return state + len(data)

        def accepts(self, state: int) -> bool:
            return True

        def is_dead(self, state: int) -> bool:
            return False

        def log_weight(self, state: int) -> float:
            return float(state)

    lm = table_lm("ab.", ".", 0)
    with pytest.raises(ValueError, match=r"behind b'[ab]' its log_value or log_weight is .* must not rise"):
        infer(block(lm, "a", grammar=Rising(), max_tokens=2), Importance(5), seed=0)
    with pytest.raises(ValueError, match="positive and finite"):
        _ = pcfg('S -> "a" [1]') ** 0


def test_on_an_engine(new_model: Any) -> None:
    """Scores, law and evidence of a model times a grammar, against both alone. Fails if either misses the weight."""
    lm, grammar = new_model("ab.", eos=".", context=12), pcfg('S -> "a" S [0.4] | "b" [0.6]')
    start = lm.text("a")
    dist: Any = lm.extend(start, grammar=grammar, max_tokens=3)
    right = {}
    for text in ("b", "ab", "aab"):
        alone = lm.extend(start, max_tokens=len(text)).log_prob(start + text)
        right[text] = alone + grammar.log_prob(text)
        assert dist.log_prob(start + text) == pytest.approx(right[text], abs=1e-5)
    draws = dist.draw_many([Key.of(i) for i in range(1000)], [dist] * 1000)
    for text, log_p in right.items():
        share = np.array([math.exp(w) * (value.last == text) for value, w in draws])
        assert abs(share.mean() - math.exp(log_p)) < 5 * share.std() / math.sqrt(len(draws))


def test_a_block_that_the_budget_ends_weighs_what_its_text_does(new_model: Any) -> None:
    """Longer texts begin with it: only `max_tokens` ends it. Fails where it passes for a piece, of weight 1."""
    lm, grammar = new_model("ab.", eos=".", context=12), pcfg('S -> "a" S [0.4] | "a" [0.6]')
    start = lm.text("b")
    dist: Any = lm.extend(start, grammar=grammar, max_tokens=2)
    alone = lm.extend(start, max_tokens=2).log_prob(start + "aa")
    assert dist.log_prob(start + "aa") == pytest.approx(alone + math.log(0.4 * 0.6), abs=1e-5)
    whole = [w for value, w in dist.draw_many([Key.of(i) for i in range(1000)], [dist] * 1000)
             for _ in range(value.last == "aa")]  # fmt: skip
    total = np.append(np.exp(whole), np.zeros(1000 - len(whole)))
    assert abs(total.mean() - math.exp(alone) * 0.24) < 5 * total.std() / math.sqrt(1000)
