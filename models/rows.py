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
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models import decode as device
from ppl.models.text import Text, TextKey
from ppl.models.transformer import CHUNK, GROUP, Cache, Config, Stems, empty_cache

LEAST_STEM = 4  # chunks that a slab with stems has room for, at least: few shapes
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

    __slots__ = ("cache", "held", "last", "pins", "stem_of", "stemmed", "stems", "used")

    def __init__(self, cache: Cache, stems: Cache | None) -> None:
        self.cache = cache
        self.stems = stems
        groups = max(1, cache.rows // GROUP)
        self.stem_of: list[TextKey | None] = [None] * groups
        """Whose stem each group of rows has."""
        self.stemmed = np.zeros(groups, np.int32)
        """Chunks of it."""
        self.held: list[list[Row]] = [[] for _ in range(cache.rows)]
        self.used = [0] * cache.rows
        """When each row was last asked for."""
        self.pins = [0] * cache.rows
        """How many calls need the row as it is."""
        self.last = 0

    @property
    def rows(self) -> int:
        return len(self.held)

    @property
    def most(self) -> int:
        """Chunks that a stem can have."""
        return 0 if self.stems is None else len(self.stems.keys[0])

    @property
    def shared(self) -> Stems | None:
        """The operand of a call."""
        return None if self.stems is None else Stems(self.stems, jnp.asarray(self.stemmed))

    def chunk(self, index: int, chunk: int) -> tuple[bool, int, int]:
        """Where a chunk of a row is: in the stems or not, and its first two indices."""
        group = index // GROUP
        before = int(self.stemmed[group])
        return (True, chunk, group) if chunk < before else (False, chunk - before, index)

    def room(self, index: int) -> int:
        """Tokens that a row can hold, its stem included."""
        return self.cache.capacity + CHUNK * int(self.stemmed[index // GROUP])


class Want(NamedTuple):
    """What one text of a call needs: the row it goes on from (None: it is empty), its stem, room."""

    source: Row | None
    stem: TextKey | None
    """Of the text whose whole chunks it is."""
    chunks: int
    """Of the stem; 0 without one."""
    end: int
    """Tokens that its row has to have room for."""

    @classmethod
    def of(cls, source: Row | None, text: Text | None, end: int) -> Want:
        """Going on from `text`, whose row is `source`."""
        if source is None or text is None:
            return cls(source, None, 0, end)
        chunks = len(text.prompt) // CHUNK
        return cls(source, text.prompt.key if chunks else None, chunks, end)


class Plan(NamedTuple):
    """Where the texts of a call go in a slab, and the groups that get another stem: which, or None."""

    targets: list[int]
    stems: dict[int, Want | None]


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

    def place(self, wants: Sequence[Want], size: int) -> tuple[Slab, list[int]]:
        """Rows of one slab of `size` rows that hold what the sources hold, with the room that is wanted.

        They are pinned, and nothing is known of them until `settle`; the device has been told to copy what is not
        there already.
        """
        self._now += 1
        slab, plan = self._home(wants, size)
        slab.last = self._now
        copies = [(want, to) for want, to in zip(wants, plan.targets, strict=True) if not _stays(want, slab, to)]
        for target in plan.targets:
            slab.pins[target] = 1
            slab.used[target] = self._now
        if copies:
            self._copy(slab, copies, plan.stems)
        return slab, plan.targets

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

    def _home(self, wants: Sequence[Want], size: int) -> tuple[Slab, Plan]:
        """The slab that most sources are in already, or else one that is free, or new."""
        sources = [want.source for want in wants if want.source is not None]
        slabs = {id(row.slab): row.slab for row in sources}
        for owner, _ in Counter(id(row.slab) for row in sources).most_common():
            if (found := plan(slabs[owner], wants, size)) is not None:
                return slabs[owner], found
        idle = [(slab, found) for slab in self.slabs if (found := plan(slab, wants, size)) is not None]
        idle.sort(key=lambda each: each[0].last)
        chunks, stems = _shape(wants, size)
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
            if row.key is not None and self.known.get(row.key) is row:
                del self.known[row.key]
        slab.held[index] = []

    def _bytes(self, slab: Slab) -> int:
        return self._size(slab.rows, len(slab.cache.keys[0]), slab.most)

    def _size(self, rows: int, chunks: int, stems: int) -> int:
        """Bytes of a slab."""
        chunk = self.config.num_key_value_heads * self.config.head_dim * CHUNK * np.dtype(self.dtype).itemsize
        return 2 * self.config.num_hidden_layers * (rows * chunks + rows // GROUP * stems) * chunk


def plan(slab: Slab, wants: Sequence[Want], size: int) -> Plan | None:
    """Where the texts of a call may go in this slab; None: there is not the room.

    A text whose row is there, and holds nothing longer, stays. Others go beside their like, into a group that has their
    stem, or into one that is free and can get it; what does not fill a group takes one where there are enough.
    """
    if slab.rows != size:
        return None
    targets, taken, wanted = [-1] * len(wants), set[int](), defaultdict[TextKey | None, list[int]](list)
    for i, want in enumerate(wants):
        row = want.source
        if row is not None and row.index not in taken and _stays(want, slab, row.index):
            targets[i] = row.index
            taken.add(row.index)
        else:
            wanted[want.stem if want.chunks <= slab.most else None].append(i)
    asked = {want.source.index for want in wants if want.source is not None and want.source.slab is slab}

    def rank(index: int) -> tuple[bool, bool, int]:
        """Rows that are better taken come first."""
        return index in asked, bool(slab.held[index]), slab.used[index]

    def take(texts: list[int], rows: list[int]) -> None:
        count = min(len(texts), len(rows))
        for i, index in zip(texts[:count], rows[:count], strict=True):
            targets[i] = index
        del texts[:count], rows[:count]

    free = defaultdict[int, list[int]](list)
    for index in sorted((i for i in range(size) if not slab.pins[i] and i not in taken), key=rank):
        free[index // GROUP].append(index)
    for group, rows in free.items():
        if slab.stem_of[group] is not None:
            take(wanted[slab.stem_of[group]], rows)
    plain = wanted.pop(None, [])
    whole = sorted((group for group, rows in free.items() if len(rows) == GROUP), key=lambda g: max(map(rank, free[g])))
    loose = [i for group, rows in free.items() if len(rows) < GROUP and slab.stem_of[group] is None for i in rows]
    spare = len(loose) + GROUP * len(whole) - len(plain) - sum(map(len, wanted.values()))
    if spare < 0:
        return None
    stems = dict[int, Want | None]()
    for texts in wanted.values():
        while texts and whole and spare >= GROUP - len(texts):
            spare -= max(0, GROUP - len(texts))
            stems[whole[0]] = wants[texts[0]]
            take(texts, free[whole.pop(0)])
        plain += texts
    loose += [i for group in whole if slab.stem_of[group] is None for i in free[group]]
    take(plain, sorted(loose, key=rank))
    for group in whole if plain else ():
        if plain and slab.stem_of[group] is not None:
            stems[group] = None
            take(plain, free[group])
    chunks = {group: 0 if want is None else want.chunks for group, want in stems.items()}
    for want, index in zip(wants, targets, strict=True):
        if want.end > slab.cache.capacity + CHUNK * chunks.get(index // GROUP, int(slab.stemmed[index // GROUP])):
            return None
    return Plan(targets, stems)


def _stays(want: Want, slab: Slab, index: int) -> bool:
    """Whether a text can go on where it is, in this row: nothing longer would be lost, and there is room."""
    row = want.source
    if row is None or row.slab is not slab or row.index != index or slab.pins[index]:
        return False
    return slab.held[index][-1] is row and slab.room(index) >= want.end


def _shape(wants: Sequence[Want], size: int) -> tuple[int, int]:
    """Chunks of the rows and of the stems of a new slab."""
    if size < GROUP or not any(want.chunks for want in wants):
        return device.chunks_of(max(want.end for want in wants)), 0
    stems = LEAST_STEM
    while stems < max(want.chunks for want in wants):
        stems *= 2
    counts = Counter(want.stem for want in wants)
    all_have_one = None not in counts and sum(-(-count // GROUP) * GROUP for count in counts.values()) <= size
    room = max(want.end - CHUNK * want.chunks if all_have_one else want.end for want in wants)
    return device.chunks_of(room), stems


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
