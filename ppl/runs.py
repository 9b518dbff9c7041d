"""Independent runs of one algorithm on one program, taken together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from ppl.inference import weights
from ppl.inference.population import Population

T = TypeVar("T")


def merge(runs: Sequence[Population[T]]) -> Population[T]:
    """All particles as one population, whose evidence is the mean of the runs' evidences: each run counts alike.

    Particles of a run of N_r out of N in R runs gain the factor N / (R N_r), which is 1 for runs of one size. Markov
    chains know no evidence: each has the same share of the merged posterior.

    Raises:
        ValueError: there are no runs, or only some of them know their evidence.
    """
    if not runs:
        raise ValueError("merge needs at least one run")
    normalised = runs[0].normalised
    if any(run.normalised != normalised for run in runs):
        raise ValueError("cannot merge draws of Markov chains with weighted particles")
    total = sum(len(run.log_weights) for run in runs)
    log_weights: list[float] = []
    for run in runs:
        shift = math.log(total / (len(runs) * len(run.log_weights)))
        if normalised:
            shift -= weights.log_mean_exp(run.log_weights)
        log_weights += [w + shift if w > -math.inf else w for w in run.log_weights]
    killed = sum((run.killed or Counter() for run in runs), Counter[str]())
    values = tuple(value for run in runs for value in run.values)
    return Population(values, tuple(log_weights), killed=killed, normalised=normalised)


def log_evidence_se(log_evidences: Sequence[float]) -> float | None:
    """Standard error of the log of the mean of independent evidence estimates, in nats; None where it is unknown.

    The delta method: sd(Z_r) / (sqrt(R) mean(Z_r)), good when it is well below 1. Unknown: one run, or Z = 0.
    """
    count, top = len(log_evidences), max(log_evidences)
    if count < 2 or top == -math.inf:
        return None
    z = [math.exp(log_z - top) for log_z in log_evidences]
    mean = math.fsum(z) / count
    variance = math.fsum((x - mean) ** 2 for x in z) / (count - 1)
    return math.sqrt(variance / count) / mean
