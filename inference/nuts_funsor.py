"""Discrete draws of `NUTS` summed out by funsor: variable elimination, where all combinations are too many.

Obermeyer et al. 2019, "Tensor Variable Elimination for Plated Factor Graphs". funsor runs the program with all values
of a site at once, on an axis to the left of all others: a program that reduces or indexes such a value as if it were
one number gives another density without any error. So the density is compared with the one that is right for every
program (`Summed`), for two windows of sites with the others fixed, before it is used.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy

from ppl.inference.nuts_chains import LARGEST_SUM, Summed, Values, support, unconstrained_shapes
from ppl.numpyro_bridge import as_model
from ppl.program import Program


class Eliminated:
    """The discrete draws summed out by funsor.

    Raises:
        ImportError: funsor is not installed.
        TypeError: a discrete draw is an array, or the program uses one in a way that cannot be enumerated.
    """

    def __init__(self, program: Program[Any], model: Any, continuous: Values, discrete: Values) -> None:
        try:
            from numpyro.contrib import funsor
        except ImportError:
            raise ImportError(
                f"NUTS: {len(discrete)} discrete draws have more than {LARGEST_SUM} combinations of values; to sum "
                "them out site by site: pip install ppl[numpyro]"
            ) from None
        for name, site in discrete.items():
            if jnp.shape(site["value"]):
                raise TypeError(
                    f"NUTS: the discrete draw {name} is an array; draw each of its numbers at a site of its own"
                )
        self._funsor = funsor
        sites = handlers.trace(handlers.seed(model, 0)).get_trace()
        plates = {name: site["fn"].batch_shape for name, site in sites.items() if site["type"] == "sample"}
        self._first = -1 - max(1, *(jnp.ndim(site["value"]) for site in sites.values() if site["type"] == "sample"))
        self._model = funsor.config_enumerate(as_model(program, plates))
        self._names = tuple(discrete)
        self._plain = model
        self._compare(continuous, discrete)

    def potential(self, position: Values) -> jax.Array:
        return self._potential(self._model, position)

    def _potential(self, model: Any, position: Values) -> jax.Array:
        enumerated = self._funsor.enum(model, self._first)
        return jnp.sum(potential_energy(enumerated, (), {}, position, enum=True))

    def discrete(self, position: Values, key: jax.Array) -> Values:
        fixed = constrain_fn(handlers.substitute(self._plain, data=self._first_values), (), {}, position)
        model = handlers.substitute(self._model, data=fixed)
        sampled = self._funsor.infer_discrete(model, first_available_dim=self._first, temperature=1, rng_key=key)
        sites = handlers.trace(sampled).get_trace()
        return {name: jnp.reshape(sites[name]["value"], ()) for name in self._names}

    def _compare(self, continuous: Values, discrete: Values) -> None:
        """Compare with the sum over all combinations for the first and the last few sites."""
        self._first_values = {name: site["value"] for name, site in discrete.items()}
        position = {name: jnp.full(shape, 0.3) for name, shape in unconstrained_shapes(continuous).items()}
        for names in (list(discrete), list(discrete)[::-1]):
            sizes = np.cumprod([float(len(support(name, discrete[name]))) for name in names])
            window = {name: discrete[name] for name in names[: max(1, int(np.sum(sizes <= LARGEST_SUM)))]}
            fixed = {name: site["value"] for name, site in discrete.items() if name not in window}
            right = jax.jit(Summed(handlers.condition(self._plain, data=fixed), window).potential)(position)
            model = handlers.condition(self._model, data=fixed)
            try:
                found = float(jax.jit(lambda at, model=model: self._potential(model, at))(position))
            except Exception as error:
                raise TypeError(_ADVICE.format(", ".join(window))) from error
            if not math.isclose(found, float(right), rel_tol=1e-4, abs_tol=1e-3):
                raise TypeError(_ADVICE.format(", ".join(window)))


_ADVICE = (
    "NUTS: the discrete draws ({}) cannot be summed out one by one: the program uses them in a way that needs plain "
    "numbers (reshaping, reducing, stacking them), or their values are not 0, 1, 2, ... Elementwise arithmetic and "
    "table[draw] work; or use SMC, or a distribution with the draws integrated out, like dist.MixtureSameFamily"
)
