"""Tasks that `ppl compare` knows by name, and those of a file of the user's."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ppl.models import sloppy
from ppl.models.language_model import StepReward
from ppl.models.sloppy.task import PRESETS
from ppl.models.text import Text
from ppl.strategies import Task


def chain_arithmetic(preset: str = "default", count: int | None = None, model: Path | None = None) -> Task[Any]:
    """The shipped task: held-out problems of a preset, and a step reward that reads the model's own score head.

    What drafts for the default preset, in strategies of two models, is the model of the hard one: no smaller, but a
    worse student. The other way round its context is too short. To think on is to go back to a line (`sloppy.rethink`).

    Raises:
        CheckpointError: as `sloppy.load_model`.
    """
    lm = sloppy.load_model(preset, model)
    draft = sloppy.load_model("hard") if preset == "default" else None
    if draft is not None and draft.tokenizer.fingerprint != lm.tokenizer.fingerprint:  # of a model of the user's
        draft = None
    problems = sloppy.held_out(preset)[:count]
    name = f"chain arithmetic, {preset}" + ("" if model is None else f", {model.resolve()}")
    return Task(
        name, lm, StepReward(lm), problems,
        lambda handle, reward, problem: sloppy.solve(handle, reward, problem.problem),
        sloppy.answer_of, lambda answer, problem: answer == problem.answer, steps=PRESETS[preset].steps,
        log_prob=log_prob, draft=draft,
        think=lambda handle, _, problem, times: sloppy.rethink(handle, problem.problem, times),
        again=partial(chain_arithmetic, preset, count, model),
    )  # fmt: skip


def log_prob(text: Text) -> float:
    """log P of all that was sampled of a text, nats."""
    total = 0.0
    while text.parent is not None:
        total, text = total + (text.log_prob or 0.0), text.parent
    return total


def from_file(where: str) -> Task[Any]:
    """The task that `path.py:name` names: a `Task`, or a function without arguments that makes one.

    Raises:
        ValueError: there is no such file, name or task; says which.
    """
    path, _, name = where.rpartition(":")
    if not path or not Path(path).is_file():
        raise ValueError(f"{where!r} is no task: write path.py:name, where the file has a Task of that name")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if callable(found) and not isinstance(found, Task):
        found = found()
    if not isinstance(found, Task):
        raise ValueError(f"{path} has no Task under the name {name!r}, nor a function that makes one")
    return replace(found, again=partial(from_file, where))
