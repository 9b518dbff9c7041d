"""Arithmetic of log weights, float64. All zero weights (`-inf`) are legal everywhere; `nan` is not."""

from __future__ import annotations

import math

import numpy as np


def logsumexp(log_weights: np.ndarray) -> float:
    """log of the sum of exp(log_weights); `-inf` when all are."""
    top = float(np.max(log_weights))
    if top == -math.inf:
        return -math.inf
    return top + math.log(float(np.exp(log_weights - top).sum()))


def log_mean_exp(log_weights: np.ndarray) -> float:
    """log of the mean weight: the estimate of the log evidence by weighted particles."""
    return logsumexp(log_weights) - math.log(len(log_weights))


def normalise(log_weights: np.ndarray) -> np.ndarray:
    """Probabilities proportional to exp(log_weights).

    Raises:
        ValueError: all weights are zero.
    """
    total = logsumexp(log_weights)
    if total == -math.inf:
        raise ValueError("all weights are zero: nothing to normalise")
    return np.exp(log_weights - total)


def ess(log_weights: np.ndarray) -> float:
    """Effective sample size (sum w)^2 / sum w^2, a count between 1 and N; 0 when all weights are zero (Kong 1992)."""
    top = float(np.max(log_weights))
    if top == -math.inf:
        return 0.0
    w = np.exp(log_weights - top)
    return float(w.sum() ** 2 / (w * w).sum())
