"""Every algorithm and kernel of the library, exactly, over random programs.

100 programs each in the default run, 2,000 in the slow one (`make slow`). Each must be an enumerated one: examples
with too many paths do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings

from ppl import Population, Program, factor, measure, power, recorded, sample, uniform
from ppl.measure import TooManyPaths, paths
from ppl.testing import Tiny, assert_invariant, assert_proper, programs
from tests.exact.table import ALGORITHMS, KERNELS, POSTERIORS, Row

UNCHECKED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def over_programs(check: Callable[[Program[Any]], None], examples: int, paths: int) -> None:
    """Run a check over so many programs."""
    checked = 0

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=UNCHECKED)
    @given(programs(paths))
    def run(tiny: Tiny) -> None:
        nonlocal checked
        check(tiny.program())
        checked += 1

    run()
    assert checked >= examples


def invariant(row: Row, program: Program[Any]) -> None:
    """Check a kernel on a program, and on the targets of SMC behind one and two factors or twists, if there are any.

    A program without a possible trace does not count.
    """
    for steps in (None, 1, 2):
        if next(paths(recorded(program, steps), row.most), None) is not None:
            assert_invariant(row.what, program, row.most, steps)
        elif steps is None:
            reject()


def names(row: Row) -> str:
    return row.name


HOW_MANY = pytest.mark.parametrize("examples", [100, pytest.param(2_000, marks=pytest.mark.slow)])


@HOW_MANY
@pytest.mark.parametrize("row", ALGORITHMS, ids=names)
def test_algorithms_are_proper(row: Row, examples: int) -> None:
    """Catches any wrong weight, evidence, ancestor or move."""
    over_programs(lambda program: assert_proper(row.what, program, row.most), examples, row.paths)


@HOW_MANY
@pytest.mark.parametrize("row", KERNELS, ids=names)
def test_kernels_leave_the_posterior_invariant(row: Row, examples: int) -> None:
    """Catches wrong acceptance ratios, a missing n/n', moves under the target of another moment, wrong ancestors."""
    over_programs(lambda program: invariant(row, program), examples, row.paths)


@HOW_MANY
@pytest.mark.parametrize("row", KERNELS[:2] + KERNELS[8:9], ids=names)
def test_kernels_on_powers(row: Row, examples: int) -> None:
    over_programs(lambda program: invariant(row, power(program, 2.0)), examples, row.paths)


async def _picked(populations: Program[Population[Any]]) -> Any:
    population = await populations
    await factor("weight", population.log_weights[0])
    return await sample("pick", uniform(population.values))


@HOW_MANY
@pytest.mark.parametrize("row", POSTERIORS, ids=names)
def test_draws_have_the_posterior(row: Row, examples: int) -> None:
    """Of algorithms whose weights are known up to a constant."""

    def check(program: Program[Any]) -> None:
        right = measure(program)
        if not right.evidence:
            reject()
        try:
            found = measure(Program("picked", _picked, (row.what(program),), {}), row.most).posterior
        except TooManyPaths:
            reject()
        for value, probability in right.posterior.items():
            assert found.get(value, 0.0) == pytest.approx(probability, abs=1e-12), value

    over_programs(check, examples, row.paths)
