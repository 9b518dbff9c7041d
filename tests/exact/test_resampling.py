"""Every resampler is the distribution over ancestor vectors that it says it is."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl import Adaptive, Key, Multinomial, Residual, Stratified, Systematic
from ppl.inference.resampling import Ancestors, Keep

SCHEMES = [Multinomial, Stratified, Systematic, Residual]
# Integer weights bring zeros, ties and N w_k that are whole numbers, where intervals degenerate.
WEIGHTS = st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any)
LAWS = settings(max_examples=80, deadline=None, database=None)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


class Given(Key):
    """A key whose uniforms are given."""

    def __init__(self, *us: float) -> None:
        super().__init__(bytes(16))
        self.us = us

    def uniform(self) -> float:
        return self.us[0]

    def uniforms(self, count: int) -> list[float]:
        return np.resize(self.us, count).tolist()


def _logs(weights: list[int]) -> list[float]:
    return [math.log(w) if w else -math.inf for w in weights]


def _vectors(count: int) -> list[tuple[int, ...]]:
    return list(product(range(count), repeat=count))


@every_scheme
@LAWS
@given(WEIGHTS)
def test_table_and_log_prob_are_the_same_law(scheme: type[Ancestors], weights: list[int]) -> None:
    """At every vector there is; log_prob is -inf outside the table, up to intervals of rounding size."""
    dist = scheme(_logs(weights))
    table = dict(dist.table())
    assert len(table) == len(dist.table()), "a vector is listed twice"
    assert math.fsum(table.values()) == pytest.approx(1.0, abs=1e-12)
    for vector in _vectors(len(weights)):
        assert math.exp(dist.log_prob(vector)) == pytest.approx(table.get(vector, 0.0), abs=1e-12)
        if any(weights[k] == 0 for k in vector):
            assert dist.log_prob(vector) == -math.inf


@pytest.mark.parametrize("weights", [[1, 1, 2], [1, 3], [0, 1, 0, 1], [1, 2, 1, 4], [4, 0, 3, 1]])
@every_scheme
def test_log_prob_is_exactly_minus_infinity_outside(scheme: type[Ancestors], weights: list[int]) -> None:
    """Weights of power-of-two totals make every interval exact in binary, so nothing is left to rounding.

    (Except [1, 1, 2], whose N is 3: there N w_k is still exact.)
    """
    dist = scheme(_logs(weights))
    possible = {vector for vector, p in dist.table() if p > 1e-12}
    for vector in set(_vectors(len(weights))) - possible:
        assert math.exp(dist.log_prob(vector)) < 1e-15


@every_scheme
@LAWS
@given(WEIGHTS)
def test_the_expected_number_of_children_is_n_times_the_weight(scheme: type[Ancestors], weights: list[int]) -> None:
    table = scheme(_logs(weights)).table()
    for k, weight in enumerate(weights):
        children = math.fsum(p * vector.count(k) for vector, p in table)
        assert children == pytest.approx(len(weights) * weight / sum(weights), abs=1e-12)


@pytest.mark.parametrize("scheme", [Stratified, Systematic, Residual])
@LAWS
@given(WEIGHTS)
def test_the_number_of_children_is_close_to_its_mean(scheme: type[Ancestors], weights: list[int]) -> None:
    """Systematic: floor or ceil of N w_k; residual: at least the floor; stratified: within 2 (two cut strata)."""
    for vector, p in scheme(_logs(weights)).table():
        if p < 1e-12:
            continue
        for k, weight in enumerate(weights):
            mean, children = len(weights) * weight / sum(weights), vector.count(k)
            if scheme is Systematic:
                assert math.floor(mean + 1e-9) <= children <= math.ceil(mean - 1e-9)
            elif scheme is Residual:
                assert children >= math.floor(mean + 1e-9)
            else:
                assert abs(children - mean) < 2


@LAWS
@given(WEIGHTS)
def test_systematic_draws_what_its_table_says(weights: list[int]) -> None:
    """The vector of u, over a grid fine enough to hit every interval, and just beside every breakpoint."""
    dist = Systematic(_logs(weights))
    table = dict(dist.table())
    grid = 840 * 8  # all breakpoints are multiples of 1 / sum(weights), or within one cell of one
    counts: dict[tuple[int, ...], int] = {}
    for i in range(grid):
        vector = dist.sample(Given((i + 0.5) / grid))
        counts[vector] = counts.get(vector, 0) + 1
    for vector in {*counts, *table}:
        # A vector's set of u is one interval: it can gain or lose less than a cell at each end.
        assert abs(counts.get(vector, 0) / grid - table.get(vector, 0.0)) <= 2 / grid
    for cut in [bound % 1.0 for bound in dist.bounds]:
        for u in (cut - 1e-9, cut + 1e-9):
            if 0 < u < 1:
                assert table.get(dist.sample(Given(u)), 0.0) > 0


@pytest.mark.parametrize("scheme", [Multinomial, Stratified, Residual])
@settings(LAWS, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(any))
def test_independent_slots_draw_what_the_table_says(scheme: type[Ancestors], weights: list[int]) -> None:
    """The share of a grid of uniforms that gives each vector is its probability, to the grid's resolution.

    Catches a `sample` that uses another cumulative sum, another order of slots, or fewer uniforms than `table`.
    """
    dist, cells = scheme(_logs(weights)), 24  # boundaries at multiples of 1/24 are rare; the bound allows for all
    table = dict(dist.table())
    counts: dict[tuple[int, ...], int] = {}
    for us in product(np.arange(0.5, cells) / cells, repeat=len(weights)):
        vector = dist.sample(Given(*us))
        counts[vector] = counts.get(vector, 0) + 1
    for vector in {*counts, *table}:
        share = counts.get(vector, 0) / cells ** len(weights)
        assert abs(share - table.get(vector, 0.0)) <= len(weights) * 2 / cells


@every_scheme
@pytest.mark.parametrize("weights", [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 3, 7, 0], [1, 1, 1, 0], [5, 0, 0, 0, 2, 0]])
@pytest.mark.parametrize("u", [2.0**-54, 5e-324, 0.5, 1 - 2.0**-53, 1 - 2.0**-54])
def test_zero_weights_are_never_chosen(scheme: type[Ancestors], weights: list[int], u: float) -> None:
    """1 - 2^-54 rounds to 1: a draw that trusts u < 1 falls off the end, or on a trailing particle of weight zero."""
    vector = scheme(_logs(weights)).sample(Given(u))
    assert len(vector) == len(weights)
    assert all(weights[k] > 0 for k in vector)


@every_scheme
def test_a_million_to_one(scheme: type[Ancestors]) -> None:
    """Weights far below the rounding of the cumulative sum do not break the table."""
    table = scheme([0.0, -800.0, -40.0]).table()
    assert math.fsum(p for _, p in table) == pytest.approx(1.0, abs=1e-12)
    assert all(p >= 0 for _, p in table)


@every_scheme
def test_all_weights_zero_raises(scheme: type[Ancestors]) -> None:
    dist = scheme([-math.inf] * 3)
    for ask in (dist.table, lambda: dist.sample(Key.of(0)), lambda: dist.log_prob((0, 1, 2))):
        with pytest.raises(ValueError, match="all weights are zero"):
            ask()


@every_scheme
def test_one_particle_is_its_own_parent(scheme: type[Ancestors]) -> None:
    dist = scheme([-12.0])
    assert dict(dist.table()) == {(0,): 1.0}
    assert dist.sample(Key.of(0)) == (0,)
    assert dist.log_prob((0,)) == 0.0


@every_scheme
def test_equal_weights_on_a_scale_that_overflows(scheme: type[Ancestors]) -> None:
    """Only differences of log weights matter; log weights of long texts reach -1e4, where an ulp is 2e-12."""
    expected = dict(scheme([0.0, 0.0]).table())
    for level in (-1e6, 1e6):
        assert dict(scheme([level, level]).table()) == pytest.approx(expected, abs=1e-12)


@every_scheme
def test_adaptive_resamples_below_the_threshold_only(scheme: type[Ancestors]) -> None:
    """Weights (1, 1, 0, 0) have ESS 2 of 4: at 0.5 that is enough, at 0.51 it is not."""
    log_weights = _logs([1, 1, 0, 0])
    assert type(Adaptive(scheme, 0.5)(log_weights)) is Keep
    assert type(Adaptive(scheme, 0.51)(log_weights)) is scheme


def test_keep_is_a_point_mass_on_everyone() -> None:
    keep = Keep(_logs([1, 3]))
    assert keep.table() == [((0, 1), 1.0)]
    assert keep.sample(Key.of(0)) == (0, 1)
    assert [keep.log_prob(v) for v in _vectors(2)] == [-math.inf, 0.0, -math.inf, -math.inf]
    assert not keep.resamples


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_the_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(ValueError, match="share of N"):
        Adaptive(Systematic, threshold)
