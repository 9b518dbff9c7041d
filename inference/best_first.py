"""Best-first search: a pool of prefixes of all lengths, of which the best goes on. See `ppl.inference.frontier`."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TypeVar

from ppl.inference.arguments import check_count
from ppl.inference.frontier import Frontier, children
from ppl.inference.population import Particle, Population
from ppl.program import Program

T = TypeVar("T")
Entry = tuple[float, int, Particle[T]]  # the cost, the place in the order of making, the prefix


@dataclass(frozen=True)
class AStar:
    """A*: the prefix of the highest bound goes on by `width` children; the first solution that is best of all ends it.

    The bound of a prefix is its score, a twist being what the rest may still bring: where no prefix can come to more
    than its score says (a *consistent* heuristic) and all children of a prefix are tried, the solution is the best
    there is (Hart, Nilsson and Raphael 1968). A score above its parent's counts as the parent's, so that bounds fall
    along a path. (Set the twist of a step before its factor, or the old twist counts that factor a second time.) The
    pool is persistent: a prefix that was passed over stays in it. `batch` prefixes go on together.

    After `steps` steps of prefixes (None: as many as it takes) the search ends with the solutions that it has; if it
    has none the best `batch` prefixes are brought to their ends. An optimiser: Chatziveroglou et al. 2025,
    "A*-Decoding: token-efficient inference scaling".

    Diagnostics: "expanded", prefixes that went on; "steps"; "pool", prefixes that were left.

    Raises:
        ValueError: a number below 1.
    """

    width: int = 4
    steps: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        check_count("AStar", "width", self.width)
        check_count("AStar", "batch", self.batch)
        if self.steps is not None:
            check_count("AStar", "steps", self.steps)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("a_star", _a_star, (program, self), {})


async def _a_star(program: Program[T], config: AStar) -> Population[T]:
    frontier, pool, made, expanded = Frontier(program), list[Entry[T]](), 0, 0
    heapq.heappush(pool, (-frontier.root.log_weight if frontier.root.active else 0.0, 0, frontier.root))
    best = -math.inf
    while pool and -pool[0][0] > best and (config.steps is None or frontier.steps < config.steps):
        popped = [heapq.heappop(pool) for _ in range(min(config.batch, len(pool)))]
        costs: dict[int, float] = {}
        members: list[Particle[T]] = []
        for cost, _, prefix in popped:
            for one in children(prefix, config.width):
                costs[id(one)] = cost
                members.append(one)
        expanded += len(popped)
        for prefix in await frontier.advance(members):
            made += 1
            heapq.heappush(pool, (max(costs[id(prefix)], -prefix.log_weight), made, prefix))
        best = max((solution.log_weight for solution in frontier.found), default=-math.inf)
    left = len(pool)
    if not frontier.found:
        await frontier.finish([prefix for *_, prefix in heapq.nsmallest(config.batch, pool)])
    return frontier.population({"expanded": expanded, "steps": frontier.steps, "pool": left})
