"""The documents are true: their snippets run, one after the other, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_snippets_run(document: Path) -> None:
    names: dict[str, object] = {"__name__": "docs"}
    text = document.read_text()
    for found in re.finditer(r"```python\n(.*?)```", text, re.S):
        line = text[: found.start(1)].count("\n")
        exec(compile("\n" * line + found[1], str(document), "exec"), names)
