"""Finite programs, whose answers `measure` gives: a branching one of random length, and texts of a `TableLM`."""

from __future__ import annotations

import math
from typing import Any

from ppl import Bernoulli, Last, Program, condition, factor, measure, parallel, program, sample, scan, twist, uniform
from ppl.models import TableLM, Text

from .known import Function, Known, from_posterior

NEXT = {
    "": {"a": 0.5, "b": 0.4, ".": 0.1},
    "a": {"a": 0.3, "b": 0.4, ".": 0.3},
    "b": {"a": 0.5, "b": 0.3, ".": 0.2},
    "|": {"a": 0.4, "b": 0.4, ".": 0.2},
}
LM = TableLM("ab.|", lambda text: NEXT[text[-1:]], eos=".")
FLAT = TableLM("ab.|", lambda text: {"a": 0.4, "b": 0.35, ".": 0.25}, eos=".")


def known(name: str, program: Program[Any], **functions: Function) -> Known:
    meaning = measure(program)
    return from_posterior(name, program, meaning.posterior, math.log(meaning.evidence), functions=functions)


def text(name: str, program: Program[Any]) -> Known:
    """With the expected number of a's, which rewards raise."""
    return known(name, program, letters=lambda value: float("".join(value).count("a")))


def score(text: Text) -> float:
    """A reward: log weight 0.4 for each a, -0.3 for each b."""
    return 0.4 * str(text).count("a") - 0.3 * str(text).count("b")


@program
async def branching() -> tuple[int, ...]:
    """Runs meet zero to four factors, under different names, and draw from different distributions."""
    out: list[int] = []
    while len(out) < 4 and await sample("more", Bernoulli(0.7)):
        if out and out[-1] == 2:
            out.append(await sample("high", uniform([0, 1])))
            await factor("after two", -0.5 * out[-1])
        else:
            out.append(await sample("any", uniform([0, 1, 2])))
        await factor("score", 0.35 * out[-1] - 0.3)
    return tuple(out)


@program
async def rewarded() -> str:
    """Blocks of two tokens, each under a reward."""
    text = LM.text("")
    for _ in range(3):
        block = await sample("block", LM.extend(text, max_tokens=2))
        await factor("reward", score(block) - score(text))
        text = block
        if text.finished:
            break
    return str(text)


@program
async def constrained() -> str:
    """No two equal letters side by side, token by token."""
    text = LM.text("")
    while len(text) < 4 and not text.finished:
        text = await sample("token", LM.extend(text, max_tokens=1))
        await condition("alternates", str(text)[-2:] not in ("aa", "bb"))
    return str(text)


@program
async def twisted() -> str:
    """A twist foresees, roughly, the reward that comes at the end."""
    text = LM.text("")
    while len(text) < 4 and not text.finished:
        text = await sample("token", LM.extend(text, max_tokens=1))
        await twist("value", 0.8 * score(text) + 0.1 * text.finished)
    await factor("reward", score(text))
    return str(text)


@program
async def proposed() -> str:
    """Tokens come from another model."""
    text = LM.text("")
    while len(text) < 4 and not text.finished:
        text = await sample("token", LM.extend(text, max_tokens=1), proposal=FLAT.extend(text, max_tokens=1))
        await factor("reward", 0.7 * score(text) / len(text))
    return str(text)


@program
async def side(prompt: str) -> Text:
    text = LM.text(prompt)
    for _ in range(2):
        if not text.finished:
            text = await sample("token", LM.extend(text, max_tokens=1))
            await factor("reward", score(text) / len(text))
    return text


@program
async def both_sides() -> tuple[str, str]:
    """Two texts in one batch; then a weight that couples them."""
    left, right = await parallel(side("a"), side("b"))
    await factor("agree", 0.8 * (str(left)[1:] == str(right)[1:]))
    end = await sample("end", LM.extend(LM.text("|"), max_tokens=1))
    return str(left), str(right) + str(end)


@program
async def scanned_step(text: Text, _: int) -> Any:
    text = await sample("token", LM.extend(text, max_tokens=1))
    await factor("reward", score(text) / len(text))
    return Last(text, len(text)) if text.finished else (text, len(text))


@program
async def scanned() -> str:
    text, _ = await scan(scanned_step, LM.text(""), range(4))
    return str(text)
