"""Strategies on one task: every problem under every strategy, budget and seed, in a file that can be gone on with.

A line of the file is one problem in one cell (strategy, budget, seed). It is written as soon as its batch is done, and
whoever starts the same comparison again goes on behind the lines that are there. Strategies that are votes on the same
population share its run. Costs are what was really spent: tokens that were sampled, look-ahead and discarded
candidates included, and scores that were asked for.
"""

from __future__ import annotations

import json
import pickle
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ppl.infer import infer_many
from ppl.posterior import Posterior
from ppl.processes import shared
from ppl.solve_file import FileError, cut
from ppl.solving import batch_size
from ppl.source import Key
from ppl.strategies import STRATEGIES, Strategy, Task

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
    console: Console, jobs: int = 1,
) -> list[Line]:  # fmt: skip
    """Do what the file at `path` does not hold yet, and give all its lines that belong to this comparison.

    More than one of the `jobs` are processes, which make the task for themselves (`Task.again`) and know strategies by
    their names: on a CPU, one for each core. What they find does not depend on their number, up to the rounding of
    models so wide that XLA cuts their products for several threads.

    Raises:
        ValueError: the task lacks what a strategy needs, or what processes need.
        FileError: the file is of another task or another version, or cannot be read or written; or a process died.
    """
    for strategy in strategies:
        strategy.check(task)
    if jobs > 1:
        _check_processes(task, strategies, jobs)
    known = _open(path, task)
    _check_runs(known, task, strategies, path)
    done = {(line.cell, line.problem) for line in known}
    units = list(_units(task, strategies, budgets, seeds, done))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    fresh: list[Line] = []
    try:
        with path.open("a") as file, Progress(*columns, console=console) as progress:
            bar = progress.add_task("comparing", total=sum(len(unit.problems) for unit in units))
            for unit, lines in _all_solved(task, units, jobs):
                new = [line for line in lines if (line.cell, line.problem) not in done]
                file.writelines(json.dumps(asdict(line)) + "\n" for line in new)
                file.flush()
                fresh += new
                names = ", ".join(one.name for one in unit.group)
                progress.update(bar, advance=len(unit.problems), description=f"{names[:50]}: N = {unit.n}, "
                                f"seed {unit.seed}")  # fmt: skip
            progress.update(bar, description="done")
    except (KeyboardInterrupt, BrokenProcessPool) as error:
        by_hand = isinstance(error, KeyboardInterrupt)
        why = "interrupted" if by_hand else "a process died (too little memory? a script without a main guard?)"
        held = f"{path} holds {len(known) + len(fresh)} lines"
        raise FileError(f"{why}; {held}, and the same command goes on behind them") from None
    wanted = set(product([one.name for one in strategies], budgets, seeds))
    places = {task.name_of(problem): place for place, problem in enumerate(task.problems)}
    order = {one.name: place for place, one in enumerate(strategies)}
    lines = [line for line in (*known, *fresh) if line.cell in wanted and line.problem in places]
    return sorted(lines, key=lambda line: (order[line.strategy], line.n, line.seed, places[line.problem]))


@dataclass(frozen=True)
class _Unit:
    """Problems that are run together, for strategies that share the run."""

    group: tuple[Strategy, ...]
    n: int
    seed: int
    problems: tuple[Any, ...]


def _units(
    task: Task[Any], strategies: Sequence[Strategy], budgets: Sequence[int], seeds: Sequence[int],
    done: set[tuple[Cell, str]],
) -> Iterator[_Unit]:  # fmt: skip
    """What is left to do."""
    alive: list[Any] = []  # so that what has an address in its repr is told apart by it
    for n, seed in product(budgets, seeds):
        groups: dict[Any, list[Strategy]] = {}
        for strategy in strategies:
            if n >= strategy.least:
                alive.append(strategy.algorithm(n, task))
                groups.setdefault(strategy.run_of(alive[-1]), []).append(strategy)
        for group in groups.values():
            problems = [
                problem for problem in task.problems
                if any(((one.name, n, seed), task.name_of(problem)) not in done for one in group)
            ]  # fmt: skip
            for low in range(0, len(problems), batch_size(n)):
                yield _Unit(tuple(group), n, seed, tuple(problems[low : low + batch_size(n)]))


def _all_solved(task: Task[Any], units: Sequence[_Unit], jobs: int) -> Iterator[tuple[_Unit, list[Line]]]:
    """Units as they are done: one after the other, or by processes."""
    if jobs == 1 or len(units) < 2:
        for unit in units:
            yield unit, _solved(task, unit)
        return
    assert task.again is not None
    # Longest first: with the last one nobody waits long for the others.
    units = sorted(units, key=lambda unit: -unit.n * len(unit.problems))
    questions = [
        (task.name, [one.name for one in unit.group], unit.n, unit.seed, [task.name_of(one) for one in unit.problems])
        for unit in units
    ]
    for number, lines in shared(task.again, _solved_by_name, questions, jobs):
        yield units[number], lines


def _check_processes(task: Task[Any], strategies: Sequence[Strategy], jobs: int) -> None:
    """Raise `ValueError` if other processes could not do the same."""
    if task.again is None:
        raise ValueError(f"{jobs} jobs: processes make the task for themselves: give Task({task.name!r}, ..., again=)")
    try:
        pickle.dumps(task.again)
    except Exception as error:
        raise ValueError(f"{jobs} jobs: again= of Task({task.name!r}, ...) is for other processes, and cannot be "
                         f"pickled ({error}): give a function of a module, or a partial of one") from None  # fmt: skip
    for one in strategies:
        if STRATEGIES.get(one.name) is not one:
            raise ValueError(f"{jobs} jobs: {one.name} is not the strategy that processes know by this name: use 1 job")


def _solved_by_name(task: Task[Any], question: tuple[str, list[str], int, int, list[str]]) -> list[Line]:
    """In another process: `_solved`, of what has these names."""
    of, names, n, seed, problems = question
    if task.name != of:
        raise ValueError(f"again= of Task({of!r}, ...) makes another task, {task.name!r}")
    by_name = {task.name_of(problem): problem for problem in task.problems}
    group = tuple(STRATEGIES[name] for name in names)
    return _solved(task, _Unit(group, n, seed, tuple(by_name[name] for name in problems)))


def _solved(task: Task[Any], unit: _Unit) -> list[Line]:
    """One run of each problem, and the answers of all strategies of the group to it."""
    first, n, begin = unit.group[0], unit.n, time.perf_counter()
    run = _run(first, n, task)
    handles = [first.writer(task) for _ in unit.problems]
    reward = first.weigh(task)
    programs = [first.program(task, lm, reward, problem, n) for lm, problem in zip(handles, unit.problems, strict=True)]
    root = Key.of(unit.seed).fold(run)
    keys = [root.fold(task.name_of(problem)) for problem in unit.problems]
    posteriors = infer_many(programs, first.algorithm(n, task), keys)
    seconds = (time.perf_counter() - begin) / len(unit.problems)
    lines: list[Line] = []
    for problem, handle, posterior in zip(unit.problems, handles, posteriors, strict=True):
        found = _found(task, posterior, problem)
        ess = [step.ess / len(posterior.population.values) for step in posterior.steps]
        for strategy in unit.group:
            answer = strategy.choose(posterior, task)
            right = answer is not None and task.right(answer, problem)
            scores = sum(posterior.calls.values()) if strategy.reward else 0
            lines.append(Line(strategy.name, n, unit.seed, task.name_of(problem), answer, right, handle.tokens, scores,
                              seconds, found, ess, run))  # fmt: skip
    return lines


def _run(strategy: Strategy, n: int, task: Task[Any]) -> str:
    algorithm, use, aggregate, beta, verdicts, writes = strategy.run_of(strategy.algorithm(n, task))
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
