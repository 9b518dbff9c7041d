"""Independent populations of one program, taken together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ppl.inference.arguments import check_algorithm, check_count
from ppl.inference.population import Population
from ppl.language import parallel
from ppl.program import Program
from ppl.runs import merge

T = TypeVar("T")


@dataclass(frozen=True)
class Islands:
    """`count` runs of an algorithm, which share device calls and nothing else; each counts by its evidence.

    Worth it where populations degenerate: islands keep `count` families alive. And the evidence of the islands, each
    an estimate of its own, says how good their mean is: `posterior.log_evidence_se`.

    Law: `measure(collapse(Islands(n, A)(p))) == measure(p)` for every properly weighting A.

    Diagnostics: "island_log_evidence", a list, and under "islands", of each island, its own and its "steps".

    Raises:
        ValueError: fewer than 1 island.
    """

    count: int
    algorithm: Callable[[Program[Any]], Program[Population[Any]]]

    def __post_init__(self) -> None:
        check_count("Islands", "count", self.count)
        check_algorithm("Islands", self.algorithm)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("islands", _islands, (program, self), {})


async def _islands(program: Program[T], config: Islands) -> Population[T]:
    islands = await parallel(*[config.algorithm(program) for _ in range(config.count)])
    merged, diagnostics = merge(islands), dict[str, Any]()
    if not merged.normalised:
        diagnostics["island_log_evidence"] = [island.log_evidence for island in islands]
    own = [dict(island.diagnostics or {}) | ({"steps": island.steps} if island.steps else {}) for island in islands]
    if any(own):
        diagnostics["islands"] = own
    return replace(merged, diagnostics=diagnostics or None)
