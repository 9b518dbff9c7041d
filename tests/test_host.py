"""The host driver: batches by family, keeps lanes apart, and agrees with the exact meaning."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings

from ppl import (
    SMC,
    Bernoulli,
    Importance,
    Key,
    Multinomial,
    Posterior,
    call,
    factor,
    infer,
    infer_many,
    parallel,
    program,
    run,
    run_many,
    sample,
    twist,
    uniform,
)
from ppl.measure import paths
from ppl.source import Tape
from ppl.testing import Tiny, programs


class Real:
    """A uniform number; counts its batched draws by family."""

    batches: ClassVar[Counter[Hashable]] = Counter()

    def __init__(self, family: str = "real") -> None:
        self.family = family

    def sample(self, key: Key) -> float:
        return key.uniform()

    def log_prob(self, value: Any) -> float:
        return 0.0

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Real]) -> list[float]:
        assert len({dist.family for dist in dists}) == 1
        Real.batches[dists[0].family] += 1
        return [key.uniform() for key in keys]


@pytest.fixture(autouse=True)
def _count_from_zero() -> None:
    Real.batches = Counter()


@program
async def deep() -> tuple[Any, ...]:
    first = await sample("first", Real("a"))
    rest = await parallel(sample("l", Real("a")), nested(), sample("r", Real("b")))
    return first, rest


@program
async def nested() -> float:
    return sum(await parallel(sample("x", Real("a")), sample("x", Real("a"))))


@pytest.mark.parametrize("runs", [1, 2, 5, 40])
def test_one_batch_for_each_family_and_round(runs: int) -> None:
    """Round 1: `first`, family a. Round 2: l and the two x of `nested`, family a; r, family b.

    Whatever the depth and the number of runs.
    """
    run_many([deep()] * runs, range(runs))
    assert Real.batches == {"a": 2, "b": 1}


class OnDevice:
    """A draw whose batch is begun now and finished later; notes the order of the two."""

    events: ClassVar[list[str]] = []
    family = "device"

    def sample(self, key: Key) -> float:
        return key.uniform()

    def log_prob(self, value: float) -> float:
        return 0.0

    @staticmethod
    def begin_many(keys: Sequence[Key], dists: Sequence[OnDevice]) -> Callable[[], list[float]]:
        OnDevice.events.append(f"begin {len(keys)}")

        def finish() -> list[float]:
            OnDevice.events.append(f"finish {len(keys)}")
            return [key.uniform() for key in keys]

        return finish


@program
async def on_device() -> tuple[float, float]:
    return await sample("x", OnDevice()), await sample("y", OnDevice())


def test_while_a_device_works_for_one_half_the_host_advances_the_other() -> None:
    """The first round shows that a device is at work; from then on one half is always under way."""
    OnDevice.events.clear()
    together = run_many([on_device()] * 5, range(5))
    assert OnDevice.events == ["begin 5", "finish 5", "begin 3", "begin 2", "finish 3", "finish 2"]
    assert together == [run(on_device(), seed) for seed in range(5)]


def test_an_algorithm_asks_once_for_all_its_particles() -> None:
    infer(deep(), Importance(20), seed=0)
    assert Real.batches == {"a": 2, "b": 1}


def test_algorithms_run_together_share_their_batches() -> None:
    infer_many([deep()] * 4, Importance(6), range(4))
    assert Real.batches == {"a": 2, "b": 1}


def _square(x: float) -> float:
    raise AssertionError("the batch form should have been used")


@program
async def squares() -> float:
    return await call(_square, await sample("x", Real()))


def test_calls_with_a_batch_form_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def batch(questions: list[tuple[float]]) -> list[float]:
        asked.append(len(questions))
        return [x * x for (x,) in questions]

    monkeypatch.setattr(_square, "batch", batch, raising=False)
    values = infer(squares(), Importance(9), seed=1).population.values
    assert asked == [9]
    assert len({*values}) == 9


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_batch_of_the_wrong_size_names_the_site(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    monkeypatch.setattr(_square, "batch", lambda questions: [0.0] * wrong, raising=False)
    with pytest.raises(ValueError, match=rf"squares/_square: .* gave {wrong} answers to 1 questions"):
        run(squares(), 0)


@settings(max_examples=40, deadline=None, database=None)
@given(programs())
def test_a_run_does_not_depend_on_its_batch(tiny: Tiny) -> None:
    """Catches keys folded from positions in the batch, answers given to the wrong run, weights of the wrong run."""
    batch = [tiny.program(), deep(), tiny.program(), Importance(3)(tiny.program()), tiny.program()]
    seeds = [1, 2, 3, 4, 1]
    together = run_many(batch, seeds)
    for i in (0, 1, 2, 4):
        assert together[i] == run(batch[i], seeds[i])
    assert together[0] == together[4]
    assert run_many(batch[::-1], seeds[::-1])[::-1][:3] == together[:3]
    assert together[3].value.log_evidence == run(batch[3], 4).value.log_evidence  # pyright: ignore[reportOptionalMemberAccess]


def test_infer_many_is_infer_many_times() -> None:
    @program
    async def weighted(scale: float) -> float:
        x = await sample("x", Real())
        await factor("score", scale * x)
        return x + await sample("y", Real())

    programs_ = [weighted(1.0), weighted(5.0), weighted(-3.0)]
    together = infer_many(programs_, SMC(4, Multinomial), [7, 8, 9])
    for one, p, seed in zip(together, programs_, [7, 8, 9], strict=True):
        assert one.items() == infer(p, SMC(4, Multinomial), seed).items()


def test_particles_draw_apart() -> None:
    """All draws of all particles differ, over sites, rounds, resampling and runs. Catches one key used in two lanes.

    By chance two of these 800 doubles agree with probability 800^2 / 2 / 2^53 = 4e-11.
    """

    @program
    async def walk() -> tuple[float, ...]:
        out = []
        for step in range(4):
            out.append(await sample("x", Real()))
            await factor("score", out[-1] - step)
        return tuple(out)

    drawn = infer(walk(), Importance(100), 0).population.values + infer(walk(), Importance(100), 1).population.values
    assert len({x for path in drawn for x in path}) == 800  # pyright: ignore[reportOptionalIterable]
    # After resampling, children share their past but not their future.
    last = [path[-1] for path in infer(walk(), SMC(100, Multinomial), 2).population.values]  # pyright: ignore[reportOptionalSubscript]
    assert len({*last}) == 100


def test_lanes_are_independent() -> None:
    """Pairs of neighbouring lanes' coins fall in the four cells alike: chi-square with 3 degrees of freedom.

    Fixed seed, false alarm with probability 1e-4 (threshold 21.1).
    10 000 pairs detect cells off by 0.015 with probability above 0.8 (noncentrality 4 * 0.015^2 / 0.25 * 1e4 = 36).
    """

    @program
    async def coin() -> bool:
        return await sample("x", Bernoulli(0.5))

    values = infer(coin(), Importance(20_000), 5).population.values
    cells = Counter(zip(values[::2], values[1::2], strict=True))
    expected = 10_000 / 4
    assert sum((cells[a, b] - expected) ** 2 / expected for a in (True, False) for b in (True, False)) < 21.1


@settings(max_examples=80, deadline=None, database=None)
@given(programs())
def test_the_driver_agrees_with_the_meaning_on_every_path(tiny: Tiny) -> None:
    """The production driver, its draws given: value, weight and prior probability are those of the exact driver.

    Paths of equal choices are one here: a draw among equal values, as `collapse` makes it, is a path for each.
    """
    probability = Counter[Any]()
    for path in paths(tiny.program()):
        probability[(*path.choices.items(),)] += path.probability  # pyright: ignore[reportArgumentType]
    for path in paths(tiny.program()):
        tape = Tape(path.choices)
        trace = run(tiny.program(), tape)
        assert trace.value == path.value
        assert trace.log_weight == pytest.approx(path.log_weight, abs=1e-12)
        assert math.exp(tape.log_prob) == pytest.approx(probability[(*path.choices.items(),)], abs=1e-14)


@settings(max_examples=80, deadline=None, database=None)
@given(programs(max_paths=30))
def test_a_random_run_is_one_of_the_paths(tiny: Tiny) -> None:
    """As above for real draws, which take the other way through the driver; a killed run has no value."""
    known: dict[Any, list[float]] = {}
    for path in paths(tiny.program()):
        known.setdefault(path.value, []).append(path.log_weight)
    for seed in range(4):
        trace = run(tiny.program(), seed)
        if trace.log_weight == -math.inf:
            assert trace.value is None
        else:
            assert trace.value is not None
            assert min(abs(trace.log_weight - w) for w in known[trace.value]) < 1e-12


def test_twists_are_divided_out_of_a_run_that_ends_in_a_draw() -> None:
    @program
    async def guided() -> bool:
        await twist("v", 2.0)
        return await sample("x", Bernoulli(0.5))

    assert run(guided(), 0).log_weight == 0.0


def test_a_killed_run_goes_no_further() -> None:
    """What follows a factor of -inf may rely on it: here it would divide by zero."""

    @program
    async def careful() -> float:
        zero = await sample("x", uniform([0]))
        await factor("positive", 0.0 if zero > 0 else -math.inf)
        return 1 / zero

    trace = run(careful(), 0)
    assert (trace.value, trace.log_weight) == (None, -math.inf)


def test_as_many_seeds_as_programs() -> None:
    with pytest.raises(ValueError, match="2 programs but 1 seeds"):
        run_many([deep(), deep()], [1])


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    assert run(deep(), 3) == run(deep(), 3) == run(deep(), Key.of(3))
    assert run(deep(), 3) != run(deep(), 4)


def test_the_garbage_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    run(deep(), 0)
    assert gc.get_threshold() == before
    with pytest.raises(ZeroDivisionError):
        run(_dividing(), 0)
    assert gc.get_threshold() == before


@program
async def _dividing() -> float:
    return 1 / await call(int, 0)


def test_calls_are_counted_by_name_for_all_particles(tmp_path: Path) -> None:
    """Those of clones once, though their replays ask again; those that a journal holds too."""

    def judge(x: int) -> float:
        return -0.1 * x

    @program
    async def steps() -> int:
        total = 0
        for _ in range(3):
            total += await sample("x", uniform([0, 1]))
            await factor("right", await call(judge, total))
        await call(len, "last")
        return total

    posterior = infer(steps(), SMC(8, Multinomial), seed=0)
    assert posterior.calls == {"judge": 24, "len": 8}
    assert posterior.map(str).calls == posterior.calls
    merged = Posterior.merge([posterior, posterior])
    assert merged.calls == {"judge": 48, "len": 16}
    assert run(steps(), 0).calls == {"judge": 3, "len": 1}
    for _ in range(2):  # written, and read
        assert infer(steps(), SMC(8, Multinomial), 0, journal=tmp_path / "run").calls == posterior.calls
