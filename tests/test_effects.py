"""Effects refuse what cannot be meant: forgotten awaits, foreign objects, weights that are no weights."""

from __future__ import annotations

import asyncio
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ppl import (
    Bernoulli,
    Importance,
    call,
    condition,
    factor,
    infer,
    measure,
    note,
    observe,
    parallel,
    program,
    run,
    sample,
    twist,
    uniform,
)
from ppl.effects import Effect, Factor

COIN = Bernoulli(0.5)


@program
async def clean() -> bool:
    return await sample("x", COIN)


@program
async def asks(use: Callable[[Any], Any]) -> Any:
    return use(sample("site", COIN))


USES: list[Callable[[Any], Any]] = [
    lambda x: 1 if x else 2,
    lambda x: not x,
    lambda x: x and True,
    lambda x: [*x],
    lambda x: x[0],
    lambda x: 1 in x,
    len,
    float,
    int,
    operator.neg,
    *(lambda x, op=op: op(x, 2) for op in (operator.add, operator.sub, operator.mul, operator.truediv, operator.lt)),
    *(lambda x, op=op: op(2, x) for op in (operator.add, operator.sub, operator.mul, operator.truediv, operator.ge)),
    *(lambda x, op=op: op(x, 2) for op in (operator.floordiv, operator.mod, operator.pow)),
    *(lambda x, op=op: op(2, x) for op in (operator.floordiv, operator.mod, operator.pow)),
    abs,
    range,
]


@pytest.mark.parametrize("use", USES)
def test_an_effect_used_as_a_value_names_the_site_and_await(use: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"sample\('site'\) was used as a value: did you forget `await`"):
        run(asks(use), 0)
    assert run(clean(), 0).value in (False, True)  # and the next program starts with a clean slate


@program
async def drops_a_factor() -> bool:
    x = await sample("x", COIN)
    factor("lost", -1.0)
    return await sample("y", COIN) and x


@program
async def compares() -> bool:
    return sample("lost", COIN) == True  # noqa: E712


@program
async def holds_until_return() -> int:
    lost = sample("lost", COIN)  # noqa: F841
    return 1


@program
async def drops_in_sub_program() -> None:
    await drops_a_factor()


@program
async def drops_in_parallel() -> None:
    await parallel(clean(), drops_a_factor())


@program
async def drops_a_parallel() -> None:
    parallel(sample("a", COIN), sample("b", COIN))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (drops_a_factor, r"drops_a_factor: factor\('lost'\) was made but never awaited"),
        (compares, r"compares: sample\('lost'\) was made but never awaited"),
        (holds_until_return, r"holds_until_return: sample\('lost'\) was made but never awaited"),
        (drops_in_sub_program, r"drops_in_sub_program/drops_a_factor: factor\('lost'\) was made but never awaited"),
        (drops_in_parallel, r"drops_in_parallel/drops_a_factor: factor\('lost'\) was made but never awaited"),
        (drops_a_parallel, r"drops_a_parallel: parallel\('parallel'\) was made but never awaited"),
    ],
)
def test_an_effect_never_awaited_names_the_site(make: Any, message: str) -> None:
    for drive in (lambda p: run(p, 0), measure, lambda p: infer(p, Importance(3))):
        with pytest.raises(TypeError, match=message):
            drive(make())
    assert run(clean(), 0).value in (False, True)


def test_an_effect_made_outside_of_programs_is_nobodys_mistake() -> None:
    """In a REPL one may look at an effect; the program run next did nothing wrong."""
    assert repr(sample("looked_at", COIN)) == "sample('looked_at')"
    assert run(clean(), 0).value in (False, True)


def test_awaiting_something_foreign_names_the_program() -> None:
    @program
    async def sleeps() -> None:
        await sample("x", COIN)
        await asyncio.sleep(0)

    @program
    async def outer() -> None:
        await sleeps()

    with pytest.raises(TypeError, match=r"outer/sleeps awaited None: a program may await effects .* call\(...\)"):
        run(outer(), 0)


@pytest.mark.parametrize("weight", [math.nan, math.inf, np.float32("nan"), np.float64("inf")])
@pytest.mark.parametrize("make", [factor, twist])
def test_nan_and_infinity_name_the_site(make: Callable[[str, float], Effect[None]], weight: float) -> None:
    @program
    async def weighs() -> None:
        await sample("x", COIN)
        await make("score", weight)

    with pytest.raises(ValueError, match=r"'score'\): a log weight must be finite or -inf, not (nan|inf)") as caught:
        run(weighs(), 0)
    assert caught.value.__notes__ == ["raised in weighs, after 1 answered effects"]


@pytest.mark.parametrize("weight", ["high", None, [1.0, 2.0], np.zeros(2)])
def test_what_is_not_a_number_names_the_site(weight: Any) -> None:
    with pytest.raises(TypeError, match=r"factor\('score'\): a log weight must be a number"):
        factor("score", weight)


@pytest.mark.parametrize("weight", [-math.inf, 0, 1.5, np.float32(2.0), np.array(-3.0), True])
def test_numbers_of_any_kind_are_weights(weight: Any) -> None:
    @program
    async def weighs() -> int:
        await factor("score", weight)
        return 1

    assert run(weighs(), 0).log_weight == float(weight)


def test_what_is_not_a_distribution_names_the_site() -> None:
    with pytest.raises(TypeError, match=r"sample\('x', ...\): 0.5 is not a distribution"):
        sample("x", 0.5)  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize("branch", [3, COIN, parallel()])
def test_parallel_takes_effects_and_programs(branch: Any) -> None:
    with pytest.raises(TypeError, match="takes effects and programs, not"):
        parallel(branch)


def test_observe_and_condition_are_factors() -> None:
    seen, impossible = observe("o", Bernoulli(0.25), True), observe("o", uniform("ab"), "c")
    assert isinstance(seen, Factor) and isinstance(impossible, Factor)
    assert seen.log_weight == pytest.approx(math.log(0.25), rel=1e-15)
    assert impossible.log_weight == -math.inf
    assert (condition("c", True).log_weight, condition("c", False).log_weight) == (0.0, -math.inf)


def test_an_error_in_a_call_names_its_address() -> None:
    def fails(value: bool) -> None:
        raise RuntimeError("no network")

    @program
    async def calls() -> None:
        await call(fails, await sample("x", COIN))

    with pytest.raises(RuntimeError, match="no network") as caught:
        run(calls(), 0)
    assert caught.value.__notes__ == ["while answering 1 effects, the first at calls/fails"]


def test_notes_reach_observers_with_their_address_and_change_nothing() -> None:
    @program
    async def noisy() -> bool:
        await note("progress", done=0.5)
        return await clean()

    heard: list[tuple[str, dict[str, Any]]] = []
    trace = run(noisy(), 0, observers=[lambda address, note: heard.append((address, note.data))])
    assert heard == [("noisy/progress", {"done": 0.5})]
    assert trace.value is run(noisy(), 0).value
    assert measure(noisy()) == measure(clean())
