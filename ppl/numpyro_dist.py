"""numpyro distributions as distributions of programs: drawn and scored in batches, one device call for each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd

from ppl.distributions import NotFinite
from ppl.numpyro_device import Batched, Invalid, jax_key, key_data, values_of
from ppl.numpyro_recipe import WRAP, Node, Recipe, dtype_of, is_traced
from ppl.numpyro_score import score, valid
from ppl.source import Key

LARGEST_TABLE = 10_000  # outcomes


class Numpyro(Recipe):
    """A numpyro distribution, built only when it is drawn from or scored.

    A draw has the shape batch_shape + event_shape: a Python number if that is (), else a read-only numpy array. A
    distribution with a batch shape stands for that many independent draws, so `log_prob` sums over them.

    Raises (by draws and scores):
        ValueError: an invalid parameter, or a value that has not the shape of a draw.
        TypeError: a value that is no number.
    """

    __slots__ = ()
    weighted = False

    def sample(self, key: Key) -> Any:
        return self.draw_many([key], [self])[0]

    def log_prob(self, value: Any) -> Any:
        """Natural log of the density of `value`, float32 as a Python float; of traced values, a traced number."""
        if is_traced(value, *self.leaves):
            dist = self.as_numpyro()
            return jnp.sum(score(dist, shaped(self, dist, jnp.asarray(value))))
        return self.log_prob_many([self], [value])[0]

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Numpyro]) -> list[Any]:
        """A draw of each, all of one family: row i depends on key i and parameters i alone."""
        return values_of(_call(_draws(dists[0].family), dists, [key_data(keys)], [np.uint32]))

    @staticmethod
    def log_prob_many(dists: Sequence[Numpyro], values: Sequence[Any]) -> list[float]:
        """Natural logs of the densities of values, each under its own distribution, all of one family."""
        scores = _scores(dists[0].family)
        column = _numbers(dists, values, _shape(dists[0]))
        return _call(scores, dists, [column], [column.dtype]).tolist()

    def table(self) -> list[tuple[Any, float]]:
        """All outcomes with their probabilities, float64; arrays of independent outcomes, all combinations.

        Raises:
            NotFinite: outcomes cannot be listed, or there are more than 10,000.
            ValueError: an invalid parameter.
        """
        with x64():
            dist = base = self.as_numpyro()
            while isinstance(base, nd.Independent | nd.ExpandedDistribution):
                base = base.base_dist
            if isinstance(base, nd.MaskedDistribution):
                raise NotFinite(f"{self!r} has no table: its mask is about scores, not about draws")
            shape = dist.batch_shape + dist.event_shape
            if not base.has_enumerate_support or base.event_shape:
                raise NotFinite(f"{self!r} has no finite table of outcomes")
            support = np.asarray(base.enumerate_support(expand=False)).reshape(-1)
            if len(support) ** math.prod(shape) > LARGEST_TABLE:
                raise NotFinite(f"{self!r} has {len(support)}**{math.prod(shape)} outcomes, too many for a table")
            values = np.array(list(itertools.product(support, repeat=math.prod(shape))), support.dtype)
            values = values.reshape(-1, *shape)
            log_p = jax.vmap(lambda value: jnp.sum(score(dist, value)))(values)
            p = np.exp(np.asarray(log_p, np.float64))
        return list(zip(values_of(values), (p / p.sum()).tolist(), strict=True))


def wrap(dist: Any) -> Numpyro:
    """A numpyro distribution object as a distribution of programs; a wrapped one is itself.

    Raises:
        TypeError: `dist` is no numpyro distribution.
    """
    if isinstance(dist, Numpyro):
        return dist
    if not is_numpyro(dist):
        raise TypeError(f"expected a numpyro distribution, not {dist!r}")
    return Numpyro(WRAP, {"base": dist})


def is_numpyro(dist: Any) -> bool:
    """Whether `dist` is an object of a numpyro distribution class."""
    return isinstance(dist, nd.Distribution)


def x64() -> AbstractContextManager[Any]:
    """JAX computes in float64 inside."""
    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # before JAX 0.8
        from jax.experimental import enable_x64 as enable  # pyright: ignore[reportAttributeAccessIssue]
    return enable(True)


@lru_cache(maxsize=1024)
def _draws(family: Node) -> Batched:
    def row(key: jax.Array, *leaves: jax.Array) -> Any:
        dist = family.build(iter(leaves))
        return valid(dist), lambda: jnp.asarray(dist.sample(jax_key(key)))

    return Batched(row)


@lru_cache(maxsize=1024)
def _scores(family: Node) -> Batched:
    def row(value: jax.Array, *leaves: jax.Array) -> Any:
        dist = family.build(iter(leaves))
        return valid(dist), lambda: jnp.sum(score(dist, value))

    return Batched(row, guard=False)


@lru_cache(maxsize=1024)
def _shape_of(family: Node, dtypes: tuple[tuple[tuple[int, ...], str], ...]) -> tuple[int, ...]:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in dtypes]
    out = jax.eval_shape(lambda *leaves: jnp.zeros(family.build(iter(leaves)).shape()), *leaves)
    return out.shape


def _shape(dist: Numpyro) -> tuple[int, ...]:
    """The shape of a draw."""
    return _shape_of(dist.family, tuple((np.shape(leaf), dtype_of(leaf).name) for leaf in dist.leaves))


def _call(batched: Batched, dists: Sequence[Numpyro], columns: list[Any], dtypes: list[Any]) -> np.ndarray:
    stacked = list(zip(*[dist.leaves for dist in dists], strict=True))
    kinds = [dtype_of(leaf) for leaf in dists[0].leaves]
    try:
        return batched(len(dists), columns + stacked, dtypes + kinds)
    except Invalid as error:
        raise ValueError(f"{dists[error.row]!r}: {error.check}") from None
    except Exception as error:
        error.add_note(f"while building {dists[0]!r}")
        raise


def _numbers(dists: Sequence[Numpyro], values: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """The values stacked, [values, *shape]: int32 or float32."""
    try:
        column = np.array(values)
    except ValueError:  # of different shapes
        column = None
    if column is None or column.shape[1:] != shape or column.dtype.kind not in "bifu":
        for dist, value in zip(dists, values, strict=True):
            shaped(dist, shape, np.array(value))
        column = np.array([np.asarray(value) for value in values])
    small = column.dtype.kind in "biu" and (column.dtype.itemsize <= 4 or bool(np.all(np.abs(column) < 2**31)))
    with np.errstate(over="ignore"):  # to infinity, which no support holds
        return column.astype(jax.dtypes.canonicalize_dtype(int if small else float))


def shaped(dist: Numpyro, shape: Any, value: Any) -> Any:
    """The value, if it has the shape of a draw and holds numbers."""
    if not isinstance(shape, tuple):
        shape = shape.batch_shape + shape.event_shape
    if not isinstance(value, jax.Array) and value.dtype.kind not in "bifu":
        raise TypeError(f"{dist!r} scores numbers, not {value}")
    if value.shape != shape:
        hint = f"; {value.shape} independent draws are .expand({value.shape})" if not shape else ""
        raise ValueError(f"{dist!r} scores values of shape {shape}, not {value.shape}{hint}")
    return value
