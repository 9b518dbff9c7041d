"""Strategies on one task: every problem under every strategy, budget and seed, in a file that can be gone on with.

A line of the file is one problem in one cell (strategy, budget, seed). It is written as soon as its batch is done, and
whoever starts the same comparison again goes on behind the lines that are there. Strategies that are votes on the same
population share its run. Costs are what was really spent: tokens that were sampled, look-ahead and discarded
candidates included, and scores that were asked for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ppl.infer import infer_many
from ppl.posterior import Posterior
from ppl.solve_file import FileError, cut
from ppl.solving import batch_size
from ppl.source import Key
from ppl.strategies import Strategy, Task

VERSION = 1
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the repr of a function: another in each process
MOST_ANSWERS = 64  # of one problem that a line tells apart


@dataclass(frozen=True)
class Line:
    """One problem under one strategy, budget and seed."""

    strategy: str
    n: int
    """The budget, in generations."""
    seed: int
    problem: str
    answer: Any
    """None: no answer."""
    right: bool
    tokens: int
    """Sampled from the language model."""
    scores: int
    """Asked from the reward model; 0 where the strategy needs none."""
    seconds: float
    """Of the wall clock: its share of a batch of problems."""
    found: dict[str, tuple[int, float, bool]]
    """Answers of the population: how many particles, what probability, whether right."""
    ess: list[float]
    """By step, as a share of the particles; empty where there are no steps."""
    run: str
    """The algorithm and what scores meant to it: a line of an older definition is not taken for one of now."""

    @property
    def cell(self) -> tuple[str, int, int]:
        return self.strategy, self.n, self.seed


Cell = tuple[str, int, int]


def compare(
    task: Task[Any], strategies: Sequence[Strategy], budgets: Sequence[int], seeds: Sequence[int], path: Path,
    console: Console,
) -> list[Line]:  # fmt: skip
    """Do what the file at `path` does not hold yet, and give all its lines that belong to this comparison.

    Raises:
        ValueError: the task lacks what a strategy needs.
        FileError: the file is of another task or another version, or cannot be read or written.
    """
    for strategy in strategies:
        strategy.check(task)
    known = _open(path, task)
    _check_runs(known, task, strategies, path)
    done = {(line.cell, line.problem) for line in known}
    work = list(_work(task, strategies, budgets, seeds, done))
    total = sum(len(problems) for *_, problems in work)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    fresh: list[Line] = []
    try:
        with path.open("a") as file, Progress(*columns, console=console) as progress:
            bar = progress.add_task("comparing", total=total)
            for group, n, seed, problems in work:
                names = ", ".join(one.name for one in group)
                progress.update(bar, description=f"{names[:50]}: N = {n}, seed {seed}")
                for low in range(0, len(problems), batch_size(n)):
                    part = problems[low : low + batch_size(n)]
                    for line in _solved(task, group, n, seed, part, done):
                        file.write(json.dumps(asdict(line)) + "\n")
                        fresh.append(line)
                    file.flush()
                    progress.advance(bar, len(part))
            progress.update(bar, description="done")
    except KeyboardInterrupt:
        raise FileError(f"interrupted; {path} holds {len(known) + len(fresh)} lines, and the same command goes on "
                        "behind them") from None  # fmt: skip
    wanted = set(product([one.name for one in strategies], budgets, seeds))
    names = {task.name_of(problem) for problem in task.problems}
    return [line for line in (*known, *fresh) if line.cell in wanted and line.problem in names]


def _work(
    task: Task[Any], strategies: Sequence[Strategy], budgets: Sequence[int], seeds: Sequence[int],
    done: set[tuple[Cell, str]],
) -> Iterator[tuple[list[Strategy], int, int, list[Any]]]:  # fmt: skip
    """Runs that are left to do: which strategies share them, the budget, the seed, the problems."""
    for n, seed in product(budgets, seeds):
        groups: dict[Any, list[Strategy]] = {}
        for strategy in strategies:
            if n >= strategy.least:
                groups.setdefault(strategy.run_of(n, task), []).append(strategy)
        for group in groups.values():
            problems = [
                problem for problem in task.problems
                if any(((one.name, n, seed), task.name_of(problem)) not in done for one in group)
            ]  # fmt: skip
            if problems:
                yield group, n, seed, problems


def _solved(
    task: Task[Any], group: Sequence[Strategy], n: int, seed: int, problems: Sequence[Any], done: set[tuple[Cell, str]]
) -> Iterator[Line]:
    """One run of each problem, and the answers of all strategies of the group to it."""
    first, begin = group[0], time.perf_counter()
    run = _run(first, n, task)
    handles = [first.writer(task) for _ in problems]
    reward = first.weigh(task)
    programs = [first.program(task, lm, reward, problem, n) for lm, problem in zip(handles, problems, strict=True)]
    root = Key.of(seed).fold(run)
    keys = [root.fold(task.name_of(problem)) for problem in problems]
    posteriors = infer_many(programs, first.algorithm(n, task), keys)
    seconds = (time.perf_counter() - begin) / len(problems)
    for problem, handle, posterior in zip(problems, handles, posteriors, strict=True):
        found = _found(task, posterior, problem)
        for strategy in group:
            if ((strategy.name, n, seed), task.name_of(problem)) in done:
                continue
            answer = strategy.choose(posterior, task)
            right = answer is not None and task.right(answer, problem)
            yield Line(
                strategy.name, n, seed, task.name_of(problem), answer, right, handle.tokens,
                sum(posterior.calls.values()) if strategy.reward else 0, seconds, found,
                [step.ess / len(posterior.population.values) for step in posterior.steps], run,
            )  # fmt: skip


def _run(strategy: Strategy, n: int, task: Task[Any]) -> str:
    algorithm, use, aggregate, beta, verdicts, writes = strategy.run_of(n, task)
    judged = f"{verdicts} verdicts, " if verdicts else ""
    by = "" if writes == "model" else f", {writes}"
    return f"{judged}{_ADDRESS.sub('', algorithm)}, {use}, {aggregate}, {beta:g}{by}"


def _check_runs(known: Sequence[Line], task: Task[Any], strategies: Sequence[Strategy], path: Path) -> None:
    """Raise `FileError` for lines that another definition of a strategy has made."""
    chosen, now = {one.name: one for one in strategies}, dict[tuple[str, int], str]()
    for line in known:
        if line.strategy in chosen:
            cell = line.strategy, line.n
            if cell not in now:
                now[cell] = _run(chosen[line.strategy], line.n, task)
            if line.run != now[cell]:
                raise FileError(f"{path} holds {line.strategy} at N = {line.n} as {line.run}, which is {now[cell]} "
                                "now: give another --out")  # fmt: skip


def _found(task: Task[Any], posterior: Posterior[Any], problem: Any) -> dict[str, tuple[int, float, bool]]:
    if posterior.is_empty:
        return {}
    answers = posterior.map(task.answer)
    values = [value for value, _ in answers.items()]
    table = list(answers.table().items())[:MOST_ANSWERS]
    return {str(value): (values.count(value), p, task.right(value, problem)) for value, p in table}


def read(path: Path) -> list[Line]:
    """The lines of a file; a torn last one is left out.

    Raises:
        FileError: naming the line that is none.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[Mapping[str, Any], list[Line], int]:
    """The head, the lines, and how many bytes are whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error}") from None
    whole = data[: data.rfind(b"\n") + 1]
    head: Mapping[str, Any] = {}
    lines: list[Line] = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(text)
            if number == 1:
                head = row
                if head["version"] != VERSION:
                    raise FileError(f"{path} was written by another version of `ppl compare`: give another --out")
                continue
            row["found"] = {key: tuple(value) for key, value in row["found"].items()}
            lines.append(Line(**row))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FileError(f"{path}, line {number} is not of `ppl compare`: give another --out") from None
    return head, lines, len(whole)


def _open(path: Path, task: Task[Any]) -> list[Line]:
    """What the file holds; it is begun if there is none."""
    if not path.parent.is_dir():
        raise FileError(f"{path} cannot be written: the folder {path.parent} does not exist")
    head = {"version": VERSION, "task": task.name}
    if not path.exists() or path.stat().st_size == 0:
        path.write_text(json.dumps(head) + "\n")
        return []
    found, lines, whole = _read(path)
    if found.get("task") != task.name:
        raise FileError(f"{path} is of the task {found.get('task')!r}, not {task.name!r}: give another --out")
    if whole < path.stat().st_size:
        cut(path, whole)
    return lines
