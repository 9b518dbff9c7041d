"""Resampling by a power of the weights: less is decided now, and each child carries the rest of its weight on.

Any law of ancestors is proper if the children's weights make up for it, so how hard to select is a choice: by w (power
1), not at all (power 0), or between, so that many particles survive a score that is not to be trusted yet.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ppl.inference.ancestors import Ancestors, Conditional, Resampler, Vector, Weights
from ppl.inference.systematic import Systematic
from ppl.source import Key


@dataclass(frozen=True)
class Tempered:
    """Ancestors by `scheme` from w^power; a child of k keeps the left-over weight w_k^(1-power).

    Power None: the largest power <= 1 at which the effective sample size of w^power is at least `threshold` * N (0 if
    there is none, when fewer particles live), by bisection to 1e-12. Particles of weight zero have no children at power
    0 either. Composes: `Adaptive(Tempered(Systematic, 0.5), 0.5)`.
    (Liu 2001, "Monte Carlo Strategies in Scientific Computing", section 3.4: resampling by w^a, and children of weight
    w / w^a. The power is chosen as in adaptive tempering, Jasra et al. 2011, and in entropic particle filtering, 2025.)

    Raises:
        ValueError: the power or the threshold is not in [0, 1].
    """

    scheme: Resampler = Systematic
    power: float | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.power is not None and not 0.0 <= self.power <= 1.0:
            raise ValueError(f"Tempered: power is in [0, 1], or None to choose it by the threshold, not {self.power}")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"Tempered: threshold is a share of N in [0, 1], not {self.threshold}")

    def __call__(self, log_weights: Weights, count: int | None = None) -> Ancestors:
        power = largest_power(log_weights, self.threshold) if self.power is None else self.power
        return ByPower(log_weights, count, self.scheme, power)


class ByPower(Ancestors):
    """The ancestors that `scheme` makes from the weights to a power."""

    def __init__(self, log_weights: Weights, count: int | None, scheme: Resampler, power: float) -> None:
        super().__init__(log_weights, count)
        self.power = power
        self.selected = scheme([_times(power, w) for w in self.log_weights], count)
        self.resamples = self.selected.resamples
        self.cyclic = self.selected.cyclic

    @property
    def expected(self) -> Sequence[float]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.selected.expected

    @property
    def family(self) -> Hashable:
        return (ByPower, self.selected.family)

    def child_log_weights(self, ancestors: Vector) -> list[float]:
        """What `scheme` gives for w^power, times w^(1-power)."""
        base = self.selected.child_log_weights(ancestors)
        return [w + _times(1.0 - self.power, self.log_weights[a]) for w, a in zip(base, ancestors, strict=True)]

    def sample(self, key: Key) -> Vector:
        return self.selected.sample(key)

    def table(self) -> list[tuple[Vector, float]]:
        return self.selected.table()

    def log_prob(self, value: Vector) -> float:
        return self.selected.log_prob(value)

    def given(self, reference: int) -> Conditional:
        self.selected.given(reference)  # raises, if `scheme` does not take everyone for the reference
        return super().given(reference)

    def draw_given(self, reference: int, key: Key) -> Vector:
        return self.selected.draw_given(reference, key)


def largest_power(log_weights: Weights, threshold: float) -> float:
    """The largest power <= 1 at which the effective sample size of w^power is at least threshold * N; 0 if none is."""
    logw = np.asarray(log_weights, np.float64)
    alive = logw[logw > -math.inf]
    if not alive.size or not np.isfinite(alive).all():
        return 0.0  # nothing to choose: a draw will raise
    alive -= alive.max()

    def enough(power: float) -> bool:
        w = np.exp(power * alive)
        return float(w.sum() ** 2) >= threshold * logw.size * float((w * w).sum())

    if enough(1.0):
        return 1.0
    low, high = 0.0, 1.0  # the effective sample size falls as the power grows
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


def _times(power: float, log_weight: float) -> float:
    """power * log_weight; weight zero stays zero, also to the power 0."""
    return log_weight if log_weight == -math.inf else power * log_weight
