"""Runs: addresses, clones and replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl import Bernoulli, Program, ReplayError, Run, call, factor, parallel, program, sample, twist, uniform
from ppl.distributions import table
from ppl.effects import Call, Sample, Twist, Weight
from ppl.measure import TooManyPaths, measure
from ppl.request import Request
from ppl.testing import Tiny, programs

COIN = uniform([0, 1])


@program
async def inner(n: int) -> list[int]:
    return [await sample("x", COIN) for _ in range(n)]


@program
async def outer() -> int:
    await sample("x", COIN)
    await inner(2)
    await factor("x", 0.0)
    await inner(1)
    await parallel(sample("x", COIN), inner(1), sample("y", COIN), inner(1))
    return await sample("x", COIN)


def _addresses(run: Run[Any], answer: Callable[[Any], Any] = lambda effect: 0) -> list[str]:
    """Addresses in the order of answering, first open request first; a path of weight zero ends there."""
    out: list[str] = []
    while not run.done:
        request = run.requests()[0]
        out.append(request.address)
        if _impossible(request):
            break
        request.answer(answer(request.effect))
    return out


def test_addresses_are_paths_of_name_and_occurrence() -> None:
    assert _addresses(Run(outer())) == [
        "outer/x",
        "outer/inner/x",
        "outer/inner/x:1",
        "outer/x:1",
        "outer/inner:1/x",
        "outer/x:2",
        "outer/inner:2/x",
        "outer/y",
        "outer/inner:3/x",
        "outer/x:3",
    ]


@settings(max_examples=100, deadline=None, database=None)
@given(programs(), st.randoms(use_true_random=False))
def test_no_two_sites_of_a_run_share_an_address(tiny: Tiny, random: Any) -> None:
    """Equal addresses would be equal keys: two draws that are always the same."""
    addresses = _addresses(Run(tiny.program()), lambda effect: _random_answer(effect, random))
    assert len({*addresses}) == len(addresses)


@pytest.mark.parametrize("names", [("x:1", "x", "x"), ("inner/x", "inner")])
def test_names_cannot_forge_addresses(names: tuple[str, ...]) -> None:
    """A name with `:` or `/` in it is refused, or its address differs from those that the run makes itself."""

    @program
    async def forger() -> None:
        for name in names:
            await (inner(1) if name == "inner" else sample(name, COIN))

    try:
        addresses = _addresses(Run(forger()))
    except ValueError:
        return
    assert len({*addresses}) == len(addresses)


def test_addresses_are_stable_under_branching() -> None:
    """What one branch draws does not move the addresses of what follows."""

    @program
    async def branches() -> None:
        if await sample("which", COIN):
            await inner(3)
        await sample("after", COIN)

    assert (
        _addresses(Run(branches()), lambda _: 0)[-1] == _addresses(Run(branches()), lambda _: 1)[-1] == "branches/after"
    )


def _impossible(request: Request) -> bool:
    """Whether the program must not be answered: it may rely on what follows being possible."""
    return isinstance(request.effect, Weight) and request.effect.log_weight == -math.inf


def _random_answer(effect: Any, random: Any) -> Any:
    if isinstance(effect, Call):
        return effect.fn(*effect.args)
    return random.choice([value for value, _ in table(effect.dist)]) if isinstance(effect, Sample) else None


def _signature(run: Run[Any]) -> Any:
    return run.done, run.value, [(r.address, r.effect.name) for r in run.requests()]


@settings(max_examples=150, deadline=None, database=None)
@given(programs(max_paths=40, depth=2), st.randoms(use_true_random=False))
def test_a_clone_is_at_the_same_point_and_goes_its_own_way(tiny: Tiny, random: Any) -> None:
    """At each step, also with branches of a `parallel` of programs answered in any order and half open.

    Catches a log that misses an answer, shares a list with its clone, or forgets which branch an answer was for; and
    a clone that gives an address twice: equal addresses would be equal keys.
    """
    run, seen = Run(tiny.program()), list[str]()
    while not run.done and not any(map(_impossible, run.requests())):
        clone = run.clone()
        assert _signature(clone) == _signature(run)
        assert clone.log == run.log
        before = _signature(run)
        request = random.choice(clone.requests())
        request.answer(_random_answer(request.effect, random))
        assert _signature(run) == before
        run = random.choice((run, run.clone()))
        request = random.choice(run.requests())
        seen.append(request.address)
        request.answer(_random_answer(request.effect, random))
    assert len({*seen}) == len(seen)
    assert _signature(run.clone()) == _signature(Run(tiny.program(), run.log)) == _signature(run)


def test_a_clone_in_the_middle_of_parallel_sub_programs() -> None:
    @program
    async def both() -> list[Any]:
        return await parallel(inner(2), sample("y", COIN), inner(1))

    run = Run(both())
    run.requests()[2].answer(7)  # the third branch ends
    run.requests()[0].answer(5)  # the first is half way
    clone = run.clone()
    assert [r.address for r in clone.requests()] == ["both/inner/x:1", "both/y"]
    for request in clone.requests():
        request.answer(6)
    assert (clone.value, run.done) == ([[5, 6], 6, [7]], False)


def test_parallel_of_nothing_and_of_programs_that_ask_nothing() -> None:
    @program
    async def empty() -> list[Any]:
        return [await parallel(), await parallel(inner(0), inner(0)), await parallel(inner(0), inner(1))]

    run = Run(empty())
    assert [r.address for r in run.requests()] == ["empty/inner:3/x"]
    assert _signature(run.clone()) == _signature(run)
    run.requests()[0].answer(1)
    assert run.value == [[], [[], []], [[], [1]]]


def test_many_parallels_that_ask_nothing_do_not_overflow_the_stack() -> None:
    @program
    async def long() -> int:
        for _ in range(2000):
            await parallel(inner(0))
            await parallel()
        return 1

    assert Run(long()).value == 1


def _impure(first: Callable[[], Any], then: Callable[[], Any]) -> Program[Any]:
    """Awaits what `first` gives when first run, what `then` gives on replay."""
    runs: list[int] = []

    async def body() -> None:
        runs.append(1)
        await sample("start", COIN)
        effect = first() if len(runs) == 1 else then()
        if effect is not None:
            await effect
        await sample("end", COIN)

    return Program("impure", body, (), {})


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (lambda: sample("a", COIN), lambda: sample("b", COIN), r"impure/b: .* 'b' .* where 'a'"),
        (
            lambda: sample("a", COIN),
            lambda: factor("a", 0.0),
            r"impure/a: .* \(Factor of log weight 0.0\) .* \(Categorical\)",
        ),
        (lambda: factor("a", 1.0), lambda: factor("a", 2.0), r"impure/a: .*log weight 2.0.*log weight 1.0"),
        (lambda: factor("a", 1.0), lambda: twist("a", 1.0), r"impure/a"),
        (lambda: call(len, "x"), lambda: sample("len", COIN), r"impure/len"),
        (lambda: inner(1), lambda: sample("x", COIN), r"impure/"),
        (lambda: parallel(inner(1)), lambda: sample("x", COIN), r"impure/x: .* 'parallel'"),
        (lambda: sample("x", COIN), lambda: parallel(inner(1)), r"impure/x: the program asks for a parallel"),
        (lambda: parallel(inner(1)), lambda: parallel(inner(1), inner(1)), r"impure: .* of 2 where one of 1"),
        (lambda: parallel(sample("x", COIN)), lambda: parallel(inner(1)), r"impure/"),
        (lambda: parallel(inner(1)), lambda: parallel(sample("x", COIN)), r"impure/x"),
        (lambda: parallel(inner(1)), lambda: parallel(outer()), r"impure/outer"),
        (lambda: parallel(inner(1)), lambda: parallel(inner(0)), r"impure/"),
        (lambda: parallel(sample("a", COIN)), lambda: parallel(sample("b", COIN)), r"impure/b"),
        (lambda: sample("a", COIN), lambda: None, r"impure/end: .* 'end' .* where 'a'"),
    ],
)
def test_replay_names_the_first_site_that_differs(first: Any, then: Any, message: str) -> None:
    run = Run(_impure(first, then))
    run.requests()[0].answer(0)
    while run.requests()[0].effect.name != "end":
        run.requests()[0].answer(0)
    with pytest.raises(ReplayError, match=message):
        run.clone()


def test_a_log_that_is_longer_than_the_program() -> None:
    run = Run(inner(2))
    run.requests()[0].answer(0)
    run.requests()[0].answer(0)
    with pytest.raises(ReplayError, match="inner/x: the program returned where"):
        Run(inner(1), run.log)


def test_arguments_are_bound_at_the_call_and_each_start_is_fresh() -> None:
    @program
    async def collects(into: int, *, twice: bool = False) -> int:
        return into * (2 if twice else 1)

    described = collects(3, twice=True)
    assert (Run(described).value, Run(described).value) == (6, 6)
    assert repr(described) == "<program collects>"


def test_program_needs_an_async_function() -> None:
    with pytest.raises(TypeError, match="needs an `async def` function"):
        program(lambda: 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="expected a program"):
        Run(inner)  # pyright: ignore[reportArgumentType]


def test_a_program_may_catch_the_error_of_a_sub_program() -> None:
    """The scope that the error left is left, too."""

    @program
    async def fails() -> None:
        await sample("x", COIN)
        raise KeyError("lost")

    @program
    async def catches() -> None:
        try:
            await fails()
        except KeyError:
            await sample("caught", COIN)

    assert _addresses(Run(catches())) == ["catches/fails/x", "catches/caught"]


def test_an_error_says_where_and_how_far_the_program_was() -> None:
    @program
    async def divides() -> float:
        return 1 / await sample("x", COIN)

    @program
    async def around() -> list[Any]:
        return await parallel(divides(), sample("y", COIN))

    run = Run(around())
    with pytest.raises(ZeroDivisionError) as caught:
        run.requests()[0].answer(0)
    assert caught.value.__notes__ == ["raised in around/divides, after 1 answered effects"]


def test_twists_stand_by_scope_and_name() -> None:
    """Two calls of a sub-program have each their own twist; within one, a new value replaces the old."""
    from ppl.twists import Twists

    @program
    async def guided(value: float) -> None:
        await twist("v", value / 2)
        await twist("v", value)

    @program
    async def twice() -> None:
        await guided(2.0)
        await guided(3.0)

    run, twists, changes = Run(twice()), Twists(), list[float]()
    while not run.done:
        assert isinstance(run.effect, Twist)
        changes.append(twists.change(run.effect, run))
        run.answer(None)
    assert changes == [1.0, 1.0, 1.5, 1.5]
    assert twists.total() == math.fsum(changes) == 5.0


def test_bernoulli_answers_are_bools() -> None:
    assert {value for value, _ in table(Bernoulli(0.5))} == {True, False}


@program
async def _returns_an_effect() -> Any:
    return factor("f", 0.0)


def test_returning_an_effect_is_a_forgotten_await() -> None:
    with pytest.raises(TypeError, match=r"_returns_an_effect returned .*forget `await`"):
        Run(_returns_an_effect())


@program
async def _endless() -> None:
    while await sample("go", COIN):
        pass


def test_measure_does_not_hang_on_an_endless_program() -> None:
    with pytest.raises(TooManyPaths, match="_endless"):
        measure(_endless(), max_paths=10)
