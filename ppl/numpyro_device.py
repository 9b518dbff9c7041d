"""One device call for a batch of any size, whose rows do not depend on the batch.

Rows are computed in chunks of 128 by one and the same loop body, so that a row has the same bits in every batch.
Buffers hold a power of two of chunks: few sizes are compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from jax.core import Tracer

from ppl.source import Key, KeyBlock

CHUNK = 128  # rows
Row = Callable[..., tuple[dict[str, jax.Array], Callable[[], Any]]]


class Invalid(ValueError):
    """A row does not satisfy a check."""

    def __init__(self, row: int, check: str) -> None:
        super().__init__(check)
        self.row = row
        self.check = check


class Batched:
    """Computes a function of one row for many.

    `row(*columns)`, traced, gives checks by name, each a bool [], and a function that gives the result. With `guard`
    it is not run for a chunk with a row that fails a check, since samplers may loop forever then.
    """

    def __init__(self, row: Row, guard: bool = True) -> None:
        self._row = row
        self._guard = guard
        self._checks: tuple[str, ...] = ()
        self.compiled: Callable[..., Any] = jax.jit(self._run)

    def __call__(self, count: int, columns: Sequence[np.ndarray | Sequence[Any]], dtypes: Sequence[Any]) -> Any:
        """The results of rows 0..count as numpy arrays [count, ...], in one device call.

        Raises:
            Invalid: a row fails a check.
        """
        chunks = -(-count // CHUNK)
        rows = CHUNK << (chunks - 1).bit_length()
        padded = [_pad(column, count, rows, dtype) for column, dtype in zip(columns, dtypes, strict=True)]
        ok, out = self.compiled(chunks, *padded)
        if isinstance(ok, Tracer):  # called while JAX traces something else, of which the rows know nothing
            with jax.ensure_compile_time_eval():
                ok, out = self.compiled(chunks, *padded)
        ok = np.asarray(ok)[:count]
        if not ok.all():
            row, check = np.argwhere(~ok)[0]
            raise Invalid(int(row), self._checks[check])
        return jax.tree.map(lambda x: np.asarray(x)[:count], out)

    def _run(self, chunks: jax.Array, *columns: jax.Array) -> tuple[jax.Array, Any]:
        capacity = columns[0].shape[0] // CHUNK
        blocks = [column.reshape(capacity, CHUNK, *column.shape[1:]) for column in columns]

        def at(i: Any) -> list[jax.Array]:
            return [lax.dynamic_index_in_dim(block, i, keepdims=False) for block in blocks]

        def compute(block: list[jax.Array]) -> tuple[jax.Array, Any]:
            if not self._guard:
                return jax.vmap(self._both)(*block)
            ok = jax.vmap(lambda *row: self._both(*row)[0])(*block)

            def results() -> Any:
                return jax.vmap(lambda *row: self._both(*row)[1])(*block)

            def nothing() -> Any:
                return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(results))

            return ok, lax.cond(jnp.all(ok), results, nothing)

        def body(i: Any, out: Any) -> Any:
            return jax.tree.map(lambda o, x: lax.dynamic_update_index_in_dim(o, x, i, 0), out, compute(at(i)))

        shapes = jax.eval_shape(lambda: compute(at(0)))
        empty = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), shapes)
        # The number of steps is data: a constant one would be compiled differently.
        out = lax.fori_loop(0, chunks, body, empty)
        return jax.tree.map(lambda x: x.reshape(capacity * CHUNK, *x.shape[2:]), out)

    def _both(self, *row: jax.Array) -> tuple[jax.Array, Any]:
        with numpyro.validation_enabled(False):  # `ppl.numpyro_score` checks
            checks, result = self._row(*row)
            self._checks = tuple(checks)
            return jnp.array(list(checks.values()), bool), result()


def key_data(keys: Sequence[Key]) -> np.ndarray:
    """uint32 [keys, 2]."""
    return keys.data if isinstance(keys, KeyBlock) else KeyBlock(b"".join([key.digest for key in keys])).data


def jax_key(data: jax.Array) -> jax.Array:
    """The JAX key of `Key.data`."""
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def values_of(rows: np.ndarray) -> list[Any]:
    """Each row as a program sees it: a Python number if it is one, else a read-only array."""
    if rows.ndim == 1:
        return rows.tolist()
    rows.flags.writeable = False
    return list(rows)


def _pad(column: Any, count: int, rows: int, dtype: Any) -> np.ndarray:
    """The column as an array [rows, ...], filled up with its first row."""
    if not isinstance(column, np.ndarray):
        first = column[0]
        if isinstance(first, np.ndarray | jax.Array) and all(value is first for value in column):
            column = np.broadcast_to(np.asarray(first), (count, *first.shape))
        else:
            column = np.array(column, dtype)
    out = np.empty((rows, *column.shape[1:]), dtype)
    out[:count] = column
    out[count:] = column[0]
    return out
