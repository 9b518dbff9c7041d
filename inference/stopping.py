"""Rules that stop sampling: when a vote is decided, when enough have finished, when one has passed.

What is drawn depends on what was seen, so these are optimisers: they give solutions with scores, and no evidence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from scipy.special import betainc

from ppl.inference.arguments import check_count
from ppl.inference.frontier import Frontier
from ppl.inference.population import Population
from ppl.program import Program

T = TypeVar("T")


def _itself(value: Any) -> Hashable:
    return value


@dataclass(frozen=True)
class AdaptiveVote:
    """Independent runs, `batch` at a time and `most` at most, until the vote on `answer(value)` is decided.

    `rule` "beta": the posterior probability that the first answer is more frequent than the second, counts a and b
    under a flat prior, P(p > 1/2 | Beta(a + 1, b + 1)), is at least `threshold` (Aggarwal et al. 2023, "Let's sample
    step by step: adaptive-consistency"). "share": the first has that share of all, of which there are two or more.

    Diagnostics: "drawn", runs that were made.

    Raises:
        ValueError: a count below 1, an unknown rule, or a threshold outside (0, 1].
    """

    most: int
    answer: Callable[[Any], Hashable] = _itself
    batch: int = 1
    rule: Literal["beta", "share"] = "beta"
    threshold: float = 0.95

    def __post_init__(self) -> None:
        check_count("AdaptiveVote", "most", self.most)
        check_count("AdaptiveVote", "batch", self.batch)
        if self.rule not in ("beta", "share") or not 0 < self.threshold <= 1:
            raise ValueError(f"AdaptiveVote: rule={self.rule!r}, threshold={self.threshold!r}: choose beta or share, "
                             "and a probability above 0")  # fmt: skip

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("adaptive_vote", _adaptive_vote, (program, self), {})

    def decided(self, counts: Counter[Hashable]) -> bool:
        """Whether no more answers are needed."""
        (_, first), (_, second) = [*counts.most_common(2), (None, 0), (None, 0)][:2]
        if self.rule == "share":
            return counts.total() > 1 and first >= self.threshold * counts.total()
        return first > 0 and 1 - float(betainc(first + 1, second + 1, 0.5)) >= self.threshold


@dataclass(frozen=True)
class FirstFinished:
    """Of `runs` that advance together, step by step, the first `count` to finish; the others are given up.

    Of those that finish at the same step the first in order count. An optimiser: Hassid et al. 2025, "Don't overthink
    it: preferring shorter thinking chains for improved LLM reasoning" (short-m@k), which takes the majority of them.

    Raises:
        ValueError: `runs` or `count` below 1, or more to finish than there are.
    """

    runs: int
    count: int = 1

    def __post_init__(self) -> None:
        check_count("FirstFinished", "runs", self.runs)
        check_count("FirstFinished", "count", self.count)
        if self.count > self.runs:
            raise ValueError(f"FirstFinished: {self.count} of {self.runs} runs cannot finish")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("first_finished", _first_finished, (program, self), {})


@dataclass(frozen=True)
class Rejection:
    """Runs, `batch` at a time and `most` at most, until one passes: its log weight is at least `accept`.

    Where none passes there is no answer: all weights are zero, and `posterior.is_empty`. With a verifier as the factor
    this is "resample until it passes, or abstain", whose accuracy is the verifier's precision, however many are drawn
    (Stroebl, Kapoor and Narayanan 2024, "Inference scaling fLaws: the limits of LLM resampling with imperfect
    verifiers"). `accept` None takes any run of positive weight.

    Diagnostics: "drawn", runs that were made.

    Raises:
        ValueError: a count below 1, or a nan.
    """

    most: int
    accept: float | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        check_count("Rejection", "most", self.most)
        check_count("Rejection", "batch", self.batch)
        if self.accept is not None and math.isnan(self.accept):
            raise ValueError("Rejection: accept is a log weight, not nan")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("rejection", _rejection, (program, self), {})


async def _adaptive_vote(program: Program[T], config: AdaptiveVote) -> Population[T]:
    frontier, drawn, counts = Frontier(program), 0, Counter[Hashable]()
    while drawn < config.most and not config.decided(counts):
        count = min(config.batch, config.most - drawn)
        before = len(frontier.found)
        await frontier.finish(frontier.fresh(count))
        drawn += count
        counts.update(config.answer(one.run.value) for one in frontier.found[before:])
    return frontier.population({"drawn": drawn})


async def _first_finished(program: Program[T], config: FirstFinished) -> Population[T]:
    frontier = Frontier(program)
    members = frontier.fresh(config.runs)
    while members and len(frontier.found) < config.count:
        members = await frontier.advance(members)
    frontier.found = frontier.found[: config.count]
    return frontier.population()


async def _rejection(program: Program[T], config: Rejection) -> Population[T]:
    frontier, drawn, least = Frontier(program), 0, -math.inf if config.accept is None else config.accept
    while drawn < config.most and not frontier.found:
        count = min(config.batch, config.most - drawn)
        await frontier.finish(frontier.fresh(count))
        drawn += count
        frontier.found = [one for one in frontier.found if one.log_weight >= least]
    return frontier.population({"drawn": drawn})
