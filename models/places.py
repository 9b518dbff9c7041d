"""Where in a slab the texts of a call go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ppl.models.decode import chunks_of
from ppl.models.slab import Row, Slab
from ppl.models.text import Text, TextKey
from ppl.models.transformer import CHUNK, GROUP

LEAST_STEM = 4  # chunks that a slab with stems has room for, at least: few shapes


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
        if row is not None and row.index not in taken and stays(want, slab, row.index):
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


def stays(want: Want, slab: Slab, index: int) -> bool:
    """Whether a text can go on where it is, in this row: nothing longer would be lost, and there is room."""
    row = want.source
    if row is None or row.slab is not slab or row.index != index or slab.pins[index]:
        return False
    return slab.held[index][-1] is row and slab.room(index) >= want.end


def shape(wants: Sequence[Want], size: int) -> tuple[int, int]:
    """Chunks of the rows and of the stems of a new slab."""
    if size < GROUP or not any(want.chunks for want in wants):
        return chunks_of(max(want.end for want in wants)), 0
    stems = LEAST_STEM
    while stems < max(want.chunks for want in wants):
        stems *= 2
    counts = Counter(want.stem for want in wants)
    all_have_one = None not in counts and sum(-(-count // GROUP) * GROUP for count in counts.values()) <= size
    room = max(want.end - CHUNK * want.chunks if all_have_one else want.end for want in wants)
    return chunks_of(room), stems
