"""The inside algorithm (Baker 1979) on the device: log P of many texts under a grammar in normal form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.grammar.normal_form import NormalForm

TOGETHER = 16  # texts of a call, at most
ROOM = 2**25  # numbers that a step may make


class Tables(NamedTuple):
    """A grammar on the device."""

    lexical: Array
    """log P of each terminal from each head, float32 [terminals, nonterminals]."""
    pairs: Array
    """What can stand side by side, int32 [pairs, 2]."""
    pair_of: Array
    """Of each rule."""
    heads: Array
    """Of each rule, int32 [rules]."""
    log_p: Array
    """Of each rule, nats."""

    @classmethod
    def of(cls, grammar: NormalForm) -> Tables:
        lexical = np.full((max(1, len(grammar.lexical)), grammar.size), -np.inf, np.float32)
        for row, heads in zip(lexical, grammar.lexical.values(), strict=False):
            for head, log_p in heads.items():
                row[head] = log_p
        pairs = {pair: i for i, pair in enumerate(sorted({(rule.left, rule.right) for rule in grammar.binary}))}
        rules = [(pairs[rule.left, rule.right], rule.head) for rule in grammar.binary]
        number, heads = np.array(rules, np.int32).reshape(-1, 2).T
        logs = np.array([rule.log_p for rule in grammar.binary], np.float32)
        sides = np.array([*pairs], np.int32).reshape(-1, 2)
        return cls(*map(jnp.asarray, (lexical, sides, number, heads, logs)))


def log_inside(grammar: NormalForm, tables: Tables, texts: Sequence[bytes]) -> np.ndarray:
    """log P of each text, nats, float32. Texts of like length share a call."""
    out = np.full(len(texts), -np.inf, np.float32)
    by_room: dict[int, list[tuple[int, np.ndarray, int]]] = {}
    for i, text in enumerate(texts):
        if not text:
            out[i] = grammar.log_empty
            continue
        spans, length = _spans(grammar, text)
        if length:
            by_room.setdefault(_room(length), []).append((i, spans, length))
    for room, some in by_room.items():
        most = _room(max(len(spans) for _, spans, _ in some))
        each = room * room * max(len(tables.pairs), grammar.size)
        texts_of = max(1, min(TOGETHER, _power(len(some)), _power(ROOM // each + 1) // 2))
        for first in range(0, len(some), texts_of):
            group = some[first : first + texts_of]
            wide, lengths = np.full((texts_of, most, 3), room, np.int32), np.ones(texts_of, np.int32)
            for row, (_, spans, length) in enumerate(group):
                wide[row, : len(spans)], lengths[row] = spans, length
            found = np.asarray(inside(tables, jnp.asarray(wide), jnp.asarray(lengths), room))
            for (i, _, _), value in zip(group, found, strict=False):
                out[i] = value[grammar.start] + grammar.log_some
    return out


def _room(length: int) -> int:
    return max(4, _power(length))


def _power(least: int) -> int:
    """Of two."""
    return 1 << (least - 1).bit_length()


def _spans(grammar: NormalForm, text: bytes) -> tuple[np.ndarray, int]:
    """Where terminals stand on a way from the first byte to the last, [any, 3] (begin, length, terminal), and how many
    places there are between them; 0 where there is no way."""
    found: dict[int, list[tuple[int, int]]] = {0: []}  # the terminals that end at each place
    for at in range(len(text)):
        if at not in found:
            continue
        node = grammar.trie
        for end in range(at, len(text)):
            if (following := node.children.get(text[end])) is None:
                break
            node = following
            if node.number >= 0:
                found.setdefault(end + 1, []).append((at, node.number))
    if len(text) not in found:
        return np.zeros((0, 3), np.int32), 0
    useful, todo = {len(text)}, [len(text)]
    while todo:
        for begin, _ in found[todo.pop()]:
            if begin not in useful:
                useful.add(begin)
                todo.append(begin)
    place = {at: i for i, at in enumerate(sorted(useful))}
    spans = [(place[begin], place[end] - place[begin], number)
             for end in place for begin, number in found[end] if begin in place]  # fmt: skip
    return np.array(spans, np.int32), len(place) - 1


@partial(jax.jit, static_argnames="room")
def inside(tables: Tables, spans: Array, lengths: Array, room: int) -> Array:
    """log P that each nonterminal becomes the whole text, [texts, nonterminals].

    `spans` [texts, any, 3] are begin, length and number of each terminal (begin = `room`: none); `lengths` count the
    places of each text, `room` at most.
    """
    longest = jnp.max(lengths)
    return jax.vmap(lambda some, length: _one(tables, some, length, longest, room))(spans, lengths)


def _one(tables: Tables, spans: Array, length: Array, longest: Array, room: int) -> Array:
    size = tables.lexical.shape[1]
    begin, long, terminal = spans.T
    none = jnp.full((room + 1, room + 1, size), -jnp.inf)
    here = tables.lexical[jnp.minimum(terminal, len(tables.lexical) - 1)]
    outside = jnp.where(begin < room, begin, room + 1)
    # The same spans twice: by where they begin and by where they end, each with their length.
    by_begin = none.at[outside, long].set(here, mode="drop")
    by_end = none.at[jnp.where(begin < room, begin + long, room + 1), long].set(here, mode="drop")

    def step(long: Array, charts: tuple[Array, Array]) -> tuple[Array, Array]:
        by_begin, by_end = charts
        begins, lefts = jnp.arange(room + 1), jnp.arange(1, room + 1)
        left = by_begin[:, 1:]  # [begin, length of the left part, nonterminal]
        right = by_end[jnp.minimum(begins + long, room)[:, None], jnp.maximum(long - lefts, 0)[None, :]]
        both = left[:, :, tables.pairs[:, 0]] + right[:, :, tables.pairs[:, 1]]
        both = jnp.where((lefts < long)[None, :, None], both, -jnp.inf)
        rules = jax.nn.logsumexp(both, 1)[:, tables.pair_of] + tables.log_p
        made = jnp.where((begins + long <= room)[:, None], _by_head(rules, tables.heads, size), -jnp.inf)
        made = jnp.logaddexp(made, by_begin[:, long])
        ends = jnp.where(begins + long <= room, begins + long, room + 1)
        return by_begin.at[:, long].set(made), by_end.at[ends, long].set(made, mode="drop")

    by_begin, _ = jax.lax.fori_loop(2, longest + 1, step, (by_begin, by_end))
    return by_begin[0, length]


def _by_head(rules: Array, heads: Array, size: int) -> Array:
    """log of the sum over the rules of each head, [..., rules] -> [..., size]."""
    top = jnp.full((*rules.shape[:-1], size), -jnp.inf).at[..., heads].max(rules)
    safe = jnp.where(top > -jnp.inf, top, 0.0)
    total = jnp.zeros_like(safe).at[..., heads].add(jnp.exp(rules - safe[..., heads]))
    return jnp.log(total) + safe
