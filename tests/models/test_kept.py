"""What was worked out about a grammar is found on disk, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppl.grammar import regex
from ppl.models import compiled, load
from ppl.models import guide as module
from ppl.source import Key

SHIPPED = Path(__file__).parents[2] / "models/sloppy/default"


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Grammars that a model was watched under; what is kept goes to a folder of the test."""
    monkeypatch.setenv("PPL_CACHE", str(tmp_path))
    monkeypatch.setattr("ppl.models.kept.cache_root", compiled.cache_root)  # which tests/conftest.py takes away
    monkeypatch.setattr("ppl.models.language_model.keep_compiled", lambda: None)  # which is for the whole process
    monkeypatch.setattr(module, "PILOT_BLOCK", 4)
    seen: list[str] = []
    teach = module.teach

    def watched(guide: Any, lm: Any) -> Any:
        seen.append(guide.name)
        return teach(guide, lm)

    monkeypatch.setattr(module, "teach", watched)
    return seen


def test_a_second_process_is_not_taught_again(lessons: list[str], tmp_path: Path) -> None:
    grammar, draws, tables = regex("[1-4][0-9]\n"), [], []
    for lm in (load(SHIPPED), load(SHIPPED)):
        draws.append(lm.extend(lm.text(">37+5:"), grammar=grammar, max_tokens=4).sample(Key.of(0)))
        tables.append(lm.guide(grammar)._log_h)
    assert len(lessons) == 1
    assert (tables[0] == tables[1]).all() and draws[0] == draws[1]
    lm = load(SHIPPED)
    lm.guide(grammar, ("\n",))
    lm.guide(grammar, (), True)
    lm.guide(regex("[1-5][0-9]\n"))
    assert len(lessons) == 4  # another stop, end or grammar
    (other := load(SHIPPED)).kept.__dict__["model"] = b"another one"
    other.guide(grammar)
    assert len(lessons) == 5
    for path in (tmp_path / "grammars").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert (load(SHIPPED).guide(grammar)._log_h == tables[0]).all() and len(lessons) == 6
    assert not list((tmp_path / "grammars").glob("*.part"))


def test_models_are_told_apart() -> None:
    from ppl.models.kept import fingerprint

    lm = load(SHIPPED)
    params, config = lm.engine.params, lm.engine.config
    same = fingerprint(dict(reversed(params.items())), config)
    assert same == fingerprint(params, config)
    name = next(iter(params))
    changed = {**params, name: params[name] + np.float32(1e-3)}
    assert fingerprint(changed, config) != same != fingerprint(params, replace(config, rope_theta=1.0))


def test_where_nothing_can_be_kept(lessons: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("", str(tmp_path / "file")):
        monkeypatch.setenv("PPL_CACHE", folder)
        load(SHIPPED).guide(regex("[1-4][0-9]\n"))
    assert len(lessons) == 2
