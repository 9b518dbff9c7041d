"""Kernels and chains over continuous draws, which no enumeration reaches.

Geweke's joint test with independent replicates; false alarms at most 1e-6 each, and a discrepancy of the CDFs of 0.34
found with probability 0.999 (`detectable_between(600, 600)`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ppl import (
    MCMC,
    SMC,
    Block,
    Importance,
    Kernel,
    ParticleGibbs,
    Program,
    SingleSite,
    Suffix,
    Systematic,
    Trace,
    TreeWalk,
    collapse,
    cycle,
    dist,
    observe,
    program,
    regenerate,
    sample,
    select,
)
from ppl.effects import Call, Sample
from ppl.request import Request
from ppl.run import Run
from ppl.testing import assert_calibrated, assert_joint_invariant
from ppl.trace import trace_of
from ppl.walk import Walk

SECOND = 0.5


@program
async def joint() -> tuple[tuple[float, float], float]:
    """A walk of two steps, seen once at its end."""
    first = float(await sample("first", dist.Normal(0.0, 1.0)))
    second = float(await sample("second", dist.Normal(first, SECOND)))
    return (first, second), float(await sample("x", dist.Normal(second, 1.0)))


@program
async def given(x: float) -> tuple[float, float]:
    first = float(await sample("first", dist.Normal(0.0, 1.0)))
    await observe("hint", dist.Normal(0.0, 1.0), 0.0)  # a suspension that tells nothing
    second = float(await sample("second", dist.Normal(first, SECOND)))
    await observe("x", dist.Normal(second, 1.0), x)
    return first, second


def at(target: Program[Any], values: Mapping[str, float]) -> Trace[Any]:
    """The trace of a program with these draws."""

    def known(request: Request) -> Any:
        effect = request.effect
        if isinstance(effect, Sample):
            return values[request.address]
        return effect.fn(*effect.args) if isinstance(effect, Call) else None

    walk = Walk(Run(target))
    while walk.active:
        walk.follow(known)
    return trace_of(walk.run)


def near(old: Any, _: Any) -> Any:
    return dist.Normal(old, 0.8)


def drift(old: Any, _: Any) -> Any:
    """Not symmetric: the ratio must hold the proposal's densities."""
    return dist.Normal(0.2 * old + 2.0, 1.0)


def step(kernel: Kernel[Any]) -> Any:
    @program
    async def move(parameters: tuple[float, float], x: float) -> tuple[float, float]:
        target = given(x)
        trace = at(target, {"given/first": parameters[0], "given/second": parameters[1]})
        return (await kernel(target, trace)).value  # pyright: ignore[reportReturnType]

    return move


STATISTICS = {
    "first": lambda p, x: p[0],
    "second": lambda p, x: p[1],
    "product": lambda p, x: p[1] * x,
    "step": lambda p, x: (p[1] - p[0]) * (x - p[1]),
}
KERNELS = {
    "suffix": Suffix(),
    "walk": SingleSite(proposals={"**": near}),
    "drift": Block("**", {"**": drift}),
    "particle gibbs": ParticleGibbs(3, Systematic),
    "ancestor sampling": ParticleGibbs(3, ancestor_sampling=True),
    "tree walk": cycle(TreeWalk(4), SingleSite()),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_leave_the_joint_law_alone(name: str) -> None:
    kernel = KERNELS[name]
    assert_joint_invariant(joint(), step(kernel), statistics=STATISTICS, rounds=2, replications=600)


def test_a_kernel_that_accepts_all_is_rejected() -> None:
    @program
    async def careless(parameters: tuple[float, float], x: float) -> tuple[float, float]:
        trace = at(given(x), {"given/first": parameters[0], "given/second": parameters[1]})
        new = await regenerate(trace, select("**"), {"**": drift})
        assert new.trace is not None
        return new.trace.value  # pyright: ignore[reportReturnType]

    with pytest.raises(AssertionError, match="after 2 rounds"):
        assert_joint_invariant(joint(), careless, statistics=STATISTICS, rounds=2, replications=600)


@program
async def nested(x: float) -> tuple[float, float]:
    return await collapse(SMC(4)(given(x)))


@pytest.mark.parametrize(
    ("target", "algorithm"),
    [
        (given, MCMC(SingleSite(proposals={"**": near}), samples=5, warmup=5, chains=4, start=Importance(40))),
        (given, SMC(40, rejuvenate=Suffix())),
        (nested, Importance(20)),
    ],
    ids=["mcmc", "resample-move", "nested"],
)
def test_algorithms_are_calibrated(target: Any, algorithm: Any) -> None:
    """Simulation-based calibration, 100 replications: false alarms at most 1e-6."""
    statistics = {"first": lambda p, x: p[0], "second": lambda p, x: p[1]}
    assert_calibrated(joint(), target, algorithm, statistics, replications=100, draws=9)
