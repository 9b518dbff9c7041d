"""The matrix can fail: wrong algorithms, planted with the budget of the right ones, are rejected by the same bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ppl import SMC, Algorithm, Enumerate, Importance, Population, Program, Systematic
from ppl.inference.weights import log_mean_exp

from .algorithms import N, Row
from .cells import Line, check
from .known import Known
from .models import MODELS


@dataclass(frozen=True)
class Spoilt:
    """What an algorithm gives, made wrong."""

    algorithm: Algorithm
    spoil: Callable[[Population], Population]

    def __call__(self, program: Program[Any]) -> Program[Population[Any]]:
        return Program("spoilt", _spoilt, (self.algorithm(program), self.spoil), {})


async def _spoilt(populations: Program[Population], spoil: Callable[[Population], Population]) -> Population:
    return spoil(await populations)


def heavier(share: float) -> Callable[[Population], Population]:
    """All weights too large by this share."""
    more = math.log1p(share)
    return lambda population: replace(population, log_weights=tuple(w + more for w in population.log_weights))


def unweighted(population: Population) -> Population:
    """The particles that live, as if they were draws of a Markov chain: what a sampler blind to factors visits."""
    values = tuple(v for v, w in zip(population.values, population.log_weights, strict=True) if w > -math.inf)
    return replace(population, values=values, log_weights=(0.0,) * len(values), normalised=True)


def squared(log_weights: Sequence[float]) -> Systematic:
    """Resamples by squared weights and does not weigh for it."""
    dist = Systematic([2 * w for w in log_weights])
    dist.child_log_weights = lambda ancestors: [log_mean_exp(log_weights)] * len(ancestors)
    return dist


def worst(algorithm: Algorithm, model: Known) -> Line:
    """Of a cell, the line farthest beyond its bar."""
    return max(check(Row("planted", algorithm), model), key=lambda line: abs(line.z))


# Their expectations cannot tell: all particles that live weigh the same.
WEIGHTED = [model for model in MODELS if model.name != "lm-constrained"]


def named(name: str) -> Known:
    return next(model for model in MODELS if model.name == name)


def _id(model: Known) -> str:
    return model.name


@pytest.mark.parametrize("model", MODELS, ids=_id)
def test_every_model_rejects_weights_off_by_a_third(model: Known) -> None:
    line = worst(Spoilt(SMC(N), heavier(1 / 3)), model)
    assert not line.ok and line.statistic == "evidence / exact", line


def test_the_matrix_rejects_weights_off_by_five_percent() -> None:
    """The branching program has weights so even that its evidence has an error below 1 %."""
    assert not (line := worst(Spoilt(SMC(N), heavier(0.05)), named("branching"))).ok, line


@pytest.mark.parametrize("model", WEIGHTED, ids=_id)
def test_every_model_rejects_resampling_by_squared_weights(model: Known) -> None:
    assert not (line := worst(SMC(N, squared), model)).ok, line


@pytest.mark.parametrize("model", WEIGHTED, ids=_id)
def test_every_model_rejects_a_chain_that_is_blind_to_factors(model: Known) -> None:
    assert not (line := worst(Spoilt(Importance(N), unweighted), model)).ok, line


def test_a_value_that_cannot_be_is_an_error() -> None:
    model = named("lm-scan")

    def foreign(population: Population) -> Population:
        return replace(population, values=("zz",) * len(population.values))

    with pytest.raises(AssertionError, match="'zz' has posterior probability zero"):
        worst(Spoilt(Importance(4), foreign), model)


def test_an_evidence_without_error_bar_is_an_error() -> None:
    with pytest.raises(AssertionError, match="more particles"):
        worst(Importance(1), MODELS[0])


def test_enumeration_has_no_allowance() -> None:
    """Off by 1e-11, which is 10 times the bar."""
    model = named("branching")
    row = Row("planted", Spoilt(Enumerate(), heavier(1e-11)), replications=1, exact=True)
    assert not all(line.ok for line in check(row, model))
