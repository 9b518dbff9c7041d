"""Budgets read off accuracy curves, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ppl.scaling import BudgetRatio, budget_ratio, budget_to_reach

BUDGETS = [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("accuracy", "target", "budget"),
    [
        ([0.2, 0.4, 0.6, 0.8], 0.6, 4),  # exactly at a budget
        ([0.2, 0.4, 0.6, 0.8], 0.5, 2**1.5),  # half way between 2 and 4, in log2
        ([0.2, 0.4, 0.6, 0.8], 0.45, 2**1.25),
        ([0.2, 0.4, 0.6, 0.8], 0.1, 1),  # below the smallest budget
        ([0.2, 0.4, 0.6, 0.8], 0.2, 1),
        ([0.2, 0.4, 0.6, 0.8], 0.8, 8),
        ([0.2, 0.4, 0.6, 0.8], 0.81, math.inf),
        ([0.2, 0.6, 0.4, 0.8], 0.5, 2**0.75),  # first reached between 1 and 2; the dip does not count
        ([0.2, 0.6, 0.4, 0.8], 0.7, 2**2.5),  # from the running maximum 0.6 at 4 to 0.8 at 8
        ([0.5, 0.5, 0.5, 0.5], 0.5, 1),
        ([0.3, 0.2, 0.1, 0.0], 0.4, math.inf),
    ],
)
def test_budget_to_reach_by_hand(accuracy: list[float], target: float, budget: float) -> None:
    assert budget_to_reach(BUDGETS, np.array(accuracy), target) == pytest.approx(budget, rel=1e-12)


def curves(rng: np.random.Generator, accuracy: list[float], problems: int) -> np.ndarray:
    return rng.random((len(accuracy), problems)) < np.array(accuracy)[:, None]


def test_a_method_against_itself_needs_the_same_budget() -> None:
    baseline = np.arange(100) < np.array([[10], [30], [50], [70]])
    ratio = budget_ratio(BUDGETS, baseline, baseline[2], 4)
    assert (ratio.ratio, ratio.low, ratio.high, ratio.not_reached) == (1, 1, 1, 0)


def test_the_interval_holds_the_ratio_and_narrows_with_more_problems() -> None:
    accuracy = [0.2, 0.4, 0.6, 0.8]
    widths = []
    for problems in (50, 5000):
        rng = np.random.default_rng(0)
        ratio = budget_ratio(BUDGETS, curves(rng, accuracy, problems), rng.random(problems) < 0.6, 2, samples=400)
        assert ratio.low < ratio.ratio < ratio.high
        widths.append(math.log(min(ratio.high, 8) / ratio.low))
    assert ratio.low < 2 < ratio.high  # true ratio 4 / 2; a false alarm has probability 0.05, the seed is fixed
    assert widths[1] < widths[0] / 3


def test_a_baseline_that_never_gets_there() -> None:
    never = budget_ratio(BUDGETS, np.zeros((4, 20), bool), np.ones(20, bool), 8)
    assert never == BudgetRatio(math.inf, math.inf, math.inf, not_reached=1.0, largest=1.0)
    assert (never.show(never.ratio), never.show(1.25)) == ("> 1", "1.2")
    assert budget_ratio(BUDGETS, np.zeros((4, 20), bool), np.ones(20, bool), 16).show(math.inf) == "> 0.5"


def test_the_share_of_samples_not_reached() -> None:
    """Both right on problem 0 alone: never. The reference right on one more: whenever that is drawn, 1 - 0.9^10."""
    baseline, reference = np.zeros((4, 10), bool), np.zeros(10, bool)
    baseline[:, 0] = reference[0] = True
    assert budget_ratio(BUDGETS, baseline, reference, 1).not_reached == 0
    reference[1] = True
    share, samples = 1 - 0.9**10, 2000
    found = budget_ratio(BUDGETS, baseline, reference, 1, samples=samples).not_reached
    assert abs(found - share) < 4.9 * math.sqrt(share * (1 - share) / samples)  # false alarm 1e-6


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    baseline, reference = curves(rng, [0.2, 0.4, 0.6, 0.8], 60), rng.random(60) < 0.6
    first, again, other = (budget_ratio(BUDGETS, baseline, reference, 2, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other


@pytest.mark.parametrize("shape", [(4, 9), (3, 10), (10, 4)])
def test_shapes_that_do_not_fit_are_named(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"expected \(4, 10\)") as caught:
        budget_ratio(BUDGETS, np.zeros(shape, bool), np.zeros(10, bool), 8)
    assert str(shape) in str(caught.value)
