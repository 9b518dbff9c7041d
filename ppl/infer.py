"""Inference: interpret a program by an algorithm and look at the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ppl.host import Observer, run_many
from ppl.inference.arguments import check_algorithm
from ppl.inference.population import Population
from ppl.posterior import Posterior
from ppl.program import Program
from ppl.quality import InferenceWarning
from ppl.source import Key

T = TypeVar("T")
Algorithm = Callable[[Program[T]], Program[Population[T]]]


def infer(
    program: Program[T],
    algorithm: Algorithm[T],
    seed: int | Key = 0,
    journal: Path | str | None = None,
    observers: Sequence[Observer] = (),
) -> Posterior[T]:
    """Interpret `program` by `algorithm`. The same seed gives the same posterior; `journal`: see `run_many`.

    Warns (`InferenceWarning`) of diagnostics that are bad: `posterior.warnings`.

    Raises:
        TypeError: `program` is not what calling a `@ppl.program` function gives.
        JournalError: the journal is of something else.
    """
    posterior = infer_many([program], algorithm, [seed], journal, observers)[0]
    for sentence in posterior.warnings:
        warnings.warn(f"{program.name}: {sentence}", InferenceWarning, stacklevel=2)
    return posterior


def infer_many(
    programs: Iterable[Program[T]],
    algorithm: Algorithm[T],
    seeds: Iterable[int | Key],
    journal: Path | str | None = None,
    observers: Sequence[Observer] = (),
) -> list[Posterior[T]]:
    """Interpret several programs together, sharing device calls.

    Law: `infer_many(ps, alg, seeds)[i] == infer(ps[i], alg, seeds[i])`.
    """
    check_algorithm("infer", algorithm)
    out: list[Posterior[T]] = []
    for result in run_many([algorithm(program) for program in programs], seeds, journal, observers):
        if not isinstance(result.value, Population):
            raise TypeError(
                f"infer needs an algorithm that gives a Population, like SMC(16); {algorithm!r} gave {result!r}"
            )
        if result.log_weight:
            raise ValueError(
                f"infer: {algorithm!r} multiplied its own weight, by exp({result.log_weight}), and it would be lost; "
                "give the weight to its particles, or put the algorithm around it, like Importance(1)(collapse(...))"
            )
        out.append(Posterior(result.value, calls=result.calls))
    return out
