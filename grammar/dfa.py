"""Minimal automata over bytes: one for each regular language, so that equal languages are equal arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from itertools import count

import numpy as np

from ppl.grammar.errors import TooLargeError


class DFA:
    """`next` [size + 1, 256] is the state behind each byte, `accept` [size + 1] says where a text may end.

    States are numbered as a search from the start, 0, meets them; the last one, `size`, is dead: nothing that is
    accepted goes on from it. Without texts it is the only one. Make them by `DFA.minimal`.
    """

    __slots__ = ("__dict__", "accept", "next")

    def __init__(self, next_: np.ndarray, accept: np.ndarray) -> None:
        self.next = next_
        self.accept = accept

    @classmethod
    def minimal(cls, table: np.ndarray, accept: np.ndarray, classes: np.ndarray) -> DFA:
        """From any automaton that starts in 0: `table` [n, K] of states, n for dead; `classes` [256] below K.

        Moore 1956, "Gedanken-experiments on sequential machines", with hashes for signatures; equality is checked.
        """
        n = len(table)
        reached = _reached(table)
        distance = distances(table, accept)
        kept = np.flatnonzero(reached & (distance >= 0))
        if not len(kept) or kept[0] != 0:
            return cls(np.zeros((1, 256), np.int32), np.zeros(1, bool))
        number = np.full(n + 1, len(kept), np.int32)
        number[kept] = np.arange(len(kept))
        table = np.append(number[table[kept]], np.full((1, table.shape[1]), len(kept), np.int32), 0)
        label = np.append(np.unique(distance[kept], return_inverse=True)[1], len(kept))
        merged, first = _merged(table, label)
        accept = np.append(accept[kept], False)[first]
        return cls(*_numbered(merged[table[first]], accept, merged[0], merged[-1], classes))

    @property
    def size(self) -> int:
        """States that are not dead."""
        return len(self.next) - 1

    @cached_property
    def distance(self) -> np.ndarray:
        """Bytes of the shortest text from each state to the end, int32 [size + 1]; -1 for the dead one."""
        return np.append(distances(self.next[:-1], self.accept[:-1]), np.int32(-1))

    @cached_property
    def classes(self) -> np.ndarray:
        """int32 [256]: equal for bytes that no state tells apart, numbered by the smallest of them."""
        first, inverse = np.unique(self.next, axis=1, return_index=True, return_inverse=True)[1:]
        rank = np.empty(len(first), np.int32)
        rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
        return rank[inverse.reshape(-1)]

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal languages."""
        return blake2b(self.next.tobytes() + self.accept.tobytes(), digest_size=16).digest()

    def walk(self, state: int, data: bytes) -> int:
        """The state behind some bytes."""
        for byte in data:
            state = int(self.next[state, byte])
        return state

    def shortest(self, state: int = 0) -> bytes | None:
        """The first of the shortest texts from a state on; None if there is none."""
        if self.distance[state] < 0:
            return None
        out = bytearray()
        while (left := self.distance[state]) > 0:
            out.append(int(np.argmax(self.distance[self.next[state]] == left - 1)))
            state = self.next[state, out[-1]]
        return bytes(out)

    @cached_property
    def finite(self) -> bool:
        """Whether there are finitely many texts."""
        order = np.argsort(self.classes, kind="stable")
        symbols = order[np.unique(self.classes[order], return_index=True)[1]]
        arrows = self.next[:-1][:, symbols]
        inward = np.bincount(arrows.reshape(-1), minlength=self.size + 1)
        ready, done = np.flatnonzero(inward[:-1] == 0).tolist(), 0
        while ready:  # take away what nothing leads to: all goes, unless there is a loop
            done += 1
            for to in arrows[ready.pop()].tolist():
                inward[to] -= 1
                if to < self.size and inward[to] == 0:
                    ready.append(to)
        return done == self.size

    def counts(self, length: int) -> list[int]:
        """How many texts have 0, 1, ..., `length` bytes."""
        behind = [int(x) for x in self.accept]
        rows = [np.unique(row, return_counts=True) for row in self.next[:-1]]
        out = [behind[0]]
        for _ in range(length):
            behind = [
                sum(behind[to] * times for to, times in zip(tos.tolist(), many.tolist(), strict=True))
                for tos, many in rows
            ] + [0]  # fmt: skip
            out.append(behind[0])
        return out

    def texts(self) -> Iterator[bytes]:
        """All texts, the short ones first, in the order of their bytes."""
        ends = [self.accept]  # ends[n]: from which states a text of n more bytes is accepted
        longest = self.size if self.finite else None
        for length in count():
            if longest is not None and length > longest:
                return
            yield from self._of_length(length, ends)
            ends.append(np.asarray(ends[-1][self.next].any(1)))

    def _of_length(self, length: int, ends: list[np.ndarray]) -> Iterator[bytes]:
        stack = [(b"", 0, length)]
        while stack:
            data, state, left = stack.pop()
            if not ends[left][state]:
                continue
            if left == 0:
                yield data
                continue
            following = np.flatnonzero(ends[left - 1][self.next[state]])[::-1]
            stack += [(data + bytes([byte]), int(self.next[state, byte]), left - 1) for byte in following.tolist()]

    def product(self, other: DFA, accept: np.ndarray, most: int) -> DFA:
        """Both at once: what the pair of their answers is accepted for, `accept` [2, 2] by (this, other).

        Raises:
            TooLargeError: more than `most` pairs of states.
        """
        wide = other.size + 1
        pairs = np.unique(np.stack([self.classes, other.classes]), axis=1, return_index=True, return_inverse=True)
        symbols, classes = pairs[1], pairs[2].reshape(-1)
        known, frontier, rows = np.zeros(1, np.int64), np.zeros(1, np.int64), list[np.ndarray]()
        while len(frontier):
            mine, theirs = np.divmod(frontier, wide)
            to = self.next[mine][:, symbols].astype(np.int64) * wide + other.next[theirs][:, symbols]
            rows.append(to)
            new = np.setdiff1d(to, known)
            known, frontier = np.concatenate([known, new]), new
            if len(known) > most:
                raise TooLargeError(f"the product of two automata of {self.size} and {other.size} states has more than "
                                    f"{most}: make them simpler, or raise the limit, max_states=")  # fmt: skip
        order = np.argsort(known, kind="stable")
        table = order[np.searchsorted(known[order], np.concatenate(rows))].astype(np.int32)
        mine, theirs = np.divmod(known, wide)
        return DFA.minimal(table, accept[self.accept[mine].astype(int), other.accept[theirs].astype(int)], classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DFA) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"DFA({self.size} states)"


def distances(table: np.ndarray, accept: np.ndarray) -> np.ndarray:
    """Steps from each state of `table` [n, K] (n: dead) to one that accepts, int32 [n]; -1 where there is no way."""
    n, width = table.shape
    to = table.reshape(-1)
    order = np.argsort(to, kind="stable")
    source, starts = order // width, np.searchsorted(to[order], np.arange(n + 1))
    out = np.full(n, -1, np.int32)
    frontier = np.flatnonzero(accept[:n])
    for step in count():
        out[frontier] = step
        if not len(frontier):
            return out
        into = np.concatenate([source[starts[state] : starts[state + 1]] for state in frontier])
        frontier = np.unique(into[out[into] < 0])
    raise AssertionError


def _reached(table: np.ndarray) -> np.ndarray:
    """Which states are reached from 0."""
    seen = np.zeros(len(table) + 1, bool)
    frontier = np.zeros(1, np.int64)
    while len(frontier):
        seen[frontier] = True
        to = np.unique(table[frontier])
        frontier = to[~seen[to] & (to < len(table))]
    return seen[:-1]


def _merged(table: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_refined`, and the first state of each label; no two hashes fell together."""
    seed = 0
    while True:
        merged = _refined(table, label, np.random.default_rng(seed))
        first = np.unique(merged, return_index=True)[1]
        if (merged[table] == merged[table[first]][merged]).all():
            return merged, first
        seed += 1


def _refined(table: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels that are equal for states of equal futures (up to a hash), from labels that never differ for those."""
    words = rng.integers(1, 2**63, (2, len(table)), np.uint64) * np.uint64(2) + np.uint64(1)
    columns = rng.integers(1, 2**63, table.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    groups = label.max() + 1
    while True:
        behind = words[0][label][table]  # a number for each label
        behind ^= behind >> np.uint64(29)
        sums = (behind * columns).sum(1, dtype=np.uint64) + words[1][label]
        label = np.unique(sums, return_inverse=True)[1].reshape(-1)
        if label.max() + 1 == groups:
            return label
        groups = label.max() + 1


def _numbered(
    table: np.ndarray, accept: np.ndarray, start: int, dead: int, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """States in the order in which a search by bytes meets them, the dead one last."""
    symbols = np.unique(classes, return_index=True)[1]
    columns = classes[np.sort(symbols)]  # in the order of their smallest bytes
    order, number = [int(start)], {int(start): 0}
    for state in order:
        for to in table[state, columns].tolist():
            if to != dead and to not in number:
                number[to] = len(order)
                order.append(to)
    new = np.full(len(table), len(order), np.int32)
    new[order] = np.arange(len(order))
    whole = np.append(new[table[order]], np.full((1, table.shape[1]), len(order), np.int32), 0)
    return np.ascontiguousarray(whole[:, classes]), np.append(accept[order], False)
