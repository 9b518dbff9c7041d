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

    @property
    def interval(self) -> str:
        """From the lower to the upper quantile, in words; one of them where they read the same."""
        low, high = self.show(self.low), self.show(self.high)
        return low if low == high else f"{low} to {high}"


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


def saturation(p: float, gain: float, most: float = 1.0) -> int:
    """The smallest N behind which one more generation gains less than `gain` accuracy, where it is
    most * (1 - (1 - p)^N).

    Wang et al. 2025, "Scaling over scaling: exploring test-time scaling plateau in large reasoning models".

    Raises:
        ValueError: p is not in (0, 1], `gain` not positive, or `most` not in (0, 1].
    """
    if not 0 < p <= 1 or not gain > 0 or not 0 < most <= 1:
        raise ValueError(f"saturation({p}, {gain}, {most}): p and most are in (0, 1], gain is positive")
    if most * p <= gain or p == 1:
        return 1
    return max(1, math.ceil(math.log(gain / (most * p)) / math.log1p(-p)))


def best_attempts(rights: Sequence[float], passes_wrong: float, cost: float, most: int = 1000) -> int:
    """How often to try at most until an imperfect verifier passes: a right answer is worth 1, a wrong one -`cost`.

    `rights` are P(a try is right) of the problems that come; right ones pass, wrong ones with probability
    `passes_wrong`. No answer is worth 0. What is still open after many tries are the hard problems, of which mostly
    wrong answers pass: Stroebl, Kapoor and Narayanan 2024, "Inference scaling fLaws: the limits of LLM resampling with
    imperfect verifiers".

    Raises:
        ValueError: there are no problems, probabilities outside [0, 1], or a negative cost.
    """
    r = np.asarray(rights, float)
    if not len(r) or not ((r >= 0) & (r <= 1)).all() or not 0 <= passes_wrong <= 1 or not cost >= 0:
        raise ValueError(
            f"best_attempts({rights}, {passes_wrong}, {cost}): some probabilities, and a cost of at least 0"
        )
    wrong = (1 - r) * passes_wrong
    q = np.maximum(r + wrong, 1e-300)
    tries = np.arange(most + 1)[:, None]
    worth = ((1 - (1 - np.minimum(q, 1.0)) ** tries) * (r - cost * wrong) / q).mean(1)
    return int(np.argmax(worth))
