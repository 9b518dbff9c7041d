"""Arithmetic of log weights, float64. All zero weights (`-inf`) are legal everywhere; `nan` is not.

Plain Python on purpose: a population has few particles next to what each of them costs, and for those a loop is
faster than array calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def logsumexp(log_weights: Sequence[float]) -> float:
    """log of the sum of exp(log_weights); `-inf` when all are."""
    top = max(log_weights)
    if top == -math.inf:
        return -math.inf
    return top + math.log(math.fsum([math.exp(w - top) for w in log_weights]))


def log_mean_exp(log_weights: Sequence[float]) -> float:
    """log of the mean weight: the estimate of the log evidence by weighted particles."""
    return logsumexp(log_weights) - math.log(len(log_weights))


def normalise(log_weights: Sequence[float]) -> list[float]:
    """Probabilities proportional to exp(log_weights).

    Raises:
        ValueError: all weights are zero.
    """
    top = max(log_weights)
    if top == -math.inf:
        raise ValueError("all weights are zero: nothing to normalise")
    w = [math.exp(w - top) for w in log_weights]
    total = math.fsum(w)
    return [x / total for x in w]


def ess(log_weights: Sequence[float]) -> float:
    """Effective sample size (sum w)^2 / sum w^2, a count between 1 and N; 0 when all weights are zero (Kong 1992)."""
    top = max(log_weights)
    if top == -math.inf:
        return 0.0
    w = [math.exp(w - top) for w in log_weights]
    return math.fsum(w) ** 2 / math.fsum([x * x for x in w])
