"""Blocks that are checked on the host: drawn by rejection, weighed exactly, whatever the language is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_constrained import Brute, block, built, table_lm, tokens_of

from ppl import MCMC, SMC, Importance, Suffix, Systematic, collapse, infer, measure, program, sample
from ppl.grammar import EmptyLanguageError, GrammarError, Language, cfg, choice, json_schema, regex
from ppl.models.rejection import Given, Urn, outcomes, rejection
from ppl.source import Key

NESTED = cfg('start: "a" start "b" | "ab" | "é"')
LISTS = cfg('start: "a" ("," "a")* | "b"\n%ignore " "')
LANGUAGES: list[Any] = [NESTED, LISTS, NESTED & regex("[^b]*b?b?"), regex("a|é|ab") & NESTED]
VOCABULARIES = [("ab.", "."), (["a", "b", "ab", "é", "."], "."), (["a", ",a", " ", "b", "bb", "."], ".")]


class Odd:
    """Texts of an odd number of letters a: what a user may write, with nothing but what is asked for."""

    def start(self) -> int:
        return 0

    def advance(self, state: int, data: bytes) -> int:
        return -1 if state < 0 or data.strip(b"a") else (state + len(data)) % 2

    def accepts(self, state: int) -> bool:
        return state == 1

    def is_dead(self, state: int) -> bool:
        return state < 0


class Oracle(Brute):
    """Languages that say themselves what is complete."""

    def goes_on(self, written: str) -> bool:
        language: Any = self.language
        state = language.advance(language.start(), written.encode())
        return not (hasattr(language, "complete") and language.complete(state))


masses = st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.3, 1.0]), min_size=1, max_size=4)
parts = st.lists(st.sampled_from([0.0, 0.0, 1e-3, 0.5, 1.0]), min_size=4, max_size=4)


@settings(max_examples=150, deadline=None, database=None)
@given(masses, parts, st.integers(1, 2), st.sampled_from([None, 1, 2]))
def test_rejection_is_proper(mass: list[float], passes: list[float], extra: int, patience: int | None) -> None:
    """For each that can be drawn: E[estimate; it is drawn] = its mass that passes. Never an estimate of 0.

    Fails with an estimate that divides by the number of draws, that forgets the part of the mass that was rejected, or
    that counts what was rejected as not passing.
    """
    total = dict.fromkeys(range(len(mass)), 0.0)
    for (one, estimate), p in outcomes(
        lambda choose: rejection(
            Given(mass, choose), passes.__getitem__, extra, patience, lambda: (range(len(mass)), passes[: len(mass)])
        )
    ):
        if one is None:
            assert estimate == 0
        else:
            assert estimate > 0
            total[one] += p * estimate
    for one, found in total.items():
        assert found == pytest.approx(mass[one] * passes[one], rel=1e-9, abs=1e-15)


def test_the_urn_draws_as_given() -> None:
    """Frequencies of tokens and the mean of the estimates, 20,000 draws; a deviation of 5 s.e. fails."""
    mass, passes = [0.5, 0.3, 0.15, 0.0, 0.05], [0.0, 1e-2, 1.0, 1.0, 0.5]
    expected: dict[int, float] = {}
    for (one, _), p in outcomes(lambda choose: rejection(Given(mass, choose), passes.__getitem__, 1)):
        assert one is not None
        expected[one] = expected.get(one, 0.0) + p
    drawn = [rejection(Urn(np.array(mass), Key.of(i)), passes.__getitem__, 1) for i in range(20_000)]
    for one, p in expected.items():
        assert abs(sum(x == one for x, _ in drawn) / 20_000 - p) < 5 * math.sqrt(p * (1 - p) / 20_000)
    weights = np.array([weight for _, weight in drawn])
    true = sum(m * p for m, p in zip(mass, passes, strict=True))
    assert abs(weights.mean() - true) < 5 * weights.std() / math.sqrt(20_000)


def test_what_hardly_passes_is_found() -> None:
    """One in 1e9, among 1,000: with draws that come back this would take as many draws."""
    mass = np.append(np.full(1000, 1e-3), 1e-9)
    for seed in range(50):
        one, estimate = rejection(Urn(mass, Key.of(seed)), lambda i: float(i == 1000), 4)
        assert one == 1000 and estimate == pytest.approx(1e-9)
    assert rejection(Urn(mass, Key.of(0)), lambda i: 0.0, 4) == (None, 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_the_measure_is_the_restriction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alphabet, eos = VOCABULARIES[seed % 3]
    language: Any = [*LANGUAGES, Odd()][seed % 5]
    until: Any = [None, None, "b", "ab"][rng.integers(4)]
    most, finish = int(rng.integers(1, 4)), bool(rng.random() < 0.3)
    lm = table_lm(alphabet, eos, seed, zeros=0.3)
    how: dict[str, Any] = {"grammar": language, "until": until, "max_tokens": most, "finish": finish}
    right = Oracle(lm, Asked(language), until, most, finish).blocks("a")  # pyright: ignore[reportArgumentType]
    if built(lambda: lm.extend(lm.text("a"), **how)) is None:
        assert not right
        return
    for pieces in (None, 1, 2):
        assert dict(measure(block(lm, "a", pieces, **how))) == pytest.approx(right, abs=1e-12)
    dist: Any = lm.extend(lm.text("a"), **how)
    if most <= 2 and len(dist.table()) <= 60:  # two of them: as many pairs
        for algorithm in (Importance(2), SMC(2, Systematic)):
            assert dict(measure(collapse(algorithm(block(lm, "a", 1, **how))))) == pytest.approx(right, abs=1e-12)


@pytest.mark.parametrize("pieces", [None, 1, 2])
def test_what_might_end_in_time_only_is_weighed_as_it_is(pieces: int | None) -> None:
    """Behind "aa" two bytes and one token are left: it takes the token "bb", and is improbable to be tried.

    Fails if that is not made good in the weight.
    """
    lm, late = table_lm(["a", "b", "bb", "ab", "."], ".", 1), ("a", "a", "bb")
    right = Oracle(lm, Asked(NESTED), None, 3, False).blocks("a")  # pyright: ignore[reportArgumentType]
    found = dict(measure(block(lm, "a", pieces, grammar=NESTED, max_tokens=3)))
    assert found == pytest.approx(right, rel=1e-9, abs=1e-15) and found[late] > 1e-4
    dist: Any = lm.extend(lm.text("a"), grammar=NESTED, max_tokens=3)
    tried = sum(p for (text, _), p in dist.table() if tokens_of(lm, text, "a") == late)
    assert 0 < tried < 0.1 * found[late] / sum(found.values())


class Asked:
    """A language that can be asked for a text."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __getattr__(self, name: str) -> Any:
        return getattr(self.language, name)

    def __contains__(self, text: str) -> bool:
        language = self.language
        return language.accepts(language.advance(language.start(), text.encode()))


def greedy(alphabet: Sequence[str], text: str) -> tuple[str, ...]:
    """The tokens that a tokenizer of words has for a text: the longest first."""
    out: list[str] = []
    while text:
        out.append(max((word for word in alphabet if text.startswith(word)), key=len))
        text = text[len(out[-1]) :]
    return tuple(out)


@pytest.mark.parametrize("language", [regex("a?(ab)*b*"), NESTED, NESTED & regex("a*b*")], ids=["regex", "cfg", "both"])
def test_canonical_tokens_only(language: Any) -> None:
    """Blocks of other tokens for the same text have no mass; without the option they have. By brute force."""
    words = ["a", "b", "ab", "."]
    lm = table_lm(words, ".", 2)
    all_ = Oracle(lm, Asked(language), None, 4, False).blocks("b")  # pyright: ignore[reportArgumentType]
    right = {}
    for tokens, p in all_.items():
        spelled = tuple(token for token in tokens if token != ".")
        if spelled == greedy(words, "".join(spelled)):
            right[tokens] = p
    assert 0 < len(right) < len(all_)
    for pieces in (None, 1, 2):
        how: dict[str, Any] = {"grammar": language, "max_tokens": 4, "canonical": True}
        found = {value: p for value, p in dict(measure(block(lm, "b", pieces, **how))).items() if p > 0}
        assert found == pytest.approx(right, abs=1e-12)
    with pytest.raises(ValueError, match="needs a grammar"):
        lm.extend(lm.text("b"), canonical=True)
    with pytest.raises(ValueError, match="mode='local'"):
        lm.extend(lm.text("b"), grammar=regex("a*b"), mode="local", canonical=True)


@pytest.mark.parametrize("kept", [1, 3, 10])
def test_what_is_not_kept_is_read_again(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members, and all that can be drawn, are the same where languages and readers forget all the time."""
    monkeypatch.setattr("ppl.grammar.language.KEPT", kept)
    nested, lists = cfg('start: "a" start "b" | "ab" | "é"'), cfg('start: "a" ("," "a")* | "b"\n%ignore " "')
    for text in ("".join(letters) for n in range(6) for letters in product("ab, ", repeat=n)):
        assert (text in nested) == (text in NESTED) and (text in lists) == (text in LISTS)
    assert "a" * 500 + "b" * 500 in nested and "a" * 500 + "b" * 499 not in nested
    deep = json_schema(True, depth=None)
    assert '[[], {"a": [1, [2]]}, "x"]' in deep and '[[], {"a": [1, [2]}, "x"]' not in deep
    lm = table_lm(["a", "b", "ab", "é", "."], ".", 5)
    for language, fresh in ((NESTED, nested), (NESTED & regex("a*b*"), nested & regex("a*b*"))):
        right = Oracle(lm, Asked(language), None, 3, False).blocks("a")  # pyright: ignore[reportArgumentType]
        found = dict(measure(block(lm, "a", 1, grammar=fresh, max_tokens=3)))
        assert found == pytest.approx(right, abs=1e-12)


def test_mcmc_leaves_it_alone() -> None:
    """Suffix regeneration with weights that are random themselves, against the exact posterior."""
    lm = table_lm("ab.", ".", 7)
    right = Oracle(lm, Asked(NESTED), None, 4, False).blocks("a")  # pyright: ignore[reportArgumentType]
    total = sum(right.values())
    posterior = infer(block(lm, "a", 1, grammar=NESTED, max_tokens=4), MCMC(Suffix(), 4000, warmup=50, chains=2), 0)
    for value, p in right.items():
        assert abs(sum(share for one, share in posterior.items() if one == value) - p / total) < 0.02


def test_on_an_engine(new_model: Any) -> None:
    """Law and weights against the model's own probabilities, equal bits in any company, and through a journal."""
    lm = new_model("ab()", eos=")", context=12)
    language = cfg('start: "a" start | "b"')
    start = lm.text("a")
    dist: Any = lm.extend(start, grammar=language, max_tokens=3)
    exact = {text: math.exp(lm.extend(start, max_tokens=len(text)).log_prob(start_with(lm, start, text)))
             for text in ("b", "ab", "aab")}  # fmt: skip
    keys = [Key.of(i) for i in range(1500)]
    draws = dist.draw_many(keys, [dist] * len(keys))
    evidence = np.exp([w for _, w in draws])
    assert abs(evidence.mean() - sum(exact.values())) < 5 * evidence.std() / math.sqrt(len(keys))
    for word, p in exact.items():
        share = np.array([math.exp(w) * (text.last == word) for text, w in draws])
        assert abs(share.mean() - p) < 5 * share.std() / math.sqrt(len(keys))
    one = dist.sample(keys[3])
    assert one == draws[3] and one[0].log_prob == draws[3][0].log_prob and one[0].log_model == draws[3][0].log_model
    hot: Any = lm.extend(start, grammar=language, max_tokens=3, temperature=1.5)
    for law, text in ((dist, one[0]), (hot, hot.sample(keys[4])[0])):
        anew = start_with(lm, start, text.last)  # which nobody knows to be drawn
        assert law.log_prob(anew) == pytest.approx(text.log_prob, abs=1e-6)
        assert lm.extend(start, max_tokens=len(text) - 1).log_prob(anew) == pytest.approx(text.log_model, abs=1e-6)
    assert dist.decode(dist.encode(one)) == one
    for piece, most in ((dist.piece(start, 1), 1), (lm.extend(start, grammar=cfg('start: "a"+'), max_tokens=2), 2)):
        texts = [text for text, _ in piece.draw_many(keys[:50], [piece] * 50)]
        assert max(len(text) - len(start) for text in texts) == most and all(map(piece.can_write, texts))
    lm.engine.forget()
    assert dist.log_prob(one[0]) == dist.log_prob(draws[3][0])

    @program
    async def write() -> str:
        return (await sample("x", dist.resample_every(1))).last

    posterior = infer(write(), SMC(300), seed=0)
    assert posterior.log_evidence == pytest.approx(math.log(sum(exact.values())), abs=0.3)
    assert all(value in language for value, p in posterior.items() if p > 0)


def start_with(lm: Any, start: Any, text: str) -> Any:
    from ppl.models.text import Text

    return Text(lm.tokenizer, (start + text).data, start)


def test_a_proposal_for_what_is_checked() -> None:
    lm = table_lm("ab.", ".", 3)

    @program
    async def write(proposal: bool) -> str:
        q = lm.extend(lm.text("a"), max_tokens=3) if proposal else None
        return str(await sample("x", lm.extend(lm.text("a"), max_tokens=3, grammar=NESTED), proposal=q))

    with pytest.raises(ValueError, match="its blocks end elsewhere"):
        measure(write(True))
    assert measure(write(False)).evidence > 0


def test_all_dead_is_evidence_zero() -> None:
    lm = table_lm("ab", "", 0)
    posterior = infer(block(lm, "a", grammar=cfg('start: "a" "x" "b"'), max_tokens=3), Importance(5), seed=0)
    assert posterior.log_evidence == -math.inf


@pytest.mark.parametrize(
    ("language", "most", "kind", "message"),
    [
        (cfg('start: "abababab"'), 1, GrammarError, "8 bytes"),
        (regex("a*") & cfg('start: "aaaaa"'), 1, GrammarError, "no block"),
        (choice(["a"]) - "a", 1, EmptyLanguageError, "no text"),
    ],
)
def test_what_cannot_be_written(language: Any, most: int, kind: type[Exception], message: str) -> None:
    lm = table_lm("ab.", ".", 0)
    with pytest.raises(kind, match=message):
        lm.extend(lm.text("a"), grammar=language, max_tokens=most)


def test_local_needs_a_regular_language() -> None:
    lm = table_lm("ab.", ".", 0)
    with pytest.raises(ValueError, match="only regular languages"):
        lm.extend(lm.text("a"), grammar=NESTED, mode="local")
