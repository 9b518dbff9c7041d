"""Solve many problems by one method: what `ppl demo` and `ppl solve` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ppl.infer import Algorithm, infer_many
from ppl.inference.importance import Importance
from ppl.inference.resampling import Adaptive, Multinomial, Systematic
from ppl.inference.smc import SMC
from ppl.models import sloppy
from ppl.models.language_model import LanguageModel, StepReward
from ppl.models.sloppy import Problem, Weighting
from ppl.posterior import Posterior, Vote
from ppl.rewards import Reward
from ppl.source import Key

PARTICLES_IN_FLIGHT = 1024
"""Particles of all problems of a batch together: enough to fill device calls, little enough to fit the caches."""


@dataclass(frozen=True)
class Method:
    """An algorithm for N particles, the weights it runs under, and how its population answers."""

    name: str
    algorithm: Callable[[int], Algorithm[Any]]
    vote: Vote
    weighting: Weighting = "step"


FILTER = Adaptive(Systematic, 0.75)  # chosen on 1,000 fresh problems: at N = 8 better than 0.5, as good as always

METHODS = ("majority", "best-of-n", "weighted-best-of-n", "particle-filter")


def method(name: str, weighting: Weighting = "step", select: Vote | None = None) -> Method:
    """A method by name; `weighting` and `select` change the particle filter alone.

    The first three are votes on the same independent particles. The published filter resamples by
    multinomial draws at every step and answers with the particle of the highest score.

    Raises:
        ValueError: the name is unknown, or `weighting` or `select` is given to another method than the filter.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose {', '.join(METHODS)}")
    if name == "particle-filter":
        if weighting == "published":
            return Method(name, lambda n: SMC(n, Multinomial), select or "argmax", "published")
        return Method(name, lambda n: SMC(n, FILTER), select or "weighted")
    if weighting != "step" or select is not None:
        raise ValueError(f"weighting and select belong to the particle-filter, not to {name}")
    votes: dict[str, Vote] = {"majority": "majority", "best-of-n": "argmax", "weighted-best-of-n": "weighted"}
    return Method(name, Importance, votes[name])


@dataclass(frozen=True)
class Solved:
    """The posterior over answers of one problem, and the tokens sampled for it."""

    posterior: Posterior[str]
    tokens: int


def solve_all(
    lm: LanguageModel,
    problems: Sequence[tuple[Problem, Key]],
    algorithm: Algorithm[Any],
    weighting: Weighting = "step",
    batch: int = 1,
) -> Iterator[Solved]:
    """The problems in order, `batch` at a time; each with its own key, so the batch does not change the answers."""
    reward = Reward(StepReward(lm), sloppy.USES[weighting])
    for low in range(0, len(problems), batch):
        part = problems[low : low + batch]
        handles = [lm.handle() for _ in part]
        programs = [
            sloppy.solve(handle, reward, problem.problem) for handle, (problem, _) in zip(handles, part, strict=True)
        ]
        posteriors = infer_many(programs, algorithm, [key for _, key in part])
        for handle, posterior in zip(handles, posteriors, strict=True):
            yield Solved(posterior.map(sloppy.answer_of), handle.tokens)


def batch_size(particles: int) -> int:
    """Problems to solve together with this many particles each."""
    return max(1, PARTICLES_IN_FLIGHT // particles)
