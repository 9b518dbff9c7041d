"""The clock of the device, under a fake time and fake results."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl.models import clock as clock_module
from ppl.models.clock import Clock
from ppl.models.language_model import LanguageModel
from ppl.source import Key


class World:
    """A device that works in order, and the host's time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[float] = []
        self.results: list[Result] = []
        self.busy = 0.0  # time with work on the device, up to now if all is done

    def perf_counter(self) -> float:
        return self.now

    def call(self, clock: Clock, work: float, host: float) -> None:
        """Launch `work` seconds; the launch itself takes `host` seconds of the host."""
        start = self.now
        self.done.append(max(start, *self.done[-1:], 0.0) + work)
        self.busy += work
        self.now += host
        self.results.append(Result(self, self.done[-1]))
        clock.started(self.results[-1], start)  # pyright: ignore[reportArgumentType]

    def wait(self, clock: Clock, index: int) -> None:
        """Wait for one result; those before it are done then."""
        clock.wait([self.results[index]])  # pyright: ignore[reportArgumentType]


class Result:
    def __init__(self, world: World, done: float) -> None:
        self.world, self.done = world, done

    def is_ready(self) -> bool:
        return self.world.now >= self.done

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.world.now = max(self.world.now, self.done)
        return np.zeros(1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(clock_module, "time", world)
    return world


durations = st.integers(0, 20)
events = st.lists(st.tuples(st.sampled_from(["call", "host", "wait", "wait all"]), durations, durations), max_size=20)


@given(events)
def test_never_more_than_wall_time(events: list[tuple[str, int, int]]) -> None:
    world, clock = World(), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "time", world)
        waited = 0
        for what, a, b in events:
            before = (clock.seconds, world.now)
            if what == "call":
                world.call(clock, a, b)
            elif what == "host":
                world.now += a
            elif waited < len(world.done):
                waited = waited + 1 if what == "wait" else len(world.done)
                world.wait(clock, waited - 1)
            assert before[0] <= clock.seconds <= world.now
            assert world.now >= before[1]


def test_what_was_waited_for_is_counted_in_full(world: World) -> None:
    clock = Clock()
    for _ in range(3):
        world.call(clock, work=5, host=1)
        world.wait(clock, -1)
        world.now += 7  # the host's own work
    assert clock.seconds == 15


def test_overlapping_work_is_counted_once(world: World) -> None:
    clock = Clock()
    world.call(clock, work=5, host=1)
    world.call(clock, work=5, host=1)
    for index in range(2):
        world.wait(clock, index)
    assert clock.seconds == 10


def test_a_result_that_was_ready_before_the_wait_does_not_count_the_host(world: World) -> None:
    """ "Wall time during which the device had work, and never more"."""
    clock = Clock()
    world.call(clock, work=5, host=1)
    world.now = 100.0
    world.wait(clock, 0)
    world.call(clock, work=1, host=1)
    assert clock.seconds <= world.busy


def test_engine_seconds_fit_into_the_wall_time(new_model: Callable[..., LanguageModel]) -> None:
    lm, start = new_model("abcd"), time.perf_counter()
    for _ in range(3):
        lm.extend(lm.text("ab"), max_tokens=3).sample(Key.of(0))
    assert 0 < lm.engine.usage.clock.seconds <= time.perf_counter() - start
