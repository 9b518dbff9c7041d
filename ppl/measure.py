"""The meaning of a program, exactly.

`measure(p)` is the unnormalised measure over return values that a program denotes,

    measure(p)(v) = E_{choices ~ prior} [ exp(sum of factors) * 1{p returns v} ],

computed by depth-first re-execution over finite tables. It is both the semantics and the test oracle: an inference
algorithm is a program too, so `measure(collapse(algorithm(p))) == measure(p)` checks it over every outcome of its own
randomness.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ppl.distributions import NotFinite, table
from ppl.effects import Call, Effect, Sample, Weight
from ppl.program import Program
from ppl.run import Run
from ppl.twists import Twists

T = TypeVar("T")
TOLERANCE = 1e-12
MAX_SITES = 10_000  # of one path: a program that may never return must not hang
GUESS_FROM, GUESS_SLACK = 10, 2  # paths seen before their probability tells how many there are, and how wrong it may be


@dataclass(frozen=True)
class Path(Generic[T]):
    """One way through a program: its value, its prior probability, its log weight, and its choices by address."""

    value: T
    probability: float
    log_weight: float
    choices: dict[str, Any]


class TooManyPaths(RuntimeError):
    """The program has more paths than `max_paths`, or an endless one."""


class EndlessPath(TooManyPaths):
    """The program has a path of more than `MAX_SITES` draws and calls."""


def paths(program: Program[T], max_paths: int = 1_000_000, guess: bool = False) -> Iterator[Path[T]]:
    """Every path of a finite program whose weight is not zero.

    Each distinct call is made once per choice history that leads to it. With `guess`, a program that looks as if it
    had several times `max_paths` paths, by the prior probability of those seen, is given up early.

    Raises:
        NotFinite: naming the first site that has no table.
        TooManyPaths: saying how many were seen and how much prior probability they cover.
    """
    search, answer = explore(program, max_paths, guess), None
    with suppress(StopIteration):
        while True:
            found = search.send(answer)
            answer = None
            if type(found) is Path:
                yield found
            else:
                answer = found.fn(*found.args)  # pyright: ignore[reportAttributeAccessIssue]


def explore(program: Program[T], max_paths: int, guess: bool = False) -> Generator[Path[T] | Effect[Any], Any, None]:
    """As `paths`, but whoever iterates performs the calls: a call is yielded, and its answer sent."""
    # One entry per draw or call of the current path: its remaining outcomes, the next one last.
    stack: list[list[tuple[Any, float]]] = []
    seen, covered = 0, 0.0
    while True:
        if seen >= max_paths or (guess and seen >= GUESS_FROM and seen > GUESS_SLACK * max_paths * covered):
            raise TooManyPaths(
                f"{program.name} {'seems to have' if seen < max_paths else 'has'} more than {max_paths} paths ({seen} "
                f"cover {covered:.3g} of the prior probability); shorten it or raise max_paths"
            )
        run, depth, probability, log_weight = Run(program), 0, 1.0, 0.0
        twists, choices = Twists(), {}
        while not run.done:
            request, effect = run, run.effect
            if effect is None:
                request = run.requests()[0]
                effect = request.effect
            kind = type(effect)
            if kind is Sample or kind is Call:
                if depth == len(stack):
                    if depth >= MAX_SITES:
                        raise EndlessPath(f"{program.name} has a path of more than {MAX_SITES} sites: bound its loops")
                    stack.append([((yield effect), 1.0)] if kind is Call else _outcomes(effect, request.address))
                answer, p = stack[depth][-1]
                depth += 1
                if kind is Sample:
                    choices[request.address] = answer
                    probability *= p
                    if effect.weighted:
                        log_weight += answer[1]
            else:
                answer = None
                if isinstance(effect, Weight):
                    log_weight += twists.change(effect, request if request is run else request.run)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
            if log_weight == -math.inf:  # the program must not see an impossible world
                break
            request.answer(answer)
        seen, covered = seen + 1, covered + probability
        if run.done:
            yield Path(run.result(), probability, log_weight - twists.total(), choices)
        while stack and len(stack[-1]) == 1:
            stack.pop()
        if not stack:
            return
        stack[-1].pop()


def _outcomes(effect: Any, address: str) -> list[tuple[Any, float]]:
    try:
        return table(effect.dist)[::-1]
    except NotFinite as error:
        raise NotFinite(f"{address}: {error}; measure() needs finite draws, use infer(...) instead") from None


class Measure(Mapping[T, float]):
    """An unnormalised measure over values: a mapping value -> mass.

    `==` holds when all masses agree to 1e-12 of the larger total mass; `distance` says how far they are apart.
    """

    def __init__(self, masses: Mapping[T, float]) -> None:
        self._masses = dict(masses)

    def __getitem__(self, value: T) -> float:
        return self._masses.get(value, 0.0)

    def __iter__(self) -> Iterator[T]:
        return iter(self._masses)

    def __len__(self) -> int:
        return len(self._masses)

    def __contains__(self, value: object) -> bool:
        return value in self._masses

    @property
    def evidence(self) -> float:
        """Total mass Z, not in log space."""
        return math.fsum(self._masses.values())

    @property
    def posterior(self) -> dict[T, float]:
        """Probabilities of the values; `ValueError` when the evidence is zero."""
        evidence = self.evidence
        if not evidence > 0:
            raise ValueError("the evidence is zero: no path of the program has positive weight")
        return {value: mass / evidence for value, mass in self._masses.items()}

    def distance(self, other: Measure[T]) -> float:
        """Largest difference of a mass, relative to the larger evidence (absolute if both are zero); `inf` for nan."""
        scale = max(self.evidence, other.evidence) or 1.0
        if math.isnan(self.evidence + other.evidence):
            return math.inf
        return max((abs(self[v] - other[v]) for v in {*self, *other}), default=0.0) / scale

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measure) and self.distance(other) <= TOLERANCE

    __hash__ = None

    def __repr__(self) -> str:
        inside = ", ".join(f"{value!r}: {mass:.6g}" for value, mass in self._masses.items())
        return f"Measure({{{inside}}})"


def measure(program: Program[T], max_paths: int = 1_000_000, guess: bool = False) -> Measure[T]:
    """The meaning of a finite program: each (hashable) return value with its mass; `guess` as in `paths`.

    Raises:
        NotFinite: naming the first site that has no table.
        TooManyPaths: the program has more than `max_paths` paths.
        TypeError: a return value that cannot be hashed.
    """
    masses: dict[T, list[float]] = {}
    for path in paths(program, max_paths, guess):
        try:
            terms = masses.setdefault(path.value, [])
        except TypeError:
            raise unhashable(program, path.value) from None
        try:
            terms.append(path.probability * math.exp(path.log_weight))
        except OverflowError:
            raise OverflowError(f"{program.name}: exp({path.log_weight}) is too large a weight for a mass") from None
    return Measure({value: math.fsum(terms) for value, terms in masses.items()})


def unhashable(program: Program[Any], value: Any) -> TypeError:
    """The error for a return value that cannot be counted."""
    return TypeError(f"{program.name} returned {value!r}, which cannot be hashed: return a tuple")
