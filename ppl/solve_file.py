"""`ppl solve`: a file of problems in, a file of answers out, nothing lost when it is interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ppl.models import sloppy
from ppl.models.language_model import LanguageModel
from ppl.models.sloppy import Problem, task
from ppl.solving import Method, Solved, batch_size, solve_all
from ppl.source import Key


class FileError(Exception):
    """A problem or answer file that cannot be used; names the file, the line and what would work."""


def run(
    problems: Path, out: Path, how: Method, particles: int, preset: str, model: Path | None, seed: int, batch: int,
    resume: bool, console: Console,
) -> str:  # fmt: skip
    """Solve every problem that `out` does not answer yet, and say so. All lines are checked before any work is done.

    Raises:
        FileError, CheckpointError: see there.
    """
    lm = sloppy.load_model(preset, model)
    todo = read_problems(problems, lm)
    settings = {"method": how.name, "weighting": how.weighting, "select": how.vote, "particles": particles,
                "preset": preset if model is None else str(model.resolve()), "seed": seed}  # fmt: skip
    done = _open_answers(out, resume, todo, settings)
    if done:
        console.print(f"{out} holds {done} of {len(todo)} answers already", markup=False)
    root = Key.of(seed)
    work = [(problem, root.fold(f"problem {i}")) for i, problem in enumerate(todo)][done:]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    solved = solve_all(lm, work, how.algorithm(particles), how.weighting, batch or batch_size(particles))
    written = 0
    try:
        with out.open("a") as file, Progress(*columns, console=console) as progress:
            bar = progress.add_task("solving", total=len(todo), completed=done)
            for (problem, _), one in zip(work, solved, strict=True):
                file.write(json.dumps(answer_line(problem, one, how, settings)) + "\n")
                file.flush()
                written += 1
                progress.advance(bar)
    except KeyboardInterrupt:
        raise FileError(f"interrupted; {out} holds {done + written} of {len(todo)} answers: --resume goes on") from None
    return f"{out} holds the answers to all {len(todo)} problems, {written} of them new"


def read_problems(path: Path, lm: LanguageModel) -> list[Problem]:
    """The problems of a JSONL file, blank lines skipped.

    Raises:
        FileError: no file, no problems, a malformed line, or a problem that does not fit the model's context.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {path}: {error}") from None
    out: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            problem = Problem.from_json(line, number)
        except ValueError as error:
            raise FileError(f"{path}, line {number}: {error}") from None
        length = len(task.parse(problem.problem)[1])
        if length > sloppy.longest(lm):
            raise FileError(
                f"{path}, line {number}: {length} operations do not fit the context of the model, "
                f"which solves at most {sloppy.longest(lm)}"
            )
        out.append(problem)
    if not out:
        raise FileError(f'{path} holds no problems: write one JSON object a line, like {{"problem": "37+5*7-4"}}')
    return out


def answer_line(problem: Problem, solved: Solved, how: Method, settings: dict[str, Any]) -> dict[str, Any]:
    """What is written for one problem; answer null when every particle had weight zero."""
    posterior = solved.posterior
    alive = posterior.log_evidence > float("-inf")
    table = posterior.table() if alive else {}
    answer = posterior.vote(how.vote) if alive else None
    population = posterior.population
    weights = zip(population.values, population.log_weights, strict=True)
    return {
        "id": problem.id,
        "problem": problem.problem,
        "answer": answer,
        "probability": table.get(answer, 0.0) if answer is not None else 0.0,
        "posterior": table,
        "log_evidence": posterior.log_evidence if alive else None,
        "ess": posterior.ess,
        "particles": [[value, weight if value is not None else None] for value, weight in weights],
        "tokens": solved.tokens,
        "settings": settings,
    }


def _open_answers(out: Path, resume: bool, problems: list[Problem], settings: dict[str, Any]) -> int:
    """How many answers `out` holds; a torn last line is cut off.

    Raises:
        FileError: the file exists and `resume` is false, or its answers are of other problems or settings.
    """
    if not out.parent.is_dir():
        raise FileError(f"{out} cannot be written: the folder {out.parent} does not exist")
    if not out.exists() or out.stat().st_size == 0:
        return 0
    if not resume:
        raise FileError(f"{out} exists: give --resume to go on with it, or another --out")
    data = out.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines()):
        try:
            answer = json.loads(line)
            same = (answer["problem"], answer["id"]) == (problems[number].problem, problems[number].id)
            difference = _difference(answer["settings"], settings)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise FileError(f"{out}, line {number + 1} is not an answer of `ppl solve`: give another --out") from None
        if not same or difference:
            what = f"other settings ({difference})" if same else "another problem"
            raise FileError(f"{out}, line {number + 1} is the answer to {what}: give another --out")
    if len(whole) < len(data):
        cut(out, len(whole))
    return len(whole.splitlines())


def cut(path: Path, size: int) -> None:
    """Leave the first so many bytes of a file, for good."""
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    return ", ".join(f"{key} {old.get(key)!r}, not {new[key]!r}" for key in new if old.get(key) != new[key])
