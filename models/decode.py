"""The device calls of the engine: whole slabs of rows in, whole slabs out, nothing remembered.

Arithmetic depends on the compiled program: another kernel or another shape sums in another order, and the last bits
differ. So there is one shape of each, up to what the tokens themselves decide.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.transformer import Cache, Config, Params, advance, logits, score

STATES = 8  # the least rows of a stop table


class Stop(NamedTuple):
    """When a block ends: an automaton over tokens. `table[state, token]` is the next state, `last` the final one."""

    table: Array
    last: int

    @classmethod
    def of(cls, table: np.ndarray, vocab_size: int) -> Stop:
        """On the device, in one shape for nearly all: int32 [STATES or a power of two above, vocab_size].

        What is added is never entered; the last row of `table` is the final state.
        """
        states, tokens = table.shape
        room = STATES
        while room < states:
            room *= 2
        return cls(jnp.asarray(np.pad(table, ((0, room - states), (0, vocab_size - tokens)))), states - 1)

    @classmethod
    def never(cls, vocab_size: int) -> Stop:
        """Runs to the end that the caller sets."""
        return cls.of(np.zeros((2, vocab_size), np.int32), vocab_size)


@jax.jit
def take(held: Any, index: Array) -> Any:
    """Rows `index` of `held`."""
    return jax.tree.map(lambda x: x[index], held)


@partial(jax.jit, donate_argnums=0)
def merge(into: Any, held: Any, index: Array, mine: Array) -> Any:
    """Rows `index` of `held` where `mine`, else what is there."""
    return jax.tree.map(lambda a, b: jnp.where(mine.reshape(-1, *(1,) * (a.ndim - 1)), b[index], a), into, held)


@partial(jax.jit, static_argnames="config", donate_argnums=(2, 3))
def feed(
    params: Params, config: Config, cache: Cache, hidden: Array, lengths: Array, tokens: Array, counts: Array
) -> tuple[tuple[Cache, Array], Array]:
    """Read the first `counts` [rows] of `tokens` [rows, S] all at once: ((cache, hidden), scores)."""
    states, cache = advance(params, config, tokens, cache, lengths)  # pyright: ignore[reportAssignmentType]
    last = jnp.take_along_axis(states, jnp.maximum(counts - 1, 0)[:, None, None], 1)[:, 0]
    hidden = jnp.where(counts[:, None] > 0, last, hidden)
    return (cache, hidden), _score(params, hidden)


@partial(jax.jit, static_argnames="config", donate_argnums=(2, 3))
def decode(
    params: Params, config: Config, cache: Cache, hidden: Array, lengths: Array, ends: Array, keys: Array,
    forced: Array, table: Array, last: Array, temperature: Array,
) -> tuple[Any, Array, Array, Array, Array]:  # fmt: skip
    """Write a block behind each row, token by token.

    Gives (cache, hidden), tokens [rows, context], and for each row the count of tokens, their log probability, a score.
    Row r holds `lengths[r]` tokens and ends with the stop or when it holds `ends[r]`; it is idle if it does already.
    `forced` [rows, context] are the tokens of the block, -1 where one is drawn: a block that is written a second time
    runs through the very program that drew it, so that its cache, hidden state and score are the same bits.
    """
    rows = len(lengths)

    def going(state: Any) -> Array:
        return jnp.any(state[1])

    def step(state: Any) -> Any:
        i, active, cache, hidden, lengths, automaton, tokens, log_prob = state
        log_p = jax.nn.log_softmax(logits(params, hidden) / temperature)
        drawn = _draw(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, i)))(keys), log_p)
        token = jnp.where(forced[:, i] < 0, drawn, forced[:, i])
        states, cache = advance(params, config, token[:, None], cache, lengths)
        log_prob += jnp.where(active, jnp.take_along_axis(log_p, token[:, None], 1)[:, 0], 0.0)
        tokens = tokens.at[:, i].set(token)
        hidden = jnp.where(active[:, None], states[:, 0], hidden)
        automaton = table[automaton, token]
        lengths = lengths + active
        active = active & (automaton != last) & (lengths < ends)
        return i + 1, active, cache, hidden, lengths, automaton, tokens, log_prob

    state = (
        0, lengths < ends, cache, hidden, lengths, jnp.zeros(rows, jnp.int32),
        jnp.zeros((rows, config.max_position_embeddings), jnp.int32), jnp.zeros(rows, jnp.float32),
    )  # fmt: skip
    _, _, cache, hidden, after, _, tokens, log_prob = jax.lax.while_loop(going, step, state)
    return (cache, hidden), tokens, after - lengths, log_prob, _score(params, hidden)


def _draw(u: Array, log_p: Array) -> Array:
    """Inverse CDF: the first token whose cumulative probability exceeds u times the total; never an impossible one."""
    cdf = jnp.cumsum(jnp.exp(log_p), -1)
    return jnp.argmax(cdf > (u * cdf[:, -1])[:, None], -1).astype(jnp.int32)


@partial(jax.jit, static_argnames="config")
def log_probs(params: Params, config: Config, tokens: Array, used: Array, temperature: Array) -> Array:
    """Sum over the `used` [rows, S] of `tokens` [rows, S] of their log probability, nats [rows]."""
    hidden, _ = advance(params, config, tokens)
    log_p = jax.nn.log_softmax(logits(params, hidden[:, :-1]) / temperature)
    each = jnp.take_along_axis(log_p, tokens[:, 1:, None], -1)[..., 0]
    return jnp.sum(jnp.where(used[:, 1:], each, 0.0), -1)


def _score(params: Params, hidden: Array) -> Array:
    return score(params, hidden) if "score.weight" in params else jnp.zeros(len(hidden))
