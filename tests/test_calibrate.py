"""Calibration: what is planted is found again, and few labels make a reward less sure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppl
from ppl.calibrate import calibrated, reliability
from ppl.rewards import Reward


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def labelled(n: int, a: float, b: float, seed: int = 0) -> list[tuple[float, bool]]:
    """Scores of an over-confident judge: true log odds are a + b times what it says."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(1.0, 3.0, n)
    truth = rng.random(n) < sigmoid(a + b * odds)
    return [(float(-np.logaddexp(0, -x)), bool(y)) for x, y in zip(odds, truth, strict=True)]


def model(text: Any) -> Any:
    return ppl.call(lambda one: math.log(0.9), text)


def test_a_planted_law_is_found_again() -> None:
    honest = calibrated(model, labelled(4000, -0.5, 0.4))
    assert honest.intercepts.mean() == pytest.approx(-0.5, abs=0.2) and honest.slopes.mean() == pytest.approx(
        0.4, abs=0.05
    )
    assert honest.before.ece > 0.15 and honest.after.ece < 0.03
    assert honest.after.log_loss < honest.before.log_loss - 0.1
    fresh = labelled(4000, -0.5, 0.4, seed=1)
    again = reliability([honest.of(score) for score, _ in fresh], [right for _, right in fresh])
    assert again.ece < 0.03
    for p in (0.05, 0.5, 0.99):
        want = sigmoid(-0.5 + 0.4 * math.log(p / (1 - p)))
        assert math.exp(honest.of(math.log(p))) == pytest.approx(want, abs=0.04)


def test_an_honest_judge_stays_as_it_is() -> None:
    honest = calibrated(model, labelled(4000, 0.0, 1.0))
    for p in (0.1, 0.5, 0.9):
        assert math.exp(honest.of(math.log(p))) == pytest.approx(p, abs=0.04)


def test_few_labels_make_it_less_sure() -> None:
    few, many = (calibrated(model, labelled(n, 0.0, 1.0)) for n in (8, 4000))
    assert few.slopes.std() > 5 * many.slopes.std()
    assert math.exp(few.of(math.log(0.999))) < math.exp(many.of(math.log(0.999)))
    assert all(0 >= few.of(score) > -math.inf for score in (0.0, -1e-12, -0.5, -800.0, -math.inf))


def test_the_order_of_scores_stays() -> None:
    honest = calibrated(model, labelled(50, -1.0, 0.3))
    scores = [honest.of(x) for x in np.linspace(-20, -1e-6, 50)]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_reliability_by_hand() -> None:
    some = reliability([math.log(p) for p in (0.15, 0.15, 0.85, 0.95)], [False, True, True, True])
    assert some.predicted == pytest.approx([0.15, 0.85, 0.95]) and some.observed.tolist() == [0.5, 1.0, 1.0]
    assert some.ece == pytest.approx((2 * 0.35 + 0.15 + 0.05) / 4)
    assert some.log_loss == pytest.approx(-np.mean(np.log([0.85, 0.15, 0.85, 0.95])))
    assert (
        reliability([0.0, -math.inf], [True, False]).log_loss == 0 and reliability([0.0], [False]).log_loss == math.inf
    )


def test_it_is_called_as_the_model_is() -> None:
    """In a program: batches go on to the model together, and a question is passed on."""
    batches: list[int] = []

    class Judge:
        kind = "step"

        def __call__(self, text: str, question: str | None = None) -> Any:
            return ppl.effects.Call(self.one, (text,), self.many, "judge")

        def one(self, text: str) -> float:
            return self.many([(text,)])[0]

        def many(self, questions: Any) -> list[float]:
            batches.append(len(questions))
            return [math.log(0.9) for _ in questions]

    judge = Judge()
    honest = calibrated(judge, labelled(200, -1.0, 1.0))
    assert honest.kind == "step" and Reward(honest).use == "step_likelihood"

    @ppl.program
    async def write() -> int:
        x = await ppl.sample("x", ppl.uniform([0, 1]))
        await Reward(honest).begin("why?").step(str(x))
        return x

    posterior = ppl.infer(write(), ppl.Importance(16), seed=0)
    assert batches == [16] and posterior.calls == {"judge": 16}
    assert posterior.log_evidence == pytest.approx(honest.of(math.log(0.9)))
    with pytest.raises(TypeError, match="a reward model gives a call"):
        calibrated(lambda text: 0.5, labelled(9, 0.0, 1.0))("x")


def test_the_picture(tmp_path: Path) -> None:
    calibrated(model, labelled(300, -0.5, 0.4)).plot(tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("data", "message"),
    [([], "0 scores and 0 outcomes"), ([(0.5, True)], "at most 0, not 0.5"), ([(math.nan, True)], "not nan")],
)
def test_bad_input(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrated(model, data)
