"""`ppl demo`: one generation program under several inference algorithms, accuracy against budget."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ppl.models import sloppy
from ppl.models.checkpoint import CheckpointError
from ppl.models.language_model import LanguageModel
from ppl.models.sloppy import Problem
from ppl.models.sloppy.task import PRESETS
from ppl.posterior import Posterior, Vote
from ppl.scaling import BudgetRatio, budget_ratio
from ppl.solving import METHODS, Method, Solved, batch_size, method, solve_all
from ppl.source import Key

REFERENCE = 8  # the filter's budget that the baselines are measured against


@dataclass(frozen=True)
class Cell:
    """One method at one budget."""

    method: str
    particles: int
    correct: np.ndarray  # bool [problems]
    tokens: int
    judged: int
    seconds: float
    host_share: float

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over problems (binomial)."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / len(self.correct)))


def keyed(problems: Sequence[Problem], seed: int, label: str) -> list[tuple[Problem, Key]]:
    """Each problem with a key of its own: the answers depend on the seed, the label and the problem's place."""
    root = Key.of(seed).fold(label)
    return [(problem, root.fold(f"problem {i}")) for i, problem in enumerate(problems)]


def compare(
    lm: LanguageModel,
    problems: Sequence[Problem],
    methods: Sequence[Method],
    budgets: Sequence[int],
    seed: int,
    console: Console,
) -> list[Cell]:
    """Run every method at every budget. Methods that are votes on the same population share its run."""
    groups: dict[tuple[object, ...], list[Method]] = {}
    for m in methods:
        groups.setdefault((m.algorithm(1), m.weighting), []).append(m)
    cells: list[Cell] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("starting", total=len(problems) * len(budgets) * len(groups))
        for group in groups.values():
            for n in budgets:
                progress.update(bar, description=f"{', '.join(m.name for m in group)}: N = {n}")
                before, busy, start = replace(lm.engine.usage), lm.engine.usage.clock.seconds, time.perf_counter()
                solved: list[Solved] = []
                work = keyed(problems, seed, f"{type(group[0].algorithm(n)).__name__} {n}")
                for one in solve_all(lm, work, group[0].algorithm(n), group[0].weighting, batch_size(n)):
                    solved.append(one)
                    progress.advance(bar)
                seconds, now = time.perf_counter() - start, lm.engine.usage
                for m in group:
                    correct = np.array(
                        [_is_right(s.posterior, m.vote, p) for s, p in zip(solved, problems, strict=True)]
                    )
                    cells.append(
                        Cell(m.name, n, correct, now.tokens - before.tokens, now.judged - before.judged, seconds,
                             1 - (now.clock.seconds - busy) / seconds)
                    )  # fmt: skip
        progress.update(bar, description="done")
    return sorted(cells, key=lambda cell: (METHODS.index(cell.method), cell.particles))


def _is_right(posterior: Posterior[str], vote: Vote, problem: Problem) -> bool:
    return posterior.log_evidence > -np.inf and posterior.vote(vote) == problem.answer


def table(cells: Sequence[Cell]) -> Table:
    """Accuracy and costs by method and budget."""
    caption = (
        "The first three are votes on the same solutions: their costs are those of one run. Best-of-N answers with\n"
        "the highest score of all: the more there are, the likelier that is a mistake of the reward."
    )
    title = "Accuracy by budget (N generations a problem)"
    out = Table("method", title=title, title_justify="left", caption=caption, caption_justify="left")
    for column in ("N", "accuracy", "LM tokens", "rewards", "seconds"):
        out.add_column(column, justify="right")
    for i, cell in enumerate(cells):
        last = i + 1 == len(cells) or cells[i + 1].method != cell.method
        out.add_row(
            cell.method, str(cell.particles), f"{100 * cell.accuracy:.1f} ± {100 * cell.standard_error:.1f} %",
            f"{cell.tokens:,}", f"{cell.judged:,}", f"{cell.seconds:.1f}", end_section=last,
        )  # fmt: skip
    return out


def ratio_table(cells: Sequence[Cell]) -> Table:
    """How many times the filter's budget each baseline needs."""
    title = f"How many times {REFERENCE} generations a baseline needs to match the filter at N = {REFERENCE}"
    out = Table("baseline", title=title, title_justify="left")
    for column in ("ratio", "95 % interval", "never reaches it"):
        out.add_column(column, justify="right")
    for name, ratio in ratios(cells).items():
        out.add_row(
            name, ratio.show(ratio.ratio), ratio.interval, f"in {100 * ratio.not_reached:.0f} % of bootstrap samples"
        )
    return out


def ratios(cells: Sequence[Cell]) -> dict[str, BudgetRatio]:
    """The budget ratio of each baseline against the filter at N = 8; empty without that cell."""
    by_method = {name: [cell for cell in cells if cell.method == name] for name in METHODS}
    reference = next((c for c in by_method["particle-filter"] if c.particles == REFERENCE), None)
    if reference is None:
        return {}
    return {
        name: budget_ratio(
            [c.particles for c in curve], np.array([c.correct for c in curve]), reference.correct, REFERENCE
        )
        for name, curve in by_method.items()
        if curve and name != "particle-filter"
    }


def plot(cells: Sequence[Cell], path: Path, title: str) -> None:
    """Write accuracy against budget as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    styles = {"majority": ("#999999", "s"), "best-of-n": ("#d98c2b", "^"), "weighted-best-of-n": ("#3a78b8", "D"),
              "particle-filter": ("#b0243f", "o")}  # fmt: skip
    for name, (colour, marker) in styles.items():
        curve = [cell for cell in cells if cell.method == name]
        if curve:
            x, y = [c.particles for c in curve], [100 * c.accuracy for c in curve]
            error = [100 * c.standard_error for c in curve]
            axes.errorbar(x, y, error, label=name, color=colour, marker=marker, markersize=5, capsize=2, linewidth=1.6)
    budgets = sorted({cell.particles for cell in cells})
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, [str(n) for n in budgets])
    axes.set(xlabel="budget: generations per problem", ylabel="problems solved, % (± 1 standard error)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def save(cells: Sequence[Cell], path: Path) -> None:
    """Write the numbers behind the table, one JSON object per cell."""
    with path.open("w") as file:
        for c in cells:
            row = {"method": c.method, "particles": c.particles, "accuracy": c.accuracy,
                   "standard_error": c.standard_error, "tokens": c.tokens, "reward_evaluations": c.judged,
                   "seconds": round(c.seconds, 3), "host_share": round(c.host_share, 4),
                   "correct": c.correct.astype(int).tolist()}  # fmt: skip
            file.write(json.dumps(row) + "\n")


def example(lm: LanguageModel, problem: Problem, how: Method, seed: int, console: Console) -> None:
    """Solve one problem before the reader's eyes."""
    work = keyed([problem], seed, "example")
    posterior = next(iter(solve_all(lm, work, how.algorithm(REFERENCE), how.weighting))).posterior
    console.print(f"\n[bold]One problem, {how.name}, N = {REFERENCE}[/bold]: {problem.problem} (modulo 97)")
    answers = Table("answer", "probability", "particles", "")
    for answer, p in posterior.table().items():
        count = sum(value == answer for value, _ in posterior.items())
        answers.add_row(answer, f"{p:.3f}", str(count), "right" if answer == problem.answer else "wrong")
    console.print(answers)
    ess = " ".join(f"{step.ess:.1f}{'*' if step.resampled else ''}" for step in posterior.steps)
    console.print(f"effective sample size by step (* resampled): {ess}")
    console.print(
        f"log evidence {posterior.log_evidence:.3f}: log probability, by the step reward, that a solution of the model "
        "is right in every step"
    )


def run(
    preset: str, count: int, budgets: Sequence[int], filtering: Method, seed: int, model: Path | None, out: Path,
    console: Console,
) -> list[Cell]:  # fmt: skip
    """The whole demo: compare, print, plot, and show one example."""
    begin = time.perf_counter()
    lm = sloppy.load_model(preset, model)
    if sloppy.longest(lm) < PRESETS[preset].steps:
        raise CheckpointError(f"{lm!r} has too short a context for the {preset} preset: it solves {sloppy.longest(lm)} "
                              f"operations, the problems have {PRESETS[preset].steps}")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    problems = sloppy.held_out(preset)[:count]
    methods = [*(method(name) for name in METHODS[:3]), filtering]
    with console.status("compiling"):
        list(solve_all(lm, keyed(problems[:4], seed, "warm-up"), filtering.algorithm(4), filtering.weighting, 4))
    console.print(
        f"{len(problems)} held-out problems of the {preset} preset; {lm!r} is ready after "
        f"{time.perf_counter() - begin:.1f} s\n"
    )
    cells = compare(lm, problems, methods, budgets, seed, console)
    console.print(table(cells))
    if REFERENCE in budgets:
        console.print(ratio_table(cells))
    largest = max((c for c in cells if c.method == "particle-filter"), key=lambda c: c.particles)
    console.print(
        f"host side: for {100 * largest.host_share:.0f} % of the filter's wall time at N = {largest.particles} "
        "the model had nothing to do"
    )
    picture, numbers = out / f"accuracy-{preset}.png", out / f"results-{preset}.jsonl"
    plot(cells, picture, f"Chain arithmetic, {preset} preset, {len(problems)} problems")
    save(cells, numbers)
    example(lm, problems[0], filtering, seed, console)
    console.print(f"\nwrote {escape(f'{picture} and {numbers}')}; the demo took {time.perf_counter() - begin:.0f} s")
    return cells
