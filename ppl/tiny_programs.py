"""The Hypothesis strategy of random small programs: see `ppl.testing.programs`."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import strategies as st

from ppl.measure import TooManyPaths, paths
from ppl.tiny import (
    Body,
    Branch,
    Draw,
    Fork,
    Guide,
    Look,
    Loop,
    Node,
    Row,
    Score,
    Steer,
    Steps,
    Stop,
    Sub,
    Tiny,
    Together,
)  # fmt: skip
from ppl.tiny_text import Inner, Spell

_WEIGHTS = (1, 2, 3, 0.5, 0)
_row: st.SearchStrategy[Row] = st.lists(st.integers(0, 6), min_size=2, max_size=3).map(tuple).filter(any)
_rows: st.SearchStrategy[tuple[Row, ...]] = st.lists(_row, min_size=1, max_size=2).map(tuple)
_weights: st.SearchStrategy[tuple[float, ...]] = st.lists(st.sampled_from(_WEIGHTS), min_size=1, max_size=3).map(tuple)
_draw = st.builds(Draw, _rows)
_any_draw = _draw | st.builds(Steer, _rows)
_moves = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=2).map(tuple)
_blocks = st.sampled_from(((1,), (1, 1), (2,)))
_score, _stop = st.builds(Score, _weights), st.just(Stop())
_guide = st.builds(Guide, st.sampled_from(("a", "b")), _weights)
_look = st.builds(Look, _rows, st.sampled_from((0, 1, 0, 1, 2)), st.booleans())
_both = st.builds(Together, st.tuples(_any_draw, _any_draw))
_spell = st.builds(Spell, _rows, _moves, _blocks, st.booleans())


@lru_cache
def bodies(max_paths: int, depth: int) -> st.SearchStrategy[Body]:
    """Bodies of at most `max_paths` paths, nested at most `depth` deep, that begin with a draw."""
    return _growing(_statements(max_paths, depth), max_paths, _draw)  # so that what follows depends on something


@lru_cache
def _statements(max_paths: int, depth: int) -> tuple[st.SearchStrategy[Node], ...]:
    """To choose from at equal rates, the simplest first: a third weighs, a third draws, a third goes other ways."""
    plain = (_any_draw, _any_draw, _both, _spell, _score, _score, _guide, _look, _stop)
    if not depth:
        return plain
    most = max(2, max_paths // 2)  # the program has drawn something before
    inner = _growing(_statements(most, depth - 1), most)
    loops = st.builds(Loop, _rows, inner), st.builds(Steps, st.integers(0, 3), inner)
    nested = st.builds(Sub, inner), st.builds(Inner, st.integers(1, 2), inner)
    branch, fork = st.builds(Branch, inner, inner), st.builds(Fork, st.tuples(inner, inner))
    return (*plain, _score, _guide, branch, branch, *loops, *nested, fork)


@st.composite
def _growing(
    draw: st.DrawFn,
    statements: tuple[st.SearchStrategy[Node], ...],
    max_paths: int,
    first: st.SearchStrategy[Node] | None = None,
) -> Body:
    """Statements as long as they fit: a filter would throw away most programs that loop or fork."""
    body: Body = () if first is None else (draw(first),)
    if not _small(body, max_paths):
        body = ()
    # Each choice stands beside what it chose, so that Hypothesis can leave out both at once.
    statement = st.integers(0, len(statements) - 1).flatmap(statements.__getitem__)
    for node in draw(st.lists(statement, min_size=1, max_size=4)):
        if _small((*body, node), max_paths):
            body = (*body, node)
    return body


def _small(body: Body, max_paths: int) -> bool:
    try:
        for _ in paths(Tiny(body).program(), max_paths):
            pass
    except TooManyPaths:
        return False
    return True
