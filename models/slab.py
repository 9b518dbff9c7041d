"""A slab: a buffer of rows on the device, who holds what in it, and who is at work on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.text import TextKey
from ppl.models.transformer import CHUNK, GROUP, Cache, Stems


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


class Hold:
    """Rows that stay as they are until they are let go: at the latest when nobody has this any more."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Row, int] = {}

    def keep(self, row: Row, times: int = 1) -> None:
        """To be let go so many times."""
        row.slab.pins[row.index] += times
        self._counts[row] = self._counts.get(row, 0) + times

    def let_go(self, row: Row) -> None:
        """The counterpart of one `keep`."""
        row.slab.pins[row.index] -= 1
        self._counts[row] -= 1

    def __del__(self) -> None:
        for row, times in self._counts.items():
            row.slab.pins[row.index] -= times


class Lease:
    """Rows that a call writes to: nobody else does until it ends, for each when it is settled.

    As a context it ends with an exception of the call, and at the latest it does when nobody has it any more. Who knows
    what is in a slab then: it is dropped.
    """

    __slots__ = ("_drop", "_open", "slab", "targets")

    def __init__(self, slab: Slab, targets: list[int], drop: Callable[[Slab], None]) -> None:
        self.slab = slab
        self.targets = targets
        self._drop = drop
        self._open = set(targets)
        for target in targets:
            slab.pins[target] = 1

    def end(self, targets: Iterable[int] | None = None) -> None:
        """For these rows, or all."""
        for target in list(self._open if targets is None else targets):
            self._open.remove(target)
            self.slab.pins[target] -= 1

    def __enter__(self) -> None:
        pass

    def __exit__(self, failed: type | None, *_: object) -> None:
        if failed is not None:
            self._drop(self.slab)
            self.end()

    def __del__(self) -> None:
        if self._open:
            self.__exit__(GeneratorExit)
