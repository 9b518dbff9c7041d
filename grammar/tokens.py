"""From automata over bytes to automata over the tokens of a vocabulary.

Tokens that no state tells apart are one class, so that the table is small: `next[states, classes]` and `classes[V]`.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np

from ppl.grammar.dfa import DFA, distances
from ppl.grammar.errors import UnreachableByTokensError
from ppl.grammar.vocabulary import Vocabulary

BLOCK = 64  # states that are walked at once
STATES, CLASSES = 8, 64  # the least rows and columns of a table on the device


class TokenDFA:
    """Which token may follow which: sequences of tokens whose bytes are a text of a language, and then an end.

    `next` [size + 2, K] is the state behind each class of tokens, `classes` int32 [V] the class of each token. State 0
    starts; `done` = size is behind an end-of-text token, where the text before it is in the language; `done + 1` is
    dead. `accept` [size + 2]: the tokens so far write a text of the language. From every state but the dead one tokens
    lead to one that accepts, in `distance` [size + 2] tokens at least (-1: none do).
    """

    def __init__(self, next_: np.ndarray, classes: np.ndarray, accept: np.ndarray) -> None:
        self.next = next_
        self.classes = classes
        self.accept = accept

    @classmethod
    def of(cls, dfa: DFA, vocabulary: Vocabulary) -> TokenDFA:
        """Of the texts of `dfa` in these tokens.

        Raises:
            UnreachableByTokensError: there are texts, but the vocabulary can write none. (Of no texts at all, the
                automaton has no state but the dead one.)
        """
        rows, of_token = _spelled(dfa, vocabulary)
        table, of_row = _by_class(dfa.size, rows, *_walks(dfa, rows))
        accept = dfa.accept[:-1]
        kept = np.flatnonzero(distances(table, accept) >= 0)
        if dfa.size and (not len(kept) or kept[0] != 0):
            witness = (dfa.shortest() or b"").decode(errors="replace")
            raise UnreachableByTokensError(f"no sequence of tokens writes a text of this language, such as {witness!r} "
                                           f"(in {vocabulary!r})", witness)  # fmt: skip
        kept = kept[_reached_among(table, kept)[kept]]
        number = np.full(dfa.size + 1, len(kept) + 1, np.int32)
        number[kept] = np.arange(len(kept))
        table = np.append(number[table[kept]], np.full((2, table.shape[1]), len(kept) + 1, np.int32), 0)
        accept = np.append(accept[kept], [True, False])
        end = np.where(accept, len(kept), len(kept) + 1).astype(np.int32)
        end[len(kept) :] = len(kept) + 1
        # One more class for tokens that are no text, and one for those that end it.
        table = np.concatenate([table, np.full((len(table), 1), len(kept) + 1, np.int32), end[:, None]], 1)
        classes = np.full(vocabulary.size, table.shape[1] - 2, np.int32)
        ids = vocabulary.joined[0]
        classes[ids] = np.append(of_row, table.shape[1] - 2)[of_token]
        classes[sorted(vocabulary.eos)] = table.shape[1] - 1
        return cls(*merged(table, classes), accept)

    @property
    def size(self) -> int:
        """States that are neither done nor dead."""
        return len(self.next) - 2

    @property
    def done(self) -> int:
        return self.size

    @cached_property
    def distance(self) -> np.ndarray:
        """int32 [size + 2]"""
        return np.append(distances(self.next[:-1], self.accept[:-1]), np.int32(-1))

    def start(self) -> int:
        """The state before the first token."""
        return 0 if self.size else self.done + 1

    def advance(self, state: int, token: int) -> int:
        """The state behind one more token."""
        return int(self.next[state, self.classes[token]])

    def accepts(self, state: int) -> bool:
        """Whether the tokens so far write a text of the language."""
        return bool(self.accept[state])

    def is_dead(self, state: int) -> bool:
        """Whether no tokens lead to a text of the language."""
        return state > self.done

    def mask(self, state: int) -> np.ndarray:
        """Which tokens can follow, bool [V]."""
        return self.next[state, self.classes] <= self.done

    def completed(self) -> TokenDFA:
        """The same, but what cannot go on is done: a text that is in the language, and begins no longer one.

        It is so as soon as it is written, and no end-of-text token is asked for.
        """
        goes_on = (self.next[:, self._text_classes] < self.done).any(1)
        over = self.accept & ~goes_on
        over[[0, self.done, self.done + 1]] = False
        to = np.where(over, self.done, np.arange(len(self.next))).astype(np.int32)
        return trimmed(to[self.next], self.classes, self.accept)

    def until(self, stops: np.ndarray) -> TokenDFA:
        """The same, but a block ends with the token that completes a stop, where it is in the language.

        `stops` [states, V] is the automaton of the stop; its last state is final and stands for an end-of-text token
        too.
        """
        final = len(stops) - 1
        seen, of_stop = np.unique(stops[:-1], axis=1, return_inverse=True)
        joint, classes = np.unique(np.stack([self.classes, of_stop.reshape(-1)]), axis=1, return_inverse=True)
        wide, dead = self.done, self.done * final + 1
        mine, theirs = np.divmod(np.arange(wide * final), final)
        to, matched = self.next[mine][:, joint[0]], seen[:, joint[1]][theirs]
        ended = np.where(self.accept[to], dead - 1, dead)
        going = np.where(to < self.done, to * final + matched, np.where(to == self.done, dead - 1, dead))
        table = np.where(matched == final, ended, going)
        table = np.append(table, np.full((2, table.shape[1]), dead), 0).astype(np.int32)
        accept = np.append(self.accept[mine], [True, False])
        return trimmed(table, classes.reshape(-1).astype(np.int32), accept)

    @cached_property
    def _text_classes(self) -> np.ndarray:
        """Classes of tokens that do not lead to `done`, where they lead anywhere: those that write something."""
        return np.flatnonzero(~(self.next == self.done).any(0))

    def __repr__(self) -> str:
        return f"TokenDFA({self.size} states, {self.next.shape[1]} classes of {len(self.classes)} tokens)"


def trimmed(table: np.ndarray, classes: np.ndarray, accept: np.ndarray) -> TokenDFA:
    """Without states that are not reached or lead nowhere; the last two of `table` are done and dead."""
    dead = len(table) - 1
    ways = distances(table[:-1], accept[:-1])
    kept = np.flatnonzero(ways[:-1] >= 0)
    kept = kept[_reached_among(table[:-1], np.append(kept, dead - 1))[kept]] if len(kept) and kept[0] == 0 else kept[:0]
    number = np.full(dead + 1, len(kept) + 1, np.int32)
    number[[*kept, dead - 1]] = np.arange(len(kept) + 1)
    small = np.append(number[table[kept]], np.full((2, table.shape[1]), len(kept) + 1, np.int32), 0)
    return TokenDFA(*merged(small, classes), np.append(accept[kept], [True, False]))


def merged(table: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With one class for columns that are equal, and none without tokens."""
    small, of_class = np.unique(table, axis=1, return_inverse=True)
    used, classes = np.unique(of_class.reshape(-1)[classes], return_inverse=True)
    return np.ascontiguousarray(small[:, used]), classes.astype(np.int32)


def padded(table: np.ndarray, ahead: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """A table, whose last state is never left, and what is known of its states, in one shape for nearly all.

    So programs are compiled once for many grammars. What is added is never entered.
    """
    rows, columns = (_room(length, least) for length, least in zip(table.shape, (STATES, CLASSES), strict=True))
    more = rows - len(table)
    wide = np.pad(table, ((0, more), (0, columns - table.shape[1])), constant_values=len(table) - 1)
    return narrow(wide), None if ahead is None else np.pad(ahead, ((0, 0), (0, more)), constant_values=-np.inf)


def narrow(numbers: np.ndarray) -> np.ndarray:
    """In the fewest bits. Tables of one shape have the same: their last state and class are among the numbers."""
    most = numbers.max(initial=0)
    return numbers.astype(np.uint8 if most < 2**8 else np.int16 if most < 2**15 else np.int32)


def _room(length: int, least: int) -> int:
    while least < length:
        least *= 2
    return least


def _spelled(dfa: DFA, vocabulary: Vocabulary) -> tuple[list[bytes], np.ndarray]:
    """Tokens as strings of classes of bytes: the different ones, sorted, and which one each token is.

    Those with a byte that is in no text are one more, that is not in the list.
    """
    _, data, starts = vocabulary.joined
    symbols = dfa.classes.astype(np.uint8)[data]
    lost = (dfa.next[:-1] == dfa.size).all(0)[data]
    bad = np.add.reduceat(lost, starts[:-1]) > 0 if len(data) else np.zeros(0, bool)
    whole = symbols.tobytes()
    words = [whole[low:high] for low, high in pairwise(starts.tolist())]
    rows = sorted({word for word, no in zip(words, bad.tolist(), strict=True) if not no})
    index = {word: i for i, word in enumerate(rows)}
    of_token = [len(rows) if no else index[word] for word, no in zip(words, bad.tolist(), strict=True)]
    return rows, np.array(of_token, np.int64)


def _walks(dfa: DFA, rows: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (state, row, state behind it) where that is not dead, the rows being walked together as a trie."""
    lengths = np.array([len(row) for row in rows], np.int64)
    deepest = int(lengths.max(initial=0))
    letters = np.zeros((len(rows), deepest), np.uint8)
    for i, row in enumerate(rows):
        letters[i, : len(row)] = np.frombuffer(row, np.uint8)
    symbols = np.zeros(int(dfa.classes.max(initial=0)) + 1, np.int64)
    symbols[dfa.classes] = np.arange(256)
    by_symbol = dfa.next[:, symbols]
    same = np.zeros(len(rows), np.int64)  # letters that a row has in common with the one before
    if len(rows) > 1:
        equal = (letters[1:] == letters[:-1]) & (np.arange(deepest) < np.minimum(lengths[1:], lengths[:-1])[:, None])
        same[1:] = np.where(equal.all(1), deepest, equal.argmin(1))
    levels = list[tuple[np.ndarray, np.ndarray, np.ndarray]]()  # of each depth: letter, row that ends or -1, children
    above = np.zeros(len(rows), np.int64)  # node of each row
    for depth in range(deepest):
        here = np.flatnonzero(lengths > depth)
        new = same[here] <= depth
        node = np.cumsum(new) - 1
        first = here[new]
        ends = np.full(len(first), -1, np.int64)
        over = lengths[here] == depth + 1
        ends[node[over]] = here[over]
        begins = np.searchsorted(above[first], np.arange((len(levels[-1][0]) if levels else 1) + 1))
        levels.append((letters[first, depth].astype(np.int64), ends, begins))
        above = np.full(len(rows), -1, np.int64)
        above[here] = node
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for low in range(0, dfa.size, BLOCK):
        source = np.arange(low, min(low + BLOCK, dfa.size))
        state, node = source, np.zeros(len(source), np.int64)
        for letter, ends, begins in levels:
            many = begins[node + 1] - begins[node]
            child = np.repeat(begins[node] - np.append(0, np.cumsum(many)[:-1]), many) + np.arange(many.sum())
            source, state = np.repeat(source, many), by_symbol[np.repeat(state, many), letter[child]]
            alive = state < dfa.size
            source, state, node = source[alive], state[alive], child[alive]
            row = ends[node]
            found.append((source[row >= 0], row[row >= 0], state[row >= 0]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    sources, ends, states = zip(*found, strict=True)
    return np.concatenate(sources), np.concatenate(ends), np.concatenate(states)


def _by_class(
    size: int, rows: list[bytes], source: np.ndarray, row: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A table [size, K] of states (`size`: dead), and the column of each row: equal ones fall together."""
    order = np.argsort(row, kind="stable")
    source, row, state = source[order], row[order], state[order]
    counts = np.bincount(row, minlength=len(rows))
    seed = 0
    while True:
        words = np.random.default_rng(seed).integers(1, 2**63, (2, size + 1), np.uint64) * np.uint64(2) + np.uint64(1)
        sums = np.append(np.uint64(0), np.cumsum(words[0][source] * words[1][state], dtype=np.uint64))
        ends = np.append(0, np.cumsum(counts))
        first, column = np.unique(sums[ends[1:]] - sums[ends[:-1]], return_index=True, return_inverse=True)[1:]
        table = np.full((size, len(first)), size, np.int32)
        chosen = np.zeros(len(rows), bool)
        chosen[first] = True
        mine = chosen[row]
        table[source[mine], column[row[mine]]] = state[mine]
        if (table[source, column[row]] == state).all() and (counts == counts[first][column]).all():
            return table, column  # no two hashes fell together
        seed += 1


def _reached_among(table: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which states are reached from 0 through those that are kept, bool [as many as `table` has states, or more]."""
    alive = np.zeros(max(len(table), int(table.max(initial=0))) + 1, bool)
    alive[kept] = True
    seen = np.zeros(len(alive), bool)
    frontier = np.zeros(1, np.int64)
    while len(frontier):
        seen[frontier] = True
        to = np.unique(table[frontier[frontier < len(table)]])
        frontier = to[~seen[to] & alive[to]]
    return seen
