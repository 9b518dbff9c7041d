"""What a comparison has shown: tables and pictures of the lines that `ppl compare` has written."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ppl.compare import Line, compare
from ppl.scaling import BudgetRatio, budget_ratio, fit_coverage, majority_at, pass_at
from ppl.strategies import Strategy, Task

COSTS: dict[str, Callable[[Line], float]] = {
    "generations": lambda line: line.n,
    "tokens": lambda line: line.tokens,
    "scores": lambda line: line.scores,
    "seconds": lambda line: line.seconds,
}


def run(
    task: Task[Any], strategies: Sequence[Strategy], budgets: Sequence[int], seeds: Sequence[int], reference: str,
    out: Path, console: Console, jobs: int = 1,
) -> list[Summary]:  # fmt: skip
    """Compare, print the tables, write the pictures.

    Raises:
        FileError: as `compare`.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.jsonl"
    lines = compare(task, strategies, budgets, seeds, path, console, jobs)
    cells = summaries(lines)
    console.print(table(cells))
    written, title = [path, out / "table.md"], f"{task.name}: {_of(cells[0])}"
    written[1].write_text(markdown(cells))
    at = max((cell.n for cell in cells if cell.strategy == reference and cell.n < max(budgets)), default=None)
    others = [one.name for one in strategies if one.name != reference]
    if at is not None and others:
        for cost in ("generations", "tokens"):
            console.print(ratio_table(ratios(cells, reference, at, others, cost), reference, at, cost))
    if len(cells) > 1:
        plot_accuracy(cells, out / "accuracy.png", title)
        written.append(out / "accuracy.png")
    for name, plot in (("coverage.png", plot_coverage), ("ess.png", plot_ess)):
        if plot(lines, out / name, title):
            written.append(out / name)
    console.print(f"wrote {escape(', '.join(map(str, written)))}")
    return cells


@dataclass(frozen=True)
class Summary:
    """One strategy at one budget, over problems and seeds."""

    strategy: str
    n: int
    right: np.ndarray
    """Share of the seeds in which each problem was solved, float [problems]."""
    cost: Mapping[str, float]
    """Mean per problem, by `COSTS`."""
    seeds: int

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over problems; what differs between seeds is in the shares."""
        return float(self.right.std(ddof=1) / math.sqrt(len(self.right))) if len(self.right) > 1 else math.nan

    @property
    def shown(self) -> str:
        """Per cent, with its standard error."""
        error = "" if math.isnan(self.standard_error) else f" ± {100 * self.standard_error:.1f}"
        return f"{100 * self.accuracy:.1f}{error}"


def summaries(lines: Sequence[Line]) -> list[Summary]:
    """In the order of the lines, budgets rising."""
    cells = defaultdict[tuple[str, int], list[Line]](list)
    for line in lines:
        cells[line.strategy, line.n].append(line)
    order = {name: i for i, name in enumerate(dict.fromkeys(line.strategy for line in lines))}
    out: list[Summary] = []
    for (name, n), some in sorted(cells.items(), key=lambda cell: (order[cell[0][0]], cell[0][1])):
        by_problem = defaultdict[str, list[bool]](list)
        for line in some:
            by_problem[line.problem].append(line.right)
        right = np.array([np.mean(by_problem[problem]) for problem in sorted(by_problem)])
        cost = {what: float(np.mean([of(line) for line in some])) for what, of in COSTS.items()}
        out.append(Summary(name, n, right, cost, len({line.seed for line in some})))
    return out


def table(cells: Sequence[Summary]) -> Table:
    """Accuracy by budget, and what the largest costs."""
    budgets = sorted({cell.n for cell in cells})
    some = cells[0]
    title = f"Problems solved, % ± standard error ({_of(some)})"
    out = Table("strategy", title=title, title_justify="left",
                caption=f"Costs are per problem, at N = {budgets[-1]}; most are means of what was really spent.",
                caption_justify="left")  # fmt: skip
    out.columns[0].no_wrap = True
    out.columns[0].min_width = max(len(cell.strategy) for cell in cells)
    for n in budgets:
        out.add_column(f"N = {n}", justify="right")
    for what in ("tokens", "scores", "ms"):
        out.add_column(what, justify="right")
    for name, row in _rows(cells).items():
        last = row.get(budgets[-1])
        costs = ["", "", ""] if last is None else [
            f"{last.cost['tokens']:,.0f}", f"{last.cost['scores']:,.0f}", f"{1e3 * last.cost['seconds']:,.0f}"
        ]  # fmt: skip
        out.add_row(name, *[_shown(row.get(n)) for n in budgets], *costs)
    return out


def markdown(cells: Sequence[Summary]) -> str:
    """The same table for a document."""
    budgets = sorted({cell.n for cell in cells})
    head = ["strategy", *[f"N = {n}" for n in budgets], "tokens", "scores"]
    out = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, row in _rows(cells).items():
        last = row.get(budgets[-1])
        costs = ["", ""] if last is None else [f"{last.cost['tokens']:,.0f}", f"{last.cost['scores']:,.0f}"]
        out.append("| " + " | ".join([name, *[_shown(row.get(n)) for n in budgets], *costs]) + " |")
    return "\n".join(out) + "\n"


def ratios(
    cells: Sequence[Summary], reference: str, n: int, baselines: Sequence[str], cost: str = "generations"
) -> dict[str, BudgetRatio]:
    """How many times the cost of `reference` at N = n each baseline needs to be as accurate.

    Paired bootstrap over problems; see `ppl.scaling`. A baseline without cells, or of other problems, is left out.
    """
    rows = _rows(cells)
    target = rows.get(reference, {}).get(n)
    if target is None:
        return {}
    out: dict[str, BudgetRatio] = {}
    for name in baselines:
        curve = sorted(rows.get(name, {}).values(), key=lambda cell: cell.cost[cost])
        if curve and all(len(cell.right) == len(target.right) for cell in curve):
            budgets = [cell.cost[cost] for cell in curve]
            right = np.array([cell.right for cell in curve])
            out[name] = budget_ratio(budgets, right, target.right, target.cost[cost])
    return out


def ratio_table(found: Mapping[str, BudgetRatio], reference: str, n: int, cost: str) -> Table:
    """What `ratios` gives, in words."""
    title = f"How many times the {cost} of {reference} at N = {n} a strategy needs to solve as many problems"
    out = Table("strategy", title=title, title_justify="left")
    for column in ("ratio", "95 % interval", "not reached"):
        out.add_column(column, justify="right")
    out.caption, out.caption_justify = "Not reached: in so many bootstrap samples of the problems.", "left"
    for name, ratio in found.items():
        out.add_row(name, ratio.show(ratio.ratio), ratio.interval, f"{100 * ratio.not_reached:.0f} %")
    return out


def plot_accuracy(cells: Sequence[Summary], path: Path, title: str) -> None:
    """Accuracy against generations, tokens, scores and seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    rows = _rows(cells)
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    for axes, (what, label) in zip(
        figure.subplots(2, 2, sharey=True).ravel(),
        {"generations": "budget, generations a problem", "tokens": "LM tokens a problem, sampled",
         "scores": "scores asked of the reward model, a problem", "seconds": "seconds a problem"}.items(),
        strict=True,
    ):  # fmt: skip
        for (name, row), style in zip(rows.items(), _styles(len(rows)), strict=True):
            curve = [cell for cell in row.values() if cell.cost[what] > 0]
            if curve:
                x, y = [cell.cost[what] for cell in curve], [100 * cell.accuracy for cell in curve]
                axes.errorbar(x, y, [100 * cell.standard_error for cell in curve], label=name, capsize=2, **style)
        axes.set_xscale("log", base=2 if what == "generations" else 10)
        axes.xaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
        if what == "generations":
            budgets = sorted({cell.n for cell in cells})
            axes.set_xticks(budgets, [str(n) for n in budgets])
    figure.supylabel("problems solved, % (± 1 standard error)")
    figure.suptitle(title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def plot_coverage(lines: Sequence[Line], path: Path, title: str) -> bool:
    """pass@k and majority@k of the largest pool of independent runs, with the law exp(a k^b); False without one."""
    from matplotlib.figure import Figure

    pools = [line for line in lines if line.strategy == "majority"]
    if not pools:
        return False
    n = max(line.n for line in pools)
    counts = [[count for count, _, _ in line.found.values()] for line in pools if line.n == n]
    right = [[ok for *_, ok in line.found.values()] for line in pools if line.n == n]
    ks = [2**i for i in range(n.bit_length()) if 2**i <= n]
    solved = [sum(c for c, ok in zip(cs, oks, strict=True) if ok) for cs, oks in zip(counts, right, strict=True)]
    coverage = [float(np.mean([pass_at(k, n, c) for c in solved])) for k in ks]
    majority = [float(np.mean([majority_at(k, n, cs, oks) for cs, oks in zip(counts, right, strict=True)])) for k in ks]
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(ks, [100 * c for c in coverage], "o-", color="#3a78b8", label="pass@k: one of k is right")
    axes.plot(ks, [100 * c for c in majority], "s-", color="#999999", label="majority@k")
    if len(ks) > 2 and 0 < coverage[0] < 1:
        a, b = fit_coverage(ks, coverage)
        x = np.geomspace(1, n, 50)
        axes.plot(x, 100 * np.exp(a * x**b), "--", color="#b0243f", label=f"exp({a:.2f} k^{b:.2f})")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set(xlabel=f"k, of {n} independent solutions", ylabel="problems, %", title=title, ylim=(0, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return True


def plot_ess(lines: Sequence[Line], path: Path, title: str) -> bool:
    """The mean effective sample size at each step, of strategies that have steps, at their largest budget."""
    from matplotlib.figure import Figure

    curves: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(line.strategy for line in lines):
        n = max(line.n for line in lines if line.strategy == name)
        some = [line.ess for line in lines if line.strategy == name and line.n == n and line.ess]
        if some and n > 1:
            longest = max(map(len, some))
            curves[f"{name}, N = {n}"] = np.array(
                [np.mean([ess[t] for ess in some if len(ess) > t]) for t in range(longest)]
            )
    if not curves:
        return False
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, curve), style in zip(curves.items(), _styles(len(curves)), strict=True):
        axes.plot(range(1, len(curve) + 1), 100 * curve, label=name, **style)
    axes.set(xlabel="step", ylabel="effective sample size, % of the particles", title=title, ylim=(0, 102))
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    return True


def _of(cell: Summary) -> str:
    return f"{len(cell.right)} problems, {cell.seeds} seed{'s' if cell.seeds > 1 else ''}"


def _rows(cells: Sequence[Summary]) -> dict[str, dict[int, Summary]]:
    out: dict[str, dict[int, Summary]] = {}
    for cell in cells:
        out.setdefault(cell.strategy, {})[cell.n] = cell
    return out


def _shown(cell: Summary | None) -> str:
    return "" if cell is None else cell.shown


def _styles(count: int) -> list[dict[str, Any]]:
    """Colours and markers that tell many lines apart."""
    from matplotlib import colormaps

    colours, markers = colormaps["tab20"].colors, "osD^v<>PX*"  # pyright: ignore[reportAttributeAccessIssue]
    return [
        {"color": colours[(2 * i + (i // 10) % 2) % 20], "marker": markers[i % len(markers)], "markersize": 4,
         "linewidth": 1.3}
        for i in range(count)
    ]  # fmt: skip
