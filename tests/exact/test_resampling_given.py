"""Resampling given that child 0 is a child of a reference particle, as conditional SMC needs it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl import SSP, Adaptive, Key, Multinomial, Residual, Stratified, Systematic, Tempered, WithoutReplacement
from ppl.inference.ancestors import rotated
from ppl.inference.resampling import Ancestors, Keep, Resampler
from ppl.source import KeyBlock

SCHEMES: list[Resampler] = [
    Multinomial, Stratified, Systematic, Residual, SSP, WithoutReplacement, Tempered(Systematic, 0.5), Tempered(SSP),
    Tempered(Residual, 0.3), Tempered(WithoutReplacement, 0.5),
]  # fmt: skip
WEIGHTS = st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any)
COUNTS = st.sampled_from([None, 1, 2, 3, 5])
LAWS = settings(max_examples=40, deadline=None, database=None)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def _logs(weights: Sequence[float]) -> list[float]:
    return [math.log(w) if w else -math.inf for w in weights]


@every_scheme
@LAWS
@given(WEIGHTS, COUNTS)
def test_the_law_is_the_size_biased_one(scheme: Resampler, weights: list[int], count: int | None) -> None:
    """p(a) / e_r for each child of the reference in a, that child first; `log_prob` says so of every vector."""
    dist = scheme(_logs(weights), count)
    for reference in [k for k, w in enumerate(weights) if w]:
        law = dist.given(reference)
        biased = Counter[tuple[int, ...]]()
        for vector, p in dist.table():
            for i, a in enumerate(vector):
                if a == reference:
                    biased[rotated(vector, i)] += p / dist.expected[reference]  # pyright: ignore[reportArgumentType]
        table = dict(law.table())
        assert len(table) == len(law.table()), "a vector is listed twice"
        assert table == pytest.approx(dict(biased), abs=1e-12)
        assert math.fsum(table.values()) == pytest.approx(1.0, abs=1e-12)
        assert {vector[0] for vector in table} == {reference}
        for vector in product(range(len(weights)), repeat=len(next(iter(table)))):
            assert math.exp(law.log_prob(vector)) == pytest.approx(table.get(vector, 0.0), abs=1e-12)


CASES = [([1, 2, 3], None), ([3, 1, 0, 2], None), ([5, 1, 1], None), ([2, 2, 2, 1], 2), ([3, 4], 5), ([1, 1, 1, 1], 3)]


@every_scheme
@pytest.mark.parametrize(("weights", "count"), CASES)
def test_draws_are_what_the_table_says(scheme: Resampler, weights: list[int], count: int | None) -> None:
    """Each frequency in 4000 draws is within 5 standard deviations, plus 2 draws for the discreteness of rare vectors.

    False alarm: less than 1e-6 for each vector, 1e-3 for all cases (and, as the seeds are fixed, once and for all).
    A probability that is wrong by 0.05 is found.
    """
    dist, n = scheme(_logs(weights), count), 4000
    for reference in [k for k, w in enumerate(weights) if w]:
        law = dist.given(reference)
        table, block = dict(law.table()), KeyBlock(np.random.default_rng(reference).bytes(16 * n))
        counts = Counter(law.sample(key) for key in block)
        for vector in {*counts, *table}:
            p = table.get(vector, 0.0)
            assert abs(counts[vector] - n * p) <= 5 * math.sqrt(n * p * max(1 - p, 0)) + 2 * (p > 1e-12)


@every_scheme
def test_a_reference_of_weight_zero_has_no_children(scheme: Resampler) -> None:
    dist = scheme(_logs([1, 0, 1]))
    with pytest.raises(ValueError, match=r"particle 1, has weight zero"):
        dist.given(1)
    for outside in (-1, 3):
        with pytest.raises(ValueError, match=r"no particle -?\d among 3"):
            dist.given(outside)


@pytest.mark.parametrize("scheme", [Residual, Systematic])
def test_a_weight_below_rounding_has_no_table_and_says_so(scheme: type[Ancestors]) -> None:
    with pytest.raises(ValueError, match="below rounding"):
        scheme([0.0, -800.0]).given(1).table()


def test_keep_can_only_have_its_first_as_the_reference() -> None:
    for dist in (Keep(_logs([1, 3])), Tempered(Keep, 0.5)(_logs([1, 3]))):
        law = dist.given(0)
        assert not law.resamples
        assert law.table() == [((0, 1), 1.0)]
        assert law.sample(Key.of(0)) == (0, 1)
        assert law.child_log_weights((0, 1)) == pytest.approx(_logs([1, 3]))
        with pytest.raises(ValueError, match="must be particle 0, not 1"):
            dist.given(1)


# A kernel of conditional SMC, over every outcome. A path is its states; `q` is the law of each state, and the weight of
# a step depends on the state and the one before.
Path = tuple[int, ...]
CYCLIC = [Multinomial, Systematic, Residual, Tempered(Systematic, 0.5), Adaptive(Tempered(Systematic), 0.7)]
Q = (0.3, 0.7)
WEIGHT = (((1.0, 1.0), (9.0, 9.0)), ((1.0, 9.0), (9.0, 1.0)), ((1.0, 7.0), (5.0, 1.0)))


def _weight(t: int, path: Path) -> float:
    return WEIGHT[t][path[t]][path[t - 1] if t else 0]


def _bias(scheme: Resampler, particles: int, steps: int) -> float:
    """How far one step of particle Gibbs moves the posterior of paths: the largest change of a probability."""
    paths = list(product(range(2), repeat=steps))
    target = {p: math.prod(Q[x] for x in p) * math.prod(_weight(t, p) for t in range(steps)) for p in paths}
    total, moved = sum(target.values()), Counter[Path]()
    for reference in paths:
        _sweep(scheme, reference, [()] * particles, [0.0] * particles, target[reference] / total, moved)
    return max(abs(moved[p] - target[p] / total) for p in paths)


def _sweep(
    scheme: Resampler, reference: Path, population: list[Path], logw: list[float], p: float, moved: Counter[Path]
) -> None:
    t = len(population[0])
    for states in product(range(2), repeat=len(population) - 1):
        q = p * math.prod(Q[x] for x in states)
        new = [(*path, x) for path, x in zip(population, (reference[t], *states), strict=True)]
        weighted = [w + math.log(_weight(t, path)) for w, path in zip(logw, new, strict=True)]
        if t + 1 == len(reference):
            masses = np.exp(weighted)
            for path, share in zip(new, masses / masses.sum(), strict=True):
                moved[path] += q * share
            continue
        dist = scheme(weighted)
        for ancestors, r in dist.given(0).table():
            after = dist.child_log_weights(ancestors)
            _sweep(scheme, reference, [new[a] for a in ancestors], after, q * r, moved)


@pytest.mark.parametrize("scheme", CYCLIC, ids=str)
@pytest.mark.parametrize(("particles", "steps"), [(2, 3), (3, 3), (4, 2)])
def test_particle_gibbs_leaves_the_posterior_as_it_is(scheme: Resampler, particles: int, steps: int) -> None:
    assert scheme([0.0] * 2).cyclic
    assert _bias(scheme, particles, steps) < 1e-12


def test_siblings_keep_their_place_in_the_cycle() -> None:
    """Four particles over three steps: with the reference's child moved alone, not rotated, the bias is 8e-5."""
    assert _bias(Systematic, 4, 3) < 1e-12


@pytest.mark.parametrize(("scheme", "particles"), [(Stratified, 3), (SSP, 5)])
def test_what_depends_on_who_is_first_needs_more_than_slot_0(scheme: type[Ancestors], particles: int) -> None:
    """The reference is first in every population, which these schemes favour or not: hence not `cyclic`."""
    assert not scheme.cyclic
    assert _bias(scheme, particles, 2) > 1e-5
