"""Recipes of numpyro distributions: names, texts, errors, tables, equality."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest

from ppl import dist
from ppl.distributions import Distribution, NotFinite
from ppl.numpyro_bridge import is_numpyro, wrap
from ppl.source import Key

KEY = Key.of(0)


def test_the_module_has_numpyros_names() -> None:
    assert {"Normal", "Bernoulli", "MixtureSameFamily", "constraints", "transforms"} <= set(dir(dist))
    assert dist.constraints is nd.constraints
    with pytest.raises(AttributeError, match="'Norml'; did you mean Normal"):
        _ = dist.Norml


def test_every_distribution_of_numpyro_has_a_recipe() -> None:
    for name in dir(dist):
        value = getattr(dist, name)
        if isinstance(getattr(nd, name), type) and issubclass(getattr(nd, name), nd.Distribution):
            assert isinstance(value, dist.Family)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (dist.Normal(0.0, 1.0), "Normal(loc=0.0, scale=1.0)"),
        (dist.Normal(0.0, scale=2).to_event(), "Normal(loc=0.0, scale=2).to_event()"),
        (dist.Normal(np.zeros(2), 1.0).expand((3, 2)), "Normal(loc=[0.0, 0.0], scale=1.0).expand((3, 2))"),
        (dist.Normal(0.0, 1.0).mask(False), "Normal(loc=0.0, scale=1.0).mask(False)"),
        (dist.Normal(np.zeros(99), 1.0), "Normal(loc=float64[99]:6933fd3d, scale=1.0)"),
        (
            dist.MixtureSameFamily(dist.Categorical([0.2, 0.8]), dist.Normal([0.0, 1.0], 1.0)),
            "MixtureSameFamily(mixing_distribution=Categorical(probs=[0.2, 0.8]), "
            "component_distribution=Normal(loc=[0.0, 1.0], scale=1.0))",
        ),
        (wrap(nd.Independent(nd.Poisson(jnp.ones(2)), 1)),
         "Independent(base_dist=Poisson(rate=[1.0, 1.0], is_sparse=False), reinterpreted_batch_ndims=1)"),
    ],
)  # fmt: skip
def test_texts(made: Any, text: str) -> None:
    assert repr(made) == made.sketch() == text


def test_equality() -> None:
    assert dist.Normal(0.0, 1.0) == dist.Normal(0, 1.0) != dist.Normal(0.0, 2.0)
    assert hash(dist.Normal(0.0, 1.0)) == hash(dist.Normal(0, 1.0))
    assert dist.Normal(np.zeros(2), 1.0) == dist.Normal(np.zeros(2), 1.0) != dist.Normal(np.zeros(3), 1.0)
    assert dist.Cauchy(0.0, 1.0) != dist.Normal(0.0, 1.0)
    assert wrap(nd.Normal(0.0, 1.0)) == wrap(nd.Normal(0.0, 1.0))


def test_families() -> None:
    """Numbers do not matter, shapes and constants do."""
    assert dist.Normal(0.0, 1.0).family == dist.Normal(3, jnp.float32(2.0)).family
    assert dist.Normal(0.0, 1.0).family != dist.Normal(np.zeros(1), 1.0).family
    assert dist.Binomial(3, 0.5).family == dist.Binomial(4, 0.1).family
    assert dist.Multinomial(3, [0.5, 0.5]).family != dist.Multinomial(4, [0.5, 0.5]).family
    assert dist.Normal(0.0, 1.0).expand((2,)).family != dist.Normal(0.0, 1.0).expand((3,)).family
    assert wrap(nd.Normal(0.0, 1.0).expand((2,))).family == wrap(nd.Normal(1.0, 1.0).expand((2,))).family
    assert wrap(nd.Normal(0.0, 1.0).expand((2,))).family != wrap(nd.Normal(0.0, 1.0).expand((3,))).family


def test_wrap() -> None:
    wrapped = wrap(nd.Normal(0.0, 1.0))
    assert isinstance(wrapped, Distribution)
    assert wrap(wrapped) is wrapped
    assert is_numpyro(wrapped.as_numpyro()) and not is_numpyro(wrapped)
    with pytest.raises(TypeError, match="expected a numpyro distribution, not 3"):
        wrap(3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: dist.Normal(0, -1), r"Normal\(loc=0, scale=-1\): scale of Normal must satisfy Positive"),
        (lambda: dist.Normal(0.0, math.nan), "scale of Normal must satisfy Positive"),
        (lambda: dist.Normal(math.nan, 1.0), "loc of Normal must satisfy Real"),
        (lambda: dist.Gamma(-1.0, 1.0), "concentration of Gamma"),
        (lambda: dist.Bernoulli(1.5), "probs of BernoulliProbs must satisfy UnitInterval"),
        (lambda: dist.Categorical([0.5, 0.6]), "probs of CategoricalProbs must satisfy Simplex"),
        (lambda: dist.Uniform(2, 1), "low of Uniform must be below high"),
        (lambda: dist.HalfCauchy(-2.0), "scale of HalfCauchy"),
        (lambda: dist.Normal(np.zeros(2), np.array([1.0, -1.0])).to_event(1), "scale of Normal"),
        (
            lambda: dist.MixtureSameFamily(dist.Categorical([0.5, 0.5]), dist.Normal([0.0, 1.0], -1.0)),
            "scale of Normal",
        ),
        (lambda: dist.MultivariateNormal(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])), "PositiveDefinite"),
    ],
)
def test_invalid_parameters(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make().sample(KEY)


def test_invalid_parameters_are_found_by_scores_too() -> None:
    with pytest.raises(ValueError, match="scale of Normal must satisfy Positive"):
        dist.Normal(0.0, -1.0).log_prob(0.0)


def test_one_invalid_distribution_of_a_batch_is_named() -> None:
    dists = [dist.Normal(0.0, 1.0 if i != 137 else -3.0) for i in range(200)]
    with pytest.raises(ValueError, match=r"Normal\(loc=0.0, scale=-3.0\): scale"):
        dists[0].draw_many([KEY.fold(str(i)) for i in range(200)], dists)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"Normal takes \(loc, scale, validate_args\), not 0 values and lok"):
        dist.Normal(lok=1.0)
    with pytest.raises(TypeError, match="not 4 values"):
        dist.Normal(1, 2, 3, 4)
    with pytest.raises(TypeError, match="loc is given twice"):
        dist.Normal(1.0, loc=2.0)


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (dist.Exponential(1.0), -1),
        (dist.Uniform(0, 1), 2),
        (dist.HalfNormal(1.0), -1.0),
        (dist.Categorical([0.2, 0.8]), 7),
        (dist.Categorical([0.2, 0.8]), -1),
        (dist.Categorical([0.2, 0.8]), 0.5),
        (dist.Poisson(2.0), -1),
        (dist.Poisson(2.0), 1.5),
        (dist.Bernoulli(0.3), 2),
        (dist.Beta(2.0, 2.0), 1.5),
        (dist.Delta(1.0), 2.0),
        (dist.Normal(0.0, 1.0), math.nan),
        (dist.Normal(0.0, 1.0), math.inf),
        (dist.Normal(0.0, 1.0), 1e300),
        (dist.Dirichlet(np.ones(3)), np.array([0.5, 0.6, 0.1])),
        (dist.Exponential(np.ones(2)), np.array([1.0, -1.0])),
        (dist.Exponential(np.ones(2)).to_event(1), np.array([1.0, -1.0])),
        (dist.Exponential(1.0).expand((2,)), np.array([-1.0, 1.0])),
        (dist.MixtureSameFamily(dist.Categorical([0.5, 0.5]), dist.HalfNormal([1.0, 2.0])), -1.0),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.ExpTransform()), -1.0),
    ],
)
def test_outside_of_the_support(made: Any, value: Any) -> None:
    assert made.log_prob(value) == -math.inf


def test_wrapped_distributions_know_their_support_too() -> None:
    assert wrap(nd.Exponential(1.0)).log_prob(-1.0) == -math.inf
    assert wrap(nd.Exponential(jnp.ones(2)).to_event(1)).log_prob(np.array([1.0, -1.0])) == -math.inf


def test_probabilities_may_miss_one_by_a_rounding_error() -> None:
    """numpyro allows 1e-6, less than float32 can hold for many classes."""
    p = np.full(30_000, 1 / 30_000, np.float32)
    assert dist.Categorical(p * np.float32(1 + 3e-6)).log_prob(7) == pytest.approx(-math.log(30_000), abs=1e-4)
    values = np.array([0.2, 0.3, 0.5]) * (1 + 4e-6)
    assert dist.Dirichlet(np.ones(3)).log_prob(values) == pytest.approx(math.log(2.0), abs=1e-4)


def test_bools_and_whole_floats_are_values_of_discrete_distributions() -> None:
    assert dist.Bernoulli(0.3).log_prob(True) == dist.Bernoulli(0.3).log_prob(1.0) == pytest.approx(math.log(0.3))
    assert dist.Normal(0.0, 1.0).log_prob(1) == dist.Normal(0.0, 1.0).log_prob(1.0)


def test_values_that_are_no_draws() -> None:
    normal = dist.Normal(0.0, 1.0)
    for value in ("a", None, object()):
        with pytest.raises(TypeError, match="scores numbers"):
            normal.log_prob(value)
    with pytest.raises(ValueError, match=r"values of shape \(\), not \(2,\).*\.expand\(\(2,\)\)"):
        normal.log_prob(np.zeros(2))
    with pytest.raises(ValueError, match=r"values of shape \(3,\), not \(\)"):
        normal.expand((3,)).log_prob(0.0)
    with pytest.raises(ValueError, match=r"not \(2,\)"):
        normal.log_prob_many([normal] * 2, [0.0, np.zeros(2)])


def test_tables() -> None:
    assert dist.Bernoulli(0.3).table() == [(0, pytest.approx(0.7, abs=1e-12)), (1, pytest.approx(0.3, abs=1e-12))]
    assert dist.Categorical([0.2, 0.8]).table() == [(0, pytest.approx(0.2, abs=1e-12)), (1, pytest.approx(0.8))]
    binomial = [(i, pytest.approx(math.comb(3, i) * 0.1**i * 0.9 ** (3 - i), abs=1e-12)) for i in range(4)]
    assert dist.Binomial(3, 0.1).table() == binomial
    assert dist.DiscreteUniform(2, 3).table() == [(2, 0.5), (3, 0.5)]
    assert all(type(value) is int for value, _ in dist.Bernoulli(0.3).table())


def test_tables_of_arrays_are_products() -> None:
    rows = dist.Bernoulli(np.array([0.1, 0.5])).table()
    assert [value.tolist() for value, _ in rows] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert [p for _, p in rows] == pytest.approx([0.45, 0.45, 0.05, 0.05], abs=1e-12)
    assert [p for _, p in dist.Bernoulli(0.1).expand((2,)).to_event(1).table()] == pytest.approx(
        [0.81, 0.09, 0.09, 0.01]
    )


@pytest.mark.parametrize(
    "made",
    [dist.Poisson(2.0), dist.Normal(0.0, 1.0), dist.Bernoulli(0.5).expand((20,)), dist.Bernoulli(0.5).mask(False)],
)
def test_no_table(made: Any) -> None:
    with pytest.raises(NotFinite):
        made.table()


def test_a_forgotten_await() -> None:
    import ppl

    effect = ppl.sample("x", dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match="did you forget `await`"):
        _ = dist.Normal(effect, 1.0).family
    effect._awaited = True
