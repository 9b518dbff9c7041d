"""A probabilistic grammar in Chomsky's normal form: the same distribution, by rules that charts can use."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

NEWTON = 200  # steps at most, for how probable it is to become nothing


class Binary(NamedTuple):
    """head -> left right, with log of its probability."""

    head: int
    left: int
    right: int
    log_p: float


@dataclass
class Trie:
    """Terminals by their bytes. `under` are log weights of all terminals from here on, by head; `final` of this one."""

    children: dict[int, Trie] = field(default_factory=dict)
    under: dict[int, float] = field(default_factory=dict)
    final: dict[int, float] = field(default_factory=dict)
    least: dict[int, int] = field(default_factory=dict)
    """The fewest bytes from here to the end of a terminal, by head."""
    number: int = -1
    """Of the terminal that ends here."""

    def add(self, data: bytes, number: int, heads: dict[int, float]) -> None:
        """A terminal, with log of the probability by which each head becomes it."""
        node = self
        for at, byte in enumerate([*data, None]):
            for head, log_p in heads.items():
                node.under[head] = log_add(node.under.get(head, -math.inf), log_p)
                node.least[head] = min(node.least.get(head, len(data)), len(data) - at)
            if byte is not None:
                node = node.children.setdefault(byte, Trie())
        node.final, node.number = heads, number


@dataclass(frozen=True, eq=False)
class NormalForm:
    """Rules head -> left right and head -> terminal, that sum to 1 for each head.

    The grammar becomes the empty text with probability exp(`log_empty`), else what `start` becomes.
    """

    binary: list[Binary]
    lexical: dict[bytes, dict[int, float]]
    """Of each terminal: log of the probability by which each head becomes it."""
    size: int
    """How many nonterminals there are."""
    start: int
    """-1 if there is only the empty text."""
    log_empty: float
    log_some: float
    """log(1 - P(empty)), nats"""

    @classmethod
    def of(cls, rules: Sequence[tuple[str, tuple[str | bytes, ...], float]], start: str) -> NormalForm:
        """Of rules that sum to 1 for each head, of which each becomes some text with probability 1.

        Rules are cut in two, what becomes nothing is taken out, and chains of one nonterminal are summed up.
        """
        parts = _Parts()
        for head, body, p in rules:
            parts.add(parts.index(head), body, p)
        size = len(parts.numbers)
        nothing = _nullable(parts, size)
        some = 1 - nothing
        unit, binary = np.zeros((size, size)), defaultdict[tuple[int, int, int], float](float)
        for (head, one), p in parts.unit.items():
            unit[head, one] += p
        for (head, left, right), p in parts.binary.items():
            unit[head, left] += p * nothing[right]
            unit[head, right] += p * nothing[left]
            if some[left] > 0 and some[right] > 0:
                binary[head, left, right] += p * some[left] * some[right]
        alive = some > 0
        scale = np.where(alive, some, 1.0)
        chains = closure(unit * some[None, :] / scale[:, None])
        summed, lexical = defaultdict[tuple[int, int, int], float](float), defaultdict[bytes, dict[int, float]](dict)
        for (head, left, right), p in binary.items():
            for above in np.flatnonzero(chains[:, head]):
                summed[int(above), left, right] += float(chains[above, head]) * p / scale[head]
        for (head, data), p in parts.lexical.items():
            for above in np.flatnonzero(chains[:, head]):
                weights = lexical[data]
                weights[int(above)] = weights.get(int(above), 0.0) + float(chains[above, head]) * p / scale[head]
        first = parts.index(start)
        logs = {data: {head: math.log(p) for head, p in heads.items()} for data, heads in sorted(lexical.items())}
        empty, rest = float(nothing[first]), float(some[first])
        return cls(
            [Binary(*names, math.log(p)) for names, p in sorted(summed.items())], logs, size,
            first if rest > 0 else -1, math.log(empty) if empty else -math.inf, math.log(rest) if rest else -math.inf,
        )  # fmt: skip

    @cached_property
    def trie(self) -> Trie:
        root = Trie()
        for number, (data, heads) in enumerate(self.lexical.items()):
            root.add(data, number, heads)
        return root

    @cached_property
    def by_left(self) -> dict[int, list[Binary]]:
        """Rules by what stands left."""
        out: dict[int, list[Binary]] = defaultdict(list)
        for rule in self.binary:
            out[rule.left].append(rule)
        return dict(out)

    @cached_property
    def corners(self) -> list[list[tuple[int, float]]]:
        """For each nonterminal those that it can begin with, itself too, and log of how many of each on average."""
        matrix = np.zeros((self.size, self.size))
        for rule in self.binary:
            matrix[rule.head, rule.left] += math.exp(rule.log_p)
        table = closure(matrix)
        return [[(int(to), math.log(row[to])) for to in np.flatnonzero(row)] for row in table]

    @cached_property
    def least(self) -> list[float]:
        """The fewest bytes that each nonterminal becomes."""
        out = [math.inf] * self.size
        for data, heads in self.lexical.items():
            for head in heads:
                out[head] = min(out[head], len(data))
        changed = True
        while changed:
            changed = False
            for rule in self.binary:
                if (size := out[rule.left] + out[rule.right]) < out[rule.head]:
                    out[rule.head], changed = size, True
        return out

    @cached_property
    def corner_least(self) -> np.ndarray:
        """The fewest bytes behind the second where the first begins with it, [size, size]."""
        out = np.full((self.size, self.size), math.inf)
        for rule in self.binary:
            out[rule.head, rule.left] = min(out[rule.head, rule.left], self.least[rule.right])
        np.fill_diagonal(out, 0.0)
        for middle in range(self.size):
            np.minimum(out, out[:, middle, None] + out[None, middle], out=out)
        return out


class _Parts:
    """Rules cut into two symbols at most; what is in between has names of its own."""

    def __init__(self) -> None:
        self.numbers: dict[object, int] = {}
        self.empty: dict[int, float] = defaultdict(float)
        self.unit: dict[tuple[int, int], float] = defaultdict(float)
        self.binary: dict[tuple[int, int, int], float] = defaultdict(float)
        self.lexical: dict[tuple[int, bytes], float] = defaultdict(float)

    def index(self, name: object) -> int:
        return self.numbers.setdefault(name, len(self.numbers))

    def add(self, head: int, body: tuple[str | bytes, ...], p: float) -> None:
        if not body:
            self.empty[head] += p
        elif len(body) > 1:
            self.binary[head, self._part(body[:1]), self._part(body[1:])] += p
        elif isinstance(body[0], bytes):
            self.lexical[head, body[0]] += p
        else:
            self.unit[head, self.index(body[0])] += p

    def _part(self, body: tuple[str | bytes, ...]) -> int:
        """A nonterminal that becomes this and nothing else."""
        if len(body) == 1 and isinstance(body[0], str):
            return self.index(body[0])
        fresh = body not in self.numbers
        head = self.index(body)
        if fresh:
            self.add(head, body, 1.0)
        return head


def _nullable(parts: _Parts, size: int) -> np.ndarray:
    """How probable each nonterminal is to become nothing: the least solution, by Newton's method from 0.

    (Etessami and Yannakakis 2009, "Recursive Markov chains, stochastic grammars, and monotone systems".)
    """
    empty = np.zeros(size)
    for head, p in parts.empty.items():
        empty[head] = p
    can = _closed(parts, empty > 0, operator.and_)
    x = np.zeros(size)
    for _ in range(NEWTON if can.any() else 0):
        value, slope = empty.copy(), np.zeros((size, size))
        for (head, one), p in parts.unit.items():
            value[head] += p * x[one]
            slope[head, one] += p
        for (head, left, right), p in parts.binary.items():
            value[head] += p * x[left] * x[right]
            slope[head, left] += p * x[right]
            slope[head, right] += p * x[left]
        where = np.ix_(can, can)
        change = np.zeros(size)
        try:
            change[can] = np.linalg.solve(np.eye(int(can.sum())) - slope[where], (value - x)[can])
        except np.linalg.LinAlgError:  # at the solution, of a grammar whose growth is 1
            break
        x = np.clip(x + change, 0.0, 1.0)
        if np.abs(change).max() < 1e-15:
            break
    lexical = np.zeros(size, bool)
    lexical[[head for head, _ in parts.lexical]] = True
    # What becomes nothing but the empty text does so always: rounding would leave it something else.
    return np.where(_closed(parts, lexical, operator.or_), x, 1.0)


def _closed(parts: _Parts, have: np.ndarray, join: Callable[[bool, bool], bool]) -> np.ndarray:
    """Which nonterminals have something, where a rule has it if its parts do: both, or one of them, as `join` says."""
    while True:
        more = have.copy()
        for head, one in parts.unit:
            more[head] |= have[one]
        for head, left, right in parts.binary:
            more[head] |= join(have[left], have[right])
        if (more == have).all():
            return have
        have = more


def closure(matrix: np.ndarray) -> np.ndarray:
    """The sum of all powers of a matrix that is not negative; 0 exactly where there is no path."""
    size = len(matrix)
    path = np.eye(size, dtype=bool) | (matrix > 0)
    for middle in range(size):
        path |= path[:, middle, None] & path[None, middle]
    return np.where(path, np.linalg.inv(np.eye(size) - matrix), 0.0)


def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
