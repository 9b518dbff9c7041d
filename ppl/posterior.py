"""The answer of an inference: weighted values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, Literal, TypeVar

from ppl.inference import weights
from ppl.inference.population import Population, Step

T = TypeVar("T")
U = TypeVar("U")
Vote = Literal["weighted", "majority", "argmax"]


class ZeroEvidence(ValueError):
    """Every particle has weight zero, so there is no posterior to ask."""


class Posterior(Generic[T]):
    """Values with log weights. Particles of weight zero count for the evidence and nothing else."""

    def __init__(self, population: Population[T]) -> None:
        self.population = population

    @property
    def log_evidence(self) -> float:
        """Estimate of log Z; `-inf` when every particle died."""
        return self.population.log_evidence

    @property
    def ess(self) -> float:
        """Effective sample size of the final weights, a count."""
        return weights.ess(self.population.log_weights)

    @property
    def steps(self) -> tuple[Step, ...]:
        """ESS, log evidence, unique ancestors and resampling at each step (SMC only)."""
        return self.population.steps

    def items(self) -> list[tuple[T, float]]:
        """(value, probability) of each particle of positive weight, in order.

        Raises:
            ZeroEvidence: naming the sites that killed the particles.
        """
        if self.log_evidence == -math.inf:
            killed = ", ".join(f"{site} ({n})" for site, n in (self.population.killed or Counter()).most_common())
            raise ZeroEvidence(
                f"all {len(self.population.values)} particles have weight zero; killed at: {killed or 'unknown'}. "
                "More particles, or a weaker constraint at that site, would help"
            )
        p = weights.normalise(self.population.log_weights)
        return [(value, q) for value, q in zip(self.population.values, p, strict=True) if q > 0]  # pyright: ignore[reportReturnType]

    def table(self) -> dict[T, float]:
        """Distinct (hashable) values with their probabilities, most probable first; first seen wins ties."""
        out: dict[T, float] = {}
        for value, p in self.items():
            try:
                out[value] = out.get(value, 0.0) + p
            except TypeError:
                raise TypeError(f"{value!r} cannot be hashed: use .map(...) to turn the values into tuples") from None
        return dict(sorted(out.items(), key=lambda item: -item[1]))

    def mode(self) -> T:
        """The most probable value."""
        return next(iter(self.table()))

    def prob(self, predicate: Callable[[T], bool]) -> float:
        """Posterior probability that the predicate holds."""
        return sum(p for value, p in self.items() if predicate(value))

    def expect(self, f: Callable[[T], float]) -> float:
        """Posterior expectation of `f`."""
        return sum(p * f(value) for value, p in self.items())

    def map(self, f: Callable[[T], U]) -> Posterior[U]:
        """The posterior of `f(value)`."""
        population = self.population
        weighted = zip(population.values, population.log_weights, strict=True)
        values = tuple(f(v) if w > -math.inf else None for v, w in weighted)  # pyright: ignore[reportArgumentType]
        return Posterior(Population(values, population.log_weights, population.steps, population.killed))

    def head(self, count: int) -> Posterior[T]:
        """The posterior of the first `count` particles alone: right for independent particles (`Importance`)."""
        if not 1 <= count <= len(self.population.values):
            raise ValueError(f"head({count}): there are {len(self.population.values)} particles")
        population = self.population
        return Posterior(Population(population.values[:count], population.log_weights[:count], (), population.killed))

    def vote(self, how: Vote = "weighted") -> T:
        """One answer out of many (values must be hashable); first seen wins ties.

        `weighted` is the mode of the posterior; `majority` counts particles and ignores weights; `argmax` takes
        the particle of the largest weight, which picks the reward model's over-confident mistakes as N grows.
        """
        items = self.items()
        if how == "argmax":
            return max(items, key=lambda item: item[1])[0]
        if how == "majority":
            counts: Counter[Hashable] = Counter(value for value, _ in items)
            return counts.most_common(1)[0][0]  # pyright: ignore[reportReturnType]
        if how == "weighted":
            return self.mode()
        raise ValueError(f"vote({how!r}): choose weighted, majority or argmax")

    def __repr__(self) -> str:
        count = len(self.population.values)
        if self.log_evidence == -math.inf:
            return f"Posterior({count} particles, all of weight zero)"
        return f"Posterior({count} particles, log_evidence={self.log_evidence:.4f}, ess={self.ess:.1f})"


__all__ = ["Posterior", "Vote", "ZeroEvidence"]
