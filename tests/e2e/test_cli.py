"""`ppl solve` and `ppl demo` as a user meets them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ppl.solving import METHODS

Cli = Callable[..., Result]
Answers = Callable[[Path], list[dict[str, Any]]]


def test_one_line_per_problem(cli: Cli, problems: Path, tmp_path: Path, answers: Answers) -> None:
    out = tmp_path / "out.jsonl"
    result = cli("solve", problems, "--out", out, "--particles", 12)
    assert result.exit_code == 0 and "all 5 problems, 5 of them new" in result.stdout
    given = [json.loads(line) for line in problems.read_text().split("\n") if line]
    lines = answers(out)
    assert [(a["id"], a["problem"]) for a in lines] == [(p["id"], p["problem"]) for p in given]
    for a in lines:
        steps = (len(a["problem"]) - 2) // 2
        weights = [math.exp(w) for _, w in a["particles"] if w is not None]
        assert len(a["particles"]) == 12 and 0 < a["tokens"] <= 12 * 3 * steps
        assert math.isclose(math.fsum(a["posterior"].values()), 1, abs_tol=1e-9)
        assert a["probability"] == a["posterior"][a["answer"]] == max(a["posterior"].values())
        assert a["answer"].isdigit() and len(a["answer"]) == 2
        assert math.isclose(a["log_evidence"], math.log(math.fsum(weights) / 12), abs_tol=1e-9)
        mine = math.fsum(math.exp(w) for value, w in a["particles"] if w is not None and value == a["answer"])
        assert math.isclose(mine / math.fsum(weights), a["probability"], abs_tol=1e-9)
        assert 1 <= a["ess"] <= 12.001 and a["settings"]["particles"] == 12


def test_the_same_seed_gives_the_same_bytes_in_any_batch(cli: Cli, problems: Path, tmp_path: Path) -> None:
    outs = {}
    for name, options in {
        "first": (), "again": (), "one": ("--batch", 1), "three": ("--batch", 3), "auto": ("--batch", 0),
        "other": ("--seed", 1),
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.jsonl"
        assert cli("solve", problems, "--out", path, "--particles", 6, *options).exit_code == 0
        outs[name] = path.read_bytes()
    assert outs["first"] == outs["again"] == outs["one"] == outs["three"] == outs["auto"]
    assert outs["other"] != outs["first"]


@pytest.mark.parametrize("lines", [0, 2, 4, 5])
@pytest.mark.parametrize("torn", [0, 1, 40])
def test_resume_ends_with_the_bytes_of_an_uninterrupted_run(
    cli: Cli, problems: Path, tmp_path: Path, whole: bytes, lines: int, torn: int
) -> None:
    """Cut after so many lines and so many bytes of the next."""
    out = tmp_path / "out.jsonl"
    split = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(split[:lines]) + (split[lines][:torn] if lines < 5 else b'{"id": "torn'[:torn]))
    result = cli("solve", problems, "--out", out, "--particles", 4, "--resume")
    assert result.exit_code == 0 and out.read_bytes() == whole
    assert not lines or f"holds {lines} of 5 answers" in " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def whole(cli: Cli, problems: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The answers of an uninterrupted run with 4 particles."""
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert cli("solve", problems, "--out", out, "--particles", 4).exit_code == 0
    return out.read_bytes()


def test_resume_without_a_file_starts_one(cli: Cli, problems: Path, tmp_path: Path, whole: bytes) -> None:
    assert cli("solve", problems, "--out", tmp_path / "new.jsonl", "--particles", 4, "--resume").exit_code == 0
    assert (tmp_path / "new.jsonl").read_bytes() == whole


@pytest.mark.parametrize("name", METHODS)
def test_every_method_solves(cli: Cli, problems: Path, tmp_path: Path, answers: Answers, name: str) -> None:
    out = tmp_path / "out.jsonl"
    assert cli("solve", problems, "--out", out, "--particles", 6, "--method", name).exit_code == 0
    lines = answers(out)
    assert len(lines) == 5 and all(a["settings"]["method"] == name for a in lines)
    for a in lines:
        alive = [(value, w) for value, w in a["particles"] if w is not None]
        if name == "majority":
            count = [value for value, _ in alive].count
            assert count(a["answer"]) == max(count(value) for value, _ in alive)
        elif name == "best-of-n":
            assert a["answer"] == max(alive, key=lambda one: one[1])[0]
        else:
            assert a["probability"] == max(a["posterior"].values())


@pytest.mark.parametrize("select", ["weighted", "majority", "argmax", None])
def test_the_published_weighting_solves(
    cli: Cli, problems: Path, tmp_path: Path, answers: Answers, select: str | None
) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--select", select] if select else []
    args = ["solve", problems, "--out", out, "--particles", 6, "--weighting", "published", *options]
    assert cli(*args).exit_code == 0
    settings = [a["settings"] for a in answers(out)]
    assert all((s["weighting"], s["select"]) == ("published", select or "argmax") for s in settings)


def test_a_problem_nobody_can_solve_has_answer_null(
    cli: Cli, problems: Path, tmp_path: Path, answers: Answers, save_model: Callable[..., Path]
) -> None:
    """A random model almost never writes two digits and a newline."""
    out = tmp_path / "out.jsonl"
    model = save_model("random")
    assert cli("solve", problems, "--out", out, "--particles", 1, "--model", model).exit_code == 0
    line = answers(out)[2]
    assert line["answer"] is None and line["log_evidence"] is None and line["probability"] == 0
    assert line["posterior"] == {} and line["particles"] == [[None, None]]


def test_a_process_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ppl.cli", "solve", str(tmp_path / "none.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 2 and "none.jsonl" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "answers.jsonl").exists()


def test_demo(cli: Cli, tmp_path: Path, answers: Answers) -> None:
    out = tmp_path / "new" / "demo"
    result = cli("demo", "--problems", 4, "--budgets", "1,2", "--out", out)
    assert result.exit_code == 0 and not result.stderr
    picture, numbers = out / "accuracy-default.png", out / "results-default.jsonl"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and picture.stat().st_size > 10_000
    cells = answers(numbers)
    assert [(c["method"], c["particles"]) for c in cells] == [(m, n) for m in METHODS for n in (1, 2)]
    for c in cells:
        assert len(c["correct"]) == 4 and c["accuracy"] == sum(c["correct"]) / 4
        assert 0 < c["tokens"] <= 4 * c["particles"] * 30 and 0 <= c["host_share"] <= 1
        assert 0 < c["reward_evaluations"] <= 4 * c["particles"] * 10
    shared = [c["tokens"] for c in cells if c["method"] != "particle-filter"]
    assert shared == shared[:2] * 3
    words = " ".join(result.stdout.split())
    for part in (*METHODS, "One problem, particle-filter", "log evidence", "effective sample size", "took"):
        assert part in words
    assert "82+4+7+7*9+4-9-8-8+4+3" in words


def test_a_seed_makes_the_demo_repeatable(cli: Cli, tmp_path: Path, answers: Answers) -> None:
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert cli("demo", "--problems", 4, "--budgets", "2", "--seed", seed, "--out", tmp_path / name).exit_code == 0
        cells = answers(tmp_path / name / "results-default.jsonl")
        runs.append([(c["correct"], c["tokens"], c["reward_evaluations"]) for c in cells])
    assert runs[0] == runs[1] != runs[2]
