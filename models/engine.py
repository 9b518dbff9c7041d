"""The engine: a transformer that decodes and scores many texts at once, with a cache of rows keyed by prefix.

A *row* holds the keys and values of a text's tokens and the last hidden state. Rows live in *slabs*, the outputs of
earlier device calls; a dictionary finds the row of a prefix. To extend texts, their rows are gathered into a new
slab (particles that were resampled simply gather the same row), and one `while_loop` decodes until every row has
stopped. Rows are only a cache: a text whose row was dropped is fed again from its longest cached ancestor (feeding and
decoding agree to float32 rounding, about 1e-6 nats; a program that goes far back can meet it).

Device calls have a fixed number of rows, padded, so that the arithmetic of a row, and with it every draw, does
not depend on what else is in the batch.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.text import TOKEN_BYTES, Text
from ppl.models.transformer import Cache, Config, Params, advance, empty_cache, logits, score

ROWS = 128  # per decode call
FEED_ROWS = 32  # per call that feeds given tokens


class Slab:
    """The rows that one device call left: their cache and last hidden states [rows, hidden_size]."""

    __slots__ = ("cache", "hidden", "keys")

    def __init__(self, cache: Cache, hidden: Array) -> None:
        self.cache = cache
        self.hidden = hidden
        self.keys: list[bytes] = []


Row = tuple[Slab, int, float]
"""Slab, index within it, and the logit of the score head at the last token (0 without a head)."""


class Stop(NamedTuple):
    """When a block ends: an automaton over tokens. `table[state, token]` is the next state, `last` the final one."""

    table: Array
    last: int


class Clock:
    """Wall time during which the device had work, and never more.

    Calls run in order and return before they are done. Work found done when the next call starts is counted up to
    the last moment at which it was seen unfinished: a gap counts as host time, the doubt with it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._open: list[Array] = []
        self._since = self._seen = 0.0

    def started(self, result: Array, start: float) -> None:
        """A call was made at `start`."""
        self._look()
        if not self._open:
            self._since = start
        self._open.append(result)
        self._seen = time.perf_counter()

    def wait(self, results: Sequence[Array]) -> list[np.ndarray]:
        """The results of a call on the host, once they are there."""
        self._look()
        arrays = [np.asarray(result) for result in results]
        if self._open:
            self._open = [result for result in self._open if not result.is_ready()]
            self._seen = time.perf_counter()
            if not self._open:
                self.seconds += self._seen - self._since
        return arrays

    def _look(self) -> None:
        """See whether the device is still at work."""
        if self._open and self._open[-1].is_ready():
            self.seconds += self._seen - self._since
            self._open.clear()
        elif self._open:
            self._seen = time.perf_counter()


@dataclass
class Usage:
    """What the engine has done so far."""

    tokens: int = 0
    """Tokens sampled."""
    fed: int = 0
    """Tokens read: prompts, and texts whose row was dropped."""
    judged: int = 0
    """Reward evaluations."""
    calls: int = 0
    """Device calls."""
    clock: Clock = field(default_factory=Clock)


class Engine:
    """Decodes and scores texts with one transformer.

    Raises:
        ValueError: a text does not fit the context.
    """

    def __init__(self, params: Params, config: Config) -> None:
        self.params = params
        self.config = config
        self.usage = Usage()
        self.full = self.config.max_position_embeddings * TOKEN_BYTES  # bytes of a text that has no room left
        self._rows: dict[bytes, Row] = {}
        self._slabs: deque[Slab] = deque()
        self._limit = 0  # slabs that are kept

    @property
    def capacity(self) -> int:
        """Tokens that a text can have."""
        return self.config.max_position_embeddings

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """The rows of the texts; those not cached are fed."""
        rows = [self._rows.get(text.data) for text in texts]  # held before feeding drops some of them
        missing = {text.data: text for text, row in zip(texts, rows, strict=True) if row is None}
        fresh = self._feed(list(missing.values())) if missing else {}
        return [fresh[text.data] if row is None else row for text, row in zip(texts, rows, strict=True)]

    def decode(
        self, texts: Sequence[Text], keys: np.ndarray, stop: Stop, max_tokens: int, temperature: float
    ) -> Callable[[], list[Text]]:
        """Start one block behind each text; the returned function waits for the longer texts.

        A block ends with the stop, at `max_tokens`, or at the end of the context. `keys` is uint32 [texts, 2].
        """
        sources = self.rows(texts)
        lengths = np.array([len(text.data) for text in texts], np.int32) // TOKEN_BYTES
        if lengths.max(initial=0) >= self.capacity:
            raise ValueError(
                f"a text of {lengths.max()} tokens fills the context of {self.capacity}: nothing can follow"
            )
        chunks: list[tuple[Sequence[Text], Slab, list[Array]]] = []
        for low in range(0, len(texts), ROWS):
            part = slice(low, low + ROWS)
            start = time.perf_counter()
            cache, hidden = self._gather(sources[part], ROWS)
            slab, *results = _decode(
                self.params, self.config, cache, hidden, _pad(lengths[part], ROWS), _pad(keys[part], ROWS),
                np.arange(ROWS) < len(texts[part]), stop.table, stop.last, temperature, max_tokens,
            )  # fmt: skip
            self._started(results[-1], start)
            chunks.append((texts[part], Slab(*slab), results))
        return partial(self._finish, chunks)

    def _finish(self, chunks: list[tuple[Sequence[Text], Slab, list[Array]]]) -> list[Text]:
        out: list[Text] = []
        for parents, slab, results in chunks:
            tokens, counts, log_probs, scores = self.usage.clock.wait(results)
            data, width = tokens.tobytes(), tokens.shape[1] * TOKEN_BYTES
            starts = range(0, len(data), width)
            ends = (np.arange(len(counts)) * width + counts * TOKEN_BYTES).tolist()
            new = [
                Text(parent.tokenizer, full := parent.data + data[low:high], parent, log_prob, len(full) >= self.full)
                for parent, low, high, log_prob in zip(parents, starts, ends, log_probs.tolist(), strict=False)
            ]
            self._keep(slab, [text.data for text in new], scores)
            out += new
            self.usage.tokens += int(counts.sum())
        self._trim(len(chunks))
        return out

    def log_probs(self, texts: Sequence[Text], starts: Sequence[int], temperature: float) -> list[float]:
        """Sum over tokens from position `start` on of their log probability, by a forward pass of the whole text."""
        groups: dict[int, list[int]] = defaultdict(list)
        for i, text in enumerate(texts):
            groups[_bucket(len(text))].append(i)
        out = [0.0] * len(texts)
        for width, group in groups.items():
            for part in (group[low : low + FEED_ROWS] for low in range(0, len(group), FEED_ROWS)):
                tokens, used = np.zeros((FEED_ROWS, width), np.int32), np.zeros((FEED_ROWS, width), bool)
                for row, i in enumerate(part):
                    tokens[row, : len(texts[i])] = texts[i].tokens
                    used[row, starts[i] : len(texts[i])] = True
                start = time.perf_counter()
                sums = _log_probs(self.params, self.config, tokens, used, temperature)
                self._started(sums, start)
                for i, value in zip(part, self.usage.clock.wait([sums])[0].tolist(), strict=False):
                    out[i] = value
        return out

    def forget(self, keep: int = 0) -> None:
        """Drop the cached rows of all but the newest `keep` slabs; their texts are fed again when they are needed."""
        while len(self._slabs) > keep:
            old = self._slabs.popleft()
            for key in old.keys:
                if (row := self._rows.get(key)) is not None and row[0] is old:
                    del self._rows[key]

    def log_right(self, args: Sequence[tuple[Text]]) -> list[float]:
        """log of the sigmoid of the score head at the last token of each text (nats), float64."""
        self.usage.judged += len(args)
        scores = np.array([score for _, _, score in self.rows([text for (text,) in args])])
        return (-np.logaddexp(0.0, -scores)).tolist()

    def _feed(self, texts: Sequence[Text]) -> dict[bytes, Row]:
        """Feed the tokens behind each text's longest cached ancestor (the whole text without one)."""
        groups: dict[int, list[tuple[Text, Row | None, int]]] = {}
        for text in texts:
            if len(text) > self.capacity or not len(text):
                raise ValueError(f"a text of {len(text)} tokens does not fit the context of 1..{self.capacity} tokens: "
                                 f"{str(text)[:60]!r}")  # fmt: skip
            ancestor = text.parent
            while ancestor is not None and ancestor.data not in self._rows:
                ancestor = ancestor.parent
            row, known = (None, 0) if ancestor is None else (self._rows[ancestor.data], len(ancestor))
            groups.setdefault(_bucket(len(text) - known), []).append((text, row, known))
        fresh: dict[bytes, Row] = {}
        slabs = 0
        for width, group in groups.items():
            for low in range(0, len(group), FEED_ROWS):
                part = group[low : low + FEED_ROWS]
                start = time.perf_counter()
                cache, hidden = self._gather([row for _, row, _ in part], FEED_ROWS)
                tokens, counts = np.zeros((FEED_ROWS, width), np.int32), np.zeros(FEED_ROWS, np.int32)
                for i, (text, _, known) in enumerate(part):
                    counts[i] = len(text) - known
                    tokens[i, : counts[i]] = text.tokens[known:]
                lengths = _pad(np.array([known for _, _, known in part], np.int32), FEED_ROWS)
                slab, result = _feed(self.params, self.config, cache, hidden, lengths, tokens, counts)
                self._started(result, start)
                (scores,) = self.usage.clock.wait([result])
                self.usage.fed += int(counts.sum())
                self._keep(Slab(*slab), [text.data for text, _, _ in part], scores)
                fresh |= {text.data: self._rows[text.data] for text, _, _ in part}
                slabs += 1
        self._trim(slabs)
        return fresh

    def _gather(self, sources: Sequence[Row | None], size: int) -> tuple[Cache, Array]:
        """Copy rows into the first places of a fresh slab of `size` rows; None is an empty row."""
        slabs = {id(row[0]): row[0] for row in sources if row is not None}
        owners = _pad(np.array([0 if row is None else id(row[0]) for row in sources]), size)
        index = _pad(np.array([0 if row is None else row[1] for row in sources], np.int32), size)
        out: Any = None
        for owner, slab in slabs.items():
            held, mine = (slab.cache, slab.hidden), owners == owner
            here = np.where(mine, index, 0)
            out = _take(held, here) if out is None else _merge(out, held, here, mine)
        if out is None:
            out = empty_cache(self.config, size, self.capacity), jnp.zeros((size, self.config.hidden_size))
        return out

    def _keep(self, slab: Slab, keys: list[bytes], scores: np.ndarray) -> None:
        slab.keys = keys
        self._slabs.append(slab)
        self._rows.update(zip(keys, zip(repeat(slab), range(len(keys)), scores.tolist(), strict=False), strict=False))

    def _trim(self, made: int) -> None:
        """Keep several times as many slabs as the largest of the recent calls has made."""
        self._limit = max(self._limit - 1, 4 * made + 4)
        self.forget(self._limit)

    def _started(self, result: Array, start: float) -> None:
        self.usage.calls += 1
        self.usage.clock.started(result, start)


def _bucket(length: int) -> int:
    """Padded length of given tokens: few shapes to compile, and the shape depends on the text alone."""
    size = 4
    while size < length:
        size *= 4
    return size


def _pad(x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)]) if len(x) < size else x


@jax.jit
def _take(held: Any, index: Array) -> Any:
    return jax.tree.map(lambda x: x[index], held)


@partial(jax.jit, donate_argnums=0)
def _merge(into: Any, held: Any, index: Array, mine: Array) -> Any:
    """Rows `index` of `held` where `mine`, else what is there."""
    return jax.tree.map(lambda a, b: jnp.where(mine.reshape(-1, *(1,) * (a.ndim - 1)), b[index], a), into, held)


@partial(jax.jit, static_argnames="config", donate_argnums=(2, 3))
def _feed(
    params: Params, config: Config, cache: Cache, hidden: Array, lengths: Array, tokens: Array, counts: Array
) -> tuple[tuple[Cache, Array], Array]:
    states, cache = advance(params, config, tokens, cache, lengths)  # pyright: ignore[reportAssignmentType]
    last = jnp.take_along_axis(states, jnp.maximum(counts - 1, 0)[:, None, None], 1)[:, 0]
    hidden = jnp.where(counts[:, None] > 0, last, hidden)
    return (cache, hidden), _score(params, hidden)


@partial(jax.jit, static_argnames=("config", "max_tokens"), donate_argnums=(2, 3))
def _decode(
    params: Params, config: Config, cache: Cache, hidden: Array, lengths: Array, keys: Array, active: Array,
    table: Array, last: Array, temperature: Array, max_tokens: int,
) -> tuple[Any, Array, Array, Array, Array]:  # fmt: skip
    """Sample blocks: ((cache, hidden), tokens [rows, max_tokens], counts, log_probs, scores)."""
    rows = len(lengths)

    def going(state: Any) -> Array:
        return (state[0] < max_tokens) & jnp.any(state[1])

    def step(state: Any) -> Any:
        i, active, cache, hidden, lengths, automaton, tokens, log_prob = state
        log_p = jax.nn.log_softmax(logits(params, hidden) / temperature)
        token = _draw(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, i)))(keys), log_p)
        states, cache = advance(params, config, token[:, None], cache, lengths)
        log_prob += jnp.where(active, jnp.take_along_axis(log_p, token[:, None], 1)[:, 0], 0.0)
        tokens = tokens.at[:, i].set(token)
        hidden = jnp.where(active[:, None], states[:, 0], hidden)
        automaton = table[automaton, token]
        lengths = lengths + active
        active = active & (automaton != last) & (lengths < config.max_position_embeddings)
        return i + 1, active, cache, hidden, lengths, automaton, tokens, log_prob

    state = (
        0, active, cache, hidden, lengths, jnp.zeros(rows, jnp.int32),
        jnp.zeros((rows, max_tokens), jnp.int32), jnp.zeros(rows, jnp.float32),
    )  # fmt: skip
    _, _, cache, hidden, ends, _, tokens, log_prob = jax.lax.while_loop(going, step, state)
    return (cache, hidden), tokens, ends - lengths, log_prob, _score(params, hidden)


def _draw(u: Array, log_p: Array) -> Array:
    """Inverse CDF: the first token whose cumulative probability exceeds u times the total; never an impossible one."""
    cdf = jnp.cumsum(jnp.exp(log_p), -1)
    return jnp.argmax(cdf > (u * cdf[:, -1])[:, None], -1).astype(jnp.int32)


@partial(jax.jit, static_argnames="config")
def _log_probs(params: Params, config: Config, tokens: Array, used: Array, temperature: Array) -> Array:
    hidden, _ = advance(params, config, tokens)
    log_p = jax.nn.log_softmax(logits(params, hidden[:, :-1]) / temperature)
    each = jnp.take_along_axis(log_p, tokens[:, 1:, None], -1)[..., 0]
    return jnp.sum(jnp.where(used[:, 1:], each, 0.0), -1)


def _score(params: Params, hidden: Array) -> Array:
    return score(params, hidden) if "score.weight" in params else jnp.zeros(len(hidden))
