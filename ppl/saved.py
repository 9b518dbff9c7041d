"""Posteriors in files: one JSON object with the population of each run, values written by `ppl.codec`."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl.codec import decode, encode
from ppl.inference.population import Population, Step

if TYPE_CHECKING:
    from ppl.posterior import Posterior

FORMAT, VERSION = "ppl posterior", 1


def save(posterior: Posterior[Any], path: str | os.PathLike[str]) -> None:
    """Write the runs to a file, all or nothing: a reader, or a crash, never sees half of it.

    Raises:
        TypeError: a value has no JSON form; names where it is, as in `value[2].x`.
    """
    text = json.dumps(document(posterior), allow_nan=False, ensure_ascii=False)
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> list[Population[Any]]:
    """The populations of the runs.

    Raises:
        ValueError: the file is broken, or something else, or needs what is not loaded; names path and reason.
    """
    try:
        return _populations(json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_strict))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot load a posterior from {os.fspath(path)}: {missing}") from error


def document(posterior: Posterior[Any]) -> dict[str, Any]:
    """What is written: equal for equal posteriors."""
    return {"format": FORMAT, "version": VERSION, "runs": [_to(run.population) for run in posterior.runs]}


def same(a: Posterior[Any], b: Posterior[Any]) -> bool:
    """Whether the runs have equal populations; arrays, which have no truth value, are compared as written."""
    try:
        if [run.population for run in a.runs] == [run.population for run in b.runs]:
            return True
    except ValueError:
        return document(a) == document(b)
    try:  # r-hat of what never moved is nan, which equals nothing
        return document(a) == document(b)
    except TypeError:
        return False


def _to(population: Population[Any]) -> dict[str, Any]:
    diagnostics = population.diagnostics
    return {
        "normalised": population.normalised,
        "log_weights": encode([float(w) for w in population.log_weights]),
        "killed": None if population.killed is None else dict(population.killed),
        "steps": encode([asdict(step) for step in population.steps]),
        "diagnostics": encode(None if diagnostics is None else dict(diagnostics)),
        "values": encode(list(population.values)),
    }


def _populations(data: Any) -> list[Population[Any]]:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"it is JSON, but not a {FORMAT}")
    if data.get("version") != VERSION:
        raise ValueError(f"it is of version {data.get('version')}, and this ppl reads version {VERSION}")
    if not isinstance(data["runs"], list) or not data["runs"]:
        raise ValueError("it holds no runs")
    return [_from(run) for run in data["runs"]]


def _from(run: Any) -> Population[Any]:
    values, log_weights = decode(run["values"]), decode(run["log_weights"])
    if not values or len(values) != len(log_weights):
        raise ValueError(f"it has {len(values)} values for {len(log_weights)} log weights")
    if not all(isinstance(w, float) and w < math.inf for w in log_weights):
        raise ValueError("log weights must be numbers below infinity")
    if type(run["normalised"]) is not bool or not isinstance(run["killed"], dict | None):
        raise ValueError("normalised must be true or false, and killed an object or null")
    steps = tuple(Step(**step) for step in decode(run["steps"]))
    killed = None if run["killed"] is None else Counter(run["killed"])
    return Population(tuple(values), tuple(log_weights), steps, killed, decode(run["diagnostics"]), run["normalised"])


def _strict(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
