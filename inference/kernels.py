"""Markov kernels over traces, and kernels made from kernels.

A kernel takes a program and one of its traces, and gives a program that returns another trace. Law: if the trace is
drawn from the program's posterior, so is the other one, pi K = pi; `ppl.testing.assert_invariant` checks it exactly. A
trace of a suspended run (`Trace.steps`) stands for the target of SMC at that moment, among the runs that go on, and so
does its successor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ppl.distributions import Bernoulli, Categorical
from ppl.inference.arguments import check_count, check_kernel, check_numbers
from ppl.language import sample
from ppl.program import Program
from ppl.trace import Move, Trace, replay

T = TypeVar("T")
Kernel = Callable[[Program[T], Trace[T]], Program[Trace[T]]]


@dataclass(frozen=True)
class Cycle:
    """See `cycle`."""

    kernels: tuple[Kernel[Any], ...]

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("cycle", _cycle, (self.kernels, program, trace), {})


@dataclass(frozen=True)
class Mixture:
    """See `mixture`."""

    kernels: tuple[Kernel[Any], ...]
    weights: tuple[float, ...]

    def __call__(self, program: Program[T], trace: Trace[T]) -> Program[Trace[T]]:
        return Program("mixture", _mixture, (self, program, trace), {})


def cycle(*kernels: Kernel[Any]) -> Cycle:
    """One kernel after the other. Each leaves the posterior invariant, so all do; a cycle need not be reversible."""
    _check("cycle", kernels)
    return Cycle(kernels)


def repeat(kernel: Kernel[Any], times: int) -> Cycle:
    """The same kernel so many times.

    Raises:
        ValueError: fewer than 1.
    """
    check_count("repeat", "times", times)
    return cycle(*[kernel] * times)


def mixture(*kernels: Kernel[Any], weights: tuple[float, ...] | None = None) -> Mixture:
    """One of the kernels at random, whatever the trace; `weights` (not logs) need not sum to 1.

    Raises:
        ValueError: there are not as many weights as kernels.
    """
    _check("mixture", kernels)
    shares = (1.0,) * len(kernels) if weights is None else check_numbers("mixture", "weights", weights)
    if len(shares) != len(kernels):
        raise ValueError(f"mixture: {len(kernels)} kernels but {len(shares)} weights")
    if not all(0 <= share < math.inf for share in shares) or not any(shares):
        raise ValueError(f"mixture: weights must be at least 0, finite, and not all 0: {shares}")
    return Mixture(kernels, shares)


async def accept(old: Trace[T], new: Trace[T] | None, log_ratio: float, site: str) -> Trace[T]:
    """Metropolis and Hastings: the new trace with probability min(1, exp(log_ratio)), else the old one.

    Either says in its `moves` what was tried.
    """
    chance = math.exp(min(log_ratio, 0.0)) if new is not None else 0.0
    accepted = new is not None and await sample("accept", Bernoulli(chance))
    return moved(old, new if accepted else old, site, accepted)  # pyright: ignore[reportArgumentType]


def moved(old: Trace[T], new: Trace[T], site: str, accepted: bool) -> Trace[T]:
    """The new trace, behind the moves of the old one."""
    return replace(new, moves=(*old.moves, Move(site, accepted)))


def of_program(program: Program[T], trace: Trace[Any]) -> Trace[T]:
    """The trace, as one of this program, which draws at the same sites."""
    return trace if trace.program is program else replace(replay(program, trace), moves=trace.moves)


def check_trace(kernel: Any, old: Trace[T], new: Any) -> Trace[T]:
    """What a kernel gave; raises unless that is a trace that is possible and ends where the old one does."""
    if not isinstance(new, Trace):
        raise TypeError(f"{kernel!r}: a kernel must return a Trace, not {new!r}")
    if new.killed is not None or new.end is None:
        raise ValueError(f"{kernel!r}: a kernel must not return a trace of weight zero: {new!r}")
    if new.steps != old.steps:
        raise ValueError(f"{kernel!r}: the trace was of {old.steps} steps, and the kernel returned one of {new.steps}")
    return new


def _check(name: str, kernels: tuple[Any, ...]) -> None:
    if not kernels:
        raise TypeError(f"{name} needs kernels, like {name}(Suffix(), SingleSite())")
    for kernel in kernels:
        check_kernel(name, kernel)


async def _cycle(kernels: tuple[Kernel[T], ...], program: Program[T], trace: Trace[T]) -> Trace[T]:
    for kernel in kernels:
        trace = await kernel(program, trace)
    return trace


async def _mixture(config: Mixture, program: Program[T], trace: Trace[T]) -> Trace[T]:
    chosen = await sample("kernel", Categorical.of(dict(enumerate(config.weights))))
    return await config.kernels[chosen](program, trace)
