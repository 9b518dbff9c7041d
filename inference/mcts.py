"""Monte Carlo tree search over the steps of a program. See `ppl.inference.frontier`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ppl.inference.arguments import check_count
from ppl.inference.frontier import Frontier, child, children
from ppl.inference.population import Particle, Population
from ppl.program import Program

T = TypeVar("T")


@dataclass(frozen=True)
class MCTS:
    """`simulations` solutions, each written from a prefix that looked promising in those before.

    A simulation goes down the tree by PUCT, from a node to the child of the largest Q + `explore` * sqrt(visits of the
    node) / (1 + visits of the child) / `width`, to a prefix that was never gone on from; makes its `width` children;
    writes one of them to its end; and adds what the solution is worth, exp of its score, to the mean Q of every node
    above. An optimiser: Silver et al. 2017, "Mastering the game of Go without human knowledge"; for steps of a language
    model with rollouts: Feng et al. 2023, "AlphaZero-like tree-search can guide large language model decoding and
    training". The prior over children is uniform, for they are draws of the model.

    Diagnostics: "nodes" of the tree, "steps" of prefixes, "depth" of the deepest node.

    Raises:
        ValueError: `simulations` or `width` below 1, or a negative `explore`.
    """

    simulations: int
    width: int = 4
    explore: float = 1.0

    def __post_init__(self) -> None:
        check_count("MCTS", "simulations", self.simulations)
        check_count("MCTS", "width", self.width)
        if not 0 <= self.explore < math.inf:
            raise ValueError(f"MCTS: explore must be a number that is not negative, not {self.explore!r}")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("mcts", _mcts, (program, self), {})


@dataclass
class _Node(Generic[T]):
    """A prefix in the tree. `closed`: nothing below it is left to try."""

    prefix: Particle[T]
    depth: int
    below: list[_Node[T]] | None = None
    visits: int = 0
    total: float = 0.0
    closed: bool = False

    def choose(self, explore: float) -> _Node[T]:
        """The child to go to; the first of several that are equal."""
        open_ = [node for node in self.below or () if not node.closed]
        spread = explore * math.sqrt(self.visits) / max(len(self.below or ()), 1)
        return max(open_, key=lambda node: node.total / max(node.visits, 1) + spread / (1 + node.visits))


@dataclass
class _Tree(Generic[T]):
    config: MCTS
    frontier: Frontier[T]
    nodes: int = 1
    depth: int = 0
    path: list[_Node[T]] = field(default_factory=list)

    async def simulate(self, root: _Node[T]) -> None:
        """One solution more, and what it is worth to all nodes above it."""
        node, self.path = root, [root]
        while node.below is not None:
            node = node.choose(self.config.explore)
            self.path.append(node)
        worth = await self.expand(node)
        for node in self.path:
            node.visits += 1
            node.total += worth
        for node in reversed(self.path):
            node.closed = node.below is not None and all(one.closed for one in node.below)

    async def expand(self, node: _Node[T]) -> float:
        """Make the children of a node and write the best of them to its end; the worth of the best solution."""
        frontier, before = self.frontier, len(self.frontier.found)
        going = await frontier.advance(children(node.prefix, self.config.width))
        node.below = [_Node(prefix, node.depth + 1) for prefix in going]
        self.nodes += len(going)
        self.depth = max(self.depth, node.depth + bool(going))
        if going:
            first = max(node.below, key=lambda one: one.prefix.log_weight)
            self.path.append(first)
            await frontier.finish([child(first.prefix)])
        return max((math.exp(min(one.log_weight, 700.0)) for one in frontier.found[before:]), default=0.0)


async def _mcts(program: Program[T], config: MCTS) -> Population[T]:
    tree = _Tree(config, Frontier(program))
    root = _Node(tree.frontier.root, 0)
    if not root.prefix.active:  # a program without steps
        await tree.frontier.advance([root.prefix])
        root.closed = True
    for _ in range(config.simulations):
        if root.closed:
            break
        await tree.simulate(root)
    return tree.frontier.population({"nodes": tree.nodes, "steps": tree.frontier.steps, "depth": tree.depth})
