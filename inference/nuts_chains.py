"""The chains of `NUTS`: a potential energy, starting points, numpyro's sampler, and draws in the program's terms."""

from __future__ import annotations

import itertools
import math
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
    model = to_numpyro(program)
    start_key, run_key, discrete_key, trace_key = jax.random.split(jax_key(jnp.asarray(key.data)), 4)
    continuous, discrete = latent_sites(program, model, trace_key)
    if combinations(discrete) <= LARGEST_SUM:
        target: Target = Summed(model, discrete)
    else:
        from ppl.inference.nuts_funsor import Eliminated

        target = Eliminated(program, model, continuous, discrete)
    starts = _starts(target, continuous, start_key, config.chains)
    if config.chains == 1:
        starts = jax.tree.map(lambda x: x[0], starts)
    kernel = numpyro.infer.NUTS(
        potential_fn=target.potential, target_accept_prob=config.target_accept,
        max_tree_depth=config.max_tree_depth, dense_mass=config.dense_mass,
    )  # fmt: skip
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=config.warmup, num_samples=config.samples, num_chains=config.chains,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(run_key, init_params=starts)

    def finish(row: tuple[Values, jax.Array]) -> Values:
        position, row_key = row
        values = target.discrete(position, row_key)
        return values | constrain_fn(handlers.substitute(model, data=values), (), {}, position)

    @jax.jit
    def finish_all(positions: Values) -> Values:
        keys = jax.random.split(discrete_key, config.chains * config.samples)
        flat = {site: x.reshape(-1, *x.shape[2:]) for site, x in positions.items()}
        return lax.map(finish, (flat, keys), batch_size=128)

    found = finish_all(mcmc.get_samples(group_by_chain=True))
    shape = (config.chains, config.samples)
    draws = {site: np.asarray(found[site]).reshape(*shape, *found[site].shape[1:]) for site in continuous | discrete}
    return {"draws": draws, "divergences": int(np.sum(mcmc.get_extra_fields()["diverging"]))}


def latent_sites(program: Program[Any], model: Any, key: jax.Array) -> tuple[Values, Values]:
    """The numpyro sites of continuous and of discrete draws, by name.

    Raises:
        ValueError: no draw is continuous.
    """
    sites = handlers.trace(handlers.seed(model, key)).get_trace()
    latent = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
    discrete = {name: site for name, site in latent.items() if site["fn"].support.is_discrete}
    continuous = {name: site for name, site in latent.items() if name not in discrete}
    if not continuous:
        raise ValueError(
            f"NUTS: {program!r} has no continuous draw; ppl.measure gives the posterior of a finite program exactly, "
            "Importance and SMC approximate it"
        )
    return continuous, discrete


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
            return potential_energy(handlers.substitute(self.model, data=values), (), {}, position)

        return jax.vmap(one)(self.combinations) if self.combinations else one({})[None]

    def potential(self, position: Values) -> jax.Array:
        return -jax.nn.logsumexp(-self.potentials(position))

    def discrete(self, position: Values, key: jax.Array) -> Values:
        if not self.combinations:
            return {}
        chosen = jax.random.categorical(key, -self.potentials(position))
        return {name: values[chosen] for name, values in self.combinations.items()}


def _starts(target: Target, continuous: Values, key: jax.Array, chains: int) -> Values:
    """For each chain the first of some uniform points within (-2, 2) that has a density and a gradient (as in Stan)."""
    keys = jax.random.split(key, len(continuous))
    tried: Values = {}
    for site_key, (name, site) in zip(keys, continuous.items(), strict=True):
        shape = biject_to(site["fn"].support).inverse_shape(jnp.shape(site["value"]))
        tried[name] = jax.random.uniform(site_key, (chains * TRIES, *shape), minval=-2.0, maxval=2.0)

    def usable(position: Values) -> jax.Array:
        energy, slope = jax.value_and_grad(target.potential)(position)
        return jnp.isfinite(energy) & jnp.all(jnp.array([jnp.all(jnp.isfinite(s)) for s in jax.tree.leaves(slope)]))

    ok = np.asarray(jax.jit(lambda rows: lax.map(usable, rows, batch_size=TRIES))(tried)).reshape(chains, TRIES)
    if not ok.any(axis=1).all():
        raise ValueError(
            f"NUTS: none of {TRIES} random starting points has a positive density and a finite gradient; is an "
            "observation impossible under all values of the draws?"
        )
    chosen = np.argmax(ok, axis=1) + TRIES * np.arange(chains)
    return {name: values[chosen] for name, values in tried.items()}
