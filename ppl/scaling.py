"""How accuracy grows with budget, and how much of it a method needs to be as accurate as another one.

Accuracy against budget is made monotone (running maximum) and interpolated in log2 of the budget, as the figures of
papers are read; the uncertainty is a bootstrap over problems, paired between the methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def budget_to_reach(budgets: Sequence[float], accuracy: np.ndarray, target: float) -> float:
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
        return f"> {self.largest:.3g}" if ratio == math.inf else f"{ratio:.1f}"


def budget_ratio(
    budgets: Sequence[float], baseline: np.ndarray, reference: np.ndarray, at: float, samples: int = 2000, seed: int = 0
) -> BudgetRatio:
    """Compare `baseline` [budgets, problems] with `reference` [problems] at budget `at` (both 0/1: correct, or
    shares of runs in which it was).

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


def pass_at(k: int, n: int, right: int) -> float:
    """P(one of k is right) of k drawn without replacement from n, of which so many are: unbiased for fresh runs.

    Chen et al. 2021, "Evaluating large language models trained on code".

    Raises:
        ValueError: k is not between 1 and n, or `right` not between 0 and n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass_at: k={k} of n={n}, {right} of them right: k is 1 to n, right 0 to n")
    return 1.0 - math.prod((n - right - i) / (n - i) for i in range(k))


def majority_at(k: int, n: int, counts: Sequence[int], right: Sequence[bool], draws: int = 400, seed: int = 0) -> float:
    """P(the most frequent of k answers is right), k drawn without replacement from a pool; a tie counts its share.

    `counts` of the different answers in the pool of n, of which those that are no answers make up the rest. By `draws`
    random subsets; exact where k is 1 or n.
    """
    table, ok = np.array([*counts, n - sum(counts)]), np.array([*right, False])
    if not len(counts):
        return 0.0
    if k == 1:
        return float(table @ ok) / n
    some = table[None] if k == n else np.random.default_rng(seed).multivariate_hypergeometric(table, k, draws)
    some = some[:, :-1]
    best = (some == some.max(1, keepdims=True)) & (some > 0)
    return float(np.mean((best @ ok[:-1]) / np.maximum(best.sum(1), 1)))


def fit_coverage(ks: Sequence[int], coverage: Sequence[float]) -> tuple[float, float]:
    """a and b of coverage = exp(a k^b), by least squares of log(-log coverage) on log k.

    Brown et al. 2024, "Large language monkeys: scaling inference compute with repeated sampling". Coverages of 0 or 1
    say nothing of them and are left out.

    Raises:
        ValueError: fewer than two are left.
    """
    some = [(math.log(k), math.log(-math.log(c))) for k, c in zip(ks, coverage, strict=True) if 0 < c < 1]
    if len(some) < 2:
        raise ValueError("fit_coverage: two coverages between 0 and 1 are needed")
    x, y = np.array(some).T
    b, log_a = np.polyfit(x, y, 1)
    return -math.exp(log_a), float(b)
