"""A policy: look at a problem first, then choose how to spend the budget on it.

Snell et al. 2024, "Scaling LLM test-time compute optimally can be more effective than scaling model parameters": bins
of difficulty, seen from a few samples, and the best strategy of each bin.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ppl.inference.arguments import check_algorithm, check_count, check_numbers
from ppl.inference.importance import Importance
from ppl.inference.population import NoEvidence, Population
from ppl.program import Program
from ppl.scaling import saturation

T = TypeVar("T")
Algorithm = Callable[[Program[Any]], Program[Population[Any]]]


@dataclass(frozen=True)
class Dispatch:
    """Run `probe`, and then the algorithm that `choose(population of the probe)` gives, on the same program.

    What the probe has drawn is only looked at. So, whatever is chosen by it, the result is weighted as that algorithm
    weighs. Law: `measure(collapse(Dispatch(A, choose)(p))) == measure(p)` if all that are chosen weigh properly.

    Diagnostics: those of the chosen algorithm, and "chosen", its repr.
    """

    probe: Algorithm
    choose: Callable[[Population[Any]], Algorithm]

    def __post_init__(self) -> None:
        check_algorithm("Dispatch: probe", self.probe)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("dispatch", _dispatch, (program, self), {})


@dataclass(frozen=True)
class ByDifficulty:
    """A choice for `Dispatch`: the log evidence of the probe says how hard a problem is.

    Below `edges[0]` it is hardest and `algorithms[0]` is chosen, above the last edge the last; edges are nats, rising.

    Raises:
        ValueError: edges that do not rise, or not one algorithm more than edges.
    """

    edges: Sequence[float]
    algorithms: Sequence[Algorithm]

    def __post_init__(self) -> None:
        edges = check_numbers("ByDifficulty", "edges", self.edges)
        if list(edges) != sorted(set(edges)) or len(self.algorithms) != len(edges) + 1:
            raise ValueError(f"ByDifficulty: {len(self.algorithms)} algorithms for edges {edges}: edges rise, and "
                             "there is one algorithm more")  # fmt: skip
        for one in self.algorithms:
            check_algorithm("ByDifficulty", one)

    def __call__(self, probe: Population[Any]) -> Algorithm:
        return self.algorithms[bisect_right(self.edges, probe.log_evidence)]


@dataclass(frozen=True)
class UntilSaturation:
    """A choice for `Dispatch`: as many independent runs as gain `gain` each in P(one is right), and at most `most`.

    Weights must be P(right), as those of step likelihoods are; P(a run is right) is the posterior mean of the probe's
    under a flat prior, and `ppl.scaling.saturation` plans.

    Raises:
        ValueError: `most` below 1, or a gain that is not positive.
        NoEvidence: the probe's weights are known up to a constant only.
    """

    most: int
    gain: float = 0.01

    def __post_init__(self) -> None:
        check_count("UntilSaturation", "most", self.most)
        if not self.gain > 0:
            raise ValueError(f"UntilSaturation: gain={self.gain!r} must be positive")

    def __call__(self, probe: Population[Any]) -> Algorithm:
        if probe.normalised:
            raise NoEvidence("UntilSaturation: weights of the probe must be P(right): Importance and SMC have them")
        rights = [math.exp(min(log_weight, 0.0)) for log_weight in probe.log_weights]
        return Importance(min(self.most, saturation((sum(rights) + 1) / (len(rights) + 2), self.gain)))


async def _dispatch(program: Program[T], config: Dispatch) -> Population[T]:
    algorithm = config.choose(await config.probe(program))
    check_algorithm("Dispatch: choose", algorithm)
    population = await algorithm(program)
    return replace(population, diagnostics={**(population.diagnostics or {}), "chosen": repr(algorithm)})
