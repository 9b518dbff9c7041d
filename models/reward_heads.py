"""The heads of reward models: from the last hidden state to a log probability."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.sums import LEAST_ROWS
from ppl.models.transformer import Params


class Head(NamedTuple):
    """Log probabilities from hidden states: the log of the sigmoid of a linear map.

    A softmax over two outputs is the sigmoid of their difference, so every format comes down to this. The map is in
    float64, row by row: what else is in a batch changes no bit of a row.
    """

    weight: np.ndarray
    """float64 [hidden_size]."""
    bias: float = 0.0
    inner: tuple[Array, Array] | None = None
    """Weight [hidden_size, hidden_size] and bias of a layer with a ReLU that comes first."""

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """float32 [rows, hidden_size] -> float64 [rows], what the sigmoid is of."""
        rows = len(hidden)
        if self.inner is not None:
            size = LEAST_ROWS
            while size < rows:
                size *= 2
            padded = np.zeros((size, hidden.shape[1]), np.float32)
            padded[:rows] = hidden
            hidden = np.asarray(_inner(padded, *self.inner))[:rows]
        return (hidden.astype(np.float64) * self.weight).sum(-1) + self.bias


def log_scores(logits: np.ndarray, name: str) -> list[float]:
    """log of the sigmoid, nats.

    Raises:
        FloatingPointError: one is no number.
    """
    if np.isnan(logits).any():
        raise FloatingPointError(f"{name} gives nan as a score: its hidden states overflow (in 16 bits? then load it "
                                 "with dtype='float32')")  # fmt: skip
    return (-np.logaddexp(0.0, -logits.astype(np.float64))).tolist()


@jax.jit
def _inner(x: Array, weight: Array, bias: Array) -> Array:
    exact = partial(jnp.matmul, precision="highest", preferred_element_type=jnp.float32)  # no TF32 on a GPU
    return jax.nn.relu(exact(x, weight.astype(jnp.float32).T) + bias.astype(jnp.float32))


def linear(params: Params, name: str) -> Head:
    """`name`.weight [1, hidden_size], with its bias if it has one. Takes them out of `params`."""
    weight, bias = _taken(params, f"{name}.weight"), params.pop(f"{name}.bias", None)
    return Head(weight[0], 0.0 if bias is None else float(bias[0]))


def two_layers(params: Params) -> Head:
    """`score.0`, a ReLU, `score.2` with one output or two, of which the second is "right". Takes them out."""
    inner = params.pop("score.0.weight"), params.pop("score.0.bias")
    weight, bias = _taken(params, "score.2.weight"), _taken(params, "score.2.bias")
    if len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return Head(weight[0], float(bias[0]), inner)


def columns(params: Params, right: int, wrong: int) -> Head:
    """The next token is `right` rather than `wrong`. Takes an untied `lm_head.weight` out: no more of it is needed."""
    table = params.pop("lm_head.weight", params["model.embed_tokens.weight"])
    good, bad = (np.asarray(table[token], np.float64) for token in (right, wrong))
    return Head(good - bad)


def _taken(params: Params, name: str) -> np.ndarray:
    return np.asarray(params.pop(name), np.float64)
