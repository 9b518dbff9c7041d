"""The engine draws from what it says it draws from, whatever else is in the batch and in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from ppl import SMC, factor, infer_many, program, sample
from ppl.models.draw import Options
from ppl.models.language_model import Extension, LanguageModel, StepReward
from ppl.models.text import Text
from ppl.source import Key

MakeModel = Callable[..., LanguageModel]


def draw(dists: Sequence[Extension], seed: int) -> list[Text]:
    """One block for each, under keys of its own."""
    root = Key.of(seed)
    return Extension.begin_many([root.fold(str(i)) for i in range(len(dists))], dists)()


def uncached_scores(lm: LanguageModel, texts: Sequence[Text]) -> list[float]:
    """log P(right) by a fresh engine, so by feeding whole texts without a parent."""
    fresh = LanguageModel(type(lm.engine)(lm.engine.params, lm.engine.config), lm.tokenizer)
    return fresh.engine.log_right([(Text(lm.tokenizer, text.data),) for text in texts])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_reported_log_prob_is_the_log_prob(new_model: MakeModel, temperature: float) -> None:
    lm = new_model("abcd")
    prompts = [lm.text(p) for p in ("a", "abc", "dcba", "abcabcabcabc", "c" * 21)]
    dists = [lm.extend(p, until="d", max_tokens=5, temperature=temperature) for p in prompts * 30]
    texts = draw(dists, 0)
    for dist, text, log_prob in zip(dists, texts, Extension.log_prob_many(dists, texts), strict=True):
        assert text.parent is not None and text.parent == dist.text and text.log_prob is not None
        assert dist.can_write(text)
        assert abs(text.log_prob - log_prob) < 1e-4 * (len(text) - len(dist.text))
    assert len({len(text) - len(d.text) for d, text in zip(dists, texts, strict=True)}) > 3
    other = Extension.log_prob_many([lm.extend(d.text, until="d", max_tokens=5) for d in dists], texts)
    gap = max(abs(a - (b.log_prob or 0)) for a, b in zip(other, texts, strict=True))
    assert gap < 1e-3 if temperature == 1 else gap > 0.5  # the temperature is no ornament


def test_scores_are_those_of_the_whole_text(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    texts = draw([lm.extend(lm.text(p), until="d", max_tokens=5) for p in ("a", "bc", "dcba") * 20], 1)
    texts += draw([lm.extend(text, until="d", max_tokens=5) for text in texts], 2)
    given = [text + "ab" for text in texts]
    for some in (texts, given):
        expected = uncached_scores(lm, some)
        np.testing.assert_allclose(lm.engine.log_right([(text,) for text in some]), expected, atol=1e-4)
        assert np.std(expected) > 0.05


def test_any_history_of_the_cache_gives_the_same_distribution(new_model: MakeModel) -> None:
    """Random extensions, given characters and evictions; each draw and score is checked against an uncached pass."""
    for seed in range(3):
        lm, rng = new_model("abcd"), np.random.default_rng(seed)
        known = [lm.text("a"), lm.text("ba")]
        for _ in range(12):
            texts = [known[i] for i in rng.integers(len(known), size=rng.integers(1, 20))]
            texts = [text + "cab"[: rng.integers(4)] for text in texts if len(text) < 18]
            if not texts:
                continue
            dists = [lm.extend(text, until="d", max_tokens=5) for text in texts]
            new = draw(dists, int(rng.integers(10**6)))
            np.testing.assert_allclose(
                [text.log_prob or 0.0 for text in new], Extension.log_prob_many(dists, new), atol=3e-4
            )
            np.testing.assert_allclose(lm.engine.log_right([(t,) for t in new]), uncached_scores(lm, new), atol=1e-4)
            known += new
            if rng.random() < 0.3:
                lm.engine.forget(int(rng.integers(4)))


def test_a_new_prompt_beside_texts_whose_row_is_about_to_be_dropped(new_model: MakeModel) -> None:
    """Feeding the new one evicts old slabs, perhaps those of texts that were asked for in the same call."""
    lm = new_model("abcd")
    old = draw([lm.extend(lm.text("a"), max_tokens=1)], 0)[0]
    for i in range(7):
        draw([lm.extend(old, max_tokens=1)], i)
        rows = lm.engine.last([old, lm.text("b" + "abcdabcd"[i:])])
        assert len(rows) == 2


def test_texts_that_share_a_tail_but_not_a_prefix_share_no_row(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    heads = [lm.text(p) for p in ("ab", "ba", "abab", "bb")]
    lm.engine.last(heads)
    texts = [head + "cdcd" for head in heads]
    assert len({(id(row.slab), row.index) for row in lm.engine.last(texts)}) == 4
    new = draw([lm.extend(text, until="d", max_tokens=5) for text in texts * 3], 0)
    different = [*{*new}]
    assert len({(id(row.slab), row.index) for row in lm.engine.last(different)}) == len(different)
    expected = Extension.log_prob_many([lm.extend(text, until="d", max_tokens=5) for text in texts * 3], new)
    np.testing.assert_allclose([text.log_prob or 0.0 for text in new], expected, atol=2e-4)
    scores = lm.engine.log_right([(text,) for text in texts])
    np.testing.assert_allclose(scores, uncached_scores(lm, texts), atol=1e-4)
    assert len({round(score, 4) for score in scores}) == 4


def seen(texts: Sequence[Text], lm: LanguageModel) -> list[tuple[bytes, float | None, float]]:
    """All that a draw gives, to the last bit."""
    scores = lm.engine.log_right([(text,) for text in texts])
    return [(text.data, text.log_prob, score) for text, score in zip(texts, scores, strict=True)]


def two_blocks(
    lm: LanguageModel, prompts: Sequence[str], keys: Sequence[Key]
) -> list[tuple[bytes, float | None, float]]:
    """Two blocks behind each prompt."""
    texts, out = [lm.text(prompt) for prompt in prompts], []
    for name in ("first", "second"):
        dists = [lm.extend(text, until="d", max_tokens=5) for text in texts]
        texts = Extension.begin_many([key.fold(name) for key in keys], dists)()
        out += seen(texts, lm)
    return out


def test_results_are_bitwise_the_same_in_every_batch(new_model: MakeModel) -> None:
    prompts, keys = ["ab", "cba", "ab", "a", "bbbbbbb"], [Key.of(i) for i in range(5)]
    together = two_blocks(new_model("abcd"), prompts, keys)

    alone = [two_blocks(new_model("abcd"), [p], [k]) for p, k in zip(prompts, keys, strict=True)]
    assert [one[0] for one in alone] + [one[1] for one in alone] == together

    order = [3, 0, 4, 2, 1]
    permuted = two_blocks(new_model("abcd"), [prompts[i] for i in order], [keys[i] for i in order])
    assert permuted == [together[i] for i in order] + [together[5 + i] for i in order]

    rng = np.random.default_rng(0)
    mixed = ["".join(rng.choice(list("abc"), size=rng.integers(1, 9))) for _ in range(300)]
    places = sorted(rng.choice(300, 5, replace=False).tolist())
    others = [Key.of(1000 + i) for i in range(300)]
    for place, prompt, key in zip(places, prompts, keys, strict=True):
        mixed[place], others[place] = prompt, key
    crowd = two_blocks(new_model("abcd"), mixed, others)
    assert [crowd[i] for i in places] + [crowd[300 + i] for i in places] == together


def test_a_dropped_cache_changes_no_text(new_model: MakeModel) -> None:
    prompts, keys = ["ab", "cba", "a"] * 20, [Key.of(i) for i in range(60)]
    texts: list[list[Text]] = []
    for drop in (False, True):
        lm = new_model("abcd")
        now = [lm.text(prompt) for prompt in prompts]
        for name in "123":
            if drop:
                lm.engine.forget(0)
                assert not lm.engine.rows.known and not lm.engine.rows.slabs
            now = Extension.begin_many(
                [k.fold(name) for k in keys], [lm.extend(t, until="d", max_tokens=5) for t in now]
            )()
        texts.append(now)
    assert texts[0] == texts[1]


@program
async def judged_steps(lm: LanguageModel, reward: StepReward, prompt: str, steps: int) -> Text:
    text = lm.text(prompt)
    for _ in range(steps):
        text = await sample("step", lm.extend(text, until="d", max_tokens=3))
        await factor("right", await reward(text))
    return text


@pytest.mark.parametrize("particles", [7, 300])
def test_no_prefix_is_fed_twice(new_model: MakeModel, particles: int) -> None:
    lm, prompts, steps = new_model("abcd"), ["ab", "cba", "aaaaaa", "b"], 6
    reward = StepReward(lm)
    posteriors = infer_many([judged_steps(lm, reward, p, steps) for p in prompts], SMC(particles), range(4))
    assert any(step.resampled for p in posteriors for step in p.steps)
    usage = lm.engine.usage
    assert usage.fed == sum(map(len, prompts))
    assert usage.judged == steps * particles * len(prompts)
    assert usage.tokens == lm.tokens and 1 < usage.tokens / usage.judged <= 3
    assert usage.calls <= len(prompts) + steps * (4 * particles // 128 + 4)


def test_a_small_batch_after_a_large_one_evicts_nothing_of_the_round(new_model: MakeModel) -> None:
    """Particles at different places make two families in one round; both are needed again in the next."""
    lm = new_model("abcd")
    start = lm.text("ab")
    large = Extension.begin_many([Key.of(i) for i in range(1400)], [lm.extend(start, max_tokens=3)] * 1400)
    small = Extension.begin_many([Key.of(0)], [lm.extend(start, max_tokens=1)])
    texts = large() + small()
    lm.engine.log_right([(text,) for text in texts])
    assert lm.engine.usage.fed == len(start)


def test_a_handle_counts_its_own_tokens(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    a, b = lm.handle(), lm.handle()
    texts = draw(
        [a.extend(a.text("a"), max_tokens=3), b.extend(b.text("a"), max_tokens=3), a.extend(a.text("b"), max_tokens=3)],
        0,
    )
    assert (a.tokens, b.tokens, lm.tokens) == (6, 3, 0) and lm.engine.usage.tokens == 9 and len(texts) == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [({"temperature": t}, f"temperature={t}: .* positive and finite") for t in (0.0, -1.0, float("nan"), float("inf"))]
    + [({"max_tokens": n}, f"max_tokens={n}.*must be at least 1") for n in (0, -3)]
    + [({"until": ""}, r"until=\(''.*not empty")],
)  # fmt: skip
def test_bad_options_are_named(new_model: MakeModel, options: dict[str, Any], word: str) -> None:
    lm = new_model("abcd")
    with pytest.raises(ValueError, match=word):
        lm.extend(lm.text("a"), **options)


def test_a_full_context_is_named(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    almost = lm.text("a" * 23)
    full = draw([lm.extend(almost, max_tokens=3)], 0)[0]
    assert len(full) == 24
    with pytest.raises(ValueError, match=r"24 tokens fills the context of 24"):
        lm.extend(full, max_tokens=1)
    with pytest.raises(ValueError, match=r"24 tokens fills the context of 24"):
        lm.engine.decode([full], np.zeros((1, 2), np.uint32), lm.stop(())[0], 1, Options())
    with pytest.raises(ValueError, match=r"25 tokens does not fit the context of 1\.\.24"):
        lm.engine.last([full + "a"])
    for prompt, count in (("a" * 24, "24"), ("", "0")):
        with pytest.raises(ValueError, match=f"a prompt of {count} tokens does not fit tiny"):
            lm.text(prompt)
