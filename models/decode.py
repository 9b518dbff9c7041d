"""The device calls of the engine: rows in, rows out, nothing remembered.

Arithmetic depends on the compiled program: another kernel or another shape sums in another order, and the last bits
differ. So what a row computes must not depend on the shape of the call (see `ppl.models.sums`), and all
ways to draw a token are branches of one program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.grammar.tokens import merged, narrow, padded
from ppl.models.draw import Sampling, Steer, pick
from ppl.models.sums import LEAST_ROWS, log_normalised
from ppl.models.transformer import CHUNK, Cache, Config, Params, Stems, advance, logits, score

SHORT = 16  # tokens after which it pays to go on in a smaller call


class Stop(NamedTuple):
    """When a block ends, and what it may be: an automaton over classes of tokens.

    `table[state, classes[token]]` is the next state; from `last` on they are final. With a grammar `ahead[k, state]`
    steers the draws: the log probability, by a proxy of the model, that the block comes out right with k tokens left.
    """

    table: Array
    classes: Array
    last: int
    ahead: Array | None = None

    @classmethod
    def of(cls, table: np.ndarray, classes: np.ndarray, last: int, ahead: np.ndarray | None = None) -> Stop:
        """On the device, in one shape for nearly all."""
        wide, steer = padded(table, ahead)
        return cls(jnp.asarray(wide), jnp.asarray(narrow(classes)), last,
                   None if steer is None else jnp.asarray(steer, jnp.float32))  # fmt: skip

    @classmethod
    def at(cls, table: np.ndarray) -> Stop:
        """From the next state of each token, [states, vocab_size]; the last state is final."""
        return cls.of(*merged(table, np.arange(table.shape[1])), len(table) - 1)

    @classmethod
    def never(cls, vocab_size: int) -> Stop:
        """Runs to the end that the caller sets."""
        return cls.at(np.zeros((2, vocab_size), np.int32))


class Progress(NamedTuple):
    """Where each row of a call stands, or has come to."""

    hidden: Array
    """The last hidden state, [rows, hidden_size]."""
    lengths: Array
    """Tokens that the row holds, int32 [rows]; 0 for an idle row."""
    state: Array
    """Of the stop automaton, int32 [rows]."""


class Written(NamedTuple):
    """What a call of `decode` has written behind each row."""

    tokens: Array
    """int32 [rows, room]"""
    counts: Array
    """Of the tokens, int32 [rows]."""
    log_q: Array
    """Their log probability under what they were drawn from, nats [rows]."""
    log_prob: Array
    """By the options alone, without a grammar."""
    log_model: Array
    """Under the model as it is (temperature 1, nothing cut off)."""
    going: Array
    """Whether the row was not done, [rows]."""
    scores: Array
    """The logit of the score head at the last token, [rows]; 0 without a head."""


@partial(jax.jit, donate_argnums=0)
def move(into: Cache, held: Cache, table: Array, count: int) -> Cache:
    """Copy chunks of rows. `table` [any, 4], of which the first `count` count: chunk and row in `held`, then in `into`.

    One after the other, each as a whole: XLA:CPU gathers rows element by element, which takes several times as long.
    """
    return _copied(into, lambda _: held, table, count)


@partial(jax.jit, donate_argnums=0)
def shift(cache: Cache, table: Array, count: int) -> Cache:
    """As `move` within one cache; nothing that is written may be read."""
    return _copied(cache, lambda now: now, table, count)


def _copied(cache: Cache, read: Callable[[Cache], Cache], table: Array, count: int) -> Cache:
    def step(i: Array, cache: Cache) -> Cache:
        chunk, row, to_chunk, to_row = table[i]
        return jax.tree.map(
            lambda a, b: jax.lax.dynamic_update_slice(
                a, jax.lax.dynamic_slice(b, (chunk, row, 0, 0, 0), (1, 1, *b.shape[2:])), (to_chunk, to_row, 0, 0, 0)
            ), cache, read(cache),
        )  # fmt: skip

    return jax.lax.fori_loop(0, count, step, cache)


@jax.jit
def copy(tree: Any) -> Any:
    """Another copy of arrays."""
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def take(states: Array, index: Array) -> Array:
    """Rows `index` of `states`."""
    return states[index]


@jax.jit
def merge(into: Array, states: Array, index: Array, mine: Array) -> Array:
    """Rows `index` of `states` where `mine`, else what is there."""
    return jnp.where(mine[:, None], states[index], into)


@partial(jax.jit, static_argnames="config", donate_argnums=2)
def feed(
    params: Params, config: Config, cache: Cache, stems: Stems | None, hidden: Array, lengths: Array, tokens: Array,
    counts: Array,
) -> tuple[Cache, Array, Array]:  # fmt: skip
    """Read the first `counts` [rows] of `tokens` [rows, S] all at once: the cache, last hidden states, scores."""
    states, cache = advance(params, config, tokens, cache, lengths, counts > 0, stems)  # pyright: ignore[reportAssignmentType]
    last = jnp.take_along_axis(states, jnp.maximum(counts - 1, 0)[:, None, None], 1)[:, 0]
    hidden = jnp.where(counts[:, None] > 0, last, hidden)
    return cache, hidden, _score(params, hidden)


@partial(jax.jit, static_argnames="config", donate_argnums=2)
def log_probs(
    params: Params, config: Config, cache: Cache, stems: Stems | None, hidden: Array, lengths: Array, tokens: Array,
    counts: Array, how: Sampling,
) -> tuple[Cache, Array, Array]:  # fmt: skip
    """As `feed`, with the log probability of the tokens, nats [rows], in place of the scores."""
    states, cache = advance(params, config, tokens, cache, lengths, counts > 0, stems)  # pyright: ignore[reportAssignmentType]
    before = jnp.concatenate([hidden[:, None], states[:, :-1]], 1)

    rows, steps = tokens.shape
    together = min(steps, -(-LEAST_ROWS // rows))

    def one(each: tuple[Array, Array]) -> Array:
        state, token = (x.reshape(rows * together, *x.shape[2:]) for x in each)
        return pick(logits(params, state), jnp.zeros(len(token)), token, how).log_prob.reshape(rows, together)

    def cut(x: Array) -> Array:
        """[rows, steps, ...] -> [pieces, rows, steps of a piece, ...]"""
        return x.reshape(rows, steps // together, together, *x.shape[2:]).swapaxes(0, 1)

    log_q = jax.lax.map(one, (cut(before), cut(tokens))).swapaxes(0, 1).reshape(rows, steps)
    last = jnp.take_along_axis(states, jnp.maximum(counts - 1, 0)[:, None, None], 1)[:, 0]
    used = jnp.arange(tokens.shape[1]) < counts[:, None]
    log_q = jnp.cumsum(jnp.where(used, log_q, 0.0), -1)[:, -1]  # in one order, unlike `sum`
    return cache, jnp.where(counts[:, None] > 0, last, hidden), log_q


@partial(jax.jit, static_argnames="config", donate_argnums=2)
def decode(
    params: Params, config: Config, cache: Cache, stems: Stems | None, begin: Progress, starts: Array, ends: Array,
    last: Array, keys: Array, forced: Array, stop: Stop, how: Sampling, least: Array,
) -> tuple[Cache, Progress, Written]:  # fmt: skip
    """Write behind each row, `SHORT` tokens, and then token by token as long as more than `least` rows go on.

    A row is done when the stop says so or when it holds `ends` tokens; it is idle if it does already. A grammar looks
    ahead to `last` tokens, more than `ends` where this is a piece of a block. Token n of a block is drawn under
    `keys[row]` and n, counted from `starts`. `forced` [rows, room] are the tokens of the block, -1 where one is drawn:
    a block that is written a second time runs through the very program that drew it, so that its cache, hidden state
    and score are the same bits.
    """
    rows, room = forced.shape
    # Kept in few bits, but read in 32: the gather of the loop would convert each number at each token.
    stop = stop._replace(table=stop.table.astype(jnp.int32), classes=stop.classes.astype(jnp.int32))

    def going(state: Any) -> Array:
        return jnp.sum(state[1]) > jnp.where(state[0] < SHORT, 0, least)

    def step(state: Any) -> Any:
        i, active, cache, now, tokens, sums = state
        u = jax.vmap(lambda key, n: jax.random.uniform(jax.random.fold_in(key, n)))(keys, now.lengths - starts)
        steer = _steer(stop, now.state, last - now.lengths - 1)
        token, *logs = pick(logits(params, now.hidden), u, forced[:, i], how, steer)
        states, cache = advance(params, config, token[:, None], cache, now.lengths, active, stems)
        tokens = tokens.at[:, i].set(token)
        automaton = jnp.where(active, stop.table[now.state, stop.classes[token]], now.state)
        lengths = now.lengths + active
        now = Progress(jnp.where(active[:, None], states[:, 0], now.hidden), lengths, automaton)
        sums = [total + jnp.where(active, log, 0.0) for total, log in zip(sums, logs, strict=True)]
        active = active & (automaton < stop.last) & (lengths < ends)
        return i + 1, active, cache, now, tokens, sums

    zeros = [jnp.zeros(rows, jnp.float32)] * 3
    tokens = jnp.zeros((rows, room), jnp.int32)
    active = (begin.lengths < ends) & (begin.state < stop.last)
    _, active, cache, now, tokens, sums = jax.lax.while_loop(going, step, (0, active, cache, begin, tokens, zeros))
    counts = now.lengths - begin.lengths
    return cache, now, Written(tokens, counts, sums[0], sums[1], sums[2], active, _score(params, now.hidden))


def _steer(stop: Stop, state: Array, left: Array) -> Steer | None:
    """What is added to the logits of rows in these states, with `left` tokens to come behind this one."""
    if stop.ahead is None:
        return None
    by_state = stop.ahead[jnp.clip(left, 0, len(stop.ahead) - 1)]
    return Steer(jnp.take_along_axis(by_state, stop.table[state], 1), stop.classes)


@jax.jit
def next_log_probs(params: Params, hidden: Array) -> Array:
    """log P of each token of the vocabulary at hidden states [rows, hidden_size], nats."""
    return log_normalised(logits(params, hidden))


def _score(params: Params, hidden: Array) -> Array:
    rows = len(hidden)
    if "score.weight" not in params:
        return jnp.zeros(rows)
    return score(params, jnp.pad(hidden, ((0, max(0, LEAST_ROWS - rows)), (0, 0))))[:rows]


def chunks_of(tokens: int) -> int:
    """Chunks that hold so many tokens: a power of two, so that few shapes are compiled."""
    chunks = 1
    while chunks * CHUNK < tokens:
        chunks *= 2
    return chunks
