"""Policies are proper, exactly; and they choose by what the probe has seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import ppl
from ppl import ByDifficulty, Dispatch, UntilSaturation, collapse, factor, infer, measure, program, sample
from ppl.inference.population import NoEvidence, Population
from ppl.scaling import saturation
from ppl.testing import Tiny, assert_proper, programs

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
POLICY = ByDifficulty([-0.7], [ppl.SMC(2), ppl.Importance(1)])


@pytest.mark.parametrize("policy", [POLICY, UntilSaturation(2, 0.24)])
def test_a_policy_is_proper(policy: Any) -> None:
    """Fails where what the probe drew is used again: the choice depends on it."""

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=SLOW)
    @given(programs(5))
    def check(tiny: Tiny) -> None:
        assert_proper(Dispatch(ppl.Importance(1), policy), tiny.program())

    check()


@program
async def coin() -> bool:
    x = await sample("x", ppl.Bernoulli(0.5))
    await factor("x", 0.0 if x else -2.0)
    return x


def test_giving_the_probe_as_the_answer_is_not() -> None:
    """The test above could fail: a policy that keeps a probe it likes is biased."""

    class Greedy:
        def __call__(self, program: Any) -> Any:
            return ppl.Program("greedy", keep, (program,), {})

    async def keep(one: Any) -> Population[Any]:
        first = await ppl.Importance(1)(one)
        return first if first.log_evidence > -1 else await ppl.Importance(1)(one)

    assert measure(collapse(Dispatch(ppl.Importance(1), POLICY)(coin()))) == measure(coin())
    assert measure(collapse(Greedy()(coin()))) != measure(coin())


def test_what_is_chosen() -> None:
    policy = ByDifficulty([-1.5, -0.5], [ppl.Importance(1), ppl.Importance(2), ppl.Importance(3)])
    for w, n in ((-3.0, 1), (-1.0, 2), (0.0, 3)):
        assert policy(Population((1,), (w,))) == ppl.Importance(n)
    posterior = infer(coin(), Dispatch(ppl.Importance(4), policy), seed=0)
    assert posterior.diagnostics["chosen"].startswith("Importance(")


def test_until_saturation() -> None:
    """P(right) 1/3 by a run of weight 0, and (2 + 1) / (2 + 2) by two of weight 1."""
    plan = UntilSaturation(50)
    assert plan(Population((1,), (-math.inf,))) == ppl.Importance(saturation(1 / 3, 0.01))
    assert plan(Population((1, 2), (0.0, 0.3))) == ppl.Importance(saturation(3 / 4, 0.01))
    assert {UntilSaturation(2, 0.24)(Population((1,), (w,))) for w in (0.0, math.log(0.5))} == {
        ppl.Importance(1), ppl.Importance(2)
    }  # fmt: skip
    assert plan(Population((1,), (800.0,))) == plan(Population((1,), (0.0,)))
    with pytest.raises(NoEvidence, match="must be P"):
        plan(Population((1,), (0.0,), normalised=True))
    assert UntilSaturation(3)(Population((1,), (-math.inf,))) == ppl.Importance(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ByDifficulty([1.0, 0.0], [ppl.SMC(1)] * 3), "edges rise"),
        (lambda: ByDifficulty([0.0], [ppl.SMC(1)]), "1 algorithms for edges"),
        (lambda: UntilSaturation(0), "most"),
        (lambda: UntilSaturation(4, 0.0), "gain=0.0 must be positive"),
        (lambda: Dispatch(ppl.Suffix(), POLICY), "Dispatch: probe needs an algorithm"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_choice_that_is_no_algorithm_is_told() -> None:
    with pytest.raises(TypeError, match="Dispatch: choose needs an algorithm"):
        infer(coin(), Dispatch(ppl.Importance(1), lambda _: 3), seed=0)  # pyright: ignore[reportArgumentType]
