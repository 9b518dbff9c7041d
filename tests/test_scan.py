"""Loops that replay from their last carry, and values that must not change."""

from __future__ import annotations

from typing import Any

import pytest

from ppl import (
    SMC,
    Last,
    Multinomial,
    Run,
    condition,
    factor,
    infer,
    parallel,
    program,
    run,
    sample,
    scan,
    twist,
    uniform,
)  # fmt: skip
from ppl.effects import Effect, Twist
from ppl.program import ForgottenAwait
from ppl.twists import Twists

COIN = uniform([0, 1])
made: list[int] = []


@program
async def step(total: int, x: int) -> tuple[int, int]:
    made.append(x)
    y = await sample("y", COIN)
    await factor("f", -0.1 * y)
    return total + y, y


@program
async def long(steps: int) -> int:
    await sample("before", COIN)
    return (await scan(step, 0, range(steps)))[0]


def test_a_clone_makes_only_the_current_step_again() -> None:
    """2,000 steps with resampling at each: one start of a step for each particle, and one for each clone."""
    made.clear()
    steps, particles = 2000, 8
    infer(long(steps), SMC(particles, Multinomial), 0)
    assert len(made) <= 3 * steps * particles  # from the first step each time, it would be hundreds of times more


def test_the_answers_are_the_carry_and_the_outputs() -> None:
    @program
    async def count(total: int, x: int) -> tuple[int, str]:
        if x == 3:
            return Last(total, "end")
        return total + x, f"<{x}>"

    @program
    async def counts(n: int) -> Any:
        return await scan(count, 10, range(n))

    assert run(counts(0), 0).value == (10, [])
    assert run(counts(2), 0).value == (11, ["<0>", "<1>"])
    assert run(counts(9), 0).value == (13, ["<0>", "<1>", "<2>", "end"])
    assert run(counts(3000), 0).value == run(counts(9), 0).value


def test_many_steps_that_ask_nothing_do_not_overflow_the_stack() -> None:
    @program
    async def silent(total: int, x: int) -> tuple[int, None]:
        return total + x, None

    @program
    async def silence() -> int:
        return (await scan(silent, 0, range(5000)))[0]

    assert run(silence(), 0).value == sum(range(5000))


def test_scans_nest_and_clone() -> None:
    @program
    async def row(total: int, x: int) -> tuple[int, list[int]]:
        inner, ys = await scan(step, total, range(x))
        return inner, ys

    @program
    async def rows() -> tuple[int, Any]:
        return await scan(row, 0, (1, 2, 3))

    one = Run(rows())
    seen: list[str] = []
    while not one.done:
        request = one.requests()[0]
        seen.append(request.address)
        request.answer(1 if request.effect.name == "y" else None)
        copy = one.clone()
        assert [r.address for r in copy.requests()] == [r.address for r in one.requests()]
        one = copy
    assert one.value == (6, [[1], [1, 1], [1, 1, 1]])
    assert seen[-1] == "rows/row:2/step:2/f" and "rows/row:1/step/y" in seen


@program
async def guided(total: int, x: int) -> tuple[int, None]:
    await twist("v", float(x))
    return total, None


def test_twists_of_a_scan_replace_those_of_earlier_steps() -> None:
    """A product over steps would count the same evidence at each of them. Another scan has twists of its own."""

    @program
    async def twice() -> None:
        await scan(guided, 0, (1, 5, 2))
        await scan(guided, 0, (4,))

    one, twists, changes = Run(twice()), Twists(), list[float]()
    while not one.done:
        run = one.focus
        assert isinstance(run.effect, Twist)
        changes.append(twists.change(run.effect, run))
        run.answer(None)
    assert changes == [1.0, 4.0, -3.0, 4.0]
    assert twists.total() == 6.0


def test_a_clone_behind_a_scan_counts_its_steps() -> None:
    """Equal addresses would be equal keys: the second scan would draw what the first drew."""

    @program
    async def two() -> list[int]:
        _, a = await scan(step, 0, range(2))
        await factor("between", 0.0)
        _, b = await scan(step, 0, range(2))
        return a + b

    one, seen = Run(two()), list[str]()
    while not one.done:
        one = one.clone()
        seen.append(one.requests()[0].address)
        one.requests()[0].answer(1 if seen[-1].endswith("y") else None)
    assert [a for a in seen if a.endswith("y")] == ["two/step/y", "two/step:1/y", "two/step:2/y", "two/step:3/y"]


def test_a_scan_beside_others_in_a_parallel() -> None:
    @program
    async def both() -> Any:
        return await parallel(long(2), sample("x", COIN), long(3))

    values = infer(both(), SMC(6, Multinomial), 0).population.values
    assert all(len(value) == 3 for value in values if value is not None)


@pytest.mark.parametrize(
    ("body", "xs", "message"),
    [
        (lambda c, x: 3, range(2), r"step must be a @program .* gives 3"),
        (lambda c, x: long(1), range(2), r"must return a pair \(carry, output\), not"),
        (step, 7, r"xs must be a sequence like range\(10\), not 7"),
        (step, iter([1]), r"xs must be a sequence"),
        (lambda c, x: step(c, x) if x == 0 else _renamed(c, x), range(2), r"after step came _renamed"),
    ],
)
def test_what_is_no_loop_says_why(body: Any, xs: Any, message: str) -> None:
    @program
    async def loops() -> Any:
        return await scan(body, 0, xs)

    with pytest.raises(TypeError, match=message):
        run(loops(), 0)


@program
async def _renamed(total: int, x: int) -> tuple[int, int]:
    return total, x


# Values that clones share


@program
async def appends(seen: list[int]) -> int:
    seen.append(await sample("x", COIN))
    await factor("f", 0.0)
    return len(seen)


@program
async def counts_in(table: dict[str, int]) -> int:
    table["n"] = table["n"] + 1
    return await sample("x", COIN)


@program
async def keeps_a_list(seen: list[int], x: int) -> tuple[list[int], None]:
    seen.append(await sample("x", COIN))
    await factor("f", 0.1 * seen[-1])
    return seen, None


@program
async def mutates_its_carry() -> int:
    return len((await scan(keeps_a_list, [0], range(4)))[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: appends([]), r"appends: an argument was changed by the program: \[\d.*make a copy first"),
        (lambda: counts_in({"n": 1000}), r"counts_in: an argument was changed by the program: \{'n': 1001\}"),
        (mutates_its_carry, r"an argument was changed by the program|the carry of a scan was changed"),
    ],
)
def test_a_program_that_changes_a_shared_value_is_told(make: Any, message: str) -> None:
    for drive in (lambda p: run(p, 0), lambda p: infer(p, SMC(4, Multinomial), 0)):
        with pytest.raises(TypeError, match=message):
            drive(make())


# Forgotten awaits of sub-programs


def test_a_sub_program_used_as_a_value() -> None:
    @program
    async def adds() -> Any:
        return 1 + long(2)

    @program
    async def asks() -> Any:
        return 1 if long(2) else 0  # pyright: ignore[reportGeneralTypeIssues]

    for wrong in (adds, asks):
        with pytest.raises(TypeError, match=r"<program long> was used as a value: did you forget `await`"):
            run(wrong(), 0)


def test_a_sub_program_never_awaited() -> None:
    @program
    async def forgets() -> int:
        long(2)
        return await sample("x", COIN)

    with pytest.warns(ForgottenAwait, match=r"forgets: <program long> was made but never awaited"):
        run(forgets(), 0)


def test_programs_that_are_awaited_or_run_later_are_not_forgotten(recwarn: pytest.WarningsRecorder) -> None:
    @program
    async def chooses() -> int:
        value = await condition(long(2), {"long/before": 1})
        return value + (await SMC(2)(long(1))).values.count(0)

    infer(chooses(), SMC(4, Multinomial), 0)
    assert not [w for w in recwarn if issubclass(w.category, ForgottenAwait)]


def test_effects_are_told_from_answers() -> None:
    assert issubclass(type(scan(step, 0, ())), Effect)
