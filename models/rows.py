"""Which row of which buffer holds the keys and values of which text.

A *slab* is a buffer of rows on the device. Calls write in place: a row that holds a text goes on as one that extends
it, and still holds the shorter one, as its beginning. So particles that stay where they are cost nothing, going back
to what a text was before costs nothing, and resampling copies only what has to be twice. What was written behind the
text that a row goes on from is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models import decode as device
from ppl.models.transformer import Cache, Config, empty_cache

TextKey = tuple[bytes, bytes]
STALE = 8  # calls after which a slab that none of them used is taken for something else, at least


class Row:
    """A text's place: the first `length` tokens of row `index` of a slab. And what is known at its last token."""

    __slots__ = ("index", "key", "length", "place", "score", "slab", "states")

    def __init__(
        self, slab: Slab, index: int, length: int, states: Array, place: int, score: float, key: TextKey | None
    ) -> None:
        self.slab = slab
        self.index = index
        self.length = length
        self.states = states
        """Last hidden states of the texts of a call [rows, hidden_size]; this one is row `place` of them."""
        self.place = place
        self.score = score
        """The logit of the score head; 0 without one."""
        self.key = key


class Slab:
    """A buffer of rows. `held[i]` are the texts in row i, each the beginning of the next."""

    __slots__ = ("cache", "held", "last", "pins", "used")

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.held: list[list[Row]] = [[] for _ in range(cache.rows)]
        self.used = [0] * cache.rows
        """When each row was last asked for."""
        self.pins = [0] * cache.rows
        """How many calls need the row as it is."""
        self.last = 0

    @property
    def rows(self) -> int:
        return len(self.held)


class Rows:
    """The slabs of one model, within `memory` bytes as far as the calls of a moment allow; the oldest go first."""

    def __init__(self, config: Config, memory: int, dtype: Any) -> None:
        self.config = config
        self.memory = memory
        self.dtype = dtype
        self.slabs: list[Slab] = []
        self.known: dict[TextKey, Row] = {}
        self._now = 0
        self._stale = STALE

    def expect(self, calls: int) -> None:
        """So many calls make one round: what was used a few rounds ago may be wanted again."""
        self._stale = max(STALE, 4 * calls, self._stale - 1)

    def find(self, key: TextKey) -> Row | None:
        """The row of a text, if there is one."""
        return self.known.get(key)

    def pin(self, row: Row, times: int = 1) -> None:
        """Keep a row as it is."""
        row.slab.pins[row.index] += times

    def unpin(self, row: Row) -> None:
        """The counterpart of `pin`."""
        row.slab.pins[row.index] -= 1

    def place(self, sources: Sequence[Row | None], size: int, tokens: int) -> tuple[Slab, list[int]]:
        """Rows of one slab of `size` rows that hold what the sources hold (None: nothing), with room for `tokens`.

        They are pinned, and nothing is known of them until `settle`; the device has been told to copy what is not
        there already.
        """
        self._now += 1
        slab = self._home(sources, size, device.chunks_of(tokens))
        slab.last = self._now
        targets, rest = [-1] * len(sources), list[int]()
        held, pins = slab.held, slab.pins
        for i, row in enumerate(sources):
            # In place, if it is the first to ask, and no longer text would be lost.
            if row is not None and row.slab is slab and not pins[row.index] and held[row.index][-1] is row:
                targets[i] = row.index
                pins[row.index] = 1
            else:
                rest.append(i)
        if rest:
            free = (i for i in range(size) if not pins[i])
            asked = {row.index for row in sources if row is not None and row.slab is slab}
            chosen = nsmallest(len(rest), free, key=lambda i: (i in asked, bool(held[i]), slab.used[i]))
            for i, target in zip(rest, chosen, strict=True):
                targets[i] = target
                pins[target] = 1
            self._copy([(sources[i], targets[i]) for i in rest], slab)
            for target in chosen:
                self._clear(slab, target)
        for target in targets:
            slab.used[target] = self._now
        return slab, targets

    def settle(
        self, slab: Slab, targets: Sequence[int], lengths: Sequence[int], keys: Sequence[TextKey], states: Array,
        scores: np.ndarray,
    ) -> list[Row]:  # fmt: skip
        """What the rows of `place` hold now; unpins them."""
        rows = []
        for target, length, key in zip(targets, lengths, keys, strict=True):
            row = Row(slab, target, length, states, target, float(scores[target]), key)
            slab.held[target].append(row)
            self.known[key] = row
            rows.append(row)
        self.release(slab, targets)
        return rows

    def release(self, slab: Slab, targets: Sequence[int]) -> None:
        """Unpin rows of `place`."""
        for target in targets:
            slab.pins[target] -= 1

    def drop(self, slab: Slab) -> None:
        """Forget a slab."""
        if slab in self.slabs:
            self.slabs.remove(slab)
        for index in range(slab.rows):
            self._clear(slab, index)

    def forget(self, keep: int) -> None:
        """Drop all slabs but the `keep` that were used last, and those that a call is at work on."""
        idle = sorted((slab for slab in self.slabs if not any(slab.pins)), key=lambda slab: slab.last)
        for slab in idle[: max(0, len(idle) - keep)]:
            self.drop(slab)

    def _home(self, sources: Sequence[Row | None], size: int, chunks: int) -> Slab:
        """The slab that most sources are in already, or else one that is free, or new."""

        def fits(slab: Slab) -> bool:
            room = slab.rows - sum(1 for pins in slab.pins if pins)
            return slab.rows == size and len(slab.cache.keys[0]) >= chunks and room >= len(sources)

        slabs = {id(row.slab): row.slab for row in sources if row is not None}
        for owner, _ in Counter(id(row.slab) for row in sources if row is not None).most_common():
            if fits(slabs[owner]):
                return slabs[owner]
        idle = sorted((slab for slab in self.slabs if fits(slab)), key=lambda slab: slab.last)
        need = 2 * len(self._shapes()) * size * chunks * self._chunk_bytes()
        while True:
            full = sum(map(self._bytes, self.slabs)) + need > self.memory
            if idle and (full or idle[0].last < self._now - self._stale):
                return idle[0]
            others = [slab for slab in self.slabs if id(slab) not in slabs and not any(slab.pins)]
            if not full or not others:
                break
            self.drop(min(others, key=lambda slab: slab.last))
        self.slabs.append(Slab(empty_cache(self.config, size, chunks * device.CHUNK, self.dtype)))
        return self.slabs[-1]

    def _copy(self, copies: Sequence[tuple[Row | None, int]], slab: Slab) -> None:
        """Copy the sources into rows of the slab: those of the slab itself first, before they are written over."""
        groups: dict[int, list[tuple[Row, int]]] = {id(slab): []}
        for row, target in copies:
            if row is not None and row.length:
                groups.setdefault(id(row.slab), []).append((row, target))
        for owner, group in groups.items():
            count = len(group)
            if not count:
                continue
            source, target = np.zeros(slab.rows, np.int32), np.full(slab.rows, slab.rows, np.int32)
            source[:count], target[:count] = [row.index for row, _ in group], [index for _, index in group]
            chunks = -(-max(row.length for row, _ in group) // device.CHUNK)
            if owner != id(slab):
                slab.cache = device.move(slab.cache, group[0][0].slab.cache, source, target, count, chunks)
            elif {row.index for row, _ in group}.isdisjoint(target[:count].tolist()):
                slab.cache = device.shift(slab.cache, source, target, count, chunks)
            else:
                slab.cache = device.shuffle(slab.cache, source, target)

    def _clear(self, slab: Slab, index: int) -> None:
        for row in slab.held[index]:
            if row.key is not None and self.known.get(row.key) is row:
                del self.known[row.key]
        slab.held[index] = []

    def _shapes(self) -> range:
        return range(self.config.num_hidden_layers)

    def _chunk_bytes(self) -> int:
        return self.config.num_key_value_heads * self.config.head_dim * device.CHUNK * np.dtype(self.dtype).itemsize

    def _bytes(self, slab: Slab) -> int:
        return 2 * len(self._shapes()) * slab.rows * len(slab.cache.keys[0]) * self._chunk_bytes()


def gather(sources: Iterable[tuple[Row | None, int]], size: int, width: int, dtype: Any) -> Array:
    """The last hidden states of rows at their places in a call: (row, place) each; [size, width]."""
    groups = dict[int, Array]()
    owners, index = np.zeros(size, np.int64), np.zeros(size, np.int32)
    for row, place in sources:
        if row is not None:
            groups[id(row.states)] = row.states
            owners[place], index[place] = id(row.states), row.place
    out: Any = None
    for owner, states in groups.items():
        mine = owners == owner
        here = np.where(mine, index, 0)
        out = device.take(states, here) if out is None else device.merge(out, states, here, mine)
    return jnp.zeros((size, width), dtype) if out is None else out
