"""Every example runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("your_own_algorithm.py", "wrong: wrong is not proper on"),
        ("your_own_kernel.py", "wrong: wrong does not leave the posterior over traces invariant on"),
    ],
)
def test_the_wrong_one_of_an_example_is_caught(example: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES[0].parent / example), run_name="__main__")
    assert message in capsys.readouterr().out
