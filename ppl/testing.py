"""Check your own algorithms, kernels and programs exactly, over random small programs.

`programs()` is a Hypothesis strategy of finite programs that branch, loop, scan, propose, observe, twist, stop early,
fork, write texts and call each other (`ppl.tiny`, `ppl.tiny_text`). The checks compare meanings over every outcome of
everybody's randomness: no statistics, so a wrong weight shows as a wrong mass. Scibior et al. 2018, "Denotational
validation of higher-order Bayesian inference"; Claessen and Hughes 2000, "QuickCheck". A whole test of an algorithm:

    from hypothesis import given, settings
    from ppl.testing import assert_proper, programs

    @settings(deadline=None)
    @given(programs())
    def test_mine(tiny):
        assert_proper(mine, tiny.program())

An example on which the algorithm has too many paths to enumerate is rejected, as by `hypothesis.assume`: Hypothesis
looks for others, and complains if they are few. For more particles ask for smaller programs, `programs(max_paths=4)`.
One program can be checked without Hypothesis:

    >>> from ppl.inference.smc import SMC
    >>> coin = Tiny((Draw(((1, 3),)), Score((1, 2))))
    >>> assert_proper(SMC(2), coin.program())
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, TypeVar

try:
    import hypothesis
    import scipy.stats as _  # noqa: F401
except ImportError as error:
    raise ImportError("ppl.testing needs hypothesis and scipy: pip install ppl[testing]") from error

from hypothesis import strategies as st

from ppl.calibration import assert_calibrated, assert_joint_invariant
from ppl.infer import Algorithm
from ppl.inference.kernels import Kernel
from ppl.inference.population import collapse
from ppl.measure import EndlessPath, Measure, TooManyPaths, measure, paths, unhashable
from ppl.program import Program
from ppl.rates import detectable, detectable_between, detectable_rank, draws_needed
from ppl.regenerate import recorded
from ppl.replayable import ADVICE, check_run, check_seed
from ppl.source import Key
from ppl.statistical import assert_draws, assert_same_law
from ppl.tiny import Branch, Draw, Fork, Guide, Look, Loop, Score, Steer, Steps, Stop, Sub, Tiny, Together, of_body
from ppl.tiny_programs import bodies
from ppl.tiny_text import Inner, Spell
from ppl.trace import Trace

T = TypeVar("T")


def programs(max_paths: int = 12, depth: int = 1) -> st.SearchStrategy[Tiny]:
    """Random programs of at most `max_paths` paths (those of weight zero count), nested at most `depth` deep.

    Weights are 0 to 6 in draws; factors and twists include 0 and numbers above 1; runs of one program meet different
    numbers of them. `.program()` of an example is the `Program`; its repr is Python that builds it.
    """
    return bodies(max_paths, depth).map(Tiny)


def assert_same_measure(p: Program[T], q: Program[T], max_paths: int | None = None) -> None:
    """The two programs mean the same, to the 1e-12 of `Measure.__eq__`.

    `max_paths` of each is 100,000 if not given, or 2,000 inside a Hypothesis test, where an example with more is
    rejected.

    Raises:
        AssertionError: naming both programs, the value whose mass differs most, and both masses.
        TooManyPaths: one has more than `max_paths` paths (outside Hypothesis), or an endless one (always).
    """
    with _enumerating(max_paths) as most:
        _assert_equal(f"{_show(p)}\nand\n  {_show(q)}\ndo not mean the same", measure(p, *most), measure(q, *most))


def assert_proper(algorithm: Algorithm[T], program: Program[T], max_paths: int | None = None) -> None:
    """`measure(collapse(algorithm(program))) == measure(program)`: proper weights, and so unbiased evidence.

    `max_paths`: as in `assert_same_measure`.

    Raises:
        AssertionError: naming the program, the value whose mass differs most, and both masses.
        TooManyPaths: the program, or the algorithm on it, has more than `max_paths` paths (outside Hypothesis), or an
            endless one (always).
    """
    with _enumerating(max_paths) as most:
        right, found = measure(program, *most), measure(collapse(algorithm(program)), *most)
        _assert_equal(f"{_show(algorithm)} is not proper on\n  {_show(program)}", found, right)


def assert_invariant(
    kernel: Kernel[T], program: Program[T], max_paths: int | None = None, steps: int | None = None
) -> None:
    """pi K = pi: one step of the kernel from an exact draw of the posterior over traces is such a draw again.

    `kernel(program, trace)` is a program that gives the next trace. Traces count as equal when their choices and
    value are; the factors and probabilities in what the kernel returns must be those of the program there. `steps`:
    on the traces that stop behind so many factors and twists (`recorded(program, steps)`), the target of a kernel
    inside SMC (nothing is checked where no run goes that far). `max_paths`: as in `assert_same_measure`.

    Invariance is not ergodicity: the kernel that does nothing passes.

    Raises:
        AssertionError: naming the program, the traces that gain and lose most, and their masses.
        TooManyPaths: the program, or the kernel on it, has more than `max_paths` paths (outside Hypothesis), or an
            endless one (always).
    """
    start = recorded(program, steps)
    with _enumerating(max_paths) as most:
        what = f"{_show(kernel)} does not leave the posterior over traces invariant on\n  {_show(program)}"
        before = _over_traces(start, most, {}, what)
        after = _over_traces(Program("kernel", _moved, (kernel, program, start), {}), most, before.traces, what)
        _assert_equal(what, after.measure, before.measure)


def assert_replayable(program: Program[Any], seeds: Iterable[int] | None = range(10)) -> None:
    """The program is deterministic given the answers to its effects, which cloning, conditioning and journals need.

    Runs it with each seed, or along every path of a finite program (`seeds=None`). At each effect it is started again
    with the answers so far, and must ask for the same; at the end it must return the same, and its trace must replay.
    Calls are made: they may be impure.

    What differs between processes only, like the order of a set of strings, cannot show here.

    Raises:
        AssertionError: naming the first site that differs, and what to do.
        TooManyPaths: with `seeds=None`, more than 1,000,000 paths.
    """
    if seeds is not None:
        for seed in seeds:
            key = Key.of(seed)
            check_seed(program, seed, lambda address, effect, key=key: effect.dist.sample(key.fold(address)))
        return
    for path in paths(program):
        try:
            check_run(program, lambda address, _, path=path: path.choices[address])
        except KeyError as error:
            raise AssertionError(
                f"{program.name} does not replay: {error.args[0]}: it asks for a draw that it did not ask for before, "
                f"given the same answers. {ADVICE}"
            ) from None


@contextmanager
def _enumerating(max_paths: int | None) -> Iterator[tuple[int, bool]]:
    """How many paths to visit, and whether to guess; in a Hypothesis test, an example with more is rejected."""
    in_test = hypothesis.currently_in_test_context()
    try:
        yield (2_000 if in_test else 100_000) if max_paths is None else max_paths, in_test
    except EndlessPath:  # a loop that does not end is a mistake and not a matter of size
        raise
    except TooManyPaths:
        if in_test:
            hypothesis.event("ppl.testing: rejected, too many paths to enumerate")
            hypothesis.reject()
        raise


@dataclass(frozen=True, eq=False)
class _OverTraces(Generic[T]):
    measure: Measure[Any]
    traces: dict[Any, Trace[T]]


def _over_traces(
    program: Program[Trace[T]], most: tuple[int, bool], known: dict[Any, Trace[T]], what: str
) -> _OverTraces[T]:
    """The measure over choices and value, and a trace of each; those of `known` must weigh the same."""
    masses: dict[Any, list[float]] = {}
    traces: dict[Any, Trace[T]] = {}
    for path in paths(program, *most):
        trace = path.value
        if not isinstance(trace, Trace):
            raise TypeError(f"a kernel gives a program of a Trace; this one gave {trace!r}")
        key = _Key((tuple(sorted(trace.items(), key=itemgetter(0))), trace.value))
        try:
            masses.setdefault(key, []).append(path.probability * math.exp(path.log_weight))
        except TypeError:
            raise unhashable(program, key) from None
        right = traces.setdefault(key, known.get(key, trace))
        if not math.isclose(trace.log_joint, right.log_joint, rel_tol=1e-9, abs_tol=1e-9):
            raise AssertionError(
                f"{what}:\n  {key!r}\n    has log_joint {trace.log_joint!r} in the kernel's trace, not "
                f"{right.log_joint!r}: score it again, as replay(program, trace) does"
            )
    return _OverTraces(Measure({key: math.fsum(terms) for key, terms in masses.items()}), traces)


class _Key(tuple[Any, ...]):
    """What identifies a trace: its choices by address, and its value."""

    def __repr__(self) -> str:
        choices, value = self
        return f"{{{', '.join(f'{address}: {drawn!r}' for address, drawn in choices)}}} -> {value!r}"


async def _moved(kernel: Kernel[T], program: Program[T], start: Program[Trace[T]]) -> Trace[T]:
    return await kernel(program, await start)


def _assert_equal(what: str, found: Measure[Any], right: Measure[Any]) -> None:
    if found == right:
        return

    def change(value: Any) -> float:
        change = found[value] - right[value]
        return math.inf if math.isnan(change) else change

    def line(value: Any) -> str:
        return f"  {value!r}\n    has mass {found[value]!r}, not {right[value]!r}"

    values = sorted({*found, *right}, key=change)
    lines = [line(value) for value in dict.fromkeys((values[0], values[-1])) if change(value)]
    if abs(change(values[-1])) > abs(change(values[0])):
        lines.reverse()
    same = math.isclose(found.evidence, right.evidence, rel_tol=1e-12)
    evidence = "The evidence is right" if same else f"The evidence is {found.evidence!r}, not {right.evidence!r}"
    raise AssertionError(
        f"{what}:\n" + "\n".join(lines) + f"\n{evidence}; the largest difference is {found.distance(right):.3g} of the "
        "larger evidence."
    )


def _show(value: Any) -> str:
    """A program with its arguments, and theirs; a tiny one as Python."""
    if not isinstance(value, Program):
        return getattr(value, "__name__", None) or repr(value)
    if value.fn is of_body and value.args[1] == ():
        return f"{Tiny(value.args[0])!r}.program()"
    return f"{value.name}({', '.join(_show(arg) for arg in value.args)})"


__all__ = [
    "Branch", "Draw", "Fork", "Guide", "Inner", "Kernel", "Look", "Loop", "Score", "Spell", "Steer", "Steps",
    "Stop", "Sub", "Tiny", "Together", "assert_calibrated", "assert_draws", "assert_invariant",
    "assert_joint_invariant", "assert_proper", "assert_replayable", "assert_same_law", "assert_same_measure",
    "detectable", "detectable_between", "detectable_rank", "draws_needed", "programs",
]  # fmt: skip
