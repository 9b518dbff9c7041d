"""Between programs and numpyro: distributions, models, and a program as a model.

`to_numpyro(program)` gives what numpyro's MCMC, SVI, Predictive and handlers take; `from_numpyro(model)` gives what
`sample` takes; `wrap` makes a distribution object of numpyro one of programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd

from ppl import effects
from ppl.distributions import Categorical
from ppl.effects import Call, Factor, Note, Sample, Twist
from ppl.numpyro_dist import Numpyro, is_numpyro, shaped, wrap
from ppl.numpyro_model import Model, Sites, from_numpyro
from ppl.program import Program
from ppl.request import Request
from ppl.run import Run
from ppl.weighted import Proposed

__all__ = ["Model", "Numpyro", "Sites", "from_numpyro", "is_numpyro", "to_numpyro", "wrap"]

T = TypeVar("T")
_TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)  # what using a traced value as a number, condition, array or index raises


def to_numpyro(program: Program[T]) -> Callable[[], T]:
    """The program as a numpyro model, a function without arguments that returns what the program returns.

    A draw is the numpyro site of its address, an `observe` an observed site, a factor a factor. Twists leave the target
    alone and are skipped, notes are ignored, calls are performed whenever numpyro runs the model (not only once), and
    a `scan` is unrolled. The site of a host `Categorical` holds the index of its value. A draw from
    `from_numpyro(model)` runs that model, its sites named `address/...`. Values are JAX's, mostly traced.

    Raises (when the model runs):
        TypeError: the program branches on a traced value, or draws from something without a density in numpyro.
    """
    return as_model(program, {})


def as_model(program: Program[T], plates: Mapping[str, tuple[int, ...]]) -> Callable[[], T]:
    """As `to_numpyro`; each site in `plates` has the plates of its batch shape, as enumeration of others needs."""

    def model() -> T:
        site = "its start"
        observed: dict[int, tuple[Numpyro, Any]] = {}  # by run: what its next factor stands for
        try:
            run = Run(program)
            while not run.done:
                for request in run.requests():
                    site = request.address
                    with ExitStack() as stack:
                        for i, size in enumerate(reversed(plates.get(site, ()))):
                            stack.enter_context(numpyro.plate(f"{site}.{i}", size, dim=-1 - i))
                        answer = _perform(request, observed, enumerated=bool(plates))
                    request.answer(answer)
        except _TRACED as error:
            raise TypeError(
                f"{program!r} branched on a traced value after site {site}, or used it as a plain number: under "
                "numpyro the values of draws are not known while the program runs. Use jnp.where and jax.numpy, or run "
                "the program with SMC or Importance instead"
            ) from error
        return run.result()

    return model


def _perform(request: Request, observed: dict[int, tuple[Numpyro, Any]], enumerated: bool) -> Any:
    effect, site = request.effect, request.address
    if isinstance(effect, Sample):
        value = _sample(site, effect.dist)
        return (value, 0.0) if effect.weighted else value
    if isinstance(effect, Factor):
        if (seen := observed.pop(id(request.run), None)) is not None:
            dist, value = seen[0], jnp.asarray(seen[1])
            built = dist.as_numpyro()
            numpyro.sample(site, built, obs=value if enumerated else shaped(dist, built, value))
        else:
            numpyro.factor(site, effect.log_weight)
    elif isinstance(effect, Call):
        if effect.fn is effects._log_prob and isinstance(effect.args[0], Numpyro):  # the first half of an `observe`
            observed[id(request.run)] = effect.args
            return 0.0
        return effect.fn(*effect.args)
    elif not isinstance(effect, Twist | Note):
        raise TypeError(f"{site}: {effect!r} has no counterpart in numpyro")
    return None


def _sample(site: str, dist: Any) -> Any:
    while isinstance(dist, Proposed):
        dist = dist.target
    if isinstance(dist, Numpyro):
        return numpyro.sample(site, dist.as_numpyro())
    if isinstance(dist, Model):
        return dist.inside(site)
    if not isinstance(dist, Categorical):
        raise TypeError(
            f"{site}: {dist!r} has no density in numpyro; draw from ppl.dist, a numpyro distribution, "
            "from_numpyro(...) or a Categorical of numbers"
        )
    try:
        values = jnp.asarray(np.array(dist.values))
    except (TypeError, ValueError):
        raise TypeError(
            f"{site}: numpyro needs numbers as values, not those of {dist!r}; draw an index, or run the program with "
            "SMC or Importance instead"
        ) from None
    return jnp.take(values, numpyro.sample(site, nd.Categorical(probs=jnp.array(dist.probabilities))), axis=0)  # pyright: ignore[reportArgumentType]
