"""A second process finds compiled what the first has compiled, and draws the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from ppl.models.compiled import keep_compiled

PROGRAM = """
import json, sys
import jax
from jax import monitoring
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
import ppl
from ppl.models import load

@ppl.program
async def write(lm):
    text = lm.text("ab")
    for _ in range(3):
        text = await ppl.sample("block", lm.extend(text, max_tokens=4))
        await ppl.factor("a", float(str(text).count("a")))
    return str(text)

values = ppl.infer_many([write(load(sys.argv[1]))], ppl.SMC(8), [0])[0].population.values
count = lambda what: sum(name.endswith(what) for name in events)
print(json.dumps({"hits": count("cache_hits"), "misses": count("cache_misses"), "values": values}))
"""


def test_a_second_process_compiles_nothing(save_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_model("kept", alphabet="abc\n")
    env = {**os.environ, "PPL_CACHE": str(tmp_path / "cache")}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)

    def run() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)], env=env, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    first, second = run(), run()
    assert first["misses"] > 5 and first["hits"] < first["misses"]
    assert second["misses"] == 0 and second["hits"] >= first["misses"]
    assert second["values"] == first["values"]


@pytest.fixture
def unset() -> Any:
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_what_the_user_has_set_stays(unset: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PPL_CACHE", "")
    assert keep_compiled() is None
    monkeypatch.setenv("PPL_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    assert keep_compiled() is None
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_folder_that_cannot_be_is_said(unset: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"cannot be written; set PPL_CACHE"):
        assert keep_compiled() is None
