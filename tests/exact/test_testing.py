"""The toolkit itself: right algorithms, kernels and programs pass, planted wrong ones do not, and it says why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.errors import Unsatisfiable

import ppl.testing
from ppl import (
    SMC,
    Bernoulli,
    Categorical,
    Importance,
    Population,
    Program,
    SingleSite,
    Trace,
    call,
    factor,
    measure,
    parallel,
    program,
    propose,
    recorded,
    regenerate,
    sample,
    scan,
    select,
    trace,
    uniform,
)
from ppl.measure import EndlessPath, TooManyPaths, paths
from ppl.testing import (
    Draw,
    Inner,
    Kernel,
    Look,
    Score,
    Spell,
    Steer,
    Steps,
    Sub,
    Tiny,
    Together,
    assert_invariant,
    assert_proper,
    assert_replayable,
    assert_same_measure,
    programs,
)

FEW = settings(max_examples=30, deadline=None, database=None)
SHRINK = settings(
    max_examples=200,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    phases=[Phase.generate, Phase.shrink],
)
WORLD = Tiny((Draw(((1, 3),)), Score((1, 2)), Draw(((2, 1), (1, 1))))).program()


# Algorithms


@program
async def unweighted(target: Program[Any]) -> Population[Any]:
    """Drops the weights of its particles."""
    population = await Importance(2)(target)
    return Population(population.values, (0.0, 0.0))


def test_a_wrong_algorithm_is_refused_with_the_program_and_both_masses() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_proper(unweighted, Tiny((Draw(((1, 3),)), Score((1, 2)))).program())
    # The program has masses 1/4 and 3/2; without weights those of the draw.
    assert str(caught.value) == (
        "unweighted is not proper on\n"
        "  Tiny(body=(Draw(rows=((1, 3),)), Score(weights=(1, 2)))).program():\n"
        "  (1,)\n    has mass 0.75, not 1.5\n"
        "The evidence is 1.0, not 1.75; the largest difference is 0.429 of the larger evidence."
    )


def test_the_message_holds_python() -> None:
    tiny = Tiny((Draw(((1, 3),)), Sub((Spell(((1, 3),), ((0, 1, 2),), (1, 1), True), Inner(2, (Look(((1, 0),), 1),))))))
    assert eval(repr(tiny), {**vars(ppl.testing)}) == tiny


def test_hypothesis_finds_the_smallest_program_for_a_wrong_algorithm() -> None:
    """A weight that is not 1 is all that it takes."""

    def wrong(tiny: Tiny) -> bool:
        try:
            assert_proper(unweighted, tiny.program())
        except AssertionError:
            return True
        return False

    tiny = find(programs(6), wrong, settings=SHRINK, random=Random(0))
    assert len(tiny.body) == 2


def test_different_programs_are_named_both() -> None:
    other = Tiny((Draw(((2, 3),)),)).program()
    with pytest.raises(AssertionError, match=r"(?s)rows=\(\(1, 3\).*rows=\(\(2, 3\).*do not mean"):
        assert_same_measure(Tiny((Draw(((1, 3),)),)).program(), other)


def test_nan_is_refused() -> None:
    class Spoilt(Population[Any]):
        @property
        def log_evidence(self) -> float:
            return math.nan

    @program
    async def spoilt(target: Program[Any]) -> Population[Any]:
        return Spoilt((await target,), (0.0,))

    with pytest.raises((AssertionError, ValueError), match="nan"):
        assert_proper(spoilt, WORLD)


# Too many paths


def test_outside_hypothesis_too_many_paths_raise() -> None:
    for check in (
        lambda: assert_proper(SMC(2), WORLD, max_paths=10),
        lambda: assert_same_measure(WORLD, WORLD, max_paths=3),
        lambda: assert_invariant(stay, WORLD, max_paths=3),
    ):
        with pytest.raises(TooManyPaths):
            check()


def test_inside_hypothesis_too_many_paths_reject_the_example() -> None:
    checked = list[int]()

    @FEW
    @given(programs(6))
    def some(tiny: Tiny) -> None:
        assert_proper(Importance(2), tiny.program(), max_paths=9)
        checked.append(len(measure(tiny.program())))

    some()
    assert len(checked) >= 30
    assert max(checked) <= 3  # of 4 paths, 2 particles have 16

    @settings(FEW, suppress_health_check=[HealthCheck.filter_too_much])
    @given(programs(6))
    def none(tiny: Tiny) -> None:
        assert_proper(Importance(2), tiny.program(), max_paths=0)

    with pytest.raises(Unsatisfiable):  # a test that has rejected all its examples must not pass
        none()


def test_an_endless_algorithm_is_no_rejected_example() -> None:
    @program
    async def endless(target: Program[Any]) -> Population[Any]:
        while True:
            await sample("again", Categorical.of({0: 1.0}))

    @settings(FEW, max_examples=1, phases=[Phase.generate])
    @given(programs(4))
    def check(tiny: Tiny) -> None:
        assert_proper(endless, tiny.program())

    with pytest.raises(EndlessPath):
        check()


# Kernels


@program
async def stay(target: Program[Any], now: Trace[Any]) -> Trace[Any]:
    return now


@program
async def afresh(target: Program[Any], now: Trace[Any]) -> Trace[Any]:
    """Independent Metropolis-Hastings: proposals from the prior."""
    return await _accepted(now, await regenerate(now, select("**")))


@program
async def greedy(target: Program[Any], now: Trace[Any]) -> Trace[Any]:
    """Takes every proposal that is possible."""
    proposed = await regenerate(now, select("**"))
    return proposed.trace or now


@program
async def upside_down(target: Program[Any], now: Trace[Any]) -> Trace[Any]:
    """Accepts by the inverse ratio."""
    proposed = await regenerate(now, select("**"))
    return await _accepted(now, replace(proposed, log_ratio=-proposed.log_ratio))


@program
async def backwards(target: Program[Any], now: Trace[Any]) -> Trace[Any]:
    """The values of the new trace under the scores of the old one."""
    proposed = (await regenerate(now, select("**"))).trace or now
    return replace(now, choices=proposed.choices, value=proposed.value)


async def _accepted(now: Trace[Any], proposed: Any) -> Trace[Any]:
    accept = await sample("accept", Bernoulli(math.exp(min(0.0, proposed.log_ratio)) if proposed.trace else 0.0))
    return proposed.trace if accept else now


@pytest.mark.parametrize("kernel", [stay, afresh], ids=["stay", "afresh"])
def test_right_kernels_pass(kernel: Kernel[Any]) -> None:
    @settings(FEW, max_examples=60)
    @given(programs(8))
    def check(tiny: Tiny) -> None:
        assert_invariant(kernel, tiny.program())

    check()


@pytest.mark.parametrize("kernel", [greedy, upside_down, backwards], ids=["greedy", "upside down", "backwards"])
def test_wrong_kernels_are_found_by_the_strategy(kernel: Kernel[Any]) -> None:
    @settings(FEW, max_examples=100, phases=[Phase.generate])
    @given(programs(8))
    def check(tiny: Tiny) -> None:
        assert_invariant(kernel, tiny.program())

    with pytest.raises(AssertionError, match=r"Tiny\(body="):
        check()


RAW = Tiny((Inner(1, (Steer(((1, 2),)),)),)).program()
"""Inside an algorithm a draw from a proposal is asked for raw: its answer is the pair of value and weight."""


def test_a_right_kernel_passes_where_a_proposal_is_used_inside_inference() -> None:
    assert_invariant(afresh, RAW)


def test_a_trace_has_its_probability_where_a_proposal_is_used_inside_inference() -> None:
    for path in paths(recorded(RAW)):
        assert path.value.log_joint == pytest.approx(math.log(path.probability) + path.log_weight, abs=1e-9)


def test_a_trace_replays_where_a_proposal_is_used_inside_inference() -> None:
    assert_replayable(RAW)


def test_a_proposal_changes_nothing_where_one_is_used_inside_inference() -> None:
    assert_same_measure(propose(RAW, {"**/x": Categorical.of({0: 1.0, 1: 1.0})}), RAW)


def test_the_message_names_the_traces_that_gain_and_lose() -> None:
    """Masses before are 1 : 6; who always takes a draw of the prior gives the evidence 7/4 out as 1 : 3."""
    with pytest.raises(AssertionError) as caught:
        assert_invariant(greedy, Tiny((Draw(((1, 3),)), Score((1, 2)))).program())
    lines = str(caught.value).splitlines()
    assert lines[0] == "greedy does not leave the posterior over traces invariant on"
    assert {lines[2], lines[4]} == {"  {tiny/x: 0} -> (0,)", "  {tiny/x: 1} -> (1,)"}
    assert {lines[3], lines[5]} == {"    has mass 0.4375, not 0.25", "    has mass 1.3125, not 1.5"}


def test_a_kernel_must_score_what_it_gives() -> None:
    """The values may be distributed as they should, and the next step still start from wrong weights."""

    @program
    async def stale(target: Program[Any], now: Trace[Any]) -> Trace[Any]:
        return replace(now, factors=dict.fromkeys(now.factors, 0.0))

    with pytest.raises(AssertionError, match=r"(?s)stale does not leave.*log_joint.*score it again"):
        assert_invariant(stale, WORLD)


def test_a_kernel_gives_traces() -> None:
    @program
    async def value(target: Program[Any], now: Trace[Any]) -> Any:
        return now.value

    with pytest.raises(TypeError, match=r"a kernel gives a program of a Trace; this one gave \(0, 0\)"):
        assert_invariant(value, WORLD)


# Replay

COIN = uniform([0, 1])


@program
async def pure(n: int) -> list[int]:
    def step(carry: int, x: int) -> Program[tuple[int, int]]:
        return flip(carry, x)

    first = await call(next, itertools.count())  # impure, and in its place
    _, ys = await scan(step, first, range(n))
    a, b = await parallel(flip(0, 0), sample("b", Bernoulli(0.5), proposal=Bernoulli(0.25)))
    return [*ys, a[0], int(b)]


@program
async def flip(carry: int, x: int) -> tuple[int, int]:
    y = await sample("y", Categorical.of({0: 1.0, 1: 1.0 + carry}))
    await factor("f", -0.3 * y * x)
    return y, y


def test_pure_programs_pass() -> None:
    assert_replayable(pure(4))
    assert_replayable(pure(2), seeds=None)


@FEW
@given(programs(20, depth=2))
def test_tiny_programs_replay(tiny: Tiny) -> None:
    assert_replayable(tiny.program(), range(2))
    assert_replayable(tiny.program(), None)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_steps_of_a_scan_that_ask_nothing_replay(first: int) -> None:
    """A step that returns at once, in the middle or as the last, leaves nothing in the log."""

    @program
    async def step(carry: int, x: int) -> tuple[int, int]:
        return carry, await sample("y", COIN) if x else 0

    @program
    async def gaps() -> Any:
        xs = [1, 1, 1]
        xs[first] = 0
        return (await scan(step, 0, xs))[1], await sample("after", COIN)

    assert_replayable(gaps(), range(2))


def _counter() -> Callable[[], int]:
    return itertools.count(1).__next__


def _time_in_a_factor() -> Program[Any]:
    clock = _counter()  # time.perf_counter() never gives a number twice; here neither

    @program
    async def timed() -> int:
        x = await sample("x", COIN)
        await factor("late", -0.1 * clock())
        return x

    return timed()


def _random_branch() -> Program[Any]:
    flips = itertools.cycle([True, False, False])

    @program
    async def branching() -> int:
        x = await sample("x", COIN)
        return x + await (sample("y", COIN) if next(flips) else sample("z", COIN))

    return branching()


def _parameter() -> Program[Any]:
    tick = _counter()

    @program
    async def drifting() -> int:
        await sample("x", COIN)
        return await sample("y", Categorical.of({0: 1.0, 1: 1.0 / tick()}))

    return drifting()


def _global_that_grows() -> Program[Any]:
    seen: list[int] = []

    @program
    async def hoarding() -> int:
        x = await sample("x", COIN)
        seen.append(x)
        await factor("f", -1.0 * len(seen))
        return x

    return hoarding()


def _first_time_only() -> Program[Any]:
    """Asks otherwise at its first start only: two replays agree, and differ from the run."""
    cache: dict[str, float] = {}

    @program
    async def caching() -> int:
        p = cache.setdefault("p", 0.25) if "p" in cache else 0.5
        cache["p"] = 0.25
        return await sample("x", Bernoulli(p))

    return caching()


def _mutable_argument() -> Program[Any]:
    @program
    async def consuming(box: dict[str, list[int]]) -> int:
        await sample("x", COIN)
        return await sample("y", uniform(range(box["items"].pop())))

    return consuming({"items": [5, 4, 3, 2]})


def _set_order() -> Program[Any]:
    tick = _counter()

    class Tool:
        """Hashed by its place in memory, as objects are."""

        def __init__(self, name: str) -> None:
            self.name, self.place = name, 7 * tick() % 5

        def __hash__(self) -> int:
            return self.place

    @program
    async def tools() -> int:
        await sample("x", COIN)
        for tool in {Tool("a"), Tool("b"), Tool("c")}:
            await sample(tool.name, COIN)
        return 0

    return tools()


def _value() -> Program[Any]:
    tick = _counter()

    @program
    async def stamped() -> tuple[int, int]:
        return await sample("x", COIN), tick()

    return stamped()


def _error() -> Program[Any]:
    items = [1]

    @program
    async def popping() -> int:
        x = await sample("x", COIN)
        return items.pop() + await sample("y", COIN) + x

    return popping()


def _in_a_scan() -> Program[Any]:
    tick = _counter()

    @program
    async def step(carry: int, _: int) -> tuple[int, int]:
        await factor("f", -0.5 * (tick() % 7))
        return carry, await sample("y", COIN)

    @program
    async def scanning() -> Any:
        return (await scan(step, 0, range(3)))[1]

    return scanning()


def _call_of_another() -> Program[Any]:
    tick = _counter()

    @program
    async def asking() -> int:
        return await call(abs, tick())

    return asking()


IMPURE = [
    (_time_in_a_factor, r"timed/late: it asked for a factor of log weight -0.1 first, .* of log weight -0.2"),
    (_random_branch, r"branching/(y|z)"),
    (_parameter, r"drifting/y: it asked for a draw from .* first"),
    (_global_that_grows, r"hoarding/f: it asked for a factor of log weight -1.0 first"),
    (_first_time_only, r"caching/x: it asked for a draw from"),
    (_mutable_argument, r"consuming/y: it asked for a draw from"),
    (_set_order, r"tools/(a|b|c)"),
    (_value, r"returned \(., 1\), and given the same answers again, \(., \d\)"),
    (_error, r"popping does not replay: started again with the same answers, it raised IndexError"),
    (_in_a_scan, r"scanning/step/f: it asked for a factor"),
    (_call_of_another, r"asking/abs: it asked for a call of builtins:abs\(1\) first, .*abs\(2\)"),
]


@pytest.mark.parametrize(("make", "says"), IMPURE, ids=[make.__name__[1:] for make, _ in IMPURE])
def test_impure_programs_are_refused_naming_the_first_site(make: Callable[[], Program[Any]], says: str) -> None:
    with pytest.raises(AssertionError, match=says) as caught:
        assert_replayable(make())
    assert "put random or outside work" in str(caught.value)


def test_every_path_is_checked_where_seeds_may_miss_one() -> None:
    """The mistake waits where one run in a million goes."""
    tick = _counter()

    @program
    async def rare() -> int:
        if await sample("hit", Categorical.of({0: 1.0, 1: 1e-6})):
            await factor("f", -0.1 * tick())
        return 0

    assert_replayable(rare())
    with pytest.raises(AssertionError, match="rare/f"):
        assert_replayable(rare(), seeds=None)


# The strategy


def test_inference_inside_a_program_is_the_program() -> None:
    body = (Draw(((1, 2),)), Score((0, 3)), Look(((1, 2), (3, 1)), 0))
    inferred, awaited = Tiny((Draw(((1, 1),)), Inner(2, body))), Tiny((Draw(((1, 1),)), Sub(body)))
    assert_same_measure(inferred.program(), awaited.program())


@pytest.mark.parametrize("batched", [False, True])
def test_an_observation_multiplies_by_the_probability_of_the_value(batched: bool) -> None:
    tiny = Tiny((Draw(((1, 1),)), Look(((1, 3), (1, 1, 2)), 2, batched)))
    assert measure(tiny.program()) == ppl.Measure({(1,): 0.5 * 2 / 4})  # after 0 the row does not hold 2


@pytest.mark.parametrize("twisted", [False, True])
@pytest.mark.parametrize(("blocks", "texts"), [((1,), {"a": 1, ".": 2}), ((2,), None), ((1, 1), None)])
def test_texts_that_the_grammar_allows(blocks: tuple[int, ...], texts: dict[str, float] | None, twisted: bool) -> None:
    """Weights a : . : b = 1 : 2 : 3 behind anything; b is never allowed, `.` in state 1 (behind an a) only."""
    rows, moves = ((1, 2, 3),), ((1, 2, 2), (1, 0, 2))
    found = measure(Tiny((Spell(rows, moves, blocks, twisted),)).program())
    code = {"a": 3, "aa": 9, "a.": 10}
    if blocks == (1,):
        assert found == ppl.Measure({(code["a"],): 1 / 6})
    else:
        assert found == ppl.Measure({(code["aa"],): 1 / 36, (code["a."],): 2 / 36})


def _finds(condition: Callable[[Tiny], bool]) -> Tiny:
    return find(programs(12), condition, settings=SHRINK, random=Random(0))


def _holds(tiny: Tiny, kind: type) -> bool:
    return f"{kind.__name__}(" in repr(tiny)


@pytest.mark.parametrize("kind", [Spell, Inner])
def test_examples_of_each_kind_shrink(kind: type) -> None:
    """To a draw and the statement, with at most one statement inside."""
    tiny = _finds(lambda tiny: _holds(tiny, kind))
    assert len(tiny.body) <= 2
    assert all(len(getattr(node, "body", ())) <= 1 for node in tiny.body)


def test_runs_of_different_length_are_common() -> None:
    """And those that die, and weights at all: on programs of fixed length many mistakes do not show."""
    total, unequal, dying, weighed = 0, 0, 0, 0

    @settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate], derandomize=True)
    @given(programs(12))
    def count(tiny: Tiny) -> None:
        nonlocal total, unequal, dying, weighed
        found = [path.value for path in paths(recorded(tiny.program()))]
        total += 1
        unequal += len({(len(one.choices), len(one.factors), len(one.twists)) for one in found}) > 1
        dying += any(trace(tiny.program(), seed).killed is not None for seed in range(3))
        weighed += any(one.factors or one.twists for one in found)

    count()
    assert min(unequal, dying) > 0.1 * total
    assert weighed > 0.5 * total


def test_a_scan_without_steps_before_a_batch_replays() -> None:
    tiny = Tiny((Draw(((0, 1),)), Steps(0, (Score((1,)),)), Together((Draw(((0, 1),)), Draw(((0, 1),))))))
    assert_replayable(tiny.program())


def test_a_pair_that_its_new_proposal_cannot_draw_rejects_the_move() -> None:
    """The weight of a value drawn inside inference is part of it: where the proposal changes, it cannot be kept."""
    tiny = Tiny((Draw(((1, 1),)), Inner(1, (Steer(((0, 1), (0, 0, 1))),))))
    assert_invariant(SingleSite(), tiny.program())
