"""Layers over candidates, by their exact meaning."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

import ppl
from ppl import call, measure, program, sample, uniform
from ppl.layers import critique, fuse, generate, layered, rank, verify
from ppl.scaling import best_attempts, saturation


@program
async def die() -> int:
    return await sample("side", uniform([1, 2, 3]))


@program
async def raised(value: int) -> int:
    return value + await sample("more", uniform([0, 10]))


@program
async def summed(candidates: tuple[int, ...]) -> int:
    return sum(candidates) + await sample("bit", uniform([0, 100]))


def test_layers_in_order() -> None:
    """Generate 3, the best 2, each revised, a verifier, one fused answer: against listing all draws."""
    flow = layered(generate(die(), 3), rank(lambda x: x, 2), critique(raised), verify(lambda x: x > 5), fuse(summed))
    right: dict[tuple[int, ...], float] = {}
    for sides in product([1, 2, 3], repeat=3):
        best = sorted(sides, reverse=True)[:2]
        for more in product([0, 10], repeat=2):
            revised = [x + y for x, y in zip(best, more, strict=True)]
            kept = [x for x in revised if x > 5] or revised
            for bit in (0, 100):
                value = (sum(kept) + bit,)
                right[value] = right.get(value, 0.0) + 1 / 27 / 4 / 2
    assert dict(measure(flow).items()) == pytest.approx(right)


def test_scores_and_verdicts_may_be_effects_in_one_batch() -> None:
    batches: list[int] = []

    def many(questions: list[tuple[int]]) -> list[float]:
        batches.append(len(questions))
        return [float(x) for (x,) in questions]

    def judge(x: int) -> Any:
        return ppl.effects.Call(float, (x,), many, "judge")

    flow = layered(generate(die(), 4), rank(judge, 3), verify(lambda x: call(lambda: x > 1)))
    value = ppl.run(flow, 0).value
    assert batches == [4] and value is not None and list(value) == sorted(value, reverse=True)


def test_candidates_of_candidates() -> None:
    """A generator may look at what there is; weights of programs inside multiply."""

    @program
    async def more(candidates: tuple[int, ...]) -> int:
        await ppl.factor("some", -0.5)
        return max(candidates) + 1

    value = measure(layered(generate(die(), 1), generate(more, 2)))
    assert value[(3, 4, 4)] == pytest.approx(math.exp(-1.0) / 3)


def test_where_a_plateau_begins() -> None:
    for p, gain, most in ((0.2, 0.01, 0.9), (0.05, 0.02, 1.0), (0.7, 0.1, 0.8)):
        n = saturation(p, gain, most)
        curve = [most * (1 - (1 - p) ** k) for k in range(n + 2)]
        assert curve[n + 1] - curve[n] <= gain + 1e-12 and (n == 1 or curve[n] - curve[n - 1] > gain - 1e-12)
    assert saturation(1.0, 0.1) == 1 and saturation(0.01, 0.5) == 1
    with pytest.raises(ValueError, match="gain is positive"):
        saturation(0.5, 0.0)


def test_how_often_to_try() -> None:
    """By simulation of the worth; with a costly mistake and hard problems among easy ones few tries are best."""
    rights, fp, cost = [0.6, 0.6, 0.01, 0.01], 0.1, 2.0

    def worth(k: int) -> float:
        total = 0.0
        for r in rights:
            open_ = 1.0
            for _ in range(k):
                total += open_ * (r - cost * (1 - r) * fp)
                open_ *= 1 - r - (1 - r) * fp
        return total

    assert best_attempts(rights, fp, cost, 50) == max(range(51), key=worth) in range(1, 6)
    assert best_attempts([0.5], 0.0, 9.0, 30) == 30 and best_attempts([0.01], 0.5, 1.0) == 0
    with pytest.raises(ValueError, match="a cost of at least 0"):
        best_attempts([], 0.1, 1.0)
