"""Resampling of 10^6 particles with float32 log weights: what exact tests of four particles cannot see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ppl import SSP, Key, Multinomial, Residual, Stratified, Systematic, Tempered, WithoutReplacement
from ppl.inference.ancestors import LARGE
from ppl.inference.resampling import Ancestors, Resampler

N = 1_000_000
RNG = np.random.default_rng(0)
SCHEMES: list[Resampler] = [
    Multinomial, Stratified, Systematic, Residual, SSP, WithoutReplacement, Tempered(Systematic, 0.5),
]  # fmt: skip


def _shapes() -> dict[str, np.ndarray]:
    heavy = RNG.exponential(1 / 1.2, N)  # weights of tail index 1.2: infinite variance
    dominated = np.where(np.arange(N) == 777_777, 40.0, RNG.normal(size=N))
    mostly_dead = np.where(RNG.random(N) < 1e-3, RNG.normal(size=N), -np.inf)
    denormal = np.where(np.arange(N) % 2, -740.0 - RNG.random(N), RNG.normal(size=N))
    flat_with_dead_ends = np.where((np.arange(N) < 1000) | (np.arange(N) >= N - 1000), -np.inf, -1e4)
    shapes = {"flat": np.zeros(N), "heavy": heavy, "dominated": dominated, "mostly dead": mostly_dead}
    shapes |= {"denormal": denormal, "flat with dead ends": flat_with_dead_ends}
    return {name: logw.astype(np.float32) for name, logw in shapes.items()}


SHAPES = _shapes()
QUICK = ("heavy", "flat with dead ends")
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


class Given(Key):
    """A key whose uniforms are all the same."""

    def __init__(self, u: float) -> None:
        super().__init__(bytes(16))
        self.u = u

    def uniform(self) -> float:
        return self.u

    def uniforms(self, count: int) -> list[float]:
        return [self.u] * count


def _check(scheme: Resampler, dist: Ancestors, vector: tuple[int, ...], logw: np.ndarray) -> None:
    e = np.asarray(dist.expected)
    counts = np.bincount(vector, minlength=len(logw))
    assert len(vector) == round(math.fsum(dist.expected))
    assert not counts[np.isneginf(logw)].any(), "a particle of weight zero has children"
    # 1e-9: e_k is off a whole number by its rounding, 1e-16 e_k; 1e-6 where the cumulative sum of 10^6 is rounded too.
    slack = 1e-6 if scheme in (Systematic, WithoutReplacement) else 1e-9
    if scheme in (Systematic, SSP, WithoutReplacement):
        assert (counts >= np.floor(e - slack)).all()
        assert (counts <= np.ceil(e + slack)).all()
    if scheme is Residual:
        assert (counts >= np.floor(e - slack)).all()
    if scheme is WithoutReplacement:
        assert counts.max() == 1


@every_scheme
@pytest.mark.parametrize("shape", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SHAPES])
def test_a_million(scheme: Resampler, shape: str) -> None:
    logw = SHAPES[shape]
    dist = scheme(logw, N // 3 if scheme is WithoutReplacement else None)
    for key in (Key.of(0), Given(0.0), Given(1 - 2.0**-53)):
        _check(scheme, dist, dist.sample(key), logw)


@every_scheme
@pytest.mark.parametrize("shape", ["heavy", pytest.param("mostly dead", marks=pytest.mark.slow)])
def test_a_million_given_a_reference(scheme: Resampler, shape: str) -> None:
    logw = SHAPES[shape]
    dist = scheme(logw, N // 3 if scheme is WithoutReplacement else None)
    for reference in (int(np.argmax(logw)), int(np.flatnonzero(logw > -np.inf)[5])):
        for key in (Key.of(1), Given(1 - 2.0**-53)):
            vector = dist.given(reference).sample(key)
            assert vector[0] == reference
            _check(scheme, dist, vector, logw)


@every_scheme
def test_weighted_children_keep_the_total(scheme: Resampler) -> None:
    """The mean weight of 10^6 children is the mean weight: exactly where all are equal, else within 1%.

    The largest standard deviation, of `Tempered` by half, is below 0.2%: a false alarm is far beyond 5 of them (1e-6).
    """
    logw = np.minimum(SHAPES["heavy"], np.float32(4))
    dist = scheme(logw, N // 3 if scheme is WithoutReplacement else None)
    after = np.exp(dist.child_log_weights(dist.sample(Key.of(3)))).mean()
    assert after == pytest.approx(np.exp(logw.astype(np.float64)).mean(), rel=0.01)


def test_equal_weights_have_one_child_each() -> None:
    """Whatever the uniform number: the cumulative sum of 10^6 equal weights is as good as whole numbers."""
    everyone = tuple(range(N))
    for scheme in (Systematic, Residual, SSP, WithoutReplacement):
        dist = scheme(SHAPES["flat"])
        for key in (Given(0.0), Given(1 - 2.0**-53)):
            assert dist.sample(key) == everyone


def test_multinomial_does_not_collapse() -> None:
    """The number of distinct ancestors is near its expectation, sum of 1 - (1 - w)^N.

    Its variance is below its mean (negative association), so 5 standard deviations give a false alarm of 1e-6 at most;
    uniforms of 24 bits, or a cumulative sum in float32, lose several times that.
    """
    for shape in ("flat", "heavy", "mostly dead"):
        dist = Multinomial(SHAPES[shape])
        assert max(dist.weights) < 1
        mean = float(-np.expm1(N * np.log1p(-np.asarray(dist.weights))).sum())
        assert abs(len({*dist.sample(Key.of(4))}) - mean) < 5 * math.sqrt(mean)


@every_scheme
def test_a_million_zero_weights_say_so(scheme: Resampler) -> None:
    with pytest.raises(ValueError, match="all weights are zero"):
        scheme(np.full(N, -np.inf, np.float32), N // 2).sample(Key.of(0))


@every_scheme
def test_array_calls_and_loops_draw_the_same(scheme: Resampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `LARGE` particles on, the same key gives the ancestors that a loop would give."""
    for n in (LARGE - 1, LARGE, 3 * LARGE):
        draws = []
        for large in (1, 10**9):
            monkeypatch.setattr("ppl.inference.ancestors.LARGE", large)
            dist = scheme(SHAPES["heavy"][:n], n // 2 if scheme is WithoutReplacement else None)
            draws.append([dist.sample(Key.of(5)), dist.given(3).sample(Key.of(6))])
        assert draws[0] == draws[1]
