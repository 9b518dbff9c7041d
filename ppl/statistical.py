"""Check draws by statistics, where nothing can be enumerated.

A statistical test can be wrong in two ways, and each assertion here states both: its *false-alarm rate*, the
probability that a right sampler fails (a bound that holds at every number of draws, not asymptotically), and the
*discrepancy* that it detects with probability 0.999 (see `ppl.rates`).

>>> from ppl import Key
>>> assert_draws([Key.of(i).uniform() for i in range(1000)], lambda x: x)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ppl import rates
from ppl.rates import FALSE_ALARM, MISS, cdf_band, check_rates, detectable, detectable_between

Draws = Sequence[Any] | np.ndarray
Cdf = Callable[[np.ndarray], Any]


def assert_draws(draws: Draws, law: Mapping[Any, float] | Cdf, false_alarm: float = FALSE_ALARM) -> None:
    """Independent `draws` have the law `law`; a right sampler fails with probability at most `false_alarm`.

    `law` is a mapping value -> probability: then the count of each outcome gets an exact binomial test at
    `false_alarm` over the number of outcomes (Bonferroni), and a value of probability 0 fails at once. Or it is a CDF,
    a function of a float64 array that computes in float64 (jumps are welcome): then the empirical CDF must lie within
    the band of Dvoretzky, Kiefer and Wolfowitz with the constant of Massart 1990, valid at every number of draws.

    Detects, with probability 0.999, a law that is off by `detectable(len(draws), false_alarm, law=law)` at one outcome
    (finite), or a CDF that is off by `detectable(len(draws), false_alarm)` at one point.

    Raises:
        AssertionError: with the false-alarm rate and the discrepancy that is detected.
        ValueError: so few draws that nothing could fail, `nan`, probabilities that do not sum to 1, or no CDF.
    """
    check_rates(false_alarm)
    n = len(draws)
    if isinstance(law, Mapping):
        outcomes = rates.support(law)
        counts = Counter(draws)
        strange = [value for value in counts if value not in outcomes]
        if strange:
            raise AssertionError(f"drew {strange[0]!r}, of probability 0, {counts[strange[0]]} of {n} times")
        rows = [(f"{value!r}", counts[value], p) for value, p in outcomes.items()]
        assert_counts(n, rows, false_alarm, "an outcome")
        return
    xs, band = np.sort(_numbers(draws)), cdf_band(n, false_alarm)
    if band >= 1:
        raise ValueError(f"assert_draws: no {n} draws could fail at a false-alarm rate of {false_alarm:.3g}; "
                         f"{math.floor(cdf_band(1, false_alarm) ** 2) + 1} could")  # fmt: skip
    at, before = _cdf(law, xs), _cdf(law, _just_before(xs))
    # The empirical CDF at a draw, and between the last smaller draw and it.
    high, low = np.searchsorted(xs, xs, "right") / n, np.searchsorted(xs, xs, "left") / n
    gaps = np.maximum(np.abs(high - at), np.abs(low - before))
    worst = int(np.argmax(gaps))
    if gaps[worst] > band:
        raise AssertionError(
            f"the CDF of {n} draws is off by {gaps[worst]:.4g} at {xs[worst]:.6g}, more than {band:.4g}. "
            + _rates(false_alarm, f"n = {n:,} a CDF that is off by {detectable(n, false_alarm):.3g}")
        )


def assert_same_law(xs: Draws, ys: Draws, false_alarm: float = FALSE_ALARM) -> None:
    """Independent draws `xs` and `ys` have one law; right samplers fail with probability at most `false_alarm`.

    If a value is a float, all are numbers, and each empirical CDF gets a band (Dvoretzky, Kiefer and Wolfowitz; Massart
    1990) at half the rate. Otherwise (int, bool, str, tuple, ...) they are outcomes, and the count of each in `xs`,
    given that in both, gets the exact hypergeometric test of Fisher at `false_alarm` over the number of outcomes.

    Detects, with probability 0.999, laws that differ by `detectable_between(len(xs), len(ys), false_alarm)`; of K
    distinct outcomes, one whose probabilities differ by `detectable_between(..., outcomes=K)`.

    Raises:
        AssertionError: with the false-alarm rate and the discrepancy that is detected.
        ValueError: so few draws, or outcomes that repeat so rarely, that nothing could fail; `nan`.
    """
    check_rates(false_alarm)
    n, m = len(xs), len(ys)
    if not n or not m:
        raise ValueError(f"assert_same_law: {n} and {m} draws; both need some")
    if any(isinstance(value, float | np.floating) for group in (xs, ys) for value in group):
        _assert_same_cdf(_numbers(xs), _numbers(ys), false_alarm)
        return
    left, right = Counter(xs), Counter(ys)
    values = list(left | right)
    count = np.array([left[value] for value in values])
    both = count + np.array([right[value] for value in values])
    level = false_alarm / len(values)
    # The rarest splits there are: of values that never mix, and, where no value is in the majority, of each.
    separated = 2 * math.exp(math.lgamma(n + 1) + math.lgamma(m + 1) - math.lgamma(n + m + 1))
    ends = [_fisher(k, both, n, m) for k in (np.maximum(both - m, 0), np.minimum(both, n))]
    if separated > false_alarm / 2 or (2 * np.max(both) <= n + m and np.min(ends) > level):
        raise ValueError(
            f"assert_same_law: no {n} and {m} draws of {len(values)} outcomes, each seen at most {max(both)} times, "
            f"could fail at a false-alarm rate of {false_alarm:.3g}: more draws, a coarser statistic, or floats "
            "(compared as numbers) could"
        )
    p = _fisher(count, both, n, m)
    worst = int(np.argmin(p))
    if p[worst] <= level:
        off = detectable_between(n, m, false_alarm, outcomes=len(values))
        raise AssertionError(
            f"{values[worst]!r} came {count[worst]} of {n} times and {both[worst] - count[worst]} of {m} times "
            f"(p = {p[worst]:.3g}, {len(values)} outcomes). "
            + _rates(false_alarm, f"n = {n:,} and {m:,} an outcome whose probabilities differ by {off:.3g}")
        )


def assert_counts(n: int, rows: Sequence[tuple[str, int, float]], false_alarm: float, what: str) -> None:
    """Events (name, count in `n` independent trials, probability) are as frequent as they should: exact binomial tests.

    Each at `false_alarm` over their number. `what` says in a failure what an event is.

    Raises:
        AssertionError: with the false-alarm rate and the discrepancy that is detected.
        ValueError: so few trials that nothing could fail.
    """
    counts, probs = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    level = false_alarm / len(rows)
    if n < 1 or (np.max(probs) < 1 and np.min([_binomial(k, n, probs) for k in (0, n)]) > level):
        raise ValueError(f"no counts in {n} draws could fail at a false-alarm rate of {false_alarm:.3g}: take more")
    p = _binomial(counts, n, probs)
    worst = int(np.argmin(p))
    if p[worst] <= level:
        off = rates.binomial_discrepancy(n, probs, false_alarm)
        raise AssertionError(
            f"{rows[worst][0]} came {counts[worst]} of {n} times, {n * probs[worst]:.1f} expected (p = {p[worst]:.3g}, "
            f"{len(rows)} tests). " + _rates(false_alarm, f"n = {n:,} {what} whose probability is off by {off:.3g}")
        )


def _assert_same_cdf(xs: np.ndarray, ys: np.ndarray, false_alarm: float) -> None:
    n, m = len(xs), len(ys)
    band = cdf_band(n, false_alarm / 2) + cdf_band(m, false_alarm / 2)
    if band >= 1:
        raise ValueError(f"assert_same_law: no {n} and {m} draws could fail at a false-alarm rate of {false_alarm:.3g}")
    both = np.concatenate([xs, ys])
    gaps = np.abs(np.searchsorted(np.sort(xs), both, "right") / n - np.searchsorted(np.sort(ys), both, "right") / m)
    worst = int(np.argmax(gaps))
    if gaps[worst] > band:
        off = detectable_between(n, m, false_alarm)
        raise AssertionError(
            f"the CDFs of {n} and {m} draws differ by {gaps[worst]:.4g} at {both[worst]:.6g}, more than {band:.4g}. "
            + _rates(false_alarm, f"n = {n:,} and {m:,} CDFs that differ by {off:.3g}")
        )


def _binomial(counts: Any, n: int, probs: np.ndarray) -> np.ndarray:
    """Two-sided p-values: twice the smaller tail."""
    return 2 * np.minimum(stats.binom.cdf(counts, n, probs), stats.binom.sf(counts - 1, n, probs))


def _fisher(counts: np.ndarray, both: np.ndarray, n: int, m: int) -> np.ndarray:
    """Two-sided p-values of the share of `xs` in the counts of both."""
    return 2 * np.minimum(stats.hypergeom.cdf(counts, n + m, both, n), stats.hypergeom.sf(counts - 1, n + m, both, n))


def _rates(false_alarm: float, found: str) -> str:
    return f"A right sampler fails with probability at most {false_alarm:.3g}; with {found} is found with " \
           f"probability {1 - MISS:g}"  # fmt: skip


def _numbers(values: Draws) -> np.ndarray:
    xs = np.asarray(values, np.float64)
    if xs.ndim != 1 or np.isnan(xs).any():
        raise ValueError(f"draws to compare must be numbers, without nan; got an array {xs.shape}, "
                         f"{np.isnan(xs).sum()} of them nan")  # fmt: skip
    return xs


def _just_before(xs: np.ndarray) -> np.ndarray:
    """A point left of each sorted number, close to it and behind all smaller ones; a neighbouring float may round."""
    values, back = np.unique(xs, return_inverse=True)
    smaller = np.concatenate([[values[0] - (values[-1] - values[0] or abs(values[0]) or 1.0)], values[:-1]])
    points = values - 2.0**-30 * (values - smaller)
    return np.where(points < values, points, smaller)[back]


def _cdf(law: Cdf, xs: np.ndarray) -> np.ndarray:
    """The CDF at sorted points."""
    ys = np.asarray(law(xs), np.float64)
    if ys.shape != xs.shape or not np.all(np.abs(ys - 0.5) <= 0.5 + 1e-9) or np.any(np.diff(ys) < -1e-9):
        raise ValueError("a CDF must give, for an array of rising numbers, an array of rising probabilities; "
                         f"this one gave {ys}")  # fmt: skip
    return ys
