"""Importance sampling means what its program means, over every outcome of its draws."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings

from ppl import Importance, collapse, factor, infer, measure, program, sample, uniform
from ppl.measure import paths
from ppl.testing import Tiny, assert_proper, programs

EXACT = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@EXACT
@given(programs(max_paths=16))
def test_one_particle_is_the_program(tiny: Tiny) -> None:
    """With one particle every weight is a product, so each single path of the algorithm is a path of the program."""
    assert_proper(Importance(1), tiny.program())


@program
async def coin() -> bool:
    heads = await sample("heads", uniform([False, True]))
    await factor("seen", math.log(3.0 if heads else 1.0))
    return heads


def test_evidence_is_the_mean_weight_of_each_outcome() -> None:
    for path in paths(Importance(2)(coin())):
        population = path.value
        by_hand = sum(3.0 if heads else 1.0 for heads in population.values) / 2
        assert math.exp(population.log_evidence) == pytest.approx(by_hand, rel=1e-15)
        assert path.log_weight == 0.0  # the algorithm itself has no factors until it is collapsed


def test_collapse_of_importance_is_a_program_like_any_other() -> None:
    once = collapse(Importance(2)(coin()))
    assert measure(collapse(Importance(2)(once))) == measure(coin())


@pytest.mark.parametrize("particles", [0, -1, True, 2.0, "3"])
def test_particles_must_be_a_positive_integer(particles: object) -> None:
    with pytest.raises(ValueError, match="particles must be an integer of at least 1"):
        Importance(particles)  # pyright: ignore[reportArgumentType]


def test_infer_agrees_with_the_enumerated_populations() -> None:
    """What the host driver returns for a seed is one of the populations that the exact driver knows."""
    known = {(path.value.values, path.value.log_evidence) for path in paths(Importance(3)(coin()))}
    for seed in range(8):
        posterior = infer(coin(), Importance(3), seed)
        assert (posterior.population.values, posterior.log_evidence) in known
