"""`assert_calibrated` and `assert_joint_invariant`: right inferences pass, each planted mistake is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from scipy import stats

from ppl import (
    SMC,
    Bernoulli,
    Categorical,
    Enumerate,
    Importance,
    Multinomial,
    Program,
    ZeroEvidence,
    condition,
    dist,
    factor,
    observe,
    program,
    regenerate,
    replay,
    sample,
    select,
    trace,
    uniform,
)  # fmt: skip
from ppl.rates import binomial_discrepancy
from ppl.statistical import assert_counts
from ppl.testing import assert_calibrated, assert_joint_invariant, detectable_between, detectable_rank

# A coin of unknown bias, thrown four times.

BIASES = (0.1, 0.3, 0.5, 0.7, 0.9)
THROWS = {bias: Categorical.of({h: float(stats.binom.pmf(h, 4, bias)) for h in range(5)}) for bias in BIASES}
LIKELIHOOD = {"bias": lambda bias, heads: bias, "likelihood": lambda bias, heads: THROWS[bias].probabilities[heads]}


@program
async def coin() -> tuple[float, int]:
    bias = await sample("bias", uniform(BIASES))
    return bias, await sample("heads", THROWS[bias])


@program
async def bias_given(heads: int, power: float = 1.0, prior: tuple[float, ...] = (1, 1, 1, 1, 1)) -> float:
    bias = await sample("bias", Categorical.of(dict(zip(BIASES, prior, strict=True))))
    await factor("heads", power * THROWS[bias].log_prob(heads))
    return bias


@pytest.mark.parametrize("seed", range(4))
def test_exact_inference_is_calibrated(seed: int) -> None:
    assert_calibrated(coin(), bias_given, Enumerate(), LIKELIHOOD, seed=seed)


@pytest.mark.parametrize("algorithm", [Importance(100), SMC(100), SMC(100, Multinomial)])
def test_many_particles_are_calibrated_to_what_is_detected(algorithm: Any) -> None:
    assert_calibrated(coin(), bias_given, algorithm, LIKELIHOOD, replications=200)


def prior_alone(heads: int) -> Program[float]:
    return bias_given(heads, power=0.0)


@pytest.mark.parametrize(
    ("posterior", "algorithm"),
    [
        (lambda heads: bias_given(heads, power=3.0), Enumerate()),  # too sure
        (lambda heads: bias_given(heads, power=0.2), Enumerate()),  # not sure enough
        (lambda heads: bias_given(heads, prior=(1, 1, 1, 1, 20)), Enumerate()),  # another prior
        (lambda heads: bias_given(4 - heads), Enumerate()),  # tails for heads
        (prior_alone, Enumerate()),  # the data are ignored
        (bias_given, SMC(2)),  # too few particles to resample from
        (bias_given, Importance(1)),
    ],
)
def test_wrong_inference_is_rejected(posterior: Callable[[int], Program[float]], algorithm: Any) -> None:
    with pytest.raises(AssertionError, match=r"a rank of at most \d+ \(of 0..19\) came .* most 1e-06; .* off by 0\.1"):
        assert_calibrated(coin(), posterior, algorithm, LIKELIHOOD, replications=1000)


def test_only_statistics_of_the_data_see_an_algorithm_that_ignores_them() -> None:
    assert_calibrated(coin(), prior_alone, Enumerate(), replications=1000)
    with pytest.raises(AssertionError, match="likelihood: a rank"):
        assert_calibrated(coin(), prior_alone, Enumerate(), LIKELIHOOD, replications=1000)


def test_false_alarms_of_calibration_are_as_stated() -> None:
    """200 repetitions at a rate of 0.05; this test itself fails a right toolkit with probability 1e-6."""
    wrong = 0
    for seed in range(200):
        try:
            assert_calibrated(coin(), bias_given, Enumerate(), replications=30, draws=4, false_alarm=0.05, seed=seed)
        except AssertionError:
            wrong += 1
    assert wrong <= stats.binom.isf(1e-6, 200, 0.05)


def test_the_stated_rank_discrepancy_is_what_is_found_exactly() -> None:
    """Rank counts that are off by it, one way, fail with a probability of at least 0.999, computed exactly."""
    off = detectable_rank(100, 3, statistics=2, false_alarm=0.01)
    assert off == binomial_discrepancy(100, stats.uniform.cdf([0.25, 0.5, 0.75]), 0.005)

    def fails(count: int) -> bool:
        try:  # the least favourable of the three ranges
            assert_counts(100, [("a", 25, 0.25), ("b", count, 0.5), ("c", 75, 0.75)], 0.005, "x")
        except AssertionError:
            return True
        return False

    power = math.fsum(float(stats.binom.pmf(k, 100, 0.5 + off)) for k in range(101) if fails(k))
    assert power >= 0.999


def test_misuse_of_calibration_is_named() -> None:
    with pytest.raises(ValueError, match="both need at least 1"):
        assert_calibrated(coin(), bias_given, Enumerate(), draws=0)
    with pytest.raises(ValueError, match="could fail at a false-alarm rate of 1e-06: take more"):
        assert_calibrated(coin(), bias_given, Enumerate(), replications=4)
    with pytest.raises(ValueError, match="the statistic odd is nan"):
        assert_calibrated(coin(), bias_given, Enumerate(), {"odd": lambda bias, heads: math.nan})
    with pytest.raises(ValueError, match="the joint must draw, without factors"):
        assert_calibrated(weighted(), bias_given, Enumerate())
    with pytest.raises(ValueError, match="must return a pair"):
        assert_calibrated(bias_given(2, 0.0), bias_given, Enumerate())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ZeroEvidence, match="impossible/never"):
        assert_calibrated(coin(), impossible, Importance(3))


@program
async def weighted() -> tuple[float, int]:
    await factor("f", -1.0)
    return await coin()


@program
async def impossible(heads: int) -> float:
    await condition("never", False)
    return 0.5


# Joint invariance: a Metropolis-Hastings kernel on the same coin.


@program
async def metropolis(bias: float, heads: int, ratio: bool = True) -> float:
    other = await sample("propose", uniform(BIASES))
    log_ratio = THROWS[other].log_prob(heads) - THROWS[bias].log_prob(heads)
    return other if await sample("accept", Bernoulli(math.exp(min(0.0, log_ratio)) if ratio else 1.0)) else bias


@program
async def one_sided(bias: float, heads: int) -> float:
    """A walk that forgets that at the ends there is one neighbour, not two: the ratio lacks q(old)/q(new)."""
    at = BIASES.index(bias)
    other = await sample("propose", uniform([b for i, b in enumerate(BIASES) if abs(i - at) == 1]))
    log_ratio = THROWS[other].log_prob(heads) - THROWS[bias].log_prob(heads)
    return other if await sample("accept", Bernoulli(math.exp(min(0.0, log_ratio)))) else bias


@program
async def throw(bias: float) -> int:
    return await sample("heads", THROWS[bias])


@program
async def from_regenerate(bias: float, heads: int) -> float:
    """The library's own proposal with its ratio, accepted as Metropolis and Hastings do."""
    at_bias = bias_given(heads, prior=tuple(float(b == bias) for b in BIASES))
    old = replay(bias_given(heads), trace(at_bias))
    new = await regenerate(old, select("**"))
    accepted = await sample("accept", Bernoulli(math.exp(min(0.0, new.log_ratio))))
    return new.trace.value if accepted and new.trace else bias  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("simulate", [None, throw])
@pytest.mark.parametrize("step", [metropolis, from_regenerate])
def test_a_right_kernel_is_invariant(step: Any, simulate: Any) -> None:
    for seed in range(3):
        assert_joint_invariant(coin(), step, simulate, rounds=2, replications=300, seed=seed)


@program
async def loses_the_smallest(bias: float, heads: int) -> float:
    return BIASES[-1] if bias == BIASES[0] else bias


WHICH = {"which bias": lambda bias, heads: BIASES.index(bias), "heads": lambda bias, heads: heads}


@pytest.mark.parametrize("simulate", [None, throw])
def test_wrong_kernels_are_rejected(simulate: Any) -> None:
    with pytest.raises(AssertionError, match=r"\(parameters, data\), after 1 rounds .* came 0 of .* at most 1e-06"):
        assert_joint_invariant(coin(), loses_the_smallest, simulate, replications=3000)
    with pytest.raises(AssertionError, match=r"which bias, after 4 rounds .* at most 5e-07"):
        assert_joint_invariant(coin(), one_sided, simulate, WHICH, rounds=4, replications=3000)


def test_only_statistics_of_both_see_a_step_that_ignores_the_data() -> None:
    def prior(bias: float, heads: int) -> Program[float]:
        return metropolis(bias, heads, ratio=False)

    assert_joint_invariant(coin(), prior, statistics=WHICH)
    assert_joint_invariant(coin(), prior, throw, replications=3000)  # new data of new parameters: the joint itself
    with pytest.raises(AssertionError, match="after 1 rounds"):
        assert_joint_invariant(coin(), prior, replications=3000)


# Numbers: a normal mean with one normal observation, in batches on the device.


@program
async def normal() -> tuple[float, float]:
    mean = await sample("mean", dist.Normal(0.0, 1.0))
    return float(mean), float(await sample("x", dist.Normal(mean, 1.0)))


@program
async def gibbs(mean: float, x: float, shrink: float = 0.5) -> float:
    return float(await sample("mean", dist.Normal(shrink * x, math.sqrt(0.5))))


@program
async def observed(x: float) -> float:
    mean = await sample("mean", dist.Normal(0.0, 1.0))
    await observe("x", dist.Normal(mean, 1.0), x)
    return float(mean)


@program
async def seen(mean: float) -> float:
    return float(await sample("x", dist.Normal(mean, 1.0)))


def unshrunk(mean: float, x: float) -> Program[float]:
    return gibbs(mean, x, shrink=1.0)


BOTH = {"residual": lambda mean, x: mean - x / 2, "product": lambda mean, x: mean * x, "mean": lambda mean, x: mean}


def test_numbers_are_compared_by_their_cdfs() -> None:
    assert_joint_invariant(normal(), gibbs, seen, BOTH, rounds=2, replications=2000)
    with pytest.raises(AssertionError, match=r"mean, after 2 rounds .*CDFs of 2000 and 2000 draws differ"):
        assert_joint_invariant(normal(), unshrunk, seen, {"mean": BOTH["mean"]}, rounds=2, replications=2000)
    with pytest.raises(ValueError, match=r"2000 outcomes, each seen at most .* coarser statistic"):
        assert_joint_invariant(normal(), gibbs, replications=1000)


def test_importance_over_numbers_is_calibrated() -> None:
    statistics = {"mean": lambda mean, x: mean, "likelihood": lambda mean, x: -abs(x - mean)}
    assert_calibrated(normal(), observed, Importance(60), statistics, replications=100, draws=9)


def test_misuse_of_invariance_is_named() -> None:
    with pytest.raises(ValueError, match="0 rounds of 10 replications; both need 1"):
        assert_joint_invariant(coin(), metropolis, rounds=0, replications=10)
    with pytest.raises(ValueError, match="step must draw, without factors"):
        assert_joint_invariant(coin(), lambda bias, heads: bias_given(heads))
    with pytest.raises(ValueError, match="after 1 rounds against fresh: draws to compare must be numbers, without nan"):
        assert_joint_invariant(coin(), metropolis, statistics={"nan": lambda bias, heads: math.nan})
    assert detectable_between(1000, 1000, outcomes=25) < 0.3
