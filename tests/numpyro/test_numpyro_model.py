"""numpyro models as distributions of programs."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest
from scipy import stats

import ppl
from ppl import codec
from ppl.distributions import NotFinite
from ppl.numpyro_bridge import Sites, from_numpyro
from ppl.source import Key


def normal(data: Any, scale: float = 1.0) -> None:
    mu = numpyro.sample("mu", nd.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(data)):
        numpyro.sample("y", nd.Normal(mu, scale), obs=data)


def coins(seen: float) -> Any:
    a = numpyro.sample("a", nd.BernoulliProbs(0.3))
    b = numpyro.sample("b", nd.CategoricalProbs(jnp.array([0.2, 0.8])))
    numpyro.factor("f", 0.5 * a)
    numpyro.sample("y", nd.Normal(a + b, 1.0), obs=seen)
    return {"sum": a + b}


DATA = np.array([1.0, 2.0, 0.5])
KEYS = [Key.of(7).fold(str(i)) for i in range(300)]


def score(x: float, mean: float, scale: float = 1.0) -> float:
    return -0.5 * ((x - mean) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))


def test_draws_and_scores() -> None:
    model = from_numpyro(normal, DATA, scale=0.5)
    sites, log_w = model.sample(KEYS[0])
    mu = sites["mu"]
    assert list(sites) == ["mu"] and type(mu) is float
    likelihood = sum(score(y, mu, 0.5) for y in DATA)
    assert log_w == pytest.approx(likelihood, rel=1e-5)
    assert model.log_prob(sites) == pytest.approx(likelihood + score(mu, 0.0, 2.0), rel=1e-5)
    assert repr(model) == "from_numpyro(normal)"


def test_draws_of_one_batch_have_their_own_keys_and_arguments() -> None:
    models = [from_numpyro(normal, DATA, scale=0.5 + i) for i in range(300)]
    assert len({model.family for model in models}) == 1
    draws = models[0].draw_many(KEYS, models)
    assert len({sites["mu"] for sites, _ in draws}) == 300
    assert draws[137] == models[137].sample(KEYS[137])
    assert draws[137][1] == pytest.approx(sum(score(y, draws[137][0]["mu"], 137.5) for y in DATA), rel=1e-5)


def test_importance_sampling_with_a_model() -> None:
    """The evidence of a conjugate model within 4 standard errors, at a false-alarm rate of 1e-4."""

    @ppl.program
    async def use() -> float:
        return (await ppl.sample("m", from_numpyro(normal, DATA)))["mu"]

    population = ppl.run(ppl.Importance(4000)(use()), 0).value
    assert population is not None
    weights = np.exp(population.log_weights)
    covariance = np.eye(3) + 4.0
    right = float(stats.multivariate_normal.pdf(DATA, np.zeros(3), covariance))  # pyright: ignore[reportArgumentType]
    assert abs(weights.mean() - right) < 4 * weights.std() / math.sqrt(4000)


def test_tables() -> None:
    rows = from_numpyro(coins, 0.7).table()
    assert [p for _, p in rows] == pytest.approx([0.14, 0.56, 0.06, 0.24], abs=1e-8)
    for (sites, log_w), _ in rows:
        total = sites["a"] + sites["b"]
        assert sites["return"] == {"sum": total}
        assert log_w == pytest.approx(0.5 * sites["a"] + score(0.7, total), abs=1e-8)
    assert len({sites for (sites, _), _ in rows}) == 4


def test_the_meaning_of_a_program_with_a_model() -> None:
    @ppl.program
    async def use() -> int:
        return (await ppl.sample("m", from_numpyro(coins, 0.7)))["return"]["sum"]

    measure = ppl.measure(use())
    assert measure[1] == pytest.approx(0.56 * math.exp(score(0.7, 1)) + 0.06 * math.exp(0.5 + score(0.7, 1)), abs=1e-8)


def test_errors() -> None:
    with pytest.raises(NotFinite):
        from_numpyro(normal, DATA).table()
    with pytest.raises(ValueError, match=r"latent sites \['mu'\], the value has \['nu'\]"):
        from_numpyro(normal, DATA).log_prob({"nu": 1.0})
    with pytest.raises(ValueError, match=r"site 'mu': a value has shape \(\), not \(2,\)"):
        from_numpyro(normal, DATA).log_prob({"mu": np.zeros(2)})
    with pytest.raises(ValueError, match=r"from_numpyro\(normal\): site 'y': scale of Normal must satisfy Positive"):
        from_numpyro(normal, DATA, scale=-1.0).sample(KEYS[0])

    def part(data: Any) -> None:
        with numpyro.plate("rows", 3, subsample_size=2) as rows:
            numpyro.sample("y", nd.Normal(0.0, 1.0), obs=data[rows])

    with pytest.raises(ValueError, match="plate 'rows' takes a random part"):
        from_numpyro(part, DATA).sample(KEYS[0])


def test_a_model_without_latent_sites() -> None:
    def only() -> None:
        numpyro.sample("y", nd.Normal(0.0, 1.0), obs=0.5)

    model = from_numpyro(only)
    assert model.sample(KEYS[0]) == (Sites({}), pytest.approx(score(0.5, 0.0)))
    assert model.log_prob({}) == pytest.approx(score(0.5, 0.0))
    assert model.table() == [((Sites({}), pytest.approx(score(0.5, 0.0))), 1.0)]


def test_sites() -> None:
    sites = Sites({"x": 1.5, "v": np.zeros(2)})
    assert sites == Sites({"x": 1.5, "v": np.zeros(2)}) != Sites({"x": 1.5, "v": np.ones(2)})
    assert hash(sites) == hash(Sites({"v": np.zeros(2), "x": 1.5}))
    assert repr(Sites({"x": 1.5, "z": 1})) == "Sites(x=1.5, z=1)"
    assert codec.decode(codec.encode(sites)) == sites
    with pytest.raises(TypeError):
        sites["x"] = 2.0  # pyright: ignore[reportIndexIssue]
