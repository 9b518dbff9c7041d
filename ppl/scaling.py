"""How much budget a method needs to be as accurate as another one.

Accuracy against budget is made monotone (running maximum) and interpolated in log2 of the budget, as the figures of
papers are read; the uncertainty is a bootstrap over problems, paired between the methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def budget_to_reach(budgets: Sequence[int], accuracy: np.ndarray, target: float) -> float:
    """The smallest budget at which the accuracy reaches `target`; `inf` when the largest budget does not.

    `budgets` ascend; `accuracy` [budgets]. A target below the accuracy at the smallest budget gives that budget.
    """
    monotone = np.maximum.accumulate(accuracy)
    if monotone[-1] < target:
        return math.inf
    after = int(np.argmax(monotone >= target))
    if after == 0:
        return float(budgets[0])
    low, high = monotone[after - 1], monotone[after]
    share = (target - low) / (high - low)
    return float(2 ** (math.log2(budgets[after - 1]) * (1 - share) + math.log2(budgets[after]) * share))


@dataclass(frozen=True)
class BudgetRatio:
    """Budget that the baseline needs, over the budget of the method it is compared with."""

    ratio: float
    """On all problems; `inf` when the baseline never gets there."""
    low: float
    """2.5 % quantile of the bootstrap."""
    high: float
    """97.5 % quantile; `inf`: not reached."""
    not_reached: float
    """Share of bootstrap samples in which the baseline's largest budget is not enough."""
    largest: float
    """The largest ratio that could be seen: the baseline's largest budget over the compared one."""

    def show(self, ratio: float) -> str:
        """A ratio in words."""
        return f"> {self.largest:g}" if ratio == math.inf else f"{ratio:.1f}"


def budget_ratio(
    budgets: Sequence[int], baseline: np.ndarray, reference: np.ndarray, at: int, samples: int = 2000, seed: int = 0
) -> BudgetRatio:
    """Compare `baseline` [budgets, problems] with `reference` [problems] at budget `at` (both 0/1: correct).

    Raises:
        ValueError: shapes that do not fit.
    """
    if baseline.shape != (len(budgets), len(reference)):
        raise ValueError(f"baseline is {baseline.shape}, expected {(len(budgets), len(reference))}")

    def ratio(chosen: np.ndarray) -> float:
        return budget_to_reach(budgets, baseline[:, chosen].mean(1), float(reference[chosen].mean())) / at

    rng, count = np.random.default_rng(seed), len(reference)
    draws = np.sort([ratio(rng.integers(count, size=count)) for _ in range(samples)])
    low, high = draws[int(0.025 * samples)], draws[min(int(0.975 * samples), samples - 1)]
    not_reached = float(np.isinf(draws).mean())
    return BudgetRatio(ratio(np.arange(count)), float(low), float(high), not_reached, budgets[-1] / at)
