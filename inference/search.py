"""Search level by level: all prefixes make one step, and the best of them go on. See `ppl.inference.frontier`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ppl.inference import weights
from ppl.inference.arguments import check_count
from ppl.inference.frontier import Frontier, best, children
from ppl.inference.population import Particle, Population
from ppl.language import parallel
from ppl.program import Program

T = TypeVar("T")
Share = Callable[[Sequence[Particle[Any]], Sequence[float], int], dict[int, int]]
"""Of prefixes, their scores and how many may go on: which do, and with how many children each."""


@dataclass(frozen=True)
class Beam:
    """Beam search: of `beams` prefixes the best `beams` / `width` stay, and go on `width` times each.

    A solution leaves the beam and is one of the `beams` that come out. Of prefixes that are the same one counts, and
    what are fewer then share the room. With `lookahead` a prefix is judged by what a copy of it has come to so many
    steps later; the copy is thrown away, and costs what it costs. `Beam(k, k)` is the best of k at each step.

    An optimiser: Snell et al. 2024, "Scaling LLM test-time compute optimally can be more effective than scaling model
    parameters"; Beeching et al. 2024, "Scaling test-time compute with open models".

    Raises:
        ValueError: `beams` or `width` below 1, or a negative `lookahead`.
    """

    beams: int
    width: int = 4
    lookahead: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("beam", _levels, (program, self.beams, self._share, self.lookahead), {})

    def _share(self, members: Sequence[Particle[Any]], scores: Sequence[float], room: int) -> dict[int, int]:
        kept = best(members, scores, -(-room // self.width))
        return {i: (room + len(kept) - 1 - k) // len(kept) for k, i in enumerate(kept)}  # as even as can be


@dataclass(frozen=True)
class DVTS:
    """Diverse verifier tree search: `beams` / `width` trees apart from each other, in each of which the best stays.

    Each tree is a `Beam(width, width)`; the last is smaller where `width` does not divide `beams`. An optimiser:
    Beeching et al. 2024, "Scaling test-time compute with open models".

    Raises:
        ValueError: as for `Beam`.
    """

    beams: int
    width: int = 4
    lookahead: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("dvts", _dvts, (program, self), {})


@dataclass(frozen=True)
class REBASE:
    """Reward-balanced search: at each step the open prefixes share what is left of the `budget` by their scores.

    The share of a prefix of score s is softmax(exp(s) / `temperature`), rounded by largest remainders: exp(s) is the
    reward, a probability. A solution takes one of the budget away. An optimiser: Wu et al. 2024, "Inference scaling
    laws: an empirical analysis of compute-optimal inference for problem-solving with language models", which votes by
    weight.

    Raises:
        ValueError: `budget` below 1, or a temperature that is not positive.
    """

    budget: int
    temperature: float = 0.2

    def __post_init__(self) -> None:
        check_count("REBASE", "budget", self.budget)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"REBASE: the temperature must be positive and finite, not {self.temperature!r}")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("rebase", _levels, (program, self.budget, self._share, 0), {})

    def _share(self, members: Sequence[Particle[Any]], scores: Sequence[float], room: int) -> dict[int, int]:
        rewards = [math.exp(min(score, 700.0)) / self.temperature for score in scores]
        exact = [room * p for p in weights.normalise(rewards)]
        copies = [math.floor(x) for x in exact]
        rest = sorted(range(len(exact)), key=lambda i: copies[i] - exact[i])[: room - sum(copies)]
        return {i: count + (i in rest) for i, count in enumerate(copies) if count + (i in rest)}


@dataclass(frozen=True)
class Pruned:
    """`particles` runs, of which after some steps the worst are given up.

    `keep` says what share of those that are open then stays, by step: `{1: 0.5, 4: 0.25}`; at least one does. An
    optimiser: Manvi, Singh and Ermon 2024, "Adaptive inference-time compute: LLMs can predict if they can do better,
    even mid-generation".

    Raises:
        ValueError: fewer than 1 particle, a step below 1, or a share outside (0, 1].
    """

    particles: int
    keep: Mapping[int, float] = field(default_factory=lambda: {1: 0.5})

    def __post_init__(self) -> None:
        check_count("Pruned", "particles", self.particles)
        for step, share in self.keep.items():
            check_count("Pruned", "a step of keep", step)
            if not 0 < share <= 1:
                raise ValueError(f"Pruned: keep={{{step}: {share!r}}}: a share of particles is in (0, 1]")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("pruned", _pruned, (program, self), {})


async def _levels(program: Program[T], count: int, share: Share, lookahead: int) -> Population[T]:
    frontier = Frontier(program)
    members = children(frontier.root, count)
    while members := await frontier.advance(members):
        room = count - len(frontier.found)
        if room < 1:
            break
        copies = share(members, await frontier.ahead(members, lookahead), room)
        members = [one for i, number in copies.items() for one in children(members[i], number)]
    return frontier.population()


async def _dvts(program: Program[T], config: DVTS) -> Population[T]:
    sizes = [min(config.width, config.beams - low) for low in range(0, config.beams, config.width)]
    trees = await parallel(*[Beam(size, size, config.lookahead)(program) for size in sizes])
    values = tuple(value for tree in trees for value in tree.values)
    scores = tuple(score for tree in trees for score in tree.log_weights)
    killed = sum((tree.killed or Counter() for tree in trees), Counter[str]())
    return replace(trees[0], values=values, log_weights=scores, killed=killed)


async def _pruned(program: Program[T], config: Pruned) -> Population[T]:
    frontier, step = Frontier(program), 0
    members = frontier.fresh(config.particles)
    while members := await frontier.advance(members):
        step += 1
        if step in config.keep:
            kept = sorted(range(len(members)), key=lambda i: -members[i].log_weight)
            members = [members[i] for i in sorted(kept[: math.ceil(config.keep[step] * len(members))])]
    return frontier.population()


def _check(config: Beam | DVTS) -> None:
    name = type(config).__name__
    check_count(name, "beams", config.beams)
    check_count(name, "width", config.width)
    check_count(name, "lookahead", config.lookahead, 0)
