"""Check whole inferences by simulation: calibration of posteriors, invariance of transitions.

Both start from a *joint*: a program that draws parameters from the prior and data given them. Neither needs the true
posterior, only exact draws of the joint. Replications are independent and share batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ppl.host import Result, run_many
from ppl.infer import Algorithm, infer_many
from ppl.program import Program
from ppl.source import Key
from ppl.statistical import FALSE_ALARM, assert_counts, assert_same_law

P = TypeVar("P")
D = TypeVar("D")
Statistics = Mapping[str, Callable[[Any, Any], Any]]
"""Functions of (parameters, data), by name."""


def assert_calibrated(
    joint: Program[tuple[P, D]],
    posterior: Callable[[D], Program[P]],
    algorithm: Algorithm[P],
    statistics: Statistics | None = None,
    replications: int = 500,
    draws: int = 19,
    false_alarm: float = FALSE_ALARM,
    seed: int | Key = 0,
) -> None:
    """Simulation-based calibration: posteriors of simulated data hold the true parameters as often as they say.

    `joint` draws (parameters, data), without factors; `posterior(data)` is the program whose posterior over parameters
    `algorithm` infers. Of each replication, `draws` values are drawn from the posterior (`Posterior.sample`), and the
    rank of the true parameters among them, by each statistic (a number; ties are broken at random, by the seed), is
    uniform on 0..draws if the inference is exact (Talts, Betancourt, Simpson, Vehtari and Gelman 2018, "Validating
    Bayesian inference algorithms with simulation-based calibration"). A statistic may look at the data: the likelihood,
    say, finds an algorithm that ignores them and returns the prior, which the parameters alone never do (Modrak et al.
    2023, "Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
    sensitivity"). Without `statistics`, the parameters are the one statistic.

    The probability of a rank of at most r is tested for each r and statistic by an exact binomial test at `false_alarm`
    over their number: an exact algorithm fails with probability at most `false_alarm`. Detects, with probability 0.999,
    such a probability that is off by `detectable_rank(replications, draws, number of statistics, false_alarm)`.

    Exact means independent exact draws (`Enumerate`). Those of weighted particles are resampled from a finite
    population, whose law is off by about 1/particles and whose members repeat; those of a Markov chain depend on each
    other. Few particles or a short chain fail, and rightly so; a pass says that the error is below what is detected.

    Raises:
        AssertionError: naming the statistic, with the false-alarm rate and the discrepancy that is detected.
        ValueError: so few replications that nothing could fail, a statistic that is nan, a joint with factors.
        ZeroEvidence: all particles of a replication died.
    """
    statistics = statistics or {"the parameters": lambda parameters, data: parameters}
    if draws < 1 or replications < 1:
        raise ValueError(f"assert_calibrated: {replications} replications of {draws} draws; both need at least 1")
    root = Key.of(seed).fold("calibrated")
    pairs = _pairs(joint, replications, root.fold("joint"))
    posteriors = infer_many([posterior(data) for _, data in pairs], algorithm, _keys(root.fold("infer"), replications))
    ranks = {name: np.zeros(replications, int) for name in statistics}
    for i, ((parameters, data), inferred) in enumerate(zip(pairs, posteriors, strict=True)):
        values = inferred.sample(draws, root.fold(f"draws/{i}"))
        for name, statistic in statistics.items():
            true = _number(name, statistic(parameters, data))
            others = [_number(name, statistic(value, data)) for value in values]
            ties = sum(x == true for x in others)
            ranks[name][i] = sum(x < true for x in others) + int(root.fold(f"{name}/{i}").uniform() * (ties + 1))
    rows = [
        (f"{name}: a rank of at most {r} (of 0..{draws})", int(np.sum(rank <= r)), (r + 1) / (draws + 1))
        for name, rank in ranks.items()
        for r in range(draws)
    ]
    assert_counts(replications, rows, false_alarm, "a range of ranks from 0")


def assert_joint_invariant(
    joint: Program[tuple[P, D]],
    step: Callable[[P, D], Program[P]],
    simulate: Callable[[P], Program[D]] | None = None,
    statistics: Statistics | None = None,
    rounds: int = 1,
    replications: int = 1000,
    false_alarm: float = FALSE_ALARM,
    seed: int | Key = 0,
) -> None:
    """Transitions that leave every posterior invariant leave the joint law of parameters and data invariant.

    Each replication starts at (parameters, data) from `joint`, and `rounds` times runs `step(parameters, data)`, which
    gives new parameters (a kernel of the posterior given the data), and, if there is one, `simulate(parameters)`, which
    gives new data. What comes out is compared with fresh draws of `joint` by `assert_same_law`, statistic by statistic.
    This is the test of Geweke 2004, "Getting it right: joint distribution tests of posterior simulators", with
    independent replications as in Gandy and Scott 2020, "Unit testing for MCMC and other Monte Carlo methods": their
    independence makes the false-alarm rate exact, however slowly the kernel mixes.

    Without `statistics`, the pair (parameters, data) is compared as one outcome: right for finite programs. Numbers
    need statistics of both together: one of the parameters alone passes a step that ignores the data and draws from the
    prior. A statistic is a float (compared by CDF), or any other hashable value (compared outcome by outcome).

    Leave `simulate` out to find a step that ignores the data: followed by new data, a draw from the prior is a draw of
    the joint. With it, a bias grows from round to round.

    A right step fails with probability at most `false_alarm`. Detects, with probability 0.999, a statistic whose law is
    off by `detectable_between(replications, replications, false_alarm / number of statistics)`.

    Raises:
        AssertionError: naming the statistic, with the false-alarm rate and the discrepancy that is detected.
        ValueError: so few replications that nothing could fail, a statistic that is nan, a joint or a step that has
            factors.
    """
    statistics = statistics or {"(parameters, data)": lambda parameters, data: (parameters, data)}
    if rounds < 1 or replications < 1:
        raise ValueError(f"assert_joint_invariant: {rounds} rounds of {replications} replications; both need 1")
    root = Key.of(seed).fold("invariant")
    fresh = _pairs(joint, replications, root.fold("fresh"))
    pairs = _pairs(joint, replications, root.fold("joint"))
    for i in range(rounds):
        keys = _keys(root.fold(f"step/{i}"), replications)
        parameters = _values("step", run_many([step(*pair) for pair in pairs], keys))
        data = [data for _, data in pairs]
        if simulate is not None:
            keys = _keys(root.fold(f"simulate/{i}"), replications)
            data = _values("simulate", run_many([simulate(value) for value in parameters], keys))
        pairs = list(zip(parameters, data, strict=True))
    for name, statistic in statistics.items():
        try:
            moved, expected = ([statistic(*pair) for pair in group] for group in (pairs, fresh))
            assert_same_law(moved, expected, false_alarm / len(statistics))
        except (AssertionError, ValueError) as error:
            raise type(error)(f"{name}, after {rounds} rounds against fresh: {error}") from error


def _pairs(joint: Program[tuple[P, D]], count: int, key: Key) -> list[tuple[P, D]]:
    pairs = _values("the joint", run_many([joint] * count, _keys(key, count)))
    if not isinstance(pairs[0], tuple) or len(pairs[0]) != 2:
        raise ValueError(f"the joint must return a pair (parameters, data), not {pairs[0]!r}")
    return pairs


def _values(what: str, results: Sequence[Result[Any]]) -> list[Any]:
    """The values of runs that must have weight 1."""
    for result in results:
        if not abs(result.log_weight) < 1e-9:
            raise ValueError(
                f"{what} must draw, without factors or observations: it has a log weight of {result.log_weight:.4g}"
            )
    return [result.value for result in results]


def _keys(key: Key, count: int) -> list[Key]:
    return [key.fold(str(i)) for i in range(count)]


def _number(name: str, value: Any) -> float:
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"the statistic {name} is nan")
    return number
