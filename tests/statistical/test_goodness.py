"""`assert_draws` and `assert_same_law`: do they keep the rates that they state?

Finite laws exactly, by enumerating what could be drawn; CDFs by simulation, with a stated rate of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ppl import Categorical, Key
from ppl.rates import binomial_discrepancy
from ppl.statistical import assert_counts
from ppl.testing import assert_draws, assert_same_law, detectable, detectable_between, draws_needed

Numbers = Sequence[float]
LAW = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}


def drawn(law: Mapping[Any, float], n: int, seed: int) -> list[Any]:
    dist = Categorical.of(law)
    return dist.draw_many([Key.of(seed).fold(str(i)) for i in range(n)], [dist] * n)


def rejects(check: Callable[..., None], *args: Any) -> bool:
    try:
        check(*args)
    except AssertionError:
        return True
    return False


def off_by(law: Mapping[str, float], amount: float) -> dict[str, float]:
    """`amount` goes from b to the rest."""
    return {v: p - amount if v == "b" else p + amount * p / (1 - law["b"]) for v, p in law.items()}


def multinomial(n: int, law: Mapping[str, float]) -> Iterator[tuple[list[str], float]]:
    """Every multiset of `n` draws, with its probability."""
    for cuts in itertools.combinations(range(n + len(law) - 1), len(law) - 1):
        counts = np.diff([-1, *cuts, n + len(law) - 1]) - 1
        draws = [v for v, k in zip(law, counts, strict=True) for _ in range(k)]
        yield draws, float(stats.multinomial.pmf(counts, n, list(law.values())))


def at_most(rate: float, repetitions: int) -> int:
    """A count of events of probability at most `rate` exceeds this with probability at most 1e-6."""
    return int(stats.binom.isf(1e-6, repetitions, rate))


@pytest.mark.parametrize("false_alarm", [0.3, 0.05, 1e-3])
def test_finite_false_alarms_are_as_stated_exactly(false_alarm: float) -> None:
    law = {"a": 0.6, "b": 0.3, "c": 0.1}
    wrong = [p for draws, p in multinomial(30, law) if rejects(assert_draws, draws, law, false_alarm)]
    assert 0 < math.fsum(wrong) <= false_alarm


@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("p", [0.5, 0.2, 0.03])
def test_finite_discrepancies_are_found_as_stated_exactly(n: int, p: float) -> None:
    """At the stated discrepancy the exact power is at least 0.999; at 0.8 of it, less in one direction or the other."""
    law = {"a": p, "b": 1 - p}
    off = detectable(n, 0.01, law=law)

    def missed(q: float) -> float:
        if not 0 <= q <= 1:
            return 0.0
        passes = [k for k in range(n + 1) if not rejects(assert_draws, ["a"] * k + ["b"] * (n - k), law, 0.01)]
        return math.fsum(float(stats.binom.pmf(k, n, q)) for k in passes)

    assert max(missed(p + off), missed(p - off)) <= 1e-3 * (1 + 1e-9)
    assert max(missed(p + 0.8 * off), missed(p - 0.8 * off)) > 1e-3


@pytest.mark.parametrize(("n", "m"), [(8, 8), (6, 10)])
def test_false_alarms_between_finite_samples_are_as_stated_exactly(n: int, m: int) -> None:
    law = {"a": 0.5, "b": 0.3, "c": 0.2}
    total = math.fsum(
        p * q
        for xs, p in multinomial(n, law)
        for ys, q in multinomial(m, law)
        if p * q > 1e-7 and rejects(assert_same_law, xs, ys, 0.2)
    )
    assert 0 < total <= 0.2 - 1e-3  # what was left out weighs less than 1e-3


def test_discrepancies_between_finite_samples_are_found_as_stated_exactly() -> None:
    n, m, false_alarm = 60, 40, 0.05
    off = detectable_between(n, m, false_alarm, outcomes=2)
    p, q = 0.5 + off / 2, 0.5 - off / 2
    missed = math.fsum(
        float(stats.binom.pmf(j, n, p) * stats.binom.pmf(k, m, q))
        for j in range(n + 1)
        for k in range(m + 1)
        if stats.binom.pmf(j, n, p) * stats.binom.pmf(k, m, q) > 1e-8
        and not rejects(assert_same_law, [True] * j + [False] * (n - j), [True] * k + [False] * (m - k), false_alarm)
    )
    assert missed <= 1e-3 - 2e-5  # what was left out weighs less than 61 * 41 * 1e-8


def test_false_alarms_between_samples_of_ten_outcomes_are_as_stated() -> None:
    """600 repetitions at a rate of 0.2; this test itself fails a right toolkit with probability 1e-6.

    With so many outcomes and draws the rate is nearly used up, so that a looser level shows.
    """
    draws = np.random.default_rng(2).integers(0, 10, size=(600, 2, 1500)).tolist()
    wrong = sum(rejects(assert_same_law, xs, ys, 0.2) for xs, ys in draws)
    assert 60 < wrong <= at_most(0.2, 600)


def test_a_single_count_that_is_too_high_is_found_as_stated_exactly() -> None:
    off = binomial_discrepancy(100, np.array([0.03]), 0.01)
    fails = [k for k in range(101) if rejects(assert_counts, 100, [("a", k, 0.03)], 0.01, "it")]
    assert stats.binom.pmf(fails, 100, 0.03 + off).sum() >= 0.999 - 1e-9
    assert stats.binom.pmf(fails, 100, 0.02 + off).sum() < 0.999


def test_discrepancies_of_a_cdf_are_found_as_stated_exactly() -> None:
    """Two values, where the deviation that may hide a discrepancy is largest; 0.8 of it is found less often."""
    n = 200
    off = detectable(n, 0.05)

    def missed(amount: float) -> float:
        def cdf(x: np.ndarray) -> np.ndarray:
            return np.where(x < 0, 0.0, np.where(x < 1, 0.5 + amount, 1.0))

        passes = [k for k in range(n + 1) if not rejects(assert_draws, [0.0] * k + [1.0] * (n - k), cdf, 0.05)]
        return math.fsum(float(stats.binom.pmf(k, n, 0.5)) for k in passes)

    assert missed(off) <= 1e-3 < missed(0.8 * off)


CDFS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uniform": lambda x: np.clip(x, 0, 1),
    "jumps": lambda x: np.clip(np.floor(4 * x + 1) / 4, 0, 1),  # a quarter at each of 0, 1/4, 1/2, 3/4
    "half an atom": lambda x: np.where(x < 0.5, np.clip(x, 0, 1), 1.0),
}
SAMPLERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uniform": lambda u: u,
    "jumps": lambda u: np.floor(4 * u) / 4,
    "half an atom": lambda u: np.minimum(u, 0.5),
}


@pytest.mark.parametrize("name", CDFS)
def test_false_alarms_of_cdfs_are_as_stated(name: str) -> None:
    """2,000 repetitions at a rate of 0.05; this test itself fails a right toolkit with probability 1e-6."""
    us = np.random.default_rng(0).random((2000, 100))
    wrong = sum(rejects(assert_draws, SAMPLERS[name](u), CDFS[name], 0.05) for u in us)
    assert wrong <= at_most(0.05, 2000)
    wrong = sum(rejects(assert_same_law, SAMPLERS[name](u), SAMPLERS[name](v), 0.05) for u, v in us.reshape(-1, 2, 100))
    assert wrong <= at_most(0.05, 1000)


def test_discrepancies_of_cdfs_are_found_as_stated() -> None:
    """2,000 repetitions with a miss rate of 1e-3; this test fails a right toolkit with probability 1e-6, twice."""
    us = np.random.default_rng(1).random((2000, 200))
    off = detectable(200, 0.05)
    missed = sum(not rejects(assert_draws, u, lambda x: np.clip(x + off, 0, 1), 0.05) for u in us)
    assert missed <= at_most(1e-3, 2000)
    off = detectable_between(200, 200, 0.05)
    # Where the CDFs are furthest apart, at 0, no draws but those of the mutant lie: a share `off` of them.
    missed = sum(not rejects(assert_same_law, u, np.maximum(v - off, 0), 0.05) for u, v in us.reshape(-1, 2, 200))
    assert missed <= at_most(1e-3, 1000)


def test_the_jumps_of_a_wrong_sampler_are_seen() -> None:
    with pytest.raises(AssertionError, match=r"the CDF of 500 draws is off by 0\.5 at 0\.5"):
        assert_draws([0.5] * 500, CDFS["uniform"])
    with pytest.raises(AssertionError, match=r"the CDF of 500 draws is off by 0\.9 at 0\.9"):
        assert_draws([0.9] * 500, CDFS["uniform"])
    assert_draws([0.5] * 500, lambda x: np.where(x < 0.5, 0.0, 1.0))


@pytest.mark.parametrize("seed", range(5))
def test_right_samplers_pass_and_biased_ones_do_not(seed: int) -> None:
    """At a false-alarm rate of 1e-6; each bias is what is detected with probability 0.999."""
    n = 3000
    draws, us = drawn(LAW, n, seed), np.array(Key.of(seed).uniforms(n))
    assert_draws(draws, LAW)
    assert_draws(us, lambda x: x)
    assert_draws(-np.log(us), stats.expon.cdf)
    assert_same_law(draws, drawn(LAW, n, seed + 1000))
    assert_same_law(us, Key.of(seed + 1000).uniforms(n))

    off = off_by(LAW, detectable(n, law=LAW))
    with pytest.raises(AssertionError, match=r"A right sampler .* at most 1e-06; with n = 3,000 .* 0\.999"):
        assert_draws(drawn(off, n, seed), LAW)
    with pytest.raises(AssertionError, match="CDF"):
        assert_draws(us, lambda x: np.minimum(x + detectable(n), 1))
    off = off_by(LAW, detectable_between(n, n, outcomes=4))
    with pytest.raises(AssertionError, match=r"'b' came \d+ of 3000 times and \d+ of 3000 times"):
        assert_same_law(drawn(off, n, seed), draws)
    with pytest.raises(AssertionError, match="the CDFs of 3000 and 3000 draws differ"):
        assert_same_law(us, np.maximum(np.array(Key.of(seed + 1000).uniforms(n)) - detectable_between(n, n), 0.0))


def test_failures_state_rates_and_discrepancies() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_draws([0] * 600 + [1] * 400, {0: 0.5, 1: 0.5}, false_alarm=1e-4)
    assert str(caught.value) == (
        "0 came 600 of 1000 times, 500.0 expected (p = 2.73e-10, 2 tests). A right sampler fails with probability at "
        "most 0.0001; with n = 1,000 an outcome whose probability is off by 0.112 is found with probability 0.999"
    )
    assert round(detectable(1000, 1e-4, law={0: 0.5, 1: 0.5}), 3) == 0.112


def test_impossible_values_fail_at_once() -> None:
    with pytest.raises(AssertionError, match="drew 'x', of probability 0, 1 of 2001 times"):
        assert_draws([*drawn(LAW, 2000, 0), "x"], LAW)
    with pytest.raises(AssertionError, match="of probability 0"):
        assert_draws(["e"] * 100, {"a": 1.0, "e": 0.0})
    assert_draws(["a"] * 100, {"a": 1.0, "e": 0.0})


def test_what_cannot_fail_is_refused() -> None:
    for check in (
        lambda: assert_draws([0, 1] * 5, {0: 0.5, 1: 0.5}),
        lambda: assert_draws([], {0: 1.0}),
        lambda: assert_draws([0.1, 0.2], lambda x: x),
        lambda: assert_draws([], lambda x: x),
        lambda: assert_same_law([0, 1] * 5, [0, 1] * 5),
        lambda: assert_same_law(list(range(100)), list(range(100))),
        lambda: assert_same_law([0.5] * 10, [0.5] * 10),
        lambda: assert_same_law([0] * 9 + [1], [0] * 9 + [1]),
        lambda: assert_same_law([], [1]),
    ):
        with pytest.raises(ValueError, match=r"could|need"):
            check()
    assert_same_law(["same"] * 100, ["same"] * 100)
    assert_same_law([*["same"] * 999, "rare"], ["same"] * 1000)


def test_the_number_of_draws_at_which_something_can_fail() -> None:
    with pytest.raises(ValueError, match="no 7 draws could fail at a false-alarm rate of 1e-06; 8 could"):
        assert_draws([0.0] * 7, lambda x: x)
    with pytest.raises(AssertionError):
        assert_draws([0.0] * 8, lambda x: np.clip(x, 0, 1))


@pytest.mark.parametrize(
    ("check", "match"),
    [
        (lambda: assert_draws([math.nan] * 100, lambda x: x), "100 of them nan"),
        (lambda: assert_same_law([math.nan] * 100, [0.5] * 100), "without nan"),
        (lambda: assert_draws([1] * 100, {1: 0.5}), "must sum to 1, not to 0.5"),
        (lambda: assert_draws([1] * 100, {1: 1.5, 2: -0.5}), "must not be negative"),
        (lambda: assert_draws([1] * 100, {1: math.nan, 2: 0.5}), "must not be negative"),
        (lambda: assert_draws([0.5] * 100, lambda x: 0.5), "array of rising probabilities"),
        (lambda: assert_draws([0.2, 0.5] * 100, lambda x: 1 - x), "array of rising probabilities"),
        (lambda: assert_draws([0.5] * 100, lambda x: x * math.nan), "array of rising probabilities"),
        (lambda: assert_draws([1] * 100, {1: 1.0}, 0.0), r"lie in \(0, 1\), not 0.0"),
        (lambda: detectable(0), "at least 1"),
        (lambda: detectable(10, miss=1.0), r"lie in \(0, 1\)"),
        (lambda: draws_needed(0.0), r"lies in \(0, 1\]"),
    ],
)
def test_misuse_is_named(check: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check()


def test_draws_needed_is_where_the_discrepancy_falls_to_the_wanted_one() -> None:
    for off in (0.3, 0.05, 0.01):
        n = draws_needed(off, 1e-5, 0.01)
        assert detectable(n, 1e-5, 0.01) <= off < detectable(n - 1, 1e-5, 0.01)
