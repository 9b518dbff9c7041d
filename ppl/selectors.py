"""Which answer a population gives: selectors, for `posterior.vote(...)`.

A selector is asked with weighted values and gives one answer (`BestOfMajority`: several). Values must be hashable; of
answers that are equally good the first seen counts, unless said otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from ppl.answers import Answers

Pairs = Sequence[tuple[Any, float]]  # values with their probabilities


@dataclass(frozen=True)
class Majority:
    """Self-consistency: the most frequent value, whatever its weights (Wang et al. 2022).

    `ties`, among values that are equally frequent: `first` seen; `weight`, the most probable; `none`, no answer (None).
    """

    ties: Literal["first", "weight", "none"] = "first"

    def __post_init__(self) -> None:
        if self.ties not in ("first", "weight", "none"):
            raise ValueError(f"Majority: ties={self.ties!r}: choose first, weight or none")

    def __call__(self, answers: Answers[Any]) -> Any:
        items = answers.items()
        counts = Counter(value for value, _ in items)
        most = max(counts.values())
        best = [value for value, count in counts.items() if count == most]
        if len(best) == 1 or self.ties == "first":
            return best[0]
        return None if self.ties == "none" else max(best, key=lambda value: _total(items, value))


@dataclass(frozen=True)
class BestOfMajority:
    """The `k` values of the highest score among those that are frequent: a tuple, the best first.

    Frequent is what `share` of the particles gave; the score of a value is its heaviest particle's. Where nothing is
    frequent the most frequent value counts. Di et al. 2025, "Best-of-majority: minimax-optimal strategy for pass@k
    inference scaling".

    Raises:
        ValueError: `k` below 1, or a share outside [0, 1].
    """

    k: int = 1
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.share <= 1:
            raise ValueError(f"{self!r}: k is at least 1, share of the particles in [0, 1]")

    def __call__(self, answers: Answers[Any]) -> tuple[Any, ...]:
        items = answers.items()
        counts, top = Counter(value for value, _ in items), dict[Any, float]()
        for value, p in items:
            top[value] = max(top.get(value, 0.0), p)
        least = min(self.share * len(items), max(counts.values()))
        frequent = [value for value in top if counts[value] >= least]
        return tuple(sorted(frequent, key=lambda value: -top[value])[: self.k])


@dataclass(frozen=True)
class MBR:
    """Minimum Bayes risk: the value of the largest expected utility(value, truth), the truth being one of them.

    Kumar and Byrne 2004. With `utility` 1 for equal values and else 0 it is the weighted vote.
    """

    utility: Callable[[Any, Any], float]

    def __call__(self, answers: Answers[Any]) -> Any:
        table = answers.table()
        return max(table, key=lambda one: sum(p * self.utility(one, other) for other, p in table.items()))


@dataclass(frozen=True)
class Abstain:
    """What another vote says, and None where its probability is `below` a threshold."""

    below: float
    vote: Any = "weighted"

    def __post_init__(self) -> None:
        if not 0 <= self.below <= 1:
            raise ValueError(f"Abstain: below is a probability, not {self.below!r}")

    def __call__(self, answers: Answers[Any]) -> Any:
        answer = answers.vote(self.vote)
        return answer if answer is not None and answers.table().get(answer, 0.0) >= self.below else None


@dataclass(frozen=True)
class RPC:
    """Perplexity consistency over distinct paths, improbable ones pruned: Zhou et al. 2025, "Bridging internal
    probability and self-consistency".

    An answer counts what the model gives the different paths to it, P(path), and not how often they were drawn:
    `log_prob(value)`, nats; `answer(value)` is what a path comes to. With `prune` a mixture of two Weibull laws is fit
    to the probabilities, and paths that are more likely of the lower one are left out, unless they are above the mean.
    The weights of the population do not matter.
    """

    log_prob: Callable[[Any], float]
    answer: Callable[[Any], Hashable] = lambda value: value
    prune: bool = True

    def __call__(self, answers: Answers[Any]) -> Any:
        paths = list(dict.fromkeys(value for value, _ in answers.items()))
        logs = np.array([self.log_prob(path) for path in paths])
        p = np.exp(logs - logs.max())
        kept = _likely(p) if self.prune else np.ones(len(p), bool)
        sums = dict[Hashable, float]()
        for path, mass, keep in zip(paths, p.tolist(), kept, strict=True):
            if keep:
                answer = self.answer(path)
                sums[answer] = sums.get(answer, 0.0) + mass
        return max(sums, key=lambda answer: sums[answer])


def _total(items: Pairs, value: Any) -> float:
    return sum(p for other, p in items if other == value)


def _likely(p: np.ndarray) -> np.ndarray:
    """Which probabilities belong to the upper of two Weibull laws, or are not below the mean. By EM."""
    if len(p) < 4 or np.ptp(p) == 0:
        return np.ones(len(p), bool)
    upper = (p > np.median(p)).astype(float)  # responsibilities
    laws = [((1.0, 1.0), 0.5)] * 2
    for _ in range(100):
        laws = [(_weibull(p, w, law[0]), w.mean()) for w, (law, _) in zip((1 - upper, upper), laws, strict=True)]
        logs = [_log_density(p, *law) + math.log(max(share, 1e-12)) for law, share in laws]
        fresh = 1 / (1 + np.exp(np.clip(logs[0] - logs[1], -700, 700)))
        if np.abs(fresh - upper).max() < 1e-3:  # what is asked is on which side of 1/2 each is
            break
        upper = np.clip(fresh, 1e-6, 1 - 1e-6)
    means = [scale * math.gamma(1 + 1 / shape) for (shape, scale), _ in laws]
    if means[1] < means[0]:
        upper = 1 - upper
    return (upper >= 0.5) | (p >= p.mean())


def _weibull(x: np.ndarray, w: np.ndarray, shape: float = 1.0) -> tuple[float, float]:
    """Shape and scale of the largest weighted likelihood: the shape by Newton's method from a guess, in its log."""
    some = w > 1e-9 * w.max(initial=0.0)
    if not some.any():
        return 1.0, float(x.mean())
    logs, w = np.log(np.maximum(x[some], 1e-300)), w[some] / w[some].sum()
    top, middle, t = logs.max(), w @ logs, math.log(shape)
    for _ in range(60):
        k = math.exp(t)
        powers = w * np.exp(k * (logs - top))
        mean, square = np.stack([logs, logs * logs]) @ powers / powers.sum()
        # The equation mean - 1/k - middle = 0 has a left side that rises in k.
        step = (mean - 1 / k - middle) / (k * (square - mean * mean) + 1 / k)
        t, before = min(max(t - min(max(step, -1.0), 1.0), -4.0), 5.0), t
        if abs(t - before) < 1e-8:
            break
    k = math.exp(t)
    return k, float(math.exp(top) * (w @ np.exp(k * (logs - top))) ** (1 / k))


def _log_density(x: np.ndarray, shape: float, scale: float) -> np.ndarray:
    z = np.log(np.maximum(x, 1e-300)) - math.log(scale)
    return math.log(shape) - math.log(scale) + (shape - 1) * z - np.exp(np.minimum(shape * z, 700.0))
