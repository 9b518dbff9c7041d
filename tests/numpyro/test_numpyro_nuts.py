"""NUTS against closed forms and a published posterior.

Tolerances are 4 Monte Carlo standard errors, sd / sqrt(n_eff): a false-alarm rate of about 1e-4 a figure.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import nuts_chains, nuts_funsor
from ppl.inference.nuts import NUTS
from ppl.numpyro_bridge import to_numpyro

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@ppl.program
async def schools() -> Any:
    """Rubin 1981, non-centred; priors as in posteriordb's eight_schools_noncentered."""
    mu = await ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = await ppl.sample("tau", dist.HalfCauchy(5.0))
    eta = await ppl.sample("eta", dist.Normal(np.zeros(8), 1.0))
    theta = mu + tau * eta
    await ppl.observe("y", dist.Normal(theta, ERRORS), EFFECTS)
    return {"mu": mu, "theta": theta, "name": "schools"}


def schools_by_quadrature() -> dict[str, float]:
    """mu and theta are normal given tau; tau on a grid (trapezoids in log tau)."""
    log_tau = np.linspace(-12.0, 8.0, 20_001)
    tau = np.exp(log_tau)
    precision = 1.0 / (ERRORS**2 + tau[:, None] ** 2)
    mu_precision = precision.sum(1) + 1 / 25.0
    mu = precision @ EFFECTS / mu_precision
    log_p = 0.5 * np.log(precision).sum(1) - 0.5 * np.log(mu_precision) - 0.5 * precision @ EFFECTS**2
    log_p += 0.5 * mu_precision * mu**2 + stats.halfcauchy.logpdf(tau, scale=5.0) + log_tau
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean_mu, mean_tau = p @ mu, p @ tau
    sd_mu = math.sqrt(p @ (1 / mu_precision + mu**2) - mean_mu**2)
    return {"mu": mean_mu, "sd mu": sd_mu, "tau": mean_tau, "sd tau": math.sqrt(p @ tau**2 - mean_tau**2)}


def assert_mean(x: np.ndarray, right: float, n_eff: float) -> None:
    assert abs(x.mean() - right) < 4 * x.std() / math.sqrt(n_eff)


def test_eight_schools() -> None:
    right = schools_by_quadrature()
    published = {"mu": 4.4, "sd mu": 3.3, "tau": 3.6, "sd tau": 3.2}  # posteriordb, its own error below 0.05
    assert right == pytest.approx(published, abs=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a single divergence
        population = ppl.run(NUTS(1000, 1000, chains=4, target_accept=0.95)(schools()), 0).value
    assert population is not None and population.normalised and population.diagnostics is not None
    draws, n_eff = population.diagnostics["draws"], population.diagnostics["n_eff"]
    assert draws["schools/eta"].shape == (4, 1000, 8)
    assert all(n > 400 for n in n_eff.values())
    assert all(r < 1.02 for r in population.diagnostics["r_hat"].values())
    for site in ("mu", "tau"):
        x, n = draws[f"schools/{site}"], n_eff[f"schools/{site}"]
        assert_mean(x, right[site], n)
        assert_mean((x - right[site]) ** 2, right[f"sd {site}"] ** 2, n / 4)  # squares mix more slowly
    first = population.values[0]
    assert first is not None and first["name"] == "schools" and type(first["mu"]) is float
    assert first["mu"] == pytest.approx(float(draws["schools/mu"][0, 0]))
    assert len(population.values) == 4000 and first["theta"].shape == (8,)


@ppl.program
async def two_modes() -> Any:
    x = await ppl.sample("x", dist.Normal(0.0, 10.0))
    await ppl.observe("y", dist.Normal(x**2, 1.0), 16.0)
    return x


def test_chains_stay_apart() -> None:
    """Modes at -4 and 4, too far apart to cross: the rows of each chain have one sign, and the chains disagree."""
    with pytest.warns(UserWarning, match=r"r-hat is .* at two_modes/x"):
        population = ppl.infer(two_modes(), NUTS(100, 100, chains=4), 0).population
    assert population.diagnostics is not None
    signs = np.sign(population.diagnostics["draws"]["two_modes/x"])
    assert (signs == signs[:, :1]).all() and len(set(signs[:, 0])) == 2
    assert population.values[150] == pytest.approx(float(population.diagnostics["draws"]["two_modes/x"][1, 50]))


@dataclass(frozen=True)
class Fit:
    shift: float
    mu: float


@ppl.program
async def shifted() -> Fit:
    shift = await ppl.sample("shift", ppl.Categorical([-1.5, 2.0], [math.log(0.3), math.log(0.7)]))
    mu = await ppl.sample("mu", dist.Normal(0.0, 1.0))
    await ppl.observe("y", dist.Normal(mu + shift, 1.0), 0.5)
    await ppl.factor("f", -0.2 * mu)
    return Fit(shift, mu)


def test_a_discrete_and_a_conjugate_draw() -> None:
    """Given its shift, mu is normal; the shift's probability is in closed form. Also: same seed, same draws."""
    evidence, means = {}, {}
    for shift, p in ((-1.5, 0.3), (2.0, 0.7)):
        d = 0.5 - shift  # exp(-mu^2/2 - (d - mu)^2/2 - 0.2 mu): precision 2, mean (d - 0.2) / 2
        means[shift] = (d - 0.2) / 2
        evidence[shift] = p * math.exp(means[shift] ** 2 - d**2 / 2)
    p_low = evidence[-1.5] / sum(evidence.values())
    population, again, other = ppl.run_many([NUTS(1000, 500, chains=2)(shifted())] * 3, [3, 3, 4])
    assert population.value is not None and again.value is not None and other.value is not None
    fits, n_eff = population.value.values, population.value.diagnostics
    assert fits == again.value.values != other.value.values
    assert n_eff is not None
    low = np.array([fit.shift == -1.5 for fit in fits if fit is not None])
    mu = np.array([fit.mu for fit in fits if fit is not None])
    n = min(n_eff["n_eff"]["shifted/mu"], n_eff["n_eff"]["shifted/shift"])
    assert_mean(low, p_low, n)
    assert_mean(mu, p_low * means[-1.5] + (1 - p_low) * means[2.0], n)
    assert_mean(mu[low] - means[-1.5], 0.0, n * p_low)
    assert mu[low].std() == pytest.approx(math.sqrt(0.5), abs=4 * math.sqrt(0.5) / math.sqrt(2 * n * p_low))


@ppl.program
async def mixture(bad: bool) -> Any:
    p = await ppl.sample("p", dist.Beta(2.0, 2.0))
    total: Any = 0.0
    for i, y in enumerate((-1.0, 0.3, 2.0)):
        z = await ppl.sample(f"z{i}", dist.Bernoulli(p))
        await ppl.observe(f"y{i}", dist.Normal(np.zeros(2), 1.0 + z), np.array([y, 1.0]))
        total = total + (jnp.sum(z) if bad else z)
    await ppl.observe("sum", dist.Normal(total, 1.0), 1.0)
    return total


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """funsor takes over from 4 combinations of values on."""
    monkeypatch.setattr(nuts_chains, "LARGEST_SUM", 4)
    monkeypatch.setattr(nuts_funsor, "LARGEST_SUM", 4)


@pytest.mark.usefixtures("few")
def test_funsor_sums_as_all_combinations_do() -> None:
    pytest.importorskip("funsor")
    program = mixture(False)
    model = to_numpyro(program)
    continuous, discrete = nuts_chains.latent_sites(program, model)
    target = nuts_funsor.Eliminated(program, model, continuous, discrete)
    right = nuts_chains.Summed(model, discrete)
    found, expected = jax.jit(target.potential), jax.jit(right.potential)
    for value in (-1.0, 0.7):
        at = {"mixture/p": jnp.asarray(value)}
        assert float(found(at)) == pytest.approx(float(expected(at)), rel=1e-5)
    at = {"mixture/p": jnp.asarray(0.2)}
    keys = jax.random.split(jax.random.key(1), 2000)
    drawn = jax.jit(jax.vmap(lambda key: target.discrete(at, key)))(keys)
    rows = 4 * drawn["mixture/z0"] + 2 * drawn["mixture/z1"] + drawn["mixture/z2"]
    p = np.exp(-np.asarray(jax.jit(right.potentials)(at), np.float64))
    assert stats.chisquare(np.bincount(rows, minlength=8), 2000 * p / p.sum()).pvalue > 1e-4


@pytest.mark.usefixtures("few")
def test_a_program_that_funsor_would_misread_is_refused() -> None:
    pytest.importorskip("funsor")
    program = mixture(True)
    model = to_numpyro(program)
    with pytest.raises(TypeError, match="cannot be summed out one by one"):
        nuts_funsor.Eliminated(program, model, *nuts_chains.latent_sites(program, model))


@ppl.program
async def with_draw(made: Any, seen: float = 0.5) -> Any:
    mu = await ppl.sample("mu", dist.Normal(0.0, 1.0))
    z = await ppl.sample("z", made)
    await ppl.observe("y", dist.HalfNormal(jnp.exp(mu)), seen)
    return z


@ppl.program
async def finite() -> Any:
    return await ppl.sample("z", dist.Bernoulli(0.3))


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        (finite(), ValueError, "has no continuous draw; ppl.measure"),
        (
            with_draw(dist.Poisson(2.0)),
            TypeError,
            "with_draw/z cannot be summed out: .*SMC or Imp",
        ),
        (with_draw(dist.Bernoulli(np.full(9, 0.5))), TypeError, "the discrete draw with_draw/z is an array"),
        (with_draw(dist.Bernoulli(0.5), -1.0), ValueError, "is an observation impossible"),
    ],
)
def test_what_nuts_cannot_do(program: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ppl.run(NUTS(10, 10, chains=1)(program), 0)


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="NUTS: samples must be an integer of at least 1, not 0"):
        NUTS(samples=0)
    with pytest.raises(ValueError, match="target_accept must lie within"):
        NUTS(target_accept=1.0)
