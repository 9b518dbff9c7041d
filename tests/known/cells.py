"""Compare one algorithm on one model with the exact answer, with Monte Carlo error bars.

R independent replications. With population r of log weights log w_i, and Z and post the exact answers,

    evidence  z_r    = mean_i w_i / Z                       has expectation 1
    f         s_r(f) = mean_i w_i (f(x_i) - post(f)) / Z    has expectation 0

exactly, at any number of particles, if the population is properly weighted: no allowance for the O(1/N) bias of a
normalised average is needed. Of Markov chains, s_r(f) is the chain's mean of f(x_i) - post(f), and there is no z_r.
The mean over r, divided by its standard error, is compared with Student's t of R - 1 degrees of freedom. It is a mean
over some 2000 particles, so close to normal as long as no few weights dominate it: `MAX_SPREAD`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ppl import Key, Population, infer_many

from .algorithms import ROWS, Row
from .known import Known
from .models import MODELS

FALSE_ALARMS = 1e-3  # of the whole matrix, over seeds, by Bonferroni over its statistics
MAX_SPREAD = 0.5  # relative sd of a replication's evidence: above it the normal error bar is not to be trusted
EXACT = 1e-12
ROUNDING = 1e-7  # log densities from the device are float32: no answer that has an error bar is known better

CELLS = [(row, model) for row in ROWS for model in MODELS if row.only(model)]
STATISTICS = sum(1 + len(model.expectations) for _, model in CELLS)


@dataclass(frozen=True)
class Line:
    """One statistic of one cell."""

    cell: str
    statistic: str
    estimate: float
    exact: float
    error: float
    """Standard error of the estimate over replications."""
    bar: float
    """How many standard errors are too many."""

    @property
    def z(self) -> float:
        """Standard errors between estimate and exact answer; they count as one that is less than rounding."""
        return (self.estimate - self.exact) / max(self.error, EXACT)

    @property
    def ok(self) -> bool:
        return abs(self.z) <= self.bar

    @property
    def detectable(self) -> float:
        """The discrepancy that the line would reject in 9 of 10 runs."""
        return (self.bar + 1.3) * self.error

    def __str__(self) -> str:
        numbers = f"{self.estimate:12.6g} {self.exact:12.6g} {self.error:9.2g} {self.z:8.2f}"
        verdict = "" if self.ok else f"  <-- beyond {self.bar:.1f}"
        return f"{self.cell:34} {self.statistic:22} {numbers}{verdict}"


def table(lines: Sequence[Line]) -> str:
    """The lines to read, under a heading."""
    heading = f"{'cell':34} {'statistic':22} {'estimate':>12} {'exact':>12} {'error':>9} {'z':>8}"
    return "\n".join(["", heading, *map(str, lines)])


def check(row: Row, model: Known, statistics: int = STATISTICS, seed: int = 0) -> list[Line]:
    """The statistics of a cell, each with a bar for a share 1/`statistics` of the false alarms.

    Other cells have other seeds, so that errors of several rows on one model do not come from the same draws.

    Raises:
        AssertionError: the evidence varies so much over replications that its error bar means nothing.
    """
    cell = f"{row.name} on {model.name}"
    seeds = [Key.of(seed).fold(cell).fold(str(r)) for r in range(row.replications)]
    populations = [p.population for p in infer_many([model.program] * row.replications, row.algorithm, seeds)]
    normalised = populations[0].normalised
    bar = 1.0 if row.exact else float(stats.t.isf(FALSE_ALARMS / statistics / 2, row.replications - 1))
    lines = []
    if not normalised:
        assert model.log_evidence is not None, f"{cell}: the model's evidence is unknown"
        z = np.array([math.exp(p.log_evidence - model.log_evidence) for p in populations])
        assert row.exact or z.std(ddof=1) < MAX_SPREAD, (
            f"{cell}: the evidence has sd {z.std(ddof=1):.2g} Z: give it more particles"
        )
        lines.append(_line(cell, "evidence / exact", z, 1.0, bar))
    shares = [_shares(p, model.log_evidence) for p in populations]
    for name, (f, exact) in model.expectations.items():
        off = [
            math.fsum(w * (f(x) - exact) for x, w in zip(p.values, share, strict=True) if w > 0)
            for p, share in zip(populations, shares, strict=True)
        ]
        lines.append(_line(cell, name, np.array(off) + exact, exact, bar))
    return lines


def _shares(population: Population, log_evidence: float | None) -> list[float]:
    """w_i / (N Z); of a Markov chain, weights that sum to 1."""
    if population.normalised or log_evidence is None:
        w = np.exp(np.array(population.log_weights) - max(population.log_weights))
        return [float(x) for x in w / w.sum()]
    count = len(population.log_weights)
    return [math.exp(w - log_evidence) / count for w in population.log_weights]


def _line(cell: str, statistic: str, x: np.ndarray, exact: float, bar: float) -> Line:
    error = max(float(x.std(ddof=1)) / math.sqrt(len(x)), ROUNDING) if len(x) > 1 else 0.0
    return Line(cell, statistic, float(x.mean()), exact, error, bar)
