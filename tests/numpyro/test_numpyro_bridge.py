"""Programs as numpyro models."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density, potential_energy

import ppl
from ppl import dist
from ppl.numpyro_bridge import from_numpyro, to_numpyro
from ppl.weighted import Proposed


@ppl.program
async def line(x: np.ndarray, y: np.ndarray) -> Any:
    slope = await ppl.sample("slope", dist.Normal(0.0, 2.0))
    noise = await ppl.sample("noise", dist.HalfNormal(1.0))
    await ppl.twist("guide", -0.3)
    await ppl.note("progress", at=1)
    await ppl.observe("y", dist.Normal(slope * x, noise), y)
    await ppl.factor("extra", -0.1 * slope**2)
    return slope, noise


X, Y = np.array([1.0, 2.0, 3.0]), np.array([0.9, 2.1, 3.3])


def returned(model: Any, values: dict[str, Any]) -> Any:
    """What the model returns for values of its sites."""
    substituted: Any = handlers.substitute(model, values)
    return substituted()


def sites(model: Any, seed: int = 0) -> dict[str, Any]:
    return handlers.trace(handlers.seed(model, seed)).get_trace()


def test_the_density_is_the_sum_of_logs() -> None:
    """At random points: prior + likelihood + factor, no twist; and no Jacobian where values are constrained ones."""
    model = to_numpyro(line(X, Y))
    for seed in range(3):
        slope, noise = np.random.default_rng(seed).uniform(0.2, 2.0, 2)
        found, _ = log_density(model, (), {}, {"line/slope": slope, "line/noise": noise})
        right = (
            dist.Normal(0.0, 2.0).log_prob(slope)
            + dist.HalfNormal(1.0).log_prob(noise)
            + dist.Normal(slope * X, noise).log_prob(Y)
            - 0.1 * slope**2
        )
        assert float(found) == pytest.approx(right, rel=1e-5)
        unconstrained = {"line/slope": slope, "line/noise": math.log(noise)}
        assert -float(potential_energy(model, (), {}, unconstrained)) == pytest.approx(
            right + math.log(noise), rel=1e-5
        )


def test_the_weight_of_a_host_run_is_the_likelihood_part_of_the_density() -> None:
    model = to_numpyro(line(X, Y))
    prior = dist.Normal(0.0, 2.0), dist.HalfNormal(1.0)
    population = ppl.run(ppl.Importance(5)(line(X, Y)), 0).value
    assert population is not None
    for value, log_weight in zip(population.values, population.log_weights, strict=True):
        assert value is not None
        found, _ = log_density(model, (), {}, dict(zip(("line/slope", "line/noise"), value, strict=True)))
        priors = sum(d.log_prob(v) for d, v in zip(prior, value, strict=True))
        assert float(found) - priors == pytest.approx(log_weight, rel=1e-4)


def test_sites_have_addresses_and_the_program_returns_its_value() -> None:
    model = to_numpyro(line(X, Y))
    assert list(sites(model)) == ["line/slope", "line/noise", "line/y", "line/extra"]
    slope, noise = returned(model, {"line/slope": 1.5, "line/noise": 0.5})
    assert (float(slope), float(noise)) == (1.5, 0.5)
    draws = Predictive(model, num_samples=3)(jax.random.key(0))
    assert draws["line/slope"].shape == (3,) and draws["line/y"].shape == (3, 3)


def test_parallel_sub_programs_scans_and_calls() -> None:
    @ppl.program
    async def part(mean: float) -> Any:
        return await ppl.sample("z", dist.Normal(mean, 1.0))

    @ppl.program
    async def step(carry: Any, x: float) -> Any:
        carry = carry + await ppl.sample("move", dist.Normal(0.0, 1.0))
        await ppl.observe("seen", dist.Normal(carry, 1.0), x)
        return carry, carry

    @ppl.program
    async def whole() -> Any:
        a, b = await ppl.parallel(ppl.sample("a", dist.Normal(0.0, 1.0)), part(1.0))
        await ppl.parallel(ppl.observe("o", dist.Normal(a, 1.0), 0.5), ppl.factor("f", -b))
        return a + b + await ppl.call(lambda v: 2 * v, a) + (await ppl.scan(step, a, [0.1, 0.2]))[0]

    model = to_numpyro(whole())
    names = ["whole/a", "whole/part/z", "whole/o/o", "whole/step/move", "whole/step/seen",
             "whole/step:1/move", "whole/step:1/seen"]  # fmt: skip
    assert set(sites(model)) == {*names, "whole/f"}
    drawn = {name: 0.5 for name in names if not name.endswith(("seen", "o"))}
    normal = dist.Normal(0.0, 1.0).log_prob
    right = 3 * normal(0.5) + normal(0.5 - 1.0) + normal(0.0) - 0.5 + normal(0.1 - 1.0) + normal(0.2 - 1.5)
    assert float(jax.jit(lambda: log_density(model, (), {}, drawn)[0])()) == pytest.approx(right, rel=1e-5)
    assert float(returned(model, drawn)) == pytest.approx(0.5 + 0.5 + 1.0 + 1.5)


def test_host_categoricals() -> None:
    @ppl.program
    async def toss(values: list[Any]) -> Any:
        return await ppl.sample("x", ppl.Categorical(values, [0.0, math.log(3.0)]))

    model = to_numpyro(toss([1.5, 2.5]))
    assert float(returned(model, {"toss/x": 1})) == 2.5
    assert float(log_density(model, (), {}, {"toss/x": 1})[0]) == pytest.approx(math.log(0.75))
    with pytest.raises(TypeError, match="toss/x: numpyro needs numbers as values"):
        sites(to_numpyro(toss(["a", "b"])))


def test_a_proposal_does_not_change_the_density() -> None:
    @ppl.program
    async def proposed() -> Any:
        return await ppl.sample("x", Proposed(dist.Normal(0.0, 1.0), dist.Normal(3.0, 1.0)))

    found, _ = log_density(to_numpyro(proposed()), (), {}, {"proposed/x": 0.5})
    assert float(found) == pytest.approx(dist.Normal(0.0, 1.0).log_prob(0.5))


def test_a_branch_on_a_traced_value_teaches() -> None:
    @ppl.program
    async def branching(use: Any) -> Any:
        x = await ppl.sample("x", dist.Normal(0.0, 1.0))
        return use(x)

    for use in (
        bool,
        float,
        int,
        math.exp,
        lambda x: [1, 2][(x > 0).astype(int)],
        lambda x: 1 if x > 0 else 2,
        np.asarray,
    ):
        model = to_numpyro(branching(use))
        with pytest.raises(TypeError, match=r"branched on a traced value after site branching/x.*jnp\.where") as caught:
            jax.jit(lambda key, model=model: handlers.seed(model, key)())(jax.random.key(0))
        assert caught.value.__cause__ is not None
    assert isinstance(handlers.seed(to_numpyro(branching(float)), 0)(), float)  # not traced


def test_what_numpyro_cannot_draw() -> None:
    class Strange:
        family = "strange"

        def sample(self, key: Any) -> int:
            return 0

        def log_prob(self, value: Any) -> float:
            return 0.0

    @ppl.program
    async def odd() -> Any:
        return await ppl.sample("s", Strange())

    with pytest.raises(TypeError, match=r"odd/s: .* has no density in numpyro"):
        sites(to_numpyro(odd()))


def test_an_observed_value_has_the_shape_of_a_draw_as_on_the_host() -> None:
    @ppl.program
    async def loose() -> None:
        await ppl.observe("y", dist.Normal(0.0, 1.0), np.zeros(3))

    for use in (lambda: sites(to_numpyro(loose())), lambda: ppl.run(loose(), 0)):
        with pytest.raises(ValueError, match=r"values of shape \(\), not \(3,\)"):
            use()


def test_impossible_observations() -> None:
    @ppl.program
    async def bound() -> Any:
        top = await ppl.sample("top", dist.Uniform(0.0, 10.0))
        await ppl.observe("y", dist.Uniform(0.0, top), 6.0)
        return top

    density = jax.jit(lambda top: log_density(to_numpyro(bound()), (), {}, {"bound/top": top})[0])
    assert float(density(7.0)) == pytest.approx(-math.log(10.0 * 7.0))
    assert float(density(5.0)) == -math.inf
    with pytest.warns(UserWarning, match="Out-of-support"):  # from numpyro
        assert float(log_density(to_numpyro(bound()), (), {}, {"bound/top": 5.0})[0]) == -math.inf


def test_a_numpyro_model_inside_of_a_program() -> None:
    def coin(seen: float) -> Any:
        p = numpyro.sample("p", numpyro.distributions.Beta(2.0, 2.0))
        numpyro.sample("y", numpyro.distributions.Normal(p, 1.0), obs=seen)
        return 2 * p

    @ppl.program
    async def outer() -> Any:
        found = await ppl.sample("m", from_numpyro(coin, 0.3))
        return found["p"] + found["return"]

    model = to_numpyro(outer())
    assert list(sites(model)) == ["outer/m/p", "outer/m/y"]
    assert float(returned(model, {"outer/m/p": 0.4})) == pytest.approx(1.2)
    right = dist.Beta(2.0, 2.0).log_prob(0.4) + dist.Normal(0.4, 1.0).log_prob(0.3)
    assert float(log_density(model, (), {}, {"outer/m/p": 0.4})[0]) == pytest.approx(right, rel=1e-5)


def test_gradients() -> None:
    model = to_numpyro(line(X, Y))

    def density(slope: Any) -> Any:
        return log_density(model, (), {}, {"line/slope": slope, "line/noise": jnp.asarray(0.5)})[0]

    right = -1.0 / 4.0 + np.sum(X * (Y - X)) / 0.25 - 0.2
    assert float(jax.grad(density)(1.0)) == pytest.approx(right, rel=1e-4)
