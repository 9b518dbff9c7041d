"""A random walk on the tree of prefixes, which backtracks.

Sinclair and Jerrum 1989, "Approximate counting, uniform generation and rapidly mixing Markov chains"; for language
models with value functions: Rohatgi et al. 2025, "Taming Imperfect Process Verifiers: A Sampling Perspective on
Backtracking".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from ppl.distributions import Bernoulli
from ppl.inference.arguments import check_count
from ppl.inference.kernels import moved, of_program
from ppl.language import sample
from ppl.program import Program
from ppl.run import Run
from ppl.trace import Trace, answers_of, trace_of
from ppl.walk import Walk

T = TypeVar("T")


@dataclass(frozen=True)
class TreeWalk:
    """Erase the last step of a trace, then write or erase steps at random until it is whole again.

    A step ends behind a factor or twist, or at the return. The walk moves between prefixes, to the parent or to a
    fresh child with probability 1/2 each, and accepts by the ratio of their weights, standing twists included: where
    a twist estimates the value of a prefix, the walk backs out of prefixes of low value, so that errors of the
    estimate do not pile up along the text. An excursion that is not back at a whole trace after `moves` moves stays
    where it began.

    Law: pi K = pi. The walk is reversible for the weights of all prefixes, hence, watched at whole traces, for pi.

    Raises:
        ValueError: fewer than 2 moves.
    """

    moves: int = 32

    def __post_init__(self) -> None:
        check_count("TreeWalk", "moves", self.moves)
        if self.moves < 2:
            raise ValueError("TreeWalk: one move cannot erase a step and write another; give 2 or more")

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("tree_walk", _tree_walk, (program, trace, self.moves), {})


async def _tree_walk(program: Program[T], trace: Trace[T], moves: int) -> Trace[T]:
    trace = of_program(program, trace)
    path = _path(trace)
    if len(path) == 1:  # a program without steps
        return trace
    for move in range(moves):
        up = move > 0 and await sample("up", Bernoulli(0.5))
        if not up and len(path) == 1:
            continue
        here = path[-1]
        assert here is not None
        if up:
            to = here.copy()
            await to.advance()
            if to.killed is not None or (trace.steps is not None and to.run.done):
                continue
        else:
            to = path[-2] or _prefix(trace, len(path) - 2)
        log_ratio = to.log_weight - here.log_weight
        if await sample("accept", Bernoulli(math.exp(min(log_ratio, 0.0)))):
            path = [*path, to] if up else [*path[:-2], to]
            here = to
        if _whole(here, len(path) - 1, trace.steps):
            break
    else:
        return moved(trace, trace, "tree walk", False)
    if move == 0:
        return moved(trace, trace, "tree walk", False)
    return moved(trace, trace_of(here.run, steps=trace.steps), "tree walk", True)


def _path(trace: Trace[T]) -> list[Walk[T] | None]:
    """From the root to the whole trace; the prefixes between are made when the walk comes there."""
    walk, known = Walk(Run(trace.program)), answers_of(trace)
    while not _whole(walk, walk.steps, trace.steps):
        walk.follow(known)
    return [*[None] * walk.steps, walk]


def _prefix(trace: Trace[T], steps: int) -> Walk[T]:
    walk, known = Walk(Run(trace.program)), answers_of(trace)
    while walk.steps < steps:
        walk.follow(known)
    return walk


def _whole(walk: Walk[T], steps: int, limit: int | None) -> bool:
    return walk.run.done if limit is None else steps == limit
