"""Which row of which buffer holds the keys and values of which text.

A *slab* is a buffer of rows on the device. Calls write in place: a row that holds a text goes on as one that extends
it, and still holds the shorter one, as its beginning. So particles that stay where they are cost nothing, going back
to what a text was before costs nothing, and resampling copies only what has to be twice. What was written behind the
text that a row goes on from is lost.

What texts have in common from their first token on, their prompt, is kept once for a group of rows (`Stems`), as far
as it fills whole chunks; it is neither copied nor read for each of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models import decode as device
from ppl.models.places import Plan, Want, plan, shape, stays
from ppl.models.slab import Lease, Row, Slab
from ppl.models.text import TextKey
from ppl.models.transformer import CHUNK, GROUP, Config, empty_cache

STALE = 8  # calls after which a slab that none of them used is taken for something else, at least


class Rows:
    """The slabs of one model, within `memory` bytes as far as the calls of a moment allow; the oldest go first."""

    def __init__(self, config: Config, memory: int, dtype: Any) -> None:
        self.config = config
        self.memory = memory
        self.dtype = dtype
        self.slabs: list[Slab] = []
        self.known: dict[TextKey, dict[Row, None]] = {}
        """The rows that hold a text, the newest last: particles may have written the same."""
        self._now = 0
        self._stale = STALE

    def expect(self, calls: int) -> None:
        """So many calls make one round: what was used a few rounds ago may be wanted again."""
        self._stale = max(STALE, 4 * calls, self._stale - 1)

    def find(self, keys: Iterable[TextKey]) -> list[Row | None]:
        """The row of each text, if there is one. Equal texts have rows of their own, as far as there are as many."""
        out, left = list[Row | None](), dict[TextKey, list[Row]]()
        for key in keys:
            if key not in self.known:
                out.append(None)
                continue
            if not left.get(key):
                left[key] = list(self.known[key])
            out.append(left[key].pop())
        return out

    def place(self, wants: Sequence[Want], size: int) -> Lease:
        """Rows of one slab of `size` rows that hold what the sources hold, with the room that is wanted.

        Nothing is known of them until `settle`; the device has been told to copy what is not there already.
        """
        self._now += 1
        slab, where = self._home(wants, size)
        slab.last = self._now
        copies = [(want, to) for want, to in zip(wants, where.targets, strict=True) if not stays(want, slab, to)]
        for target in where.targets:
            slab.used[target] = self._now
        lease = Lease(slab, where.targets, self.drop)
        with lease:
            if copies:
                self._copy(slab, copies, where.stems)
        return lease

    def settle(
        self, lease: Lease, targets: Sequence[int], lengths: Sequence[int], keys: Sequence[TextKey], states: Array,
        scores: np.ndarray,
    ) -> list[Row]:  # fmt: skip
        """What these rows of a lease hold now; it ends for them."""
        rows, slab = [], lease.slab
        kept = slab in self.slabs
        for target, length, key in zip(targets, lengths, keys, strict=True):
            row = Row(slab, target, length, states, target, float(scores[target]), key)
            if kept:  # not if another call in it failed
                slab.held[target].append(row)
                self.known.setdefault(key, {})[row] = None
            rows.append(row)
        lease.end(targets)
        return rows

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

    def _home(self, wants: Sequence[Want], size: int) -> tuple[Slab, Plan]:
        """The slab that most sources are in already, or else one that is free, or new."""
        sources = [want.source for want in wants if want.source is not None]
        slabs = {id(row.slab): row.slab for row in sources}
        for owner, _ in Counter(id(row.slab) for row in sources).most_common():
            if (found := plan(slabs[owner], wants, size)) is not None:
                return slabs[owner], found
        idle = [(slab, found) for slab in self.slabs if (found := plan(slab, wants, size)) is not None]
        idle.sort(key=lambda each: each[0].last)
        chunks, stems = shape(wants, size)
        need = self._size(size, chunks, stems)
        while True:
            full = sum(map(self._bytes, self.slabs)) + need > self.memory
            if idle and (full or idle[0][0].last < self._now - self._stale):
                return idle[0]
            others = [slab for slab in self.slabs if id(slab) not in slabs and not any(slab.pins)]
            if not full or not others:
                break
            self.drop(min(others, key=lambda slab: slab.last))
        cache = empty_cache(self.config, size, chunks * CHUNK, self.dtype)
        shared = empty_cache(self.config, size // GROUP, stems * CHUNK, self.dtype) if stems else None
        slab = Slab(cache, shared)
        self.slabs.append(slab)
        found = plan(slab, wants, size)
        assert found is not None
        return slab, found

    def _copy(self, slab: Slab, copies: Sequence[tuple[Want, int]], stems: dict[int, Want | None]) -> None:
        """Copy the sources into rows of the slab, and the stems of those groups that get another one."""
        # (from which slab, from its stems?, to the stems?): from where to where, in chunks and rows
        parts = defaultdict[tuple[Slab, bool, bool], list[tuple[int, int, int, int]]](list)

        def add(row: Row, first: int, last: int, to_stems: bool, target: int) -> None:
            for chunk in range(first, last):
                stem, at, index = row.slab.chunk(row.index, chunk)
                parts[row.slab, stem, to_stems].append((at, index, chunk if to_stems else chunk - first, target))

        stemmed = slab.stemmed.copy()
        for group, want in stems.items():
            stemmed[group] = 0 if want is None else want.chunks
            if want is not None and want.source is not None:
                add(want.source, 0, want.chunks, True, group)
        for want, target in copies:
            if want.source is not None:
                add(want.source, int(stemmed[target // GROUP]), -(-want.source.length // CHUNK), False, target)
        slab.stemmed = stemmed
        for group, want in stems.items():
            slab.stem_of[group] = None if want is None else want.stem
            for index in range(group * GROUP, min((group + 1) * GROUP, slab.rows)):
                self._clear(slab, index)
        for _, target in copies:
            self._clear(slab, target)
        written = {(to_stems, place[3]) for (_, _, to_stems), places in parts.items() for place in places}
        read = {(stem, place[1]) for (owner, stem, _), places in parts.items() if owner is slab for place in places}
        # What is written over before it is read is read from a copy.
        before = None if written.isdisjoint(read) else device.copy((slab.cache, slab.stems))
        for (owner, stem, to_stems), places in parts.items():
            into = slab.stems if to_stems else slab.cache
            source = (before if owner is slab and before else (owner.cache, owner.stems))[stem]
            assert into is not None and source is not None
            table = np.zeros((into.rows * len(into.keys[0]), 4), np.int32)
            table[: len(places)] = places
            count = len(places)
            done = device.shift(into, table, count) if source is into else device.move(into, source, table, count)
            if to_stems:
                slab.stems = done
            else:
                slab.cache = done

    def _clear(self, slab: Slab, index: int) -> None:
        for row in slab.held[index]:
            if row.key is not None:
                rows = self.known[row.key]
                del rows[row]
                if not rows:
                    del self.known[row.key]
        slab.held[index] = []

    def _bytes(self, slab: Slab) -> int:
        return self._size(slab.rows, len(slab.cache.keys[0]), slab.most)

    def _size(self, rows: int, chunks: int, stems: int) -> int:
        """Bytes of a slab."""
        chunk = self.config.num_key_value_heads * self.config.head_dim * CHUNK * np.dtype(self.dtype).itemsize
        return 2 * self.config.num_hidden_layers * (rows * chunks + rows // GROUP * stems) * chunk


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
