"""Sums that come out the same to the last bit whatever the number of rows of a call.

XLA:CPU sums 4,096 numbers or more in another order than fewer; matrices of 8 rows or more it multiplies in one order.
So sums that may fall on either side are products with ones. Measured with jax 0.10, not documented:
`tests/models/test_rows.py` would see it change.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

LEAST_ROWS = 8  # from which on their number does not show


def total(x: Array, per_row: int) -> Array:
    """The sum over the last axis, in a call of `LEAST_ROWS` rows or more that sum `per_row` numbers each in all."""
    size = x.shape[-1]
    if jax.default_backend() != "cpu" or LEAST_ROWS * per_row >= 4096:
        return jnp.sum(x, -1)
    return (x.reshape(-1, size) @ jnp.ones((size, 1), x.dtype)).reshape(x.shape[:-1])


def log_normalised(logits: Array) -> Array:
    """Logits [rows, vocabulary] as log probabilities, nats."""
    top = jnp.max(logits, -1, keepdims=True)
    return logits - top - jnp.log(total(jnp.exp(logits - top), logits.shape[-1]))[:, None]
