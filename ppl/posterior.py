"""The answer of an inference: weighted values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from ppl import display, export, quality, runs, saved
from ppl.answers import Answers, Vote
from ppl.inference import weights
from ppl.inference.diagnostics import pareto_k
from ppl.inference.population import Population, Step
from ppl.source import Key

if TYPE_CHECKING:
    import pandas
    from rich.console import Group

T = TypeVar("T")
U = TypeVar("U")


class ZeroEvidence(ValueError):
    """Every particle has weight zero, so there is no posterior to ask."""


class Posterior(Answers[T]):
    """Values with log weights. Particles of weight zero count for the evidence and nothing else.

    Two posteriors are equal when their runs have equal populations.
    """

    def __init__(
        self, population: Population[T], runs: Sequence[Posterior[T]] = (), calls: Mapping[str, int] | None = None
    ) -> None:
        self.population = population
        self.calls = dict(calls or {})
        """How often each `call` was performed, reward models among them, by name: what `infer` has spent on them."""
        self._runs = tuple(runs)

    @staticmethod
    def merge(posteriors: Iterable[Posterior[U]]) -> Posterior[U]:
        """Independent runs of one program by one algorithm as one posterior, each run weighted by its evidence.

        Its evidence is the mean of the runs' evidences; of Markov chains, each has the same share.

        Raises:
            ValueError: there are none, or Markov chains are mixed with weighted particles.
        """
        single = [run for posterior in posteriors for run in posterior.runs]
        population, calls = runs.merge([run.population for run in single]), Counter[str]()
        for run in single:
            calls.update(run.calls)
        return Posterior(population, single, calls) if len(single) > 1 else single[0]

    @property
    def runs(self) -> tuple[Posterior[T], ...]:
        """The independent runs that were merged; of one run, itself alone."""
        return self._runs or (self,)

    @property
    def log_evidence(self) -> float:
        """Estimate of log Z in nats; `-inf` when every particle died.

        Raises:
            NoEvidence: the particles are draws of a Markov chain.
        """
        return self.population.log_evidence

    @property
    def log_evidence_se(self) -> float | None:
        """Standard error of `log_evidence` over runs or islands, nats, by the delta method; None for one, or if Z = 0.

        Raises:
            NoEvidence: the particles are draws of a Markov chain.
        """
        islands = [run.diagnostics.get("island_log_evidence", [run.log_evidence]) for run in self.runs]
        return runs.log_evidence_se([log_evidence for run in islands for log_evidence in run])

    @property
    def ess(self) -> float:
        """Effective sample size of the final weights, a count."""
        return self.population.ess

    @property
    def pareto_k(self) -> float | None:
        """How heavy the tail of the weights is (see `ppl.inference.diagnostics`); tells of `Importance` only."""
        return pareto_k(self.population.log_weights)

    @property
    def warnings(self) -> list[str]:
        """What is bad about the diagnostics, in plain words; empty if nothing is."""
        return quality.concerns(self)

    @property
    def steps(self) -> tuple[Step, ...]:
        """ESS, log evidence, unique ancestors and resampling at each step (SMC only; of merged runs, see `runs`)."""
        return self.population.steps

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What the algorithm says of its own quality; empty if nothing (of merged runs, see `runs`)."""
        return self.population.diagnostics or {}

    @property
    def probabilities(self) -> list[float]:
        """The probability of each particle, in order; they sum to 1.

        Raises:
            ZeroEvidence: naming the sites that killed the particles.
        """
        if self.is_empty:
            counts = self.population.killed or Counter[str]()
            killed = ", ".join(f"{site} ({n} of {counts.total()})" for site, n in counts.most_common())
            raise ZeroEvidence(
                f"all {len(self.population.values)} particles have weight zero; killed at: {killed or 'unknown'}. "
                "More particles, or a weaker constraint at that site, would help"
            )
        return weights.normalise(self.population.log_weights)

    @property
    def is_empty(self) -> bool:
        """Whether every particle has weight zero."""
        return max(self.population.log_weights) == -math.inf

    def items(self) -> list[tuple[T, float]]:
        """(value, probability) of each particle of positive probability, in order.

        Raises:
            ZeroEvidence: naming the sites that killed the particles. So does whatever asks for values, below.
        """
        pairs = zip(self.population.values, self.probabilities, strict=True)
        return [(value, p) for value, p in pairs if p > 0]  # pyright: ignore[reportReturnType]

    def map(self, f: Callable[[T], U]) -> Posterior[U]:
        """The posterior of `f(value)`."""
        if self._runs:
            return Posterior.merge([run.map(f) for run in self._runs])
        population = self.population
        weighted = zip(population.values, population.log_weights, strict=True)
        values: Any = tuple(f(v) if w > -math.inf else None for v, w in weighted)  # pyright: ignore[reportArgumentType]
        diagnostics = population.diagnostics and {k: v for k, v in population.diagnostics.items() if k != "draws"}
        mapped = replace(population, values=values, diagnostics=diagnostics)
        return Posterior(mapped, calls=self.calls)  # pyright: ignore[reportReturnType]

    def head(self, count: int) -> Posterior[T]:
        """The posterior of the first `count` particles alone: right for independent particles (`Importance`)."""
        if not 1 <= count <= len(self.population.values):
            raise ValueError(f"head({count}): there are {len(self.population.values)} particles")
        values, log_weights = self.population.values[:count], self.population.log_weights[:count]
        return Posterior(replace(self.population, values=values, log_weights=log_weights, steps=(), diagnostics=None))

    def to_pandas(self) -> pandas.DataFrame:
        """A row per particle of positive weight: value, log_weight, probability; see `ppl.export`."""
        return export.to_pandas(self)

    def to_arviz(self, seed: int | Key = 0) -> Any:
        """Chains as they are, weighted particles resampled (systematically, by `seed`); see `ppl.export`."""
        return export.to_arviz(self, seed)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a JSON file, all of it or nothing; see `ppl.saved`."""
        saved.save(self, path)

    @staticmethod
    def load(path: str | PathLike[str]) -> Posterior[Any]:
        """What `save` wrote; see `ppl.saved`."""
        return Posterior.merge([Posterior(population) for population in saved.load(path)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Posterior) and saved.same(self, other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return display.line(self)

    def _repr_html_(self) -> str:
        return display.html_table(self)

    def __rich__(self) -> Group:
        return display.rich_table(self)


__all__ = ["Posterior", "Vote", "ZeroEvidence"]
