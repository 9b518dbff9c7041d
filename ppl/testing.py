"""Check algorithms and programs exactly, over random small programs.

`programs()` is a Hypothesis strategy of finite programs that branch, loop, scan, propose, stop early and call each
other (`ppl.tiny`); `assert_proper(algorithm, program)` compares the meaning of an algorithm's answer with that of the
program over every outcome of both. No statistics: a wrong weight shows as a wrong mass. Scibior et al. 2018,
"Denotational validation of higher-order Bayesian inference"; Claessen and Hughes 2000, "QuickCheck".

    >>> from ppl.inference.smc import SMC
    >>> coin = Tiny((Draw(((1, 3),)), Score((1, 2))))
    >>> assert_proper(SMC(2), coin.program())
"""

from __future__ import annotations

from typing import Any, TypeVar

from ppl.calibration import assert_calibrated, assert_joint_invariant
from ppl.infer import Algorithm
from ppl.inference.population import collapse
from ppl.measure import Measure, TooManyPaths, measure, paths
from ppl.program import Program
from ppl.rates import detectable, detectable_between, detectable_rank, draws_needed
from ppl.statistical import assert_draws, assert_same_law
from ppl.tiny import Body, Branch, Draw, Fork, Guide, Loop, Node, Row, Score, Steer, Steps, Stop, Sub, Tiny, Together

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("ppl.testing needs hypothesis: pip install ppl[testing]") from error

T = TypeVar("T")

_WEIGHTS = (0, 0.5, 1, 2, 3)
_row = st.lists(st.integers(0, 6), min_size=2, max_size=3).map(tuple).filter(any)
_rows: st.SearchStrategy[tuple[Row, ...]] = st.lists(_row, min_size=1, max_size=2).map(tuple)
_weights: st.SearchStrategy[tuple[float, ...]] = st.lists(st.sampled_from(_WEIGHTS), min_size=1, max_size=3).map(tuple)
_draw = st.builds(Draw, _rows)
_any_draw = _draw | st.builds(Steer, _rows)
_statements: list[st.SearchStrategy[Node]] = [
    _any_draw,
    st.builds(Score, _weights),
    st.builds(Guide, st.sampled_from(("a", "b")), _weights),
    st.builds(Together, st.tuples(_any_draw, _any_draw)),
    st.just(Stop()),
]


@st.composite
def programs(draw: st.DrawFn, max_paths: int = 12, depth: int = 1) -> Tiny:
    """Random programs of at most `max_paths` paths (those of weight zero count), nested at most `depth` deep.

    Draws have weights 0 to 6, factors and twists include 0 and numbers above 1; runs of one program meet different
    numbers of them. `.program()` of an example is the `Program`; its repr is Python that builds it.
    """
    return draw(_bodies(depth).map(Tiny).filter(lambda tiny: _small(tiny.program(), max_paths)))


def assert_same_measure(p: Program[T], q: Program[T], max_paths: int = 100_000) -> None:
    """The two programs mean the same, to the 1e-12 of `Measure.__eq__`.

    Raises:
        AssertionError: naming both programs and the value whose mass differs most.
        TooManyPaths: one has more than `max_paths` paths.
    """
    mp, mq = measure(p, max_paths), measure(q, max_paths)
    if mp != mq:
        raise AssertionError(_difference(p, mp, q, mq))


def assert_proper(algorithm: Algorithm[T], program: Program[T], max_paths: int = 100_000) -> None:
    """`measure(collapse(algorithm(program))) == measure(program)`: proper weights, and so unbiased evidence.

    Raises:
        AssertionError: naming both programs and the value whose mass differs most.
        TooManyPaths: the program, or the algorithm on it, has more than `max_paths` paths.
    """
    assert_same_measure(collapse(algorithm(program)), program, max_paths)


def _bodies(depth: int) -> st.SearchStrategy[Body]:
    choices = list(_statements)
    if depth:
        inner = _bodies(depth - 1)
        loops = st.builds(Loop, _rows, inner)
        forks = st.builds(Fork, st.tuples(inner, inner))
        scans = st.builds(Steps, st.integers(0, 3), inner)
        choices += [st.builds(Branch, inner, inner), loops, forks, scans, st.builds(Sub, inner)]
    # A body that draws first makes what follows depend on something.
    rest = st.lists(st.one_of(choices), min_size=1, max_size=4)
    return st.builds(lambda first, then: (first, *then), _draw, rest)


def _small(program: Program[Any], max_paths: int) -> bool:
    try:
        for _ in paths(program, max_paths):
            pass
    except TooManyPaths:
        return False
    return True


def _difference(p: Program[T], mp: Measure[T], q: Program[T], mq: Measure[T]) -> str:
    worst = max({*mp, *mq}, key=lambda value: abs(mp[value] - mq[value]))
    return (
        f"the measures differ by {mp.distance(mq):.3g} of the larger evidence, most at {worst!r}:\n"
        f"  {mp[worst]!r} in {_show(p)}\n  {mq[worst]!r} in {_show(q)}"
    )


def _show(value: Any) -> str:
    """A program with its arguments, and theirs."""
    if not isinstance(value, Program):
        return value.__name__ if isinstance(value, type) else repr(value)
    return f"{value.name}({', '.join(_show(arg) for arg in value.args)})"


__all__ = [
    "Branch", "Draw", "Fork", "Guide", "Loop", "Score", "Steer", "Steps", "Stop", "Sub", "Tiny", "Together",
    "assert_calibrated", "assert_draws", "assert_joint_invariant", "assert_proper", "assert_same_law",
    "assert_same_measure", "detectable", "detectable_between", "detectable_rank", "draws_needed", "programs",
]  # fmt: skip
