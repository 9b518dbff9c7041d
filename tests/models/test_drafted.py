"""A small model writes, a large one weighs: the texts are the large one's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ppl
from ppl import program, sample
from ppl.models import Drafted, Speculative, TableLM, sloppy
from ppl.rewards import Reward


@program
async def write(lm: Any, blocks: int) -> str:
    text = lm.text("a")
    for _ in range(blocks):
        text = await sample("step", lm.extend(text, max_tokens=1))
    return str(text)


def test_the_texts_are_those_of_the_large_model(new_model: Any) -> None:
    """Evidence 1, and two tokens by the large model's own scores, within 5 standard errors of 2,000 draws."""
    lm, draft = new_model("ab.", seed=1), new_model("ab.", seed=2)
    pair = Drafted(lm, draft)
    posterior = ppl.infer(write(pair, 2), ppl.Importance(2000), seed=0)
    weights = np.exp(posterior.population.log_weights)
    assert abs(weights.mean() - 1) < 5 * weights.std() / math.sqrt(2000) and weights.std() > 0.01
    start = lm.text("a")
    for more in ("aa", "ab", "bb", "ba"):
        p = math.exp(lm.extend(start, max_tokens=2).log_prob(start + more))
        share = weights * np.array([value == f"a{more}" for value in posterior.population.values])
        assert abs(share.mean() - p) < 5 * share.std() / math.sqrt(2000)


def test_on_the_task() -> None:
    """The model of the hard preset drafts for the better one: as right as that one alone."""
    large, small = sloppy.load_model("default"), sloppy.load_model("hard")
    problem = sloppy.held_out("default")[0]
    right = {}
    for name, lm in (("large", large), ("small", small), ("pair", Drafted(large.handle(), small.handle()))):
        one: Any = sloppy.solve(lm, Reward(lambda text: ppl.call(float, 0), "none"), problem.problem)  # pyright: ignore[reportArgumentType]
        posterior = ppl.infer(one, ppl.SMC(400), seed=1).map(sloppy.answer_of)
        right[name] = posterior.prob(lambda answer: answer == problem.answer)
    assert abs(right["pair"] - right["large"]) < 0.1


def test_tokens_are_counted_and_other_questions_go_to_the_large_model(new_model: Any) -> None:
    pair = Drafted(new_model("ab.", seed=1), new_model("ab.", seed=2)).handle()
    ppl.infer(write(pair, 2), ppl.Importance(8), seed=0)
    assert 8 <= pair.tokens <= 16 and pair.engine is pair.lm.engine and "drafted by" in repr(pair)
    with pytest.raises(ValueError, match="different tokenizers"):
        Drafted(new_model("ab.", seed=1), new_model("abc.", seed=2))


def test_speculative_blocks_are_a_mixture() -> None:
    """q(b) where the judge is content, and else p: exactly, for two blocks of which it likes "a"."""
    p, q = {"a": 0.3, "b": 0.5, "c": 0.2}, {"a": 0.6, "b": 0.1, "c": 0.3}
    lm, draft = TableLM("abc", lambda text: p), TableLM("abc", lambda text: q)

    def judge(text: Any) -> Any:
        return ppl.call(lambda one: 0.0 if one[-1] == "a" else -1.0, str(text))

    pair: Any = Speculative(lm, draft, judge, -0.5)  # pyright: ignore[reportArgumentType]
    law = {one: q[one] * (one == "a") + 0.4 * p[one] for one in "abc"}
    found = ppl.measure(write(pair, 2))
    for one in "abc":
        for two in "abc":
            assert found[f"a{one}{two}"] == pytest.approx(law[one] * law[two])
    with pytest.raises(TypeError, match="takes no proposal"):
        sample("step", pair.extend(lm.text("a"), max_tokens=1), proposal=draft.extend(lm.text("a"), max_tokens=1))


def test_speculative_tokens_are_those_of_both(new_model: Any) -> None:
    lm, draft = new_model("ab.", seed=1), new_model("ab.", seed=2)
    never, always = (Speculative(lm, draft, lambda text: ppl.call(float, -0.1), t).handle() for t in (0.0, -0.5))
    for pair, tokens in ((never, 32), (always, 16)):
        ppl.infer(write(pair, 2), ppl.Importance(8), seed=0)
        assert pair.tokens == tokens
    with pytest.raises(ValueError, match=r"threshold=0\.7 is a log probability"):
        Speculative(lm, draft, lambda text: ppl.call(float, 0), 0.7)
