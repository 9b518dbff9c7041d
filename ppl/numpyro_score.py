"""What numpyro leaves out of a log probability: values outside of the support, and invalid parameters.

All of it can be traced, so it runs inside of compiled functions.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, constraints
from numpyro.distributions.util import sum_rightmost


def score(dist: Distribution, value: Any) -> Array:
    """Log probability of `value` (shape of a draw), of the shape of the batch; `-inf` outside of the support.

    Where a mask is false the score is 0, whatever the value.
    """
    if isinstance(dist, MaskedDistribution):
        return jnp.where(dist._mask, score(dist.base_dist, value), 0.0)
    if isinstance(dist, Independent):
        return sum_rightmost(score(dist.base_dist, value), dist.reinterpreted_batch_ndims)
    if isinstance(dist, ExpandedDistribution):
        return jnp.broadcast_to(score(dist.base_dist, value), dist.batch_shape)
    inside, value = _inside(dist, value)
    return jnp.where(inside, dist.log_prob(value), -jnp.inf)


def _inside(dist: Distribution, value: Any) -> tuple[Any, Any]:
    """Whether the value is in the support, of the shape of the batch; and a value that certainly is."""
    support = dist.support
    if support is None or constraints.is_dependent(support):
        return True, value
    inside = _holds(support, value)
    if inside.ndim > len(dist.batch_shape):
        inside = jnp.all(inside, axis=tuple(range(len(dist.batch_shape), inside.ndim)))
    try:
        safe = support.feasible_like(value)
    except NotImplementedError:
        return inside, value
    value = jnp.where(inside.reshape(inside.shape + (1,) * dist.event_dim), value, safe)
    if support.is_discrete and jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(int)
    return inside, value


def _holds(constraint: Any, value: Any) -> Array:
    """`constraint(value)`; a sum of probabilities may err by more than numpyro's 1e-6, as float32 does."""
    if isinstance(constraint, type(constraints.simplex)):
        error = jnp.abs(jnp.sum(value, axis=-1) - 1.0)
        return jnp.all(value >= 0, axis=-1) & (error < 1e-5 + 1e-8 * jnp.shape(value)[-1])
    return jnp.asarray(constraint(value))


def valid(dist: Distribution) -> dict[str, Array]:
    """Whether each parameter is valid, those of inner distributions included: by name and what is asked of it."""
    out: dict[str, Array] = {}
    arguments = dist.get_args()
    for name, value in arguments.items():
        constraint = dist.arg_constraints[name]
        if value is not None and not constraints.is_dependent(constraint):
            out[f"{name} of {type(dist).__name__} must satisfy {constraint!r}"] = jnp.all(_holds(constraint, value))
    low, high = arguments.get("low"), arguments.get("high")
    if low is not None and high is not None:
        ordered = low <= high if dist.is_discrete else low < high
        out[f"low of {type(dist).__name__} must be below high"] = jnp.all(ordered)
    for value in vars(dist).values():
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, Distribution):
                out |= {text: ok for text, ok in valid(inner).items() if text not in out}
    return out
