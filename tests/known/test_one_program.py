"""One program of a language model, with every construct of the language, under every algorithm: one posterior.

False-alarm rate: at most 1e-3 over seeds for all algorithms together, by the error bars of `cells.py`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from ppl import Bernoulli, Last, call, condition, factor, measure, observe, parallel, program, sample, scan, twist
from ppl.models import Text

from .algorithms import ROWS, Row
from .cells import check, table
from .finite import FLAT, LM, score
from .known import from_posterior


@program
async def step(text: Text, _: int) -> Any:
    """A token from another model; a twist foresees the reward; no two b's."""
    text = await sample("token", LM.extend(text, max_tokens=1), proposal=FLAT.extend(text, max_tokens=1))
    await condition("no bb", str(text)[-2:] != "bb")
    await twist("value", 0.8 * await call(score, text))
    return Last(text, len(text)) if text.finished else (text, len(text))


@program
async def write(prompt: str) -> Text:
    text, lengths = await scan(step, LM.text(prompt), range(2))
    await factor("reward", await call(score, text) - 0.1 * len(lengths))
    return text


@program
async def best_of_two() -> str:
    """Two texts in one batch; a noisy judge saw the left one win. The answer: how many a's the left one has."""
    left, right = await parallel(write(""), write("|"))
    await observe("left wins", Bernoulli(0.8 if score(left) > score(right) else 0.3), True)
    if not left.finished:
        left = await sample("end", LM.extend(left, max_tokens=1))
        await factor("ended", 0.0 if left.finished else -0.5)
    return f"{str(left).count('a')} a"


MEANING = measure(best_of_two())
KNOWN = from_posterior("best-of-two", best_of_two(), MEANING.posterior, math.log(MEANING.evidence), len(MEANING))
ROWS_HERE = [row for row in ROWS if row.only(KNOWN)]
STATISTICS = len(ROWS_HERE) * (1 + len(KNOWN.expectations))


def _row(row: Row) -> Any:
    return pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.slow else [])


@pytest.mark.parametrize("row", [_row(row) for row in ROWS_HERE])
def test_one_program(row: Row) -> None:
    lines = check(row, KNOWN, STATISTICS)
    assert all(line.ok for line in lines), table(lines)
