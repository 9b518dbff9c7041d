"""Exact inference: every path of a finite program, weighted by its probability."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, TypeVar

from ppl.inference.population import Population
from ppl.inference.weights import logsumexp
from ppl.measure import Path, explore
from ppl.program import Program

T = TypeVar("T")


@dataclass(frozen=True)
class Enumerate:
    """One particle for each value that the program can return: its posterior and evidence are exact.

    Law: `measure(collapse(Enumerate()(p))) == measure(p)`. Diagnostics: "exact", true.

    Raises:
        NotFinite: naming the first site that has no table.
        TooManyPaths: the program has more than `max_paths` paths.
    """

    max_paths: int = 1_000_000

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("enumerate", _enumerate, (program, self.max_paths), {})


async def _enumerate(program: Program[T], max_paths: int) -> Population[T]:
    masses: defaultdict[Any, list[float]] = defaultdict(list)
    search, answer = explore(program, max_paths), None
    while True:
        try:
            found = search.send(answer)
        except StopIteration:
            break
        answer = None
        if isinstance(found, Path):
            try:
                masses[found.value].append(math.log(found.probability) + found.log_weight)
            except TypeError:
                raise TypeError(
                    f"{program.name} returned {found.value!r}, which cannot be hashed: return a tuple"
                ) from None
        else:
            answer = await found
    if not masses:
        return Population((None,), (-math.inf,))
    # The evidence is the mean weight, so each value weighs its mass times the number of values.
    logs = [logsumexp(terms) + math.log(len(masses)) for terms in masses.values()]
    return Population(tuple(masses), tuple(logs), diagnostics={"exact": True})
