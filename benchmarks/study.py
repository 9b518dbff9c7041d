"""The study of docs/study.md: strategies on the shipped task, by one command (`make study`).

    .venv/bin/python benchmarks/study.py                 # what `make study` does; goes on where it was stopped
    .venv/bin/python benchmarks/study.py --more          # the tables of "More strategies" and noise of 3 nats too
    .venv/bin/python benchmarks/study.py --problems 20   # a look, in another folder

Lines are kept in `study/`; tables are written into docs/study.md between their marks, pictures beside it.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from statistics import NormalDist
from typing import Any

from rich.console import Console

from ppl.calibrate import calibrated, reliability
from ppl.compare import compare
from ppl.compare_report import Summary, markdown, plot_accuracy, plot_coverage, plot_ess, ratios, summaries
from ppl.distributions import log_odds
from ppl.effects import Call
from ppl.models import sloppy
from ppl.models.language_model import StepReward
from ppl.models.sloppy.task import PRESETS
from ppl.models.text import Text
from ppl.strategies import Task, strategies
from ppl.tasks import chain_arithmetic

DOCS = Path(__file__).parents[1] / "docs"
MAIN = ("majority,best-of-n,weighted-best-of-n,best-of-majority,rpc,beam,beam-weighted,dvts,dvts-weighted,rebase,"
        "published-filter,published-filter-weighted,particle-filter,particle-filter-argmax")  # fmt: skip
POWERS = ",".join(f"particle-filter-{one}" for one in ("min", "mean", "last", "beta-2", "beta-4"))
GIBBS = "particle-filter,particle-gibbs,published-gibbs,published-gibbs-weighted,islands"
TEMPERING = "parallel-tempering,published-tempering"
OTHER = "entropic-filter,steering,resample-move,refinement,by-difficulty,budget-forcing,speculative,drafted-filter"
FILTERS = "published-filter,published-filter-weighted,particle-filter,particle-filter-argmax"
NOISES = {"none": (0.0, 0.0), "fresh 1.5": (1.5, 0.0), "per fact 1.5": (0.0, 1.5), "per fact 3": (0.0, 3.0)}
SEEDS = 3


class Noisy:
    """A step reward with noise on its log odds: fresh for each text, and the same wherever a fact is judged.

    A fact is a line given the line before it: "13 * 7 = 84". So a judge of noisy facts is wrong about some of them
    always, and no number of samples averages that out.
    """

    kind = "step"

    def __init__(self, reward: StepReward, fresh: float, fact: float) -> None:
        self.reward, self.fresh, self.fact = reward, fresh, fact
        self.noise = lru_cache(1 << 16)(self._noise)  # particles meet the same texts, and the same facts

    def __call__(self, text: Text) -> Call[float]:
        return Call(self.score, (text,), self.batch, family=(self, "noisy"))

    def score(self, text: Text) -> float:
        return self.batch([(text,)])[0]

    def batch(self, questions: list[tuple[Text]]) -> list[float]:
        right = self.reward._batch(questions)
        out = []
        for score, (text,) in zip(right, questions, strict=True):
            z = log_odds(min(score, -1e-7)) + self.noise(text)
            out.append(-math.log1p(math.exp(-z)) if z > -500 else z)
        return out

    def _noise(self, text: Text) -> float:
        written = str(text)
        fresh = self.fresh * gauss(written) if self.fresh else 0.0
        return fresh + (self.fact * gauss(fact_of(written)) if self.fact else 0.0)


def fact_of(text: str) -> str:
    """The last line, the line before it, and the operation between them."""
    problem, _, solution = text[1:].partition(":")
    lines = solution.split()
    before = lines[-2] if len(lines) > 1 else problem[:2]
    return f"{before}{problem[2 * len(lines) : 2 * len(lines) + 2]}={lines[-1]}"


@lru_cache(1 << 16)
def gauss(key: str) -> float:
    """A standard normal number that belongs to a string."""
    u = int.from_bytes(blake2b(key.encode(), digest_size=7).digest()) / 2**56
    return NormalDist().inv_cdf(min(max(u, 1e-15), 1 - 1e-15))


@dataclass(frozen=True)
class Part:
    """One comparison."""

    name: str
    again: Callable[[], Task[Any]]
    strategies: str
    budgets: Sequence[int]
    more: bool = False
    """Whether it is left out unless it is asked for."""


def shipped(preset: str) -> Task[Any]:
    """Calls of 512 rows: an eighth faster with this small model than what suits larger ones."""
    task = chain_arithmetic(preset)
    task.lm.engine.most = 512
    return replace(task, again=partial(shipped, preset))


def noisy(preset: str, name: str) -> Task[Any]:
    task, (fresh, fact) = shipped(preset), NOISES[name]
    return replace(task, name=f"{task.name}, noise {name}", model=Noisy(StepReward(task.lm), fresh, fact),
                   again=partial(noisy, preset, name))  # fmt: skip


def warm(preset: str, temperature: float) -> Task[Any]:
    task = shipped(preset)

    def program(lm: Any, reward: Any, problem: Any) -> Any:
        return sloppy.solve(lm, reward, problem.problem, temperature)

    return replace(task, name=f"{task.name}, temperature {temperature}", program=program,
                   again=partial(warm, preset, temperature))  # fmt: skip


def parts() -> Iterator[Part]:
    """In the order of their weight: whoever stops early has the first."""
    for preset in ("hard", "default"):
        yield Part(f"methods {preset}", partial(shipped, preset), MAIN, (2, 8, 32))
    yield Part("noise per fact 1.5", partial(noisy, "hard", "per fact 1.5"), FILTERS, (8, 32, 128))
    for preset in ("hard", "default"):
        yield Part(f"aggregations {preset}", partial(shipped, preset), POWERS, (8,))
        yield Part(f"gibbs {preset}", partial(shipped, preset), GIBBS, (16,))
    yield Part("noise fresh 1.5", partial(noisy, "hard", "fresh 1.5"), FILTERS, (32,))
    yield Part("noise default", partial(noisy, "default", "per fact 1.5"), FILTERS, (32,))
    for temperature in (0.6, 0.8, 1.2):  # 1 is among the methods
        yield Part(f"temperature {temperature}", partial(warm, "hard", temperature), "majority,particle-filter", (8,))
    yield Part("noise per fact 3", partial(noisy, "hard", "per fact 3"), FILTERS, (32,), more=True)
    for preset in ("hard", "default"):
        yield Part(f"tempering {preset}", partial(shipped, preset), TEMPERING, (16,), more=True)
        yield Part(f"others {preset}", partial(shipped, preset), OTHER, (8,), more=True)


def put(mark: str, text: str) -> None:
    """Write a table into docs/study.md, between its marks."""
    path = DOCS / "study.md"
    before = path.read_text()
    pattern = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- end -->)", re.S)
    if not pattern.search(before):
        raise SystemExit(f"docs/study.md has no place for {mark}: <!-- {mark} --> ... <!-- end -->")
    path.write_text(pattern.sub(lambda found: found[1] + text + found[2], before))


def ratio_rows(cells: Sequence[Summary], at: int) -> str:
    """How many times the generations and tokens of the filter baselines need."""
    names = [one for one in dict.fromkeys(cell.strategy for cell in cells) if not one.startswith("particle-filter")]
    by = {cost: ratios(cells, "particle-filter", at, names, cost) for cost in ("generations", "tokens")}
    out = [f"| baseline | generations, times those of the filter at N = {at} | tokens |", "| --- | --- | --- |"]
    for name in by["generations"]:
        shown = [f"{found[name].show(found[name].ratio)} ({found[name].interval})" for found in by.values()]
        out.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(out) + "\n"


def calibration(out: Path) -> str:
    """Of the noisy judge on steps of the student's own: ECE before and after, fitted on half of them."""
    import numpy as np

    from ppl.models.sloppy import task

    rows = ["| judge | labels | ECE before | after | log loss before | after |", "| --- " * 6 + "|"]
    lm, rng = sloppy.load_model("hard"), np.random.default_rng(0)
    preset = PRESETS["hard"]
    for name in ("none", "per fact 1.5", "per fact 3"):
        judge = Noisy(StepReward(lm), *NOISES[name])
        texts, truth = list[Text](), list[bool]()
        for _ in range(100):
            problem = task.random_problem(preset, rng)
            attempt = task.attempt(preset, problem, rng)
            text = lm.text(task.prompt(problem))
            for value, right in zip(attempt.values, attempt.right, strict=True):
                text = text + f"{value:02d}\n"
                texts.append(text)
                truth.append(right)
        scores = judge.batch([(text,) for text in texts])
        half = len(scores) // 2
        honest = calibrated(judge, list(zip(scores[:half], truth[:half], strict=True)))
        before = reliability(scores[half:], truth[half:])
        after = reliability([honest.of(score) for score in scores[half:]], truth[half:])
        rows.append(f"| noise {name} | {half} | {before.ece:.3f} | {after.ece:.3f} | {before.log_loss:.3f} | "
                    f"{after.log_loss:.3f} |")  # fmt: skip
        replace(honest, before=before, after=after).plot(out / f"study-calibration-{name.replace(' ', '-')}.png")
    return "\n".join(rows) + "\n"


def best_by_tokens(cells: Sequence[Summary], budget: float) -> str:
    """Strategies that spend at most so many tokens a problem, and half of it or more; the best first."""
    rows = ["| strategy | N | tokens | accuracy |", "| --- " * 4 + "|"]
    once = {(cell.strategy, cell.n): cell for cell in cells if 0.5 * budget <= cell.cost["tokens"] <= 1.02 * budget}
    for cell in sorted(once.values(), key=lambda cell: -cell.accuracy):
        rows.append(f"| {cell.strategy} | {cell.n} | {cell.cost['tokens']:,.0f} | {cell.shown} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--more", action="store_true", help="what `make study` leaves out, too")
    parser.add_argument("--only", default="", help="parts whose names begin like this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    whole = options.problems >= 300
    console, begin = Console(), time.perf_counter()
    options.out.mkdir(exist_ok=True)
    by_warmth: list[Summary] = []
    by_preset: dict[str, list[Summary]] = {"hard": [], "default": []}
    for part in parts():
        if not part.name.startswith(options.only) or (part.more and not options.more):
            continue
        console.print(f"{part.name} (after {time.perf_counter() - begin:.0f} s)")
        task = part.again()
        task = replace(task, problems=task.problems[: options.problems])
        path = options.out / f"{part.name.replace(' ', '-')}.jsonl"
        chosen = [one for one in strategies(part.strategies) if not one.lacks(task)]
        lines = compare(task, chosen, part.budgets, range(SEEDS), path, console, options.jobs)
        cells = summaries(lines)
        kind, _, which = part.name.partition(" ")
        if kind == "temperature":
            by_warmth += [replace(cell, strategy=f"{cell.strategy}, {which}") for cell in cells]
        elif whole:
            put(part.name, markdown(cells))
        if kind not in ("temperature", "noise") and not part.more:
            by_preset[which] += cells
        if not whole:
            console.print(markdown(cells))
        elif kind == "methods":
            put(f"ratios {which}", ratio_rows(cells, 8))
            title = f"Chain arithmetic, {which} preset, {options.problems} problems, {SEEDS} seeds"
            plot_accuracy(cells, DOCS / f"study-accuracy-{which}.png", title)
            plot_coverage(lines, DOCS / f"study-coverage-{which}.png", title)
            plot_ess(lines, DOCS / f"study-ess-{which}.png", title)
    if whole and by_warmth:
        put("temperature", markdown(sorted(by_warmth, key=lambda cell: cell.strategy)))
    if whole and not options.only:
        for preset, cells in by_preset.items():
            put(f"tokens {preset}", best_by_tokens(cells, 3 * PRESETS[preset].steps * 8))
        put("calibration", calibration(DOCS))
    console.print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
