"""Grammar blocks drawn by the device loop: their law, weights, bits, pieces and records."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import ppl
from ppl.grammar import EmptyLanguageError, GrammarError, Regular, UnreachableByTokensError, regex
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.text import Text
from ppl.source import Key
from ppl.weighted import Proposed

MakeModel = Callable[..., LanguageModel]
Pair = tuple[Text, float]


def draw(dist: Any, count: int, seed: int = 0) -> list[Pair]:
    root = Key.of(seed)
    return Proposed.draw_many([root.fold(str(i)) for i in range(count)], [dist] * count)


def exact(lm: LanguageModel, start: Text, words: list[str], **options: Any) -> dict[str, float]:
    """log P of each block (a word, with `.` for the end of the text) behind `start`, by scoring."""
    plain = lm.extend(start, max_tokens=20, **options)
    texts = [Text(lm.tokenizer, start.data + lm.tokenizer.encode(word), start) for word in words]
    scores = lm.engine.log_probs([start] * len(words), texts, plain.options)
    return dict(zip(words, scores, strict=True))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 3}, {"bias": {0: 1.0}, "top_p": 0.9}], ids=str)
def test_weights_and_law(new_model: MakeModel, options: dict[str, Any]) -> None:
    """Every block that is drawn has weight p/q, and is drawn as often as q says; E[weight] is the evidence."""
    lm = new_model("abc.", ".")
    start, language = lm.text("ab"), regex("(a|bc){1,2}c?")
    dist: Any = lm.extend(start, grammar=language, max_tokens=5, **options)
    words = [w for n in range(1, 6) for t in product("abc", repeat=n) if (w := "".join(t)) in language]
    # A word that no other begins with ends by itself; another by the end-of-text token, or as the fifth token.
    goes_on = {w for w in words if any(v != w and v.startswith(w) for v in words)}
    blocks = [f"{w}." if w in goes_on and len(w) < 5 else w for w in words]
    log_p = exact(lm, start, blocks, **options)
    drawn = draw(dist, 4000)
    seen: dict[str, list[float]] = {}
    for text, log_weight in drawn:
        if log_weight > -math.inf:
            seen.setdefault(text.last, []).append(log_weight)
    assert set(seen) <= set(blocks)
    total = 0.0
    for word, weights in seen.items():
        assert np.ptp(weights) < 1e-4
        q = math.exp(log_p[word] - weights[0])
        total += q
        count, sd = len(weights), math.sqrt(4000 * q * (1 - q))
        assert abs(count - 4000 * q) < 5 * sd + 1, word  # a false alarm in 1e6
    assert 0.98 < total < 1.0001
    weights = np.exp([w for _, w in drawn])
    evidence = sum(math.exp(log_p[word]) for word in blocks)
    assert abs(weights.mean() - evidence) < 5 * weights.std() / 4000**0.5 + 1e-6


def test_a_block_is_scored_as_it_was_drawn(new_model: MakeModel) -> None:
    """Known or computed again, under every law, to the last bit; also behind other texts and in another engine."""
    lm = new_model("abc.", ".")
    start, language = lm.text("ab"), regex("(a|bc){1,3}c?")
    for mode in ("exact", "local"):
        dist: Any = lm.extend(start, grammar=language, max_tokens=6, mode=mode)
        law = dist if mode == "local" else dist.proposal
        texts = [text for text, _ in draw(dist, 20)] if mode == "exact" else law.begin_many(
            [Key.of(0).fold(str(i)) for i in range(20)], [law] * 20)()  # fmt: skip
        known = law.log_prob_many([law] * 20, texts)
        other = LanguageModel(Engine(lm.engine.params, lm.engine.config), lm.tokenizer)
        again: Any = other.extend(start, grammar=language, max_tokens=6, mode=mode)
        again = again if mode == "local" else again.proposal
        assert again.log_prob_many([again] * 20, texts) == known
        assert [text.log_q for text in texts] == known
    short = Text(lm.tokenizer, start.data + lm.tokenizer.encode("bb"), start)
    assert law.log_prob(short) == dist.log_prob(short) == -math.inf and not dist.can_write(short)


def test_the_cache_does_not_show(new_model: MakeModel) -> None:
    """A block under a grammar is a link like any other: its row, made again, has the same bits."""
    lm = new_model("abc.", ".", 48)
    start, language = lm.text("ab"), regex("[abc]{3,8}")
    texts = [text for text, _ in draw(lm.extend(start, grammar=language, max_tokens=8, finish=True), 40)]
    texts = [text for text in texts if not text.finished] or texts
    before = np.asarray(lm.engine.next_log_probs(texts))[: len(texts)]
    lm.engine.forget()
    np.testing.assert_array_equal(np.asarray(lm.engine.next_log_probs(texts))[: len(texts)], before)
    more: Any = lm.extend(texts[0], grammar=language, max_tokens=8)
    one = draw(more, 9, 1)
    lm.engine.forget()
    assert [(text.data, weight) for text, weight in draw(more, 9, 1)] == [(text.data, weight) for text, weight in one]


def test_pieces_are_the_block(new_model: MakeModel) -> None:
    lm = new_model("abc.", ".", 48)
    start, language = lm.text("ab"), regex("(a|bc|cb){2,6}a")

    @ppl.program
    async def write(every: int | None) -> str:
        dist = lm.extend(start, grammar=language, max_tokens=12)
        return str(await ppl.sample("block", dist if every is None else dist.resample_every(every)))

    whole = ppl.infer(write(None), ppl.Importance(4000), seed=0)
    for every in (1, 3):
        found = ppl.infer(write(every), ppl.SMC(2000, ppl.Systematic), seed=1)
        assert abs(found.log_evidence - whole.log_evidence) < 0.1
        assert len(found.steps) > 2
        assert all(value.removeprefix("ab").removesuffix(".") in language for value, p in found.items() if p > 0)


def test_a_row_without_a_token_dies(new_model: MakeModel) -> None:
    """Where bans and the grammar leave nothing the weight is 0, and nothing is nan."""
    lm = new_model("abc.", ".")
    start = lm.text("ab")
    dist = lm.extend(start, grammar=regex("a(b|c)"), max_tokens=4, bias={1: -math.inf, 2: -math.inf})

    @ppl.program
    async def write() -> str:
        return str(await ppl.sample("block", dist))

    assert all(weight == -math.inf for _, weight in draw(dist, 5))
    with pytest.raises(ppl.ZeroEvidence, match="block"):
        ppl.infer(write(), ppl.Importance(5), seed=0).mode()
    full = lm.text("ab" * 11)
    assert all(weight == -math.inf for _, weight in draw(lm.extend(full, grammar=regex("a{3}"), max_tokens=4), 5))


def test_traces_journals_and_moves(new_model: MakeModel, tmp_path: Any) -> None:
    lm = new_model("abc.", ".")
    start, language = lm.text("ab"), regex("(a|bc){1,3}c?")

    @ppl.program
    async def write() -> str:
        text = await ppl.sample("block", lm.extend(start, grammar=language, max_tokens=6))
        await ppl.factor("long", 0.3 * len(text))
        return str(text)

    first = ppl.run(write(), seed=3, journal=tmp_path / "j")
    assert ppl.run(write(), seed=3, journal=tmp_path / "j").value == first.value
    exact = ppl.infer(write(), ppl.Importance(20_000), seed=0)
    moved = ppl.infer(write(), ppl.MCMC(ppl.Suffix(), samples=40, chains=32), seed=0)
    want, got = (sum(p * len(value) for value, p in found.items()) for found in (exact, moved))
    assert abs(want - got) < 0.3


@pytest.mark.parametrize(
    ("language", "how", "error", "message"),
    [
        (regex("a") & "b", {}, EmptyLanguageError, "has no text"),
        (regex("é"), {}, UnreachableByTokensError, "'é'"),
        (regex("a{9}"), {"max_tokens": 8}, GrammarError, "takes 9 tokens"),
        (regex("ab"), {"finish": True, "max_tokens": 3}, GrammarError, "none comes to an end"),
        (regex("a"), {"mode": "greedy"}, ValueError, "exact or local"),
    ],
    ids=str,
)
def test_bad_grammars(
    new_model: MakeModel, language: Regular, how: dict[str, Any], error: type[Exception], message: str
) -> None:
    lm = new_model("abc")
    with pytest.raises(error, match=message):
        lm.extend(lm.text("a"), grammar=language, **how)
