"""Every resampler is the distribution over ancestor vectors that it says it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl import SSP, Adaptive, Key, Multinomial, Residual, Stratified, Systematic, Tempered, WithoutReplacement
from ppl.inference import weights as log_space
from ppl.inference.resampling import Ancestors, Keep, Resampler

SCHEMES: list[type[Ancestors]] = [Multinomial, Stratified, Systematic, Residual, SSP]  # children of equal weight
UNEQUAL: list[Resampler] = [
    WithoutReplacement, Tempered(Systematic, 0.5), Tempered(SSP), Tempered(Multinomial, 0.0), Tempered(Residual, 1.0),
    Tempered(WithoutReplacement, 0.5), Adaptive(Tempered(Systematic, 0.5), 0.5),
]  # fmt: skip
# Integer weights bring zeros, ties and N w_k that are whole numbers, where intervals degenerate.
WEIGHTS = st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any)
LAWS = settings(max_examples=80, deadline=None, database=None)
COUNTS = st.sampled_from([None, 1, 2, 3, 5])
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_resampler = pytest.mark.parametrize("resampler", [*SCHEMES, *UNEQUAL], ids=str)


class Given(Key):
    """A key whose uniforms are given."""

    def __init__(self, *us: float) -> None:
        super().__init__(bytes(16))
        self.us = us

    def uniform(self) -> float:
        return self.us[0]

    def uniforms(self, count: int) -> list[float]:
        return np.resize(self.us, count).tolist()


def _logs(weights: Sequence[float]) -> list[float]:
    return [math.log(w) if w else -math.inf for w in weights]


def _vectors(particles: int, children: int | None = None) -> list[tuple[int, ...]]:
    return list(product(range(particles), repeat=particles if children is None else children))


@every_resampler
@settings(LAWS, max_examples=50)
@given(WEIGHTS, COUNTS)
def test_table_and_log_prob_are_the_same_law(resampler: Resampler, weights: list[int], count: int | None) -> None:
    """At every vector there is; log_prob is -inf outside the table, up to intervals of rounding size."""
    dist = resampler(_logs(weights), count)
    table = dict(dist.table())
    assert len(table) == len(dist.table()), "a vector is listed twice"
    assert math.fsum(table.values()) == pytest.approx(1.0, abs=1e-12)
    (children,) = {len(vector) for vector in table}
    assert dist.log_prob((0,) * (children + 1)) == -math.inf
    if type(dist) is Keep:
        return
    for vector in _vectors(len(weights), children):
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
@given(WEIGHTS, COUNTS)
def test_each_particle_expects_children_by_its_weight(
    scheme: type[Ancestors], weights: list[int], count: int | None
) -> None:
    """Where children are equally weighted, e_k = count w_k."""
    dist = scheme(_logs(weights), count)
    for k, weight in enumerate(weights):
        assert dist.expected[k] == pytest.approx((count or len(weights)) * weight / sum(weights), abs=1e-12)
        assert len({*dist.child_log_weights((0,) * dist.count)}) == 1


@every_resampler
@LAWS
@given(WEIGHTS, COUNTS)
def test_the_expected_number_of_children(resampler: Resampler, weights: list[int], count: int | None) -> None:
    dist = resampler(_logs(weights), count)
    table = dist.table()
    for k, mean in enumerate(dist.expected):
        assert math.fsum(p * vector.count(k) for vector, p in table) == pytest.approx(mean, abs=1e-12)


@every_resampler
@LAWS
@given(WEIGHTS, COUNTS)
def test_weighted_children_are_unbiased(resampler: Resampler, weights: list[int], count: int | None) -> None:
    """E[mean of child weight * f(ancestor)] = mean of w f, for each f that is 1 at one particle."""
    dist = resampler(_logs(weights), count)
    found = [0.0] * len(weights)
    for vector, p in dist.table():
        for a, log_weight in zip(vector, dist.child_log_weights(vector), strict=True):
            found[a] += p * math.exp(log_weight) / len(vector)
    assert found == pytest.approx([w / len(weights) for w in weights], abs=1e-12)


@pytest.mark.parametrize("scheme", [Stratified, Systematic, Residual, SSP])
@LAWS
@given(WEIGHTS, COUNTS)
def test_the_number_of_children_is_close_to_its_mean(
    scheme: type[Ancestors], weights: list[int], count: int | None
) -> None:
    """Systematic, SSP: floor or ceil of e_k; residual: at least the floor; stratified: within 2 (two cut strata)."""
    for vector, p in scheme(_logs(weights), count).table():
        if p < 1e-12:
            continue
        for k, weight in enumerate(weights):
            mean, children = (count or len(weights)) * weight / sum(weights), vector.count(k)
            if scheme in (Systematic, SSP):
                assert math.floor(mean + 1e-9) <= children <= math.ceil(mean - 1e-9)
            elif scheme is Residual:
                assert children >= math.floor(mean + 1e-9)
            else:
                assert abs(children - mean) < 2


@pytest.mark.parametrize("scheme", [Systematic, WithoutReplacement])
@settings(LAWS, max_examples=30)
@given(WEIGHTS, COUNTS)
def test_combs_draw_what_their_tables_say(
    scheme: type[Systematic | WithoutReplacement], weights: list[int], count: int | None
) -> None:
    """The vector of u, over a grid fine enough to hit every interval, and just beside every breakpoint."""
    dist = scheme(_logs(weights), count)
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


@pytest.mark.parametrize("scheme", [Multinomial, Stratified, Residual, SSP])
@settings(LAWS, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(any), st.sampled_from([None, 1, 2]))
def test_independent_draws_are_what_the_table_says(
    scheme: type[Ancestors], weights: list[int], count: int | None
) -> None:
    """The share of a grid of uniforms that gives each vector is its probability, to the grid's resolution.

    Catches a `sample` that uses another cumulative sum, another order of slots, or fewer uniforms than `table`.
    """
    dist, cells = (
        scheme(_logs(weights), count),
        24,
    )  # multiples of 1/24 are rarely bounds; the test allows for all
    table = dict(dist.table())
    counts: dict[tuple[int, ...], int] = {}
    draws = max(len(weights) - 1, 1) if scheme is SSP else count or len(weights)
    for us in product(np.arange(0.5, cells) / cells, repeat=draws):
        vector = dist.sample(Given(*us))
        counts[vector] = counts.get(vector, 0) + 1
    for vector in {*counts, *table}:
        share = counts.get(vector, 0) / cells**draws
        assert abs(share - table.get(vector, 0.0)) <= draws * 2 / cells


@every_resampler
@pytest.mark.parametrize("count", [None, 2, 7])
@pytest.mark.parametrize("weights", [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 3, 7, 0], [1, 1, 1, 0], [5, 0, 0, 0, 2, 0]])
@pytest.mark.parametrize("u", [0.0, 2.0**-54, 5e-324, 0.5, 1 - 2.0**-53, 1 - 2.0**-54])
def test_zero_weights_are_never_chosen(resampler: Resampler, weights: list[int], u: float, count: int | None) -> None:
    """1 - 2^-54 rounds to 1: a draw that trusts u < 1 falls off the end, or on a trailing particle of weight zero."""
    dist = resampler(_logs(weights), count)
    vectors = [dist.sample(Given(u))]
    vectors += [dist.given(k).sample(Given(u)) for k, w in enumerate(weights) if w and dist.resamples]
    for vector in vectors:
        assert len(vector) == round(sum(dist.expected))
        if dist.resamples:
            assert all(weights[k] > 0 for k in vector)


@every_resampler
@pytest.mark.parametrize("count", [None, 1, 2])
def test_a_million_to_one(resampler: Resampler, count: int | None) -> None:
    """Weights far below the rounding of the cumulative sum do not break the table; nor a reference that has one."""
    dist = resampler([0.0, -800.0, -40.0], count)
    table = dist.table()
    assert math.fsum(p for _, p in table) == pytest.approx(1.0, abs=1e-12)
    assert all(p >= 0 for _, p in table)
    for reference in range(3):
        vector = dist.given(reference).sample(Key.of(0))
        assert vector[0] == reference
        assert len(vector) == len(table[0][0])


@every_resampler
def test_all_weights_zero_raises(resampler: Resampler) -> None:
    for count in (None, 2):
        dist = resampler([-math.inf] * 3, count)
        for ask in (dist.table, lambda: dist.sample(Key.of(0)), lambda: dist.log_prob((0,) * dist.count)):  # noqa: B023
            with pytest.raises(ValueError, match="all weights are zero"):
                ask()
        with pytest.raises(ValueError, match="weight zero"):
            dist.given(0)


@every_resampler
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_no_weight_raises(resampler: Resampler, bad: float) -> None:
    with pytest.raises(ValueError, match="nan or"):
        resampler([0.0, bad, -1.0], 2).sample(Key.of(0))


@every_resampler
def test_float32_weights_are_taken_as_they_are(resampler: Resampler) -> None:
    """In float64: -1000.1 + 0.1 in float32 would be off by 1e-5."""
    logw = np.array([-1000.1, -1000.0, -1003.7, -np.inf], np.float32)
    for form in (logw, list(logw)):
        dist = resampler(form, 3)
        assert dist.table() == resampler([float(w) for w in logw], 3).table()
        vector = dist.table()[0][0]
        assert all(type(w) is float for w in dist.child_log_weights(vector))


@every_resampler
def test_one_particle_is_its_own_parent(resampler: Resampler) -> None:
    dist = resampler([-12.0])
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


def test_adaptive_always_resamples_to_another_number() -> None:
    assert type(Adaptive(SSP, 0.5)(_logs([1, 1]), 3)) is SSP
    assert type(Adaptive(SSP, 0.5)(_logs([1, 1]), 2)) is Keep
    with pytest.raises(ValueError, match="2 particles that are kept are not 3"):
        Keep(_logs([1, 1]), 3)
    with pytest.raises(ValueError, match="at least 1 child"):
        SSP(_logs([1, 1]), 0)


def test_ssp_plays_neighbours_off_against_each_other() -> None:
    """Fractions of 1/2 in pairs: exactly one of each pair. What negative association is about: never both."""
    table = dict(SSP([0.0] * 4, 2).table())
    assert table == {(i, j): 0.25 for i in (0, 1) for j in (2, 3)}


@given(st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any), st.integers(1, 9))
@LAWS
def test_without_replacement_is_what_its_paper_says(weights: list[int], count: int) -> None:
    """e_k = min(1, c w_k); the heavy keep their weight, the others have the same; nobody has two children."""
    dist = WithoutReplacement(_logs(weights), count)
    alive = [k for k, w in enumerate(weights) if w]
    if len(alive) <= count:
        assert dist.table() == [(tuple(alive), 1.0)]
        return
    assert sum(dist.expected) == pytest.approx(count, abs=1e-12)
    scales = {round(e / w, 9) for e, w in zip(dist.expected, weights, strict=True) if 0 < e < 1}
    assert len(scales) <= 1
    for e, w in zip(dist.expected, weights, strict=True):
        assert e <= 1
        assert all(e < 1 or c * w >= 1 - 1e-6 for c in scales)
    vector = dist.sample(Key.of(0))
    assert len({*vector}) == len(vector) == count


@given(WEIGHTS, st.sampled_from([0.3, 0.5, 0.9]))
@LAWS
def test_the_power_is_the_largest_that_keeps_enough(weights: list[int], threshold: float) -> None:
    dist = Tempered(Systematic, threshold=threshold)(_logs(weights))
    power: float = dist.power  # pyright: ignore[reportAttributeAccessIssue]

    def ess(power: float) -> float:
        return log_space.ess([power * math.log(w) if w else -math.inf for w in weights])

    if ess(0.0) < threshold * len(weights) - 1e-9:
        assert power == 0.0
    else:
        assert ess(power) >= threshold * len(weights) - 1e-9
        assert power == 1.0 or ess(power + 1e-9) <= threshold * len(weights) + 1e-9


def test_tempered_children_carry_the_rest_of_their_weight() -> None:
    """At power 0 nothing is decided: ratios of weights stay; at power 1/2 their roots are left."""
    for power in (0.0, 0.5, 1.0):
        dist = Tempered(Systematic, power)(_logs([1, 4, 0]))
        one, four = dist.child_log_weights((0, 1))
        assert four - one == pytest.approx((1 - power) * math.log(4), abs=1e-12)
    with pytest.raises(ValueError, match="power is in"):
        Tempered(Systematic, 1.5)
    with pytest.raises(ValueError, match="share of N"):
        Tempered(threshold=-1)
