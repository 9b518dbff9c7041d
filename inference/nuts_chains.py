"""The chains of `NUTS`: a potential energy, starting points, numpyro's sampler, and draws in the program's terms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
from jax import lax
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from ppl.distributions import NotFinite
from ppl.numpyro_bridge import to_numpyro, wrap
from ppl.numpyro_device import jax_key
from ppl.program import Program
from ppl.source import Key

if TYPE_CHECKING:
    from ppl.inference.nuts import NUTS

LARGEST_SUM = 256  # combinations of discrete values that are summed out one by one
TRIES = 64  # starting points of each chain
Values = dict[str, Any]  # by site


class Target(Protocol):
    """The posterior of the continuous draws, in unconstrained coordinates."""

    def potential(self, position: Values) -> jax.Array:
        """-log density at unconstrained values, the discrete draws summed out."""
        ...

    def discrete(self, position: Values, key: jax.Array) -> Values:
        """The discrete draws given the others."""
        ...


def run_chains(program: Program[Any], config: NUTS, key: Key) -> dict[str, Any]:
    """{"draws": {site: array [chains, samples, ...]}, "divergences": int}."""
    names, run = compiled(program, config)
    ok, found, divergences = run(jax_key(jnp.asarray(key.data)))
    if not ok:
        raise ValueError(
            f"NUTS: none of {TRIES} random starting points has a positive density and a finite gradient; is an "
            "observation impossible under all values of the draws?"
        )
    shape = (config.chains, config.samples)
    draws = {site: np.asarray(found[site]).reshape(*shape, *found[site].shape[1:]) for site in names}
    return {"draws": draws, "divergences": int(divergences)}


@lru_cache(maxsize=8)
def compiled(program: Program[Any], config: NUTS) -> tuple[tuple[str, ...], Callable[[jax.Array], Any]]:
    """The sites, and a compiled function of a key: whether there are starts, draws by site, how many diverged.

    Kept for the last programs: with other seeds they need no compilation.
    """
    model = to_numpyro(program)
    continuous, discrete = latent_sites(program, model)
    if combinations(discrete) <= LARGEST_SUM:
        target: Target = Summed(model, discrete)
    else:
        from ppl.inference.nuts_funsor import Eliminated

        target = Eliminated(program, model, continuous, discrete)
    shapes = unconstrained_shapes(continuous)

    def finish(row: tuple[Values, jax.Array]) -> Values:
        position, row_key = row
        values = target.discrete(position, row_key)
        return values | constrain_fn(handlers.substitute(model, data=values), (), {}, position)

    def run(key: jax.Array) -> Any:
        start_key, chain_key, discrete_key = jax.random.split(key, 3)
        starts, ok = _starts(target, shapes, start_key, config.chains)
        kernel = numpyro.infer.NUTS(
            potential_fn=target.potential, target_accept_prob=config.target_accept,
            max_tree_depth=config.max_tree_depth, dense_mass=config.dense_mass,
        )  # fmt: skip
        mcmc = numpyro.infer.MCMC(
            kernel, num_warmup=config.warmup, num_samples=config.samples, num_chains=config.chains,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(chain_key, init_params=starts if config.chains > 1 else jax.tree.map(lambda x: x[0], starts))
        row_keys = jax.random.split(discrete_key, config.chains * config.samples)
        draws = lax.map(finish, (mcmc.get_samples(), row_keys), batch_size=128)
        return ok, draws, jnp.sum(mcmc.get_extra_fields()["diverging"])

    return (*continuous, *discrete), jax.jit(run)


def latent_sites(program: Program[Any], model: Any) -> tuple[Values, Values]:
    """The numpyro sites of continuous and of discrete draws, by name.

    Raises:
        ValueError: no draw is continuous.
    """
    sites = handlers.trace(handlers.seed(model, 0)).get_trace()
    latent = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
    discrete = {name: site for name, site in latent.items() if site["fn"].support.is_discrete}
    continuous = {name: site for name, site in latent.items() if name not in discrete}
    if not continuous:
        raise ValueError(
            f"NUTS: {program!r} has no continuous draw; ppl.measure gives the posterior of a finite program exactly, "
            "Importance and SMC approximate it"
        )
    return continuous, discrete


def unconstrained_shapes(continuous: Values) -> dict[str, tuple[int, ...]]:
    """Of each continuous draw, in the coordinates in which the chains move."""
    return {
        name: biject_to(site["fn"].support).inverse_shape(jnp.shape(site["value"])) for name, site in continuous.items()
    }


def combinations(discrete: Values) -> int:
    """How many combinations of values there are.

    Raises:
        TypeError: the outcomes at a site cannot be listed.
    """
    return math.prod(len(support(name, site)) for name, site in discrete.items())


def support(name: str, site: Any) -> list[Any]:
    """The values that a discrete site can take."""
    try:
        return [value for value, _ in wrap(site["fn"]).table()]
    except NotFinite as error:
        raise TypeError(
            f"NUTS: the discrete draw {name} cannot be summed out: {error}. Use SMC or Importance, or a distribution "
            "with the draw integrated out"
        ) from None


class Summed:
    """The discrete draws summed out over all combinations of their values: right for every program."""

    def __init__(self, model: Any, discrete: Values) -> None:
        self.model = model
        rows = list(itertools.product(*(support(name, site) for name, site in discrete.items())))
        self.combinations = {name: jnp.array([row[i] for row in rows]) for i, name in enumerate(discrete)}

    def potentials(self, position: Values) -> jax.Array:
        """-log joint density for each combination."""

        def one(values: Values) -> jax.Array:
            return jnp.asarray(potential_energy(handlers.substitute(self.model, data=values), (), {}, position))

        return jax.vmap(one)(self.combinations) if self.combinations else one({})[None]

    def potential(self, position: Values) -> jax.Array:
        return -jax.nn.logsumexp(-self.potentials(position))

    def discrete(self, position: Values, key: jax.Array) -> Values:
        if not self.combinations:
            return {}
        chosen = jax.random.categorical(key, -self.potentials(position))
        return {name: values[chosen] for name, values in self.combinations.items()}


def _starts(
    target: Target, shapes: dict[str, tuple[int, ...]], key: jax.Array, chains: int
) -> tuple[Values, jax.Array]:
    """For each chain the first of some points uniform within (-2, 2), as in Stan, that has a density and a gradient.

    Also whether every chain has one.
    """
    keys = jax.random.split(key, len(shapes))
    tried = {
        name: jax.random.uniform(site_key, (chains, TRIES, *shape), minval=-2.0, maxval=2.0)
        for site_key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

    def usable(position: Values) -> jax.Array:
        energy, slope = jax.value_and_grad(target.potential)(position)
        return jnp.isfinite(energy) & jnp.all(jnp.array([jnp.all(jnp.isfinite(s)) for s in jax.tree.leaves(slope)]))

    ok = lax.map(jax.vmap(usable), tried)
    chosen = jnp.argmax(ok, axis=1)
    starts = {name: jax.vmap(lambda x, i: x[i])(values, chosen) for name, values in tried.items()}
    return starts, jnp.all(jnp.any(ok, axis=1))
