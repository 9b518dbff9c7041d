"""Inference: interpret a program by an algorithm and look at the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ppl.host import Observer, run_many
from ppl.inference.population import Population
from ppl.posterior import Posterior
from ppl.program import Program
from ppl.source import Key

T = TypeVar("T")
Algorithm = Callable[[Program[T]], Program[Population[T]]]


def infer(
    program: Program[T], algorithm: Algorithm[T], seed: int | Key = 0, observers: Sequence[Observer] = ()
) -> Posterior[T]:
    """Interpret `program` by `algorithm`. The same seed gives the same posterior.

    Raises:
        TypeError: `program` is not what calling a `@ppl.program` function gives.
    """
    return infer_many([program], algorithm, [seed], observers)[0]


def infer_many(
    programs: Iterable[Program[T]],
    algorithm: Algorithm[T],
    seeds: Iterable[int | Key],
    observers: Sequence[Observer] = (),
) -> list[Posterior[T]]:
    """Interpret several programs together, sharing device calls.

    Law: `infer_many(ps, alg, seeds)[i] == infer(ps[i], alg, seeds[i])`.
    """
    if not callable(algorithm):
        raise TypeError(f"infer needs an algorithm like SMC(16), not {algorithm!r}")
    out: list[Posterior[T]] = []
    for trace in run_many([algorithm(program) for program in programs], seeds, observers):
        if not isinstance(trace.value, Population):
            raise TypeError(
                f"infer needs an algorithm that gives a Population, like SMC(16); {algorithm!r} gave {trace!r}"
            )
        out.append(Posterior(trace.value))
    return out
