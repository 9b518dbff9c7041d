"""`pareto_k` against ArviZ, and against tails whose shape is known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ppl.inference.diagnostics import pareto_k

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

KINDS = ["lognormal", "pareto", "integers", "cauchy logs", "some dead"]


def log_weights(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(21, 3000))
    if kind == "lognormal":
        return rng.normal(size=n) * rng.uniform(0.01, 20)
    if kind == "pareto":
        return rng.uniform(0, 2) * rng.exponential(size=n)
    if kind == "integers":
        return np.log(rng.integers(1, 50, size=n))
    if kind == "cauchy logs":
        return rng.standard_cauchy(size=n)
    return np.where(rng.random(n) < rng.random(), -math.inf, rng.normal(size=n) * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_k_is_that_of_arviz(kind: str) -> None:
    """To 1e-6, over 40 seeds; where ArviZ says `inf` for a tail of fewer than 5, ours says None."""
    numbers = 0
    for seed in range(40):
        logw = log_weights(kind, seed)
        with np.errstate(all="ignore"):
            theirs = float(np.asarray(arviz.psislw(logw)[1]))
        ours = pareto_k(logw.tolist())
        numbers += ours is not None
        assert theirs == math.inf if ours is None else abs(ours - theirs) < 1e-6
    assert numbers >= 20


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9, 1.5])
def test_k_finds_the_shape_of_a_pareto_tail(k: float) -> None:
    """Weights u**-k have a generalised Pareto tail of shape k.

    Its estimate from the 3 sqrt(N) = 948 tail values has a standard error of (1 + k)/sqrt(948), asymptotically; it must
    lie within 4.9 of them, and the draws of 0.01 are for the prior (10 (0.5 - k) / 958).
    """
    logw = -k * np.log(np.random.default_rng(0).random(100_000))
    found = pareto_k(logw.tolist())
    assert found is not None and abs(found - k) < 4.9 * (1 + k) / math.sqrt(948) + 0.011
    assert pareto_k((logw + 1000).tolist()) == pytest.approx(found, abs=1e-9)


def test_shapes_that_are_no_numbers() -> None:
    assert pareto_k([2.0] * 50) == -math.inf  # equal weights have no tail
    assert pareto_k([0.0]) == -math.inf
    assert pareto_k([-math.inf] * 50) is None  # nobody lives
    assert pareto_k([float(i) for i in range(20)]) is None  # 4 in the tail
    assert pareto_k([float(i) for i in range(21)]) is not None  # 5
    assert pareto_k([0.0] * 40 + [-1.0] * 10) is None  # the largest are tied
    assert pareto_k([-math.inf] * 40 + [0.1 * i for i in range(4)]) is None
    extreme = pareto_k([-700.0 + 1e-13 * i for i in range(100)] + [0.0])
    assert extreme is not None and extreme > 1


@pytest.mark.parametrize("bad", [[], [0.0, math.nan], [math.inf, 0.0]])
def test_what_is_no_log_weight_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="pareto_k needs a row of log weights"):
        pareto_k(bad)


def test_k_is_never_nan() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 200))
        logw = rng.choice([0.0, 1e-300, 1e-16, -1e-9, 1.0, 700.0, -745.0, -math.inf], size=n) * 1.0
        k = pareto_k(logw.tolist())
        assert k is None or not math.isnan(k)
