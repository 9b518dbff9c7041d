"""False-alarm rates and discrepancies: how many draws a statistical test needs, and what it can see.

>>> draws_needed(0.05)
8288
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6
MISS = 1e-3
"""Probability with which the discrepancy that an assertion states may be overlooked."""


def detectable(
    n: int, false_alarm: float = FALSE_ALARM, miss: float = MISS, law: Mapping[Any, float] | None = None
) -> float:
    """The discrepancy that `assert_draws` finds in `n` independent draws with probability at least 1 - `miss`.

    Without `law`: the largest distance of the two CDFs (Hoeffding 1963 at that point; above 1 is out of reach). With a
    finite `law`: the most that the probability of one outcome is off, from the exact binomial power.
    """
    check_rates(false_alarm, miss)
    if law is None:
        return cdf_band(n, false_alarm) + math.sqrt(math.log(1 / miss) / (2 * n))
    return binomial_discrepancy(n, np.array(list(support(law).values())), false_alarm, miss)


def draws_needed(discrepancy: float, false_alarm: float = FALSE_ALARM, miss: float = MISS) -> int:
    """The number of draws at which `detectable` falls to a distance of CDFs of `discrepancy`."""
    check_rates(false_alarm, miss)
    if not 0 < discrepancy <= 1:
        raise ValueError(f"draws_needed: a distance of CDFs lies in (0, 1], not {discrepancy}")
    return math.ceil((detectable(1, false_alarm, miss) / discrepancy) ** 2)


def detectable_between(
    n: int, m: int, false_alarm: float = FALSE_ALARM, miss: float = MISS, outcomes: int | None = None
) -> float:
    """The discrepancy that `assert_same_law` finds between `n` and `m` draws with probability at least 1 - `miss`.

    Without `outcomes`: the largest distance of the two CDFs. Else, of so many distinct values: the most that the
    probability of one differs (by the bounds of Hoeffding 1963; in truth it is less).
    """
    check_rates(false_alarm, miss)
    noise = math.sqrt(math.log(1 / miss) * (1 / n + 1 / m) / 2)
    if outcomes is None:
        return cdf_band(n, false_alarm / 2) + cdf_band(m, false_alarm / 2) + noise
    exponent = 2 * n * m * max(n, m) / (n + m) ** 2
    return math.sqrt(math.log(2 * outcomes / false_alarm) / exponent) + noise


def detectable_rank(
    replications: int, draws: int, statistics: int = 1, false_alarm: float = FALSE_ALARM, miss: float = MISS
) -> float:
    """The discrepancy that `assert_calibrated` finds with probability at least 1 - `miss`.

    It is the most that the probability of a rank of at most r, which should be (r + 1) / (draws + 1), is off.
    """
    check_rates(false_alarm, miss)
    return binomial_discrepancy(replications, np.arange(1, draws + 1) / (draws + 1), false_alarm / statistics, miss)


def binomial_discrepancy(n: int, probs: np.ndarray, false_alarm: float, miss: float = MISS) -> float:
    """The most that one of these probabilities can be off, up or down, and be overlooked more often than `miss`."""
    tail = false_alarm / len(probs) / 2
    low, high = stats.binom.ppf(tail, n, probs) - 1, n + 1 - stats.binom.ppf(tail, n, 1 - probs)  # fail at or beyond
    up = np.where(high <= n, stats.beta.ppf(1 - miss, np.minimum(high, n), np.maximum(n - high, 0) + 1), 1.0) - probs
    down = probs - np.where(low >= 0, stats.beta.ppf(miss, np.maximum(low, 0) + 1, n - np.maximum(low, 0)), 0.0)
    return float(np.max(np.maximum(up, down)))


def cdf_band(n: int, false_alarm: float) -> float:
    """Half the width of the band around the empirical CDF of `n` draws (Massart 1990)."""
    if n < 1:
        raise ValueError(f"{n} draws tell nothing: at least 1 is needed")
    return math.sqrt(math.log(2 / false_alarm) / (2 * n))


def check_rates(false_alarm: float, miss: float = MISS) -> None:
    if not 0 < false_alarm < 1 or not 0 < miss < 1:
        raise ValueError(f"a false-alarm rate and a miss rate lie in (0, 1), not {false_alarm} and {miss}")


def support(law: Mapping[Any, float]) -> dict[Hashable, float]:
    """The outcomes of positive probability."""
    total = math.fsum(law.values())
    if any(not p >= 0 for p in law.values()) or not abs(total - 1) < 1e-9:
        raise ValueError(f"the probabilities of a law must not be negative and must sum to 1, not to {total}")
    return {value: p / total for value, p in law.items() if p > 0}
