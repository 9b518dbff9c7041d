"""Batches: scores against numpyro, draws against their distribution, rows that do not depend on the batch."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl import dist
from ppl.numpyro_bridge import Numpyro, wrap
from ppl.numpyro_dist import _draws, _scores
from ppl.source import Key, KeyBlock

COV = np.array([[2.0, 0.5], [0.5, 1.0]])
MASK = np.array([True, False, True])
EACH: list[tuple[Numpyro, Any]] = [
    (dist.Normal(0.3, 1.2), 0.5),
    (dist.Normal(np.arange(3.0), 1.2), np.array([0.5, -1.0, 2.0])),
    (dist.Independent(dist.Normal(np.zeros((2, 3)), np.arange(1.0, 4.0)), 1), np.arange(6.0).reshape(2, 3)),
    (dist.Normal(np.zeros(3), 1.0).mask(MASK), np.arange(3.0)),
    (dist.Poisson(2.0).expand((4,)), np.arange(4)),
    (dist.StudentT(3.0, 0.0, 1.0), 0.7),
    (dist.Gamma(2.0, 3.0), 0.7),
    (dist.Beta(2.0, 0.5), 0.7),
    (dist.HalfCauchy(5.0), 0.7),
    (dist.LogNormal(0.0, 1.0), 0.7),
    (dist.Uniform(-1, 2), 0.7),
    (dist.VonMises(0.0, 2.0), 0.7),
    (dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0), 0.7),
    (dist.Dirichlet(np.array([1.0, 2.0, 3.0])), np.array([0.2, 0.3, 0.5])),
    (dist.MultivariateNormal(np.zeros(2), COV), np.array([0.2, 0.3])),
    (dist.LKJCholesky(2, 1.5), np.array([[1.0, 0.0], [0.6, 0.8]])),
    (dist.Binomial(10, 0.3), 4),
    (dist.Categorical(logits=np.arange(4.0)), 2),
    (dist.Multinomial(5, [0.2, 0.3, 0.5]), np.array([1, 1, 3])),
    (dist.ZeroInflatedPoisson(0.3, 2.0), 0),
    (dist.MixtureSameFamily(dist.Categorical([0.2, 0.8]), dist.Normal([0.0, 3.0], [1.0, 0.5])), 0.7),
    (dist.Mixture(dist.Categorical([0.2, 0.8]), [dist.Normal(0.0, 1.0), dist.StudentT(3.0, 0.0, 1.0)]), 0.7),
    (dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform()]), 0.7),
]


def keys(count: int, seed: int = 0) -> list[Key]:
    return [Key.of(seed).fold(str(i)) for i in range(count)]


@pytest.mark.parametrize(("made", "value"), EACH, ids=lambda each: repr(each)[:40])
def test_scores_are_numpyros(made: Numpyro, value: Any) -> None:
    score = made.log_prob(value)
    built = made.as_numpyro()
    assert type(score) is float and math.isfinite(score)
    assert score == pytest.approx(float(jax.jit(lambda x: jnp.sum(built.log_prob(x)))(value)), rel=1e-6, abs=1e-6)


def test_masked_numbers_do_not_count() -> None:
    made = dist.Exponential(np.ones(3)).mask(MASK)
    assert made.log_prob(np.array([1.0, -5.0, 2.0])) == pytest.approx(-3.0)
    assert made.log_prob(np.array([1.0, math.nan, 2.0])) == pytest.approx(-3.0)
    assert made.log_prob(np.array([-1.0, 1.0, 2.0])) == -math.inf
    assert made.to_event(1).log_prob(np.array([1.0, -5.0, 2.0])) == pytest.approx(-3.0)
    assert dist.Normal(0.0, 1.0).mask(False).log_prob(9.0) == 0.0


def test_scores_of_many_and_one_are_equal() -> None:
    dists = [dist.Normal(0.1 * i, 1.0 + i) for i in range(7)]
    assert dists[0].log_prob_many(dists, [1.0] * 7) == [made.log_prob(1.0) for made in dists]


def test_traced_scores() -> None:
    """As a Python float says, also outside of the support, and with a finite gradient where masked."""

    def score(scale: Any, value: Any) -> Any:
        return dist.HalfNormal(scale * np.ones(2)).mask(np.array([True, False])).log_prob(value)

    value = np.array([0.5, math.nan])
    made = dist.HalfNormal(2.0 * np.ones(2)).mask(np.array([True, False]))
    traced, slope = jax.value_and_grad(score)(2.0, value)
    assert float(traced) == pytest.approx(made.log_prob(value)) and math.isfinite(slope)
    assert jax.jit(score)(2.0, -value) == -math.inf


@pytest.mark.parametrize(
    ("made", "cdf"),
    [
        (dist.Normal(1.0, 2.0), stats.norm(1.0, 2.0).cdf),
        (dist.Gamma(0.7, 3.0), stats.gamma(0.7, scale=1 / 3.0).cdf),
        (dist.MixtureSameFamily(dist.Categorical([0.3, 0.7]), dist.Normal([0.0, 3.0], 1.0)),
         lambda x: 0.3 * stats.norm.cdf(x) + 0.7 * stats.norm.cdf(x, 3.0)),
    ],
)  # fmt: skip
def test_continuous_draws(made: Numpyro, cdf: Any) -> None:
    """Kolmogorov-Smirnov with 4,000 draws at a false-alarm rate of 1e-4; a distance of the cdfs of 0.05 is seen."""
    draws = made.draw_many(keys(4000, 1), [made] * 4000)
    assert stats.kstest(draws, cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("made", "p"),
    [
        (dist.Categorical([0.1, 0.2, 0.7]), [0.1, 0.2, 0.7]),
        (dist.Bernoulli(0.3), [0.7, 0.3]),
    ],
)
def test_discrete_draws(made: Numpyro, p: list[float]) -> None:
    """Chi-square with 4,000 draws at a false-alarm rate of 1e-4."""
    draws = made.draw_many(keys(4000, 2), [made] * 4000)
    assert all(type(draw) is int for draw in draws)
    assert stats.chisquare(np.bincount(draws), 4000 * np.array(p)).pvalue > 1e-4


def test_each_draw_has_its_own_parameters() -> None:
    dists = [dist.Normal(100.0 * i, 1e-3) for i in range(300)]
    np.testing.assert_allclose(dists[0].draw_many(keys(300), dists), 100.0 * np.arange(300), atol=1e-2)


SIZES = (1, 2, 5, 130, 1000)


@pytest.mark.parametrize(
    "make",
    [
        lambda i: dist.Normal(0.1 * i, 1.0 + 0.01 * i),
        lambda i: dist.Gamma(0.3 + 0.01 * i, 2.0),  # a sampler with rejections
        lambda i: dist.MultivariateNormal(0.1 * i * np.ones(2), COV * (1 + i)),
    ],
)
def test_rows_do_not_depend_on_the_batch(make: Any) -> None:
    dists = [make(i) for i in range(max(SIZES))]
    everything = keys(max(SIZES))
    draws = dists[0].draw_many(everything, dists)
    scores = dists[0].log_prob_many(dists, draws)
    for size in SIZES:
        np.testing.assert_array_equal(dists[0].draw_many(everything[:size], dists[:size]), draws[:size])
        np.testing.assert_array_equal(dists[0].log_prob_many(dists[:size], draws[:size]), scores[:size])
        last = slice(-size, None)
        np.testing.assert_array_equal(dists[0].draw_many(everything[last], dists[last]), draws[last])
        np.testing.assert_array_equal(dists[0].log_prob_many(dists[last], draws[last]), scores[last])


def test_lanes_are_independent() -> None:
    """All draws differ, the same key gives the same draw in any lane, and neighbours are uncorrelated (rate 1e-4)."""
    made = dist.Normal(0.0, 1.0)
    draws = made.draw_many(keys(1000), [made] * 1000)
    assert len(set(draws)) == 1000
    assert made.draw_many(keys(1000)[::-1], [made] * 1000) == draws[::-1]
    for lag in (1, 128):
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 3.9 / math.sqrt(1000 - lag)


def test_a_block_of_keys_gives_the_draws_of_its_keys() -> None:
    made = dist.Normal(0.0, 1.0)
    some = keys(10)
    assert made.draw_many(KeyBlock(b"".join(key.digest for key in some)), [made] * 10) == made.draw_many(
        some, [made] * 10
    )


def test_one_device_call_for_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    dists = [dist.Normal(0.1 * i, 1.0) for i in range(1000)]
    calls = []
    for batched in (_draws(dists[0].family), _scores(dists[0].family)):
        compiled = batched.compiled
        monkeypatch.setattr(batched, "compiled", lambda *args, f=compiled: calls.append(1) or f(*args))
    draws = dists[0].draw_many(keys(1000), dists)
    assert len(calls) == 1
    dists[0].log_prob_many(dists, draws)
    assert len(calls) == 2


def test_arrays_are_read_only() -> None:
    draw = dist.Normal(np.zeros(2), 1.0).sample(Key.of(0))
    with pytest.raises(ValueError, match="read-only"):
        draw[0] = 1.0


def test_a_wrapped_object_draws_and_scores_as_its_recipe() -> None:
    made = dist.Gamma(2.0, 3.0)
    wrapped = wrap(made.as_numpyro())
    assert wrapped.sample(Key.of(3)) == pytest.approx(made.sample(Key.of(3)), rel=1e-6)
    assert wrapped.log_prob(0.7) == pytest.approx(made.log_prob(0.7), rel=1e-6)


def test_draws_while_jax_traces() -> None:
    """A draw that does not depend on what is traced is a plain number."""
    made = dist.Normal(0.0, 1.0)
    outside = made.sample(Key.of(5))
    assert jax.jit(lambda x: x + made.sample(Key.of(5)))(0.0) == pytest.approx(outside)
