"""Whatever is wrong with an option or a file: exit code 2, one sentence that names it, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ppl.models import sloppy

Cli = Callable[..., Result]
GOOD = '{"problem": "37+5*7-4"}'


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2
    assert result.stderr.startswith("ppl: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert not result.stdout


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"problem": "37+5*7-4"', ["not JSON"]),
        ("37+5*7-4", ["not JSON"]),
        ('{"question": "37+5"}', ['"problem"']),
        ('["37+5"]', ['"problem"']),
        ('{"problem": "37/5"}', ["'37/5'", "+ - *"]),
        ('{"problem": "37+5*"}', ["'37+5*'"]),
        ('{"problem": "\uff137+5"}', ["\uff137+5"]),
        ('{"problem": "[red]"}', ["'[red]'"]),
        ('{"problem": "[/]"}', ["'[/]'"]),
        (json.dumps({"problem": "37" + "+5" * 11}), ["11 operations", "at most 10"]),
    ],
)
def test_a_bad_line_is_named(cli: Cli, tmp_path: Path, out: Path, bad: str, words: list[str]) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(f"{GOOD}\n\n{bad}\n{GOOD}\n")
    refused(cli("solve", path, "--out", out), str(path), "line 3", *words)
    assert not out.exists()


@pytest.mark.parametrize("content", ["", "\n  \n\n"])
def test_a_file_without_problems_is_named(cli: Cli, tmp_path: Path, out: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    refused(cli("solve", path, "--out", out), str(path), "no problems")
    assert not out.exists()


@pytest.mark.parametrize("name", ["none.jsonl", "", "[b]none[/b].jsonl", "[/none].jsonl"])
def test_a_file_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path, out: Path, name: str) -> None:
    refused(cli("solve", tmp_path / name, "--out", out), str(tmp_path / name))
    assert not out.exists()


def test_a_file_that_is_no_text_is_named(cli: Cli, tmp_path: Path, out: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    refused(cli("solve", tmp_path / "binary", "--out", out), str(tmp_path / "binary"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "magic"], ["'magic'", "best-of-n"]),
        (["--particles", 0], ["--particles 0"]),
        (["--particles", -2], ["--particles -2"]),
        (["--batch", -1], ["--batch -1"]),
        (["--preset", "easy"], ["--preset easy", "default or hard"]),
        (["--weighting", "odds"], ["--weighting odds", "published"]),
        (["--select", "best"], ["--select best", "argmax"]),
        (["--select", "[/best]"], ["--select [/best]"]),
        (["--method", "majority", "--select", "argmax"], ["particle-filter", "majority"]),
        (["--method", "best-of-n", "--weighting", "published"], ["particle-filter", "best-of-n"]),
    ],
)
def test_a_bad_option_is_named(cli: Cli, problems: Path, out: Path, options: list[Any], words: list[str]) -> None:
    refused(cli("solve", problems, "--out", out, *options), *words)
    assert not out.exists()


def test_a_folder_for_the_answers_that_does_not_exist_is_named(cli: Cli, problems: Path, tmp_path: Path) -> None:
    refused(cli("solve", problems, "--out", tmp_path / "none" / "out.jsonl"), str(tmp_path / "none"))


@pytest.mark.parametrize("command", ["solve", "demo"])
def test_a_missing_model_is_named(cli: Cli, problems: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    args = [problems] if command == "solve" else []
    refused(cli(command, *args, "--out", out, "--model", tmp_path / "nowhere"), str(tmp_path / "nowhere"))
    assert not out.exists()


def test_truncated_weights_are_named(cli: Cli, problems: Path, tmp_path: Path, out: Path) -> None:
    folder = Path(shutil.copytree(sloppy.HERE / "default", tmp_path / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    refused(cli("solve", problems, "--out", out, "--model", folder), str(weights), "truncated")
    assert not out.exists()


@pytest.mark.parametrize("command", ["solve", "demo"])
@pytest.mark.parametrize(
    "other", [{"head": False}, {"alphabet": "abcdef0123"}, {"context": 3}], ids=["no head", "letters", "tiny context"]
)
def test_a_model_of_something_else_is_named(
    cli: Cli, problems: Path, tmp_path: Path, save_model: Callable[..., Path], other: dict[str, Any], command: str
) -> None:
    model, out = save_model("other", **other), tmp_path / "out"
    args = [problems] if command == "solve" else ["--problems", 1, "--budgets", 1]
    refused(cli(command, *args, "--out", out, "--model", model))
    assert not out.exists()


def test_an_existing_file_is_refused_and_left_alone(cli: Cli, problems: Path, out: Path) -> None:
    out.write_text("mine")
    refused(cli("solve", problems, "--out", out), str(out), "--resume")
    assert out.read_text() == "mine"


@pytest.fixture(scope="module")
def answered(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one problem and its answer."""
    folder = tmp_path_factory.mktemp("answered")
    (folder / "problems.jsonl").write_text(GOOD + "\n")
    done = cli("solve", folder / "problems.jsonl", "--out", folder / "out.jsonl", "--particles", 4)
    assert done.exit_code == 0
    return folder


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--particles", 5], "particles 4, not 5"),
        (["--particles", 4, "--seed", 1], "seed 0, not 1"),
        (["--particles", 4, "--method", "majority"], "method 'particle-filter', not 'majority'"),
        (["--particles", 4, "--weighting", "published"], "weighting 'step', not 'published'"),
        (["--particles", 4, "--select", "argmax"], "select 'weighted', not 'argmax'"),
        (["--particles", 4, "--preset", "hard"], "preset 'default', not 'hard'"),
    ],
)
def test_resume_with_other_settings_is_refused(
    cli: Cli, answered: Path, tmp_path: Path, options: list[Any], difference: str
) -> None:
    out = tmp_path / "out.jsonl"
    before = (answered / "out.jsonl").read_bytes() + b'{"torn'
    out.write_bytes(before)
    refused(
        cli("solve", answered / "problems.jsonl", "--out", out, "--resume", *options), str(out), "line 1", difference
    )
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    ['{"id": "1", "problem": "37+5*7-5"}', '{"id": "9", "problem": "37+5*7-4"}', "not json", "[]", "",
     '{"id": "1", "problem": "37+5*7-4"}', '{"id": "1", "problem": "37+5*7-4", "settings": 4}'],
)  # fmt: skip
def test_resume_on_a_file_of_something_else_is_refused(cli: Cli, answered: Path, out: Path, line: str) -> None:
    out.write_text(line + "\n")
    args = ["--out", out, "--resume", "--particles", 4]
    refused(cli("solve", answered / "problems.jsonl", *args), str(out), "line 1")
    assert out.read_text() == line + "\n"


def test_resume_with_more_answers_than_problems_is_refused(cli: Cli, answered: Path, out: Path) -> None:
    out.write_bytes((answered / "out.jsonl").read_bytes() * 2)
    args = ["--out", out, "--resume", "--particles", 4]
    refused(cli("solve", answered / "problems.jsonl", *args), str(out), "line 2")


@pytest.mark.parametrize(
    "options",
    [["--budgets", budgets] for budgets in ("", "a", "0,1", "2,1", "1,1", "1,,2", "-1", "1.5", "[/1]")]
    + [["--problems", n] for n in (0, 501)]
    + [["--preset", "easy"], ["--weighting", "odds"], ["--select", "best"]],
)  # fmt: skip
def test_a_bad_option_of_the_demo_is_named(cli: Cli, tmp_path: Path, options: list[Any]) -> None:
    refused(cli("demo", "--out", tmp_path / "demo", *options), " ".join(map(str, options)))
    assert not (tmp_path / "demo").exists()


def test_a_demo_folder_that_is_a_file_is_refused_before_the_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    result = cli("demo", "--out", tmp_path / "demo", "--problems", 1, "--budgets", 1)
    refused(result, str(tmp_path / "demo"))
    assert (tmp_path / "demo").read_text() == "mine"
