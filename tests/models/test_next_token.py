"""One more token by one model or by several: products of experts are the normalised products of their tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ppl
from ppl import SMC, Importance, call, factor, infer, program, sample
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.next_token import NextToken
from ppl.models.text import Text, Tokenizer
from ppl.source import Key

MakeModel = Callable[..., LanguageModel]


@pytest.fixture(scope="module")
def pair(new_model: MakeModel, params_of: Callable[..., Any], config_of: Callable[..., Any]) -> list[LanguageModel]:
    """Two models of one vocabulary."""
    config = config_of(4)
    tokenizer = new_model("abcd").tokenizer
    return [LanguageModel(Engine(params_of(config, seed), config), tokenizer, f"model {seed}") for seed in (0, 1)]


def log_p(lm: LanguageModel, text: Text) -> np.ndarray:
    return np.asarray(lm.engine.next_log_probs([text]), np.float64)[0]


def test_next_token_is_a_block_of_one(pair: list[LanguageModel]) -> None:
    lm = pair[0]
    text = lm.text("abca")
    values = [text + letter for letter in "abcd"]
    found = NextToken.log_prob_many([lm.next_token(text)] * 4, values)
    block = lm.extend(text, max_tokens=1)
    np.testing.assert_allclose(found, [block.log_prob(value) for value in values], atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(), 1, atol=1e-6)
    assert lm.next_token(text).log_prob(text) == lm.next_token(text).log_prob(text + "ab") == -np.inf
    np.testing.assert_allclose(lm.next_token(text).probabilities(), np.exp(found), atol=1e-6)


def test_a_text_of_another_model_is_scored_and_not_believed(pair: list[LanguageModel]) -> None:
    a, b = pair
    start = a.text("abca")
    drawn = a.extend(start, max_tokens=3).sample(Key.of(0))
    unknown = Text(a.tokenizer, drawn.data, start, 0.0)
    assert b.extend(start, max_tokens=3).log_prob(drawn) == pytest.approx(
        b.extend(start, max_tokens=3).log_prob(unknown), abs=1e-5
    )
    assert abs(b.extend(start, max_tokens=3).log_prob(drawn) - (drawn.log_prob or 0.0)) > 0.01


@pytest.mark.parametrize("powers", [(1.0, 1.0), (2.0, -0.5), (0.0, 1.0), (0.3, 0.7)])
def test_products_are_products(pair: list[LanguageModel], powers: tuple[float, float]) -> None:
    a, b = pair
    texts = [a.text(prompt) for prompt in ("a", "bcd", "dddd", "abcabcabc")]
    dists = [a.next_token(text) ** powers[0] * b.next_token(text) ** powers[1] for text in texts]
    for text, dist in zip(texts, dists, strict=True):
        right = powers[0] * log_p(a, text) + powers[1] * log_p(b, text)
        right -= np.logaddexp.reduce(right)
        found = [dist.log_prob(text + letter) for letter in "abcd"]
        np.testing.assert_allclose(found, right, atol=1e-5)
        np.testing.assert_allclose([(dist**2).log_prob(text + letter) for letter in "abcd"],
                                   2 * right - np.logaddexp.reduce(2 * right), atol=1e-5)  # fmt: skip
    drawn = NextToken.begin_many([Key.of(i) for i in range(4)], dists)()
    for dist, text in zip(dists, drawn, strict=True):
        assert abs((text.log_prob or 0.0) - dist.log_prob(text)) < 1e-5
        assert dist.decode(dist.encode(text)).key == text.key


def test_a_square_is_the_model_twice(pair: list[LanguageModel]) -> None:
    text = pair[0].text("ab")
    one = pair[0].next_token(text)
    assert (one * one).log_prob(text + "c") == pytest.approx((one**2).log_prob(text + "c"), abs=1e-6)


def test_draws_follow_the_probabilities(pair: list[LanguageModel]) -> None:
    """Goodness of fit at a false-alarm rate of 1e-6."""
    text = pair[0].text("abca")
    dist = pair[0].next_token(text) * pair[1].next_token(text) ** 0.5
    values = [text + letter for letter in "abcd"]
    drawn = NextToken.begin_many([Key.of(i) for i in range(5000)], [dist] * 5000)()
    counts = np.array([sum(one == value for one in drawn) for value in values])
    p = np.exp(NextToken.log_prob_many([dist] * 4, values))
    assert counts.sum() == 5000
    chi2 = ((counts - 5000 * p) ** 2 / (5000 * p)).sum()
    assert chi2 < 31  # 3 degrees of freedom


@program
async def contrast(large: LanguageModel, small: LanguageModel, proposed: bool, steps: int = 3) -> str:
    text = large.text("ab")
    for _ in range(steps):
        own = large.next_token(text)
        text = await sample("token", own, proposal=own * small.next_token(text) ** -0.3 if proposed else None)
        await factor("a", float(str(text)[-1] == "a"))
    return str(text)


def test_a_product_is_an_exact_proposal(pair: list[LanguageModel]) -> None:
    """The evidence is that of the large model, by either way; and not that of the product."""
    exact = 0.0
    texts = [(pair[0].text("ab"), 1.0)]
    for _ in range(3):
        new = []
        for text, mass in texts:
            p = np.exp(log_p(pair[0], text))
            new += [(text + c, mass * p[i] * (np.e if c == "a" else 1.0)) for i, c in enumerate("abcd")]
        texts = new
    exact = np.log(sum(mass for _, mass in texts))
    for proposed in (False, True):
        runs = [
            infer(contrast(pair[0], pair[1], proposed), algorithm, seed=0)
            for algorithm in (Importance(2000), SMC(2000))
        ]
        for run in runs:
            assert abs(run.log_evidence - exact) < 0.1


@program
async def entropies(lm: LanguageModel) -> tuple[float, float, float, float]:
    text = await sample("text", lm.extend(lm.text("ab"), max_tokens=3))
    log_probs = await lm.next_log_probs(text)
    score = await lm.log_prob(text, "ca")
    probabilities = await call(lm.next_token(text).probabilities)
    weight = lm.engine.params["model.embed_tokens.weight"]  # tied
    again = np.asarray(weight) @ await lm.hidden(text)
    apart = float(np.ptp(again - log_probs))
    return float(-(np.exp(log_probs) * log_probs).sum()), score, float(probabilities.sum()), apart


def test_what_a_program_can_ask_a_model(pair: list[LanguageModel]) -> None:
    lm = pair[0]
    posterior = infer(entropies(lm), Importance(20), seed=0)
    for entropy, score, total, apart in posterior.population.values:  # pyright: ignore[reportGeneralTypeIssues]
        assert 0 < entropy <= np.log(4) and -20 < score < 0 and total == pytest.approx(1, abs=1e-5)
        assert apart < 1e-4
    text = lm.text("abd")
    after = text + "c"
    expected = log_p(lm, text)[2] + log_p(lm, after)[0]
    assert lm.log_prob(text, "ca").fn(text, after + "a") == pytest.approx(expected, abs=1e-5)


def test_mistakes_are_named(pair: list[LanguageModel], new_model: MakeModel) -> None:
    a, b = pair
    other = LanguageModel(a.engine, Tokenizer.of_characters("dcba"), "other")
    with pytest.raises(ValueError, match="model 0 and other have different tokenizers"):
        _ = a.next_token(a.text("ab")) * other.next_token(Text(other.tokenizer, a.text("ab").data))
    with pytest.raises(ValueError, match="of two texts"):
        _ = a.next_token(a.text("ab")) * b.next_token(b.text("ba"))
    with pytest.raises(ValueError, match="the power inf is not finite"):
        _ = a.next_token(a.text("ab")) ** float("inf")
    with pytest.raises(ValueError, match="fills the context"):
        a.next_token(Text.of(a.tokenizer, "a" * 24))
    with pytest.raises(ValueError, match="log_prob of 0 tokens behind 2"):
        a.log_prob(a.text("ab"), "")
    with pytest.raises(ValueError, match=r"log_prob of 23 tokens behind 2: .* room for 24"):
        a.log_prob(a.text("ab"), "a" * 23)


def test_two_models_keep_rows_of_their_own(pair: list[LanguageModel]) -> None:
    """A token costs each model one step, whoever drew it."""
    fresh = [LanguageModel(Engine(lm.engine.params, lm.engine.config), lm.tokenizer, lm.name) for lm in pair]
    ppl.infer(contrast(fresh[0], fresh[1], True, 5), SMC(10), seed=0)
    for lm in fresh:
        assert lm.engine.usage.fed <= 2 + 10 * 5
