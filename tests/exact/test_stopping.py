"""Stopping rules, by enumeration of their own draws."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

import ppl
from ppl import Program, condition, factor, infer, program, sample
from ppl.inference.population import Population
from ppl.inference.stopping import AdaptiveVote, FirstFinished, Rejection
from ppl.measure import paths


@program
async def coin(p: float) -> str:
    return "a" if await sample("x", ppl.Bernoulli(p)) else "b"


@program
async def passes(right: float, good: float, bad: float) -> bool:
    """A solution is right with probability `right`; the verifier lets right ones pass with `good`, wrong with `bad`."""
    x = await sample("right", ppl.Bernoulli(right))
    await condition("verifier", await sample("passes", ppl.Bernoulli(good if x else bad)))
    return x


@program
async def walk() -> int:
    """As many steps as it takes to draw a 1, at most 3."""
    for step in range(1, 4):
        await factor("step", -0.1)
        if step == 3 or await sample("x", ppl.Bernoulli(0.5)):
            return step
    raise AssertionError


def law(algorithm: Any, one: Program[Any]) -> list[tuple[Population[Any], float]]:
    """Every population, with its probability."""
    return [(path.value, path.probability) for path in paths(algorithm(one))]


def test_a_vote_is_stopped_when_it_is_decided() -> None:
    """The stopping time of every sequence of draws, by the definition; its law adds up to 1."""
    rule = AdaptiveVote(6, threshold=0.8)
    total, sizes = 0.0, set[int]()
    for population, p in law(rule, coin(0.7)):
        total += p
        sizes.add(len(population.values))
        for n in range(1, len(population.values) + 1):
            counts = Counter(population.values[:n])
            a, b = [*sorted(counts.values(), reverse=True), 0][:2]
            # P(p > 1/2) of Beta(a + 1, b + 1) is P(Binomial(a + b + 1, 1/2) > b).
            tail = sum(math.comb(a + b + 1, k) for k in range(b + 1, a + b + 2)) / 2 ** (a + b + 1)
            assert (tail >= 0.8) == (n == len(population.values)) or n == 6
    assert total == pytest.approx(1) and sizes == {2, 4, 6}


def test_shares_and_batches() -> None:
    sizes = Counter[int]()
    for population, p in law(AdaptiveVote(6, batch=2, rule="share", threshold=0.75), coin(0.5)):
        counts = Counter(population.values)
        assert max(counts.values()) >= 0.75 * counts.total() or counts.total() == 6
        assert population.diagnostics == {"drawn": counts.total()}
        sizes[counts.total()] += p  # pyright: ignore[reportArgumentType]
    assert sizes[2] == pytest.approx(0.5) and set(sizes) == {2, 4, 6}


def test_no_more_are_drawn_than_allowed() -> None:
    """Also where batches do not divide them."""
    for algorithm in (AdaptiveVote(3, batch=2, threshold=1.0), Rejection(3, accept=9.0, batch=2)):
        for population, _ in law(algorithm, coin(0.5)):
            assert population.diagnostics == {"drawn": 3}


def test_the_vote_is_on_answers_and_dead_runs_do_not_count() -> None:
    @program
    async def some() -> int:
        x = await sample("x", ppl.uniform([0, 1, 2, 3]))
        await condition("not 3", x < 3)
        return x

    for population, _ in law(AdaptiveVote(3, lambda x: x % 2, rule="share", threshold=1.0), some()):
        assert population.diagnostics is not None and population.diagnostics["drawn"] <= 3
        assert all(value in (0, 1, 2, None) for value in population.values)


def test_the_first_to_finish() -> None:
    """short-m@k: P(one of two finishes with 1) = 3/4. Who comes to 3 returns in the step in which others end with 2."""
    first = Counter[Any]()
    for population, p in law(FirstFinished(2, 1), walk()):
        first[population.values] += p  # pyright: ignore[reportArgumentType]
    assert first[(1,)] == pytest.approx(3 / 4) and first[(2,)] == first[(3,)] == pytest.approx(1 / 8)
    for population, _ in law(FirstFinished(3, 2), walk()):
        assert len(population.values) == 2 and population.values not in ((2, 1), (3, 1))


def test_rejection_has_the_precision_of_the_verifier_and_abstains() -> None:
    """Whatever the number of tries: P(right | an answer) = r g / (r g + (1 - r) b), and P(no answer) = (1 - pass)^n."""
    r, g, b = 0.3, 0.8, 0.2
    passed = r * g + (1 - r) * b
    for most in (1, 2, 3):
        right = answered = total = 0.0
        for population, p in law(Rejection(most), passes(r, g, b)):
            total += p
            if population.log_weights[0] > -math.inf:
                answered += p
                right += p * bool(population.values[0])
        assert total == pytest.approx(1) and answered == pytest.approx(1 - (1 - passed) ** most)
        assert right / answered == pytest.approx(r * g / passed)


def test_rejection_by_score() -> None:
    @program
    async def scored() -> int:
        x = await sample("x", ppl.uniform([0, 1, 2]))
        await factor("x", float(x))
        return x

    assert {p.values for p, _ in law(Rejection(2, accept=2.0), scored())} == {(2,), (None,)}
    assert {p.values for p, _ in law(Rejection(2, accept=1.0, batch=2), scored())} == {
        (None,), (1,), (2,), (1, 1), (1, 2), (2, 1), (2, 2)}  # fmt: skip
    assert infer(scored(), Rejection(1, accept=9.0), seed=0).is_empty


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveVote(0), "AdaptiveVote: most must be an integer of at least 1"),
        (lambda: AdaptiveVote(4, rule="luck"), "choose beta or share"),  # pyright: ignore[reportArgumentType]
        (lambda: FirstFinished(2, 3), "3 of 2 runs cannot finish"),
        (lambda: Rejection(2, accept=math.nan), "accept is a log weight"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
