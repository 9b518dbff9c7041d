"""The sloppy student: chain arithmetic modulo 97, and a writer of solutions with known error rates.

A problem is a two-digit start value and T operations, `37+5*7-4`; the prompt is `>37+5*7-4:`; a
solution has one line per operation that holds only the new running value, and the last line is the answer.
The modulus is prime, so every operation is a bijection and a wrong value stays wrong.

The student is right on an easy step with a high probability. On a *hard* step (a multiplication with
a carry) the misconception "forgot the carry" is more likely than the right value, so neither greedy decoding nor
a majority vote finds the answer; a judge of single steps does. Later lines go on from the wrong value.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

import numpy as np

MODULUS = 97
ALPHABET = "0123456789+-*:\n>"
TOKEN = {character: index for index, character in enumerate(ALPHABET)}
OPERATORS = "+-*"
SLIPS = (1, -1, 10, -10)
_PROBLEM = re.compile(r"([0-9]{2})((?:[-+*][2-9])+)")


@dataclass(frozen=True)
class Preset:
    """Length of the problems and error rates of the student (probabilities per step)."""

    name: str
    held_out_seed: int
    steps: int
    multiplication: float
    easy_right: float
    hard_right: float
    hard_misconception: float


PRESETS = {
    "default": Preset("default", 2026, 10, 0.25, easy_right=0.98, hard_right=0.30, hard_misconception=0.60),
    "hard": Preset("hard", 2027, 12, 0.30, easy_right=0.97, hard_right=0.25, hard_misconception=0.65),
}


@cache
def parse(problem: str) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Start value and operations of a problem; `ValueError` says what a problem looks like."""
    match = _PROBLEM.fullmatch(problem)
    if not match or int(match[1]) >= MODULUS:
        raise ValueError(
            f"{problem!r} is not a chain-arithmetic problem: write a two-digit start value 00..96 and "
            "operations + - * each with one digit 2..9, like '37+5*7-4'"
        )
    operations = match[2]
    return int(match[1]), tuple((operations[i], int(operations[i + 1])) for i in range(0, len(operations), 2))


def prompt(problem: str) -> str:
    """What the language model reads before it writes the solution."""
    return f">{problem}:"


def is_line(text: str) -> bool:
    """Whether this is one line of a solution: two digits and a newline."""
    return len(text) == 3 and text[:2].isdigit() and text[2] == "\n"


def apply(value: int, operator: str, digit: int) -> int:
    """The right value after one operation."""
    result = value + digit if operator == "+" else value - digit if operator == "-" else value * digit
    return result % MODULUS


def is_hard(value: int, operator: str, digit: int) -> bool:
    """Whether the step is a multiplication whose units carry."""
    return operator == "*" and value % 10 * digit >= 10


def forgot_carry(value: int, digit: int) -> int:
    """The misconception: units and tens are multiplied, the carry between them is dropped."""
    return (10 * (value // 10 * digit) + value % 10 * digit % 10) % MODULUS


def values(problem: str) -> list[int]:
    """The right running values, one per operation; the last is the answer."""
    value, operations = parse(problem)
    out = []
    for operator, digit in operations:
        value = apply(value, operator, digit)
        out.append(value)
    return out


def answer(problem: str) -> str:
    """The right answer, two digits."""
    return f"{values(problem)[-1]:02d}"


@cache
def student_step(preset: Preset, value: int, operator: str, digit: int) -> dict[int, float]:
    """The student's distribution over the next running value (probabilities sum to 1)."""
    right = apply(value, operator, digit)
    out: dict[int, float] = {right: 0.0}
    if is_hard(value, operator, digit):
        out[right] += preset.hard_right
        wrong = forgot_carry(value, digit)
        out[wrong] = out.get(wrong, 0.0) + preset.hard_misconception
        rest = 1.0 - preset.hard_right - preset.hard_misconception
    else:
        out[right] += preset.easy_right
        rest = 1.0 - preset.easy_right
    for slip in SLIPS:
        slipped = (right + slip) % MODULUS
        out[slipped] = out.get(slipped, 0.0) + rest / len(SLIPS)
    return out


def step_entropy(preset: Preset, value: int, operator: str, digit: int) -> float:
    """Entropy of one student step, nats: the floor of a model's cross-entropy on that line."""
    return -sum(p * math.log(p) for p in student_step(preset, value, operator, digit).values() if p)


def random_problem(preset: Preset, rng: np.random.Generator, steps: int | None = None) -> str:
    """A random problem of the preset (of another length with `steps`)."""
    out = f"{rng.integers(MODULUS):02d}"
    for _ in range(steps or preset.steps):
        operator = "*" if rng.random() < preset.multiplication else OPERATORS[rng.integers(2)]
        out += f"{operator}{rng.integers(2, 10)}"
    return out


def held_out(preset: Preset, count: int = 500) -> list[str]:
    """The frozen held-out problems, as shipped in `problems.jsonl`: distinct, of the preset's length."""
    rng, out = np.random.default_rng(preset.held_out_seed), dict[str, None]()
    while len(out) < count:
        out[random_problem(preset, rng)] = None
    return list(out)


@dataclass(frozen=True)
class Attempt:
    """One solution written by the student."""

    problem: str
    values: tuple[int, ...]
    right: tuple[bool, ...]  # this line follows from the line before it
    hard: tuple[bool, ...]

    @property
    def text(self) -> str:
        return "".join(f"{value:02d}\n" for value in self.values)


@cache
def _student_table(preset: Preset, value: int, operator: str, digit: int) -> tuple[list[int], np.ndarray]:
    table = student_step(preset, value, operator, digit)
    return list(table), np.cumsum(list(table.values()))


def attempt(preset: Preset, problem: str, rng: np.random.Generator) -> Attempt:
    """Let the student solve the problem once."""
    value, operations = parse(problem)
    written, right, hard = [], [], []
    for (operator, digit), u in zip(operations, rng.random(len(operations)), strict=True):
        outcomes, cdf = _student_table(preset, value, operator, digit)
        choice = outcomes[min(int(np.searchsorted(cdf, u, side="right")), len(outcomes) - 1)]
        right.append(choice == apply(value, operator, digit))
        hard.append(is_hard(value, operator, digit))
        written.append(choice)
        value = choice
    return Attempt(problem, tuple(written), tuple(right), tuple(hard))
