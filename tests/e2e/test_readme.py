"""The README is true: its Python runs, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_python_blocks_run(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_measure_shown_is_the_measure() -> None:
    shown = re.search(r"exact = measure\(coin\(\)\) +# (Measure.*)", README)
    assert shown is not None
    names: dict[str, object] = {}
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "Measure(" in b)
    exec(block, names)
    assert repr(names["exact"]) == shown[1]


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)`", README + (ROOT / "CONTRIBUTING.md").read_text()))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in README
    assert re.search(r"^make test$", (ROOT / ".ci/run").read_text(), re.M)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
