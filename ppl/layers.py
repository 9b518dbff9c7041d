"""Layers over candidates: programs that map a list of answers to a list, and can be put one behind the other.

Saad-Falcon et al. 2024, "Archon: an architecture search framework for inference-time techniques". A layer is a function
of a list that gives a program of a list; `layered(generate(p, 8), rank(score, 4), fuse(merge))` is a program.

    >>> from ppl import measure, program, sample, uniform
    >>> @program
    ... async def die():
    ...     return await sample("side", uniform([1, 2, 3]))
    >>> best_of_two = layered(generate(die(), 2), rank(lambda one: one, 1))
    >>> {value[0]: round(p, 4) for value, p in measure(best_of_two).items()}
    {1: 0.1111, 2: 0.3333, 3: 0.5556}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ppl.effects import Effect
from ppl.language import parallel
from ppl.program import Program

Candidates = tuple[Any, ...]
Layer = Callable[[Candidates], Program[Candidates]]


def layered(*layers: Layer) -> Program[Candidates]:
    """One layer behind the other; the first begins with no candidates."""
    return Program("layered", _layered, (layers,), {})


def generate(program: Program[Any] | Callable[[Candidates], Program[Any]], count: int) -> Layer:
    """`count` more candidates, each a run of a program; or of one that is made from the candidates so far."""

    def layer(candidates: Candidates) -> Program[Candidates]:
        one = program if isinstance(program, Program) else program(candidates)
        return Program("generate", _generate, (candidates, one, count), {})

    return layer


def rank(score: Callable[[Any], Any], keep: int) -> Layer:
    """The `keep` candidates of the highest score, the best first; of equal ones the first. A score may be an effect."""
    return lambda candidates: Program("rank", _rank, (candidates, score, keep), {})


def fuse(program: Callable[[Candidates], Program[Any]], count: int = 1) -> Layer:
    """In place of all candidates `count` that a program makes from them."""
    return lambda candidates: Program("generate", _generate, ((), program(candidates), count), {})


def critique(program: Callable[[Any], Program[Any]]) -> Layer:
    """Each candidate replaced by what a program makes of it: with a comment, revised, ..."""
    return lambda candidates: Program("critique", _each, (candidates, program), {})


def verify(passes: Callable[[Any], Any]) -> Layer:
    """The candidates that pass; all of them where none does. The verdict may be an effect."""
    return lambda candidates: Program("verify", _verify, (candidates, passes), {})


async def _layered(layers: Sequence[Layer]) -> Candidates:
    candidates: Candidates = ()
    for layer in layers:
        candidates = tuple(await layer(candidates))
    return candidates


async def _generate(candidates: Candidates, program: Program[Any], count: int) -> Candidates:
    return (*candidates, *await parallel(*[program for _ in range(count)]))


async def _each(candidates: Candidates, program: Callable[[Any], Program[Any]]) -> Candidates:
    return tuple(await parallel(*[program(one) for one in candidates]))


async def _rank(candidates: Candidates, score: Callable[[Any], Any], keep: int) -> Candidates:
    scores = await _asked(candidates, score)
    order = sorted(range(len(candidates)), key=lambda i: -scores[i])
    return tuple(candidates[i] for i in order[:keep])


async def _verify(candidates: Candidates, passes: Callable[[Any], Any]) -> Candidates:
    verdicts = await _asked(candidates, passes)
    return tuple(one for one, good in zip(candidates, verdicts, strict=True) if good) or candidates


async def _asked(candidates: Candidates, question: Callable[[Any], Any]) -> list[Any]:
    """The answers about each: effects all at once, others as they are."""
    asked = [question(one) for one in candidates]
    effects = [one for one in asked if isinstance(one, Effect)]
    if not effects:
        return asked
    answers = iter(await parallel(*effects))
    return [next(answers) if isinstance(one, Effect) else one for one in asked]
