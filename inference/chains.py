"""What Markov chains leave behind: values, and how well they did."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np

from ppl.inference.diagnostics import r_hat_and_n_eff
from ppl.trace import Move, Trace

T = TypeVar("T")
FEWEST = 10  # draws of a chain that r-hat can say anything of


class Chain(Generic[T]):
    """One chain: the traces where it is (one for each rung of its ladder), and what it has seen on the first."""

    def __init__(self, ladder: Sequence[Trace[T]]) -> None:
        self.ladder = [replace(trace, moves=()) for trace in ladder]
        self.values: list[T] = []
        self.numbers: list[dict[str, float]] = []
        self.moves = Acceptance()

    def visit(self, ladder: Sequence[Trace[T]], keep: bool) -> None:
        """Step on to these traces; `keep` the first as a draw."""
        first = ladder[0]
        self.moves.count(first.moves, first.choices is not self.ladder[0].choices)
        self.ladder = [replace(trace, moves=()) if trace.moves else trace for trace in ladder]
        if keep:
            self.values.append(first.value)  # pyright: ignore[reportArgumentType]
            self.numbers.append(_numbers(first))


class Acceptance:
    """How often moves were accepted, by site; occurrences of a name count together."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.changed = False

    def count(self, moves: Iterable[Move], changed: bool) -> None:
        """Take note of moves, and of whether anything changed: not every kernel says what it tries."""
        self.changed |= changed
        for move in moves:
            site = re.sub(r":\d+(?=/|$)", "", move.site)
            self.tried[site] += 1
            self.accepted[site] += move.accepted

    def add(self, other: Acceptance) -> None:
        self.tried += other.tried
        self.accepted += other.accepted
        self.changed |= other.changed

    def diagnostics(self) -> dict[str, Any]:
        """ "acceptance": share of moves accepted, and "tried": their number; by site, most tried first.

        "idle" if there was none, and nothing changed.
        """
        tried = dict(self.tried.most_common())
        idle = {} if tried or self.changed else {"idle": True}
        return idle | {
            "acceptance": {site: self.accepted[site] / count for site, count in tried.items()},
            "tried": tried,
        }


def diagnose(chains: Sequence[Chain[Any]]) -> dict[str, Any]:
    """See `MCMC`."""
    moves = Acceptance()
    for chain in chains:
        moves.add(chain.moves)
    out: dict[str, Any] = moves.diagnostics() | {"chains": len(chains)}
    if len(chains[0].values) < FEWEST:
        return out
    rows = [row for chain in chains for row in chain.numbers]
    sites = [site for site in rows[0] if all(site in row for row in rows)]
    draws = {site: np.array([[row[site] for row in chain.numbers] for chain in chains]) for site in sites}
    r_hat, n_eff = r_hat_and_n_eff(draws)
    return out | {"r_hat": r_hat, "n_eff": n_eff, "draws": draws}


def _numbers(trace: Trace[Any]) -> dict[str, float]:
    out = {address: float(x) for address, x in trace.items() if isinstance(x, bool | int | float | np.number)}
    return out | {"log_joint": trace.log_joint}
