"""SMC means what its program means, over every outcome of its own randomness, for every resampler."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from ppl import (
    SMC,
    Adaptive,
    Multinomial,
    Program,
    Residual,
    Stratified,
    Systematic,
    call,
    collapse,
    infer,
    measure,
    program,
    sample,
    twist,
    uniform,
)
from ppl.inference.resampling import Resampler
from ppl.language import factor
from ppl.measure import paths
from ppl.testing import Draw, Fork, Guide, Score, Tiny, assert_proper

SCHEMES: list[Resampler] = [Multinomial, Stratified, Systematic, Residual]
RESAMPLERS = [*SCHEMES, *(Adaptive(scheme, 0.75) for scheme in SCHEMES)]


def _name(resampler: Any) -> str:
    return f"Adaptive({resampler.scheme.__name__})" if isinstance(resampler, Adaptive) else resampler.__name__


def test_one_particle_is_the_program_itself() -> None:
    tiny = Tiny((Draw(((1, 2),)), Score((3, 0.5)), Draw(((1, 1), (0, 4))), Score((1, 2))))
    assert_proper(SMC(1), tiny.program())


@program
async def two_flips() -> tuple[int, int]:
    first = await sample("first", uniform([0, 1]))
    await factor("score", 0.0 if first else -0.5)
    return first, await sample("second", uniform([0, 1]))


@program
async def one_flip() -> int:
    heads = await sample("heads", uniform([0, 1]))
    await factor("score", 0.4 * heads)
    return heads


def test_smc_calls_once_per_particle_and_hides_nothing_from_the_driver() -> None:
    """A call's answer is recorded, so that the replay behind resampling does not repeat it."""
    seen: Counter[int] = Counter()

    def work(value: int) -> int:
        seen[value] += 1
        return value + 1

    @program
    async def calls() -> int:
        value = await call(work, await sample("x", uniform([0, 10])))
        await factor("score", 3.0 if value == 1 else -3.0)  # makes clones of the particles that drew 0
        return await sample("y", uniform([value, value + 1]))

    particles = 8
    infer(calls(), SMC(particles, Multinomial), seed=3)
    assert seen.total() == particles


def test_algorithms_nest() -> None:
    """`collapse(SMC(2)(inner))` inside a program is a draw from the posterior of inner, weighted by its evidence."""

    def outer(inner: Program[int]) -> Program[tuple[int, int]]:
        async def body() -> tuple[int, int]:
            coin = await sample("coin", uniform([0, 1]))
            await factor("before", 0.7 * coin)
            return coin, await inner

        return Program("outer", body, (), {})

    nested = outer(collapse(SMC(2, Multinomial)(one_flip())))
    assert measure(nested) == measure(outer(one_flip()))
    assert_proper(SMC(2, Systematic), nested)


def test_smc_of_smc_is_proper() -> None:
    tiny = Tiny((Draw(((1, 2),)), Score((0, 3)), Score((1, 2))))
    assert_proper(SMC(2), collapse(SMC(2, Multinomial)(tiny.program())))


def test_twists_guide_without_moving_the_target() -> None:
    tiny = Tiny((Draw(((1, 2),)), Guide("a", (3, 1)), Draw(((1, 1), (2, 1))), Guide("a", (0.5, 2)), Guide("b", (2,))))
    assert_proper(SMC(2, Multinomial), tiny.program())
    untwisted = Tiny(tuple(node for node in tiny.body if not isinstance(node, Guide)))
    assert measure(tiny.program()) == measure(untwisted.program())


def test_factors_inside_parallel_sub_programs_weigh_each_particle_once() -> None:
    side = (Draw(((1, 2),)), Score((2, 0.5)), Draw(((1, 1), (3, 1))))
    assert_proper(SMC(2, Stratified), Tiny((Fork((side, (Score((3,)),))), Score((1, 2)))).program(), max_paths=200_000)


def test_particles_finish_at_different_factors() -> None:
    """A finished particle keeps its weight while others go on; it is resampled with them."""

    @program
    async def lengths() -> int:
        steps = await sample("steps", uniform([0, 1, 3]))
        for step in range(steps):
            await factor("score", 0.3 * step - 0.4)
        return steps

    assert_proper(SMC(2, Multinomial), lengths())


def test_all_dead_has_no_evidence_and_names_the_site() -> None:
    @program
    async def doomed() -> int:
        x = await sample("x", uniform([0, 1]))
        await twist("first", 0.5)
        await factor("wall", -float("inf"))
        return x

    assert measure(collapse(SMC(2)(doomed()))).evidence == 0
    for path in paths(SMC(3)(doomed())):
        assert path.value.killed == {"doomed/wall": 3}


def test_steps_record_the_evidence_before_each_decision() -> None:
    """Two flips, weights 1 and e^-0.5: at the one factor, log Z and ESS follow from the two particles' draws."""
    for path in paths(SMC(2, Systematic)(two_flips())):
        first = [value for address, value in path.choices.items() if "first" in address]
        w = [1.0 if x else math.exp(-0.5) for x in first]
        step = path.value.steps[0]
        assert math.exp(step.log_evidence) == pytest.approx(sum(w) / 2, rel=1e-12)
        assert step.ess == pytest.approx(sum(w) ** 2 / sum(v * v for v in w), rel=1e-12)
        assert (step.unique, step.resampled) == (2, True)
