"""The oracle itself: meanings computed by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from ppl import (
    Bernoulli,
    Categorical,
    Key,
    NotFinite,
    call,
    condition,
    factor,
    measure,
    note,
    observe,
    parallel,
    program,
    sample,
    twist,
    uniform,
)
from ppl.measure import Measure, TooManyPaths, paths

DIE = uniform([1, 2, 3, 4, 5, 6])


@program
async def two_dice() -> int:
    return sum(await parallel(sample("a", DIE), sample("b", DIE)))


def test_two_dice() -> None:
    # 6 - |7 - n| of the 36 pairs sum to n.
    assert measure(two_dice()) == Measure({n: (6 - abs(7 - n)) / 36 for n in range(2, 13)})


@program
async def disease(prevalence: float, sensitivity: float, false_alarms: float) -> bool:
    ill = await sample("ill", Bernoulli(prevalence))
    await observe("test", Bernoulli(sensitivity if ill else false_alarms), True)
    return ill


def test_bayes_rule() -> None:
    p, se, fa = 0.01, 0.9, 0.05
    m = measure(disease(p, se, fa))
    assert m == Measure({True: p * se, False: (1 - p) * fa})
    assert m.evidence == pytest.approx(p * se + (1 - p) * fa, rel=1e-15)
    assert m.posterior[True] == pytest.approx(p * se / (p * se + (1 - p) * fa), rel=1e-14)


def test_masses_are_not_probabilities() -> None:
    @program
    async def heavy() -> bool:
        heads = await sample("heads", Bernoulli(0.25))
        await factor("score", math.log(8.0 if heads else 2.0))
        return heads

    assert measure(heavy()) == Measure({True: 0.25 * 8, False: 0.75 * 2})


@program
async def geometric(p: float, most: int) -> int:
    count = 0
    while count < most and await sample("more", Bernoulli(p)):
        count += 1
    return count


def test_a_program_that_decides_how_long_it_runs() -> None:
    expected = {k: 0.3**k * 0.7 for k in range(4)} | {4: 0.3**4}
    assert measure(geometric(0.3, 4)) == Measure(expected)


def test_condition_keeps_part_of_the_mass() -> None:
    @program
    async def even() -> int:
        n = await sample("n", DIE)
        await condition("even", n % 2 == 0)
        return n

    assert measure(even()) == Measure({2: 1 / 6, 4: 1 / 6, 6: 1 / 6})


def test_twists_leave_the_meaning_alone() -> None:
    @program
    async def twisted() -> bool:
        await twist("v", 1.5)
        heads = await sample("heads", Bernoulli(0.25))
        await twist("v", 3.0 if heads else -2.0)
        await twist("w", 0.7)
        return heads

    assert measure(twisted()) == Measure({True: 0.25, False: 0.75})


def test_a_twist_of_minus_infinity_kills_and_nothing_brings_the_path_back() -> None:
    @program
    async def killed() -> bool:
        heads = await sample("heads", Bernoulli(0.25))
        await twist("v", 2.0)
        await twist("v", 0.0 if heads else -math.inf)
        await twist("v", 1.0)
        return heads

    assert measure(killed()) == Measure({True: 0.25})


def test_a_path_of_weight_zero_goes_no_further() -> None:
    """What follows `condition(False)` may rely on the condition: it must not run (here, log 0 would raise)."""

    @program
    async def positive() -> float:
        n = await sample("n", uniform([0, 1]))
        await condition("positive", n > 0)
        return math.log(n)

    assert measure(positive()) == Measure({0.0: 0.5})


def test_zero_evidence() -> None:
    @program
    async def impossible() -> int:
        n = await sample("n", DIE)
        await condition("seven", n == 7)
        return n

    m = measure(impossible())
    assert (m.evidence, len(m)) == (0.0, 0)
    with pytest.raises(ValueError, match="evidence is zero"):
        _ = m.posterior


def test_parallel_programs_draw_and_factor() -> None:
    """The mass of a pair is the product: branches are independent."""

    @program
    async def side(bias: float) -> bool:
        heads = await sample("heads", Bernoulli(bias))
        await factor("score", math.log(3.0 if heads else 0.5))
        return heads

    @program
    async def both() -> tuple[bool, ...]:
        return tuple(await parallel(side(0.25), side(0.5), note("working")))[:2]

    one, two = {True: 0.25 * 3, False: 0.75 * 0.5}, {True: 0.5 * 3, False: 0.5 * 0.5}
    assert measure(both()) == Measure({(a, b): one[a] * two[b] for a in one for b in two})


def test_calls_are_made_once_per_history() -> None:
    made: Counter[int] = Counter()

    def work(n: int) -> int:
        made[n] += 1
        return n * n

    @program
    async def squares() -> tuple[int, ...]:
        n = await sample("n", uniform([0, 1, 2]))
        square = await call(work, n)
        return square, await sample("a", DIE), await sample("b", DIE)

    assert len(measure(squares())) == 3 * 36
    assert made == {0: 1, 1: 1, 2: 1}


class Real:
    """A draw without a table."""

    family = "real"

    def sample(self, key: Key) -> float:
        return key.uniform()

    def log_prob(self, value: Any) -> float:
        return 0.0


def test_not_finite_names_the_site() -> None:
    @program
    async def inner() -> float:
        return await sample("x", Real())

    @program
    async def outer() -> float:
        await sample("heads", Bernoulli(0.5))
        await inner()
        return await inner()

    with pytest.raises(NotFinite, match="outer/inner/x: Real has no finite table"):
        measure(outer())


def test_too_many_paths_at_the_limit_exactly() -> None:
    assert len(measure(two_dice(), max_paths=36)) == 11
    with pytest.raises(TooManyPaths, match=r"two_dice has more than 35 paths.*0\.972 of the prior"):
        measure(two_dice(), max_paths=35)  # 35 / 36 = 0.972


def test_a_guess_gives_up_early() -> None:
    assert len(measure(two_dice(), max_paths=36, guess=True)) == 11
    with pytest.raises(
        TooManyPaths, match=r"seems to have more than 17 paths \(10 cover 0\.278"
    ):  # 10 of 36: more than twice 17
        measure(two_dice(), max_paths=17, guess=True)
    with pytest.raises(TooManyPaths, match=r"has more than 19 paths \(19 cover 0\.528"):  # 19 of 36
        measure(two_dice(), max_paths=19, guess=True)


def test_paths_carry_prior_weight_and_choices() -> None:
    found = {path.value: path for path in paths(disease(0.01, 0.9, 0.05))}
    assert found[True].probability == pytest.approx(0.01, rel=1e-15)
    assert found[True].log_weight == pytest.approx(math.log(0.9), rel=1e-14)
    assert found[False].choices == {"disease/ill": False}


def test_impossible_outcomes_are_not_visited() -> None:
    @program
    async def sure() -> int:
        return 1 // await sample("n", Categorical.of({0: 0.0, 1: 1.0}))

    assert dict(measure(sure())) == {1: 1.0}


def test_constant_program_has_mass_one() -> None:
    @program
    async def constant() -> str:
        return "yes"

    assert measure(constant()) == Measure({"yes": 1.0})


def test_an_effect_made_early_on_a_killed_path_harms_no_other_path() -> None:
    """A killed path drops effects it would have awaited later; that is no forgotten `await`."""

    @program
    async def early() -> bool:
        heads = await sample("heads", Bernoulli(0.5))
        first, second = condition("first", heads), sample("second", Bernoulli(0.5))
        await first
        return await second

    assert measure(early()) == Measure({True: 0.25, False: 0.25})


@pytest.mark.parametrize("a", [1e-13, 2e-12, 0.1])
def test_equality_is_relative_to_the_evidence(a: float) -> None:
    big, close = Measure({"x": 1e6, "y": 0.0}), Measure({"x": 1e6, "y": a * 1e6})
    assert (big == close) is (a <= 1e-12)


@pytest.mark.parametrize("names", ["ab", "ba", "cab"])
def test_nan_equals_nothing(names: str) -> None:
    """An algorithm that gives `nan` must not pass for a proper one, wherever the `nan` stands."""
    good = Measure(dict.fromkeys(names, 1.0))
    for spoilt in names:
        bad = Measure({name: math.nan if name == spoilt else 1.0 for name in names})
        assert good != bad
        assert bad != good
