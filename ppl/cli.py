"""The command line: `ppl demo`, `ppl solve` and `ppl compare`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn, cast, get_args

import typer
from rich.console import Console

from ppl import solve_file, solving
from ppl.compare_report import run as run_compare
from ppl.demo import run as run_demo
from ppl.models.checkpoint import CheckpointError
from ppl.models.sloppy import Weighting
from ppl.models.sloppy.task import PRESETS
from ppl.posterior import Vote
from ppl.solve_file import FileError
from ppl.solving import Method
from ppl.strategies import TABLE
from ppl.strategies import strategies as by_name
from ppl.tasks import chain_arithmetic, from_file

app = typer.Typer(
    help="Inference with language models as probabilistic programming.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip

Seed = Annotated[int, typer.Option(help="The same seed gives the same answers.")]
Preset = Annotated[str, typer.Option(help=f"Task and model: {' or '.join(PRESETS)}.")]
Model = Annotated[Path | None, typer.Option(help="A checkpoint folder in place of the shipped model.")]
Weights = Annotated[str, typer.Option(help="Of the particle filter: step (one factor per step) or published.")]
Select = Annotated[
    str, typer.Option(help="How the filter answers: weighted, majority or argmax (published weights: argmax).")
]


def fail(message: object) -> NoReturn:
    """One sentence on standard error, exit code 2."""
    typer.echo(f"ppl: {message}", err=True)
    raise typer.Exit(2)


@app.command()
def demo(
    preset: Preset = "default",
    problems: Annotated[int, typer.Option(help="How many of the 500 held-out problems.")] = 200,
    budgets: Annotated[str, typer.Option(help="Generations per problem, ascending.")] = "1,2,4,8,16,32",
    weighting: Weights = "step",
    select: Select = "",
    seed: Seed = 0,
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Folder for the plot and the numbers.")] = Path("demo"),
) -> None:
    """Majority, best-of-N, weighted best-of-N and a particle filter on the same program."""
    _check(preset, weighting, select)
    if not 1 <= problems <= 500:
        fail(f"--problems {problems}: choose 1 to 500")
    sizes = _budgets(budgets)
    with _told():
        run_demo(
            preset,
            problems,
            sizes,
            _method("particle-filter", weighting, select),
            seed,
            model,
            out,
            Console(soft_wrap=True),
        )


@app.command()
def solve(
    problems: Annotated[Path, typer.Argument(help='A JSONL file; a line is {"problem": "37+5*7-4"}.')],
    out: Annotated[Path, typer.Option(help="JSONL file for the answers, a line a problem.")] = Path("answers.jsonl"),
    particles: Annotated[int, typer.Option(help="Generations per problem.")] = 16,
    method: Annotated[str, typer.Option(help="majority, best-of-n, weighted-best-of-n or particle-filter.")] = (
        "particle-filter"
    ),
    weighting: Weights = "step",
    select: Select = "",
    preset: Preset = "default",
    model: Model = None,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(help="Problems solved together; 0 chooses.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with a half-written answer file.")] = False,
) -> None:
    """Solve the problems of a file; each answer is written as soon as its batch is done."""
    _check(preset, weighting, select)
    if particles < 1:
        fail(f"--particles {particles}: at least 1 is needed")
    if batch < 0:
        fail(f"--batch {batch}: choose 0 (automatic) or the number of problems to solve together")
    how = _method(method, weighting, select)
    with _told():
        progress = Console(stderr=True, soft_wrap=True)
        typer.echo(solve_file.run(problems, out, how, particles, preset, model, seed, batch, resume, progress))


@app.command()
def compare(
    task: Annotated[str, typer.Option(help="A task of your own, path.py:name; else the shipped one.")] = "",
    strategies: Annotated[str, typer.Option(help="Names with commas between; all; or list, to see them.")] = (
        "majority,best-of-n,weighted-best-of-n,beam,dvts,rebase,published-filter,particle-filter"
    ),
    budgets: Annotated[str, typer.Option(help="Generations per problem, ascending.")] = "1,2,4,8,16",
    problems: Annotated[int, typer.Option(help="How many of the task's problems; 0 for all.")] = 100,
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0.")] = 1,
    reference: Annotated[str, typer.Option(help="The strategy that budgets are measured against.")] = "particle-filter",
    preset: Preset = "default",
    model: Model = None,
    jobs: Annotated[int, typer.Option(help="Processes; on a CPU one per core is fastest.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the lines, the tables and the pictures.")] = Path("compare"),
) -> None:
    """Strategies of the literature on one program: accuracy against what they cost. Goes on where it was stopped."""
    if strategies == "list":
        for one in TABLE:
            typer.echo(f"{one.name:28} {one.about} [{one.source}]")
        return
    try:
        chosen, _ = by_name(strategies), by_name([reference])
    except ValueError as error:
        fail(error)
    sizes = _budgets(budgets)
    if preset not in PRESETS:
        fail(f"--preset {preset}: choose {' or '.join(PRESETS)}")
    if problems < 0 or seeds < 1:
        fail(f"--problems {problems}, --seeds {seeds}: at least 0 (all) and 1")
    if jobs < 1:
        fail(f"--jobs {jobs}: at least 1")
    try:
        found = from_file(task) if task else chain_arithmetic(preset, None, model)
        if strategies == "all":
            left_out = {one: lacks for one in chosen if (lacks := one.lacks(found))}
            for lacks in left_out.values():
                typer.echo(f"left out: {lacks}", err=True)
            chosen = [one for one in chosen if one not in left_out]
        for one in chosen:
            one.check(found)
    except (ValueError, CheckpointError) as error:
        fail(error)
    with _told():
        run_compare(replace(found, problems=found.problems[: problems or None]), chosen, sizes, range(seeds), reference,
                    out, Console(soft_wrap=True), jobs)  # fmt: skip


def main() -> None:
    """Entry point of the `ppl` command."""
    gc.freeze()  # what the imports made is never garbage: do not look at it again
    app()


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors that tell a user what to do into one sentence and exit code 2."""
    try:
        yield
    except (CheckpointError, FileError, OSError) as error:
        fail(error)


def _budgets(text: str) -> list[int]:
    """Ascending numbers of generations."""
    try:
        sizes = [int(n) for n in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or sorted(set(sizes)) != sizes:
        fail(f"--budgets {text}: write ascending numbers of generations of at least 1, like 1,2,4,8")
    return sizes


def _method(name: str, weighting: str, select: str) -> Method:
    try:
        return solving.method(name, cast(Weighting, weighting), cast(Vote, select) or None)
    except ValueError as error:
        fail(error)


def _check(preset: str, weighting: str, select: str) -> None:
    if preset not in PRESETS:
        fail(f"--preset {preset}: choose {' or '.join(PRESETS)}")
    if weighting not in get_args(Weighting):
        fail(f"--weighting {weighting}: choose {' or '.join(get_args(Weighting))}")
    if select and select not in get_args(Vote):
        fail(f"--select {select}: choose {', '.join(get_args(Vote))}")


if __name__ == "__main__":
    main()
