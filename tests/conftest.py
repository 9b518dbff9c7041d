"""Shared by the tests of models and of the command line: small random models, and commands run in this process.

One conftest for both: two files of one name clash under `--doctest-modules`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import jax
import pytest
from typer.testing import CliRunner, Result

from ppl.cli import app
from ppl.models import checkpoint
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.sloppy import task
from ppl.models.text import Tokenizer
from ppl.models.transformer import Config, Params, init_params

MakeConfig = Callable[..., Config]
MakeModel = Callable[..., LanguageModel]


MOST_MAPS = 30_000
TESTS = count()


@pytest.fixture(autouse=True)
def few_mappings() -> None:
    """Forget compiled programs before they are too many: each is mapped into memory several times.

    Linux allows a process 65,530 mappings (vm.max_map_count). XLA:CPU crashes there, without a word, in whatever test
    compiles next.
    """
    maps = Path("/proc/self/maps")
    if next(TESTS) % 10 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version has worked out about grammars must not be found here."""
    monkeypatch.setattr("ppl.models.kept.cache_root", lambda: None)


def tiny_config(vocab_size: int, **other: object) -> Config:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 24, "rope_theta": 100.0}  # fmt: skip
    return Config(vocab_size=vocab_size, **({"tie_word_embeddings": True} | sizes | other))  # pyright: ignore[reportArgumentType]


@cache
def random_params(config: Config, seed: int = 0) -> Params:
    """Every parameter random, the norms too, with a score head."""
    key, *keys = jax.random.split(jax.random.key(seed), 4)
    params = init_params(config, key)
    noise = jax.random.split(keys[0], len(params))
    params = {
        name: value * (1 + 0.3 * jax.random.normal(k, value.shape)) if value.ndim == 1 else value
        for (name, value), k in zip(params.items(), noise, strict=True)
    }
    head = {"score.weight": jax.random.normal(keys[1], (1, config.hidden_size)) * config.hidden_size**-0.5}
    return params | head | {"score.bias": jax.random.normal(keys[2], (1,))}


def make_model(alphabet: str = "abcd", eos: str = "", context: int = 24, seed: int = 0) -> LanguageModel:
    """A fresh engine (nothing cached) over shared random parameters."""
    plain = Tokenizer.of_characters(alphabet)
    config = tiny_config(len(alphabet), max_position_embeddings=context)
    tokenizer = Tokenizer(plain.backend, [alphabet.index(c) for c in eos])
    return LanguageModel(Engine(random_params(config, seed), config), tokenizer, "tiny")


@pytest.fixture(scope="session")
def config_of() -> MakeConfig:
    return tiny_config


@pytest.fixture(scope="session")
def params_of() -> Callable[..., Params]:
    return random_params


@pytest.fixture(scope="session")
def new_model() -> MakeModel:
    return make_model


Cli = Callable[..., Result]
PROBLEMS = ["37+5*7-4", "10*9*9+2", "55-2+3*8*7+2-9+4*6*3", "96+2", "42*7*7"]


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run a command; whatever it raises but an exit is an error of the test."""
    runner = CliRunner()

    def run(*args: object) -> Result:
        return runner.invoke(app, [str(arg) for arg in args], catch_exceptions=False)

    return run


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five problems of different lengths, a blank line between them."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    lines = [json.dumps({"id": f"p{i}", "problem": problem}) for i, problem in enumerate(PROBLEMS)]
    path.write_text("\n".join([*lines[:2], "", *lines[2:]]) + "\n")
    return path


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint folder of a tiny random model."""

    def save(name: str, alphabet: str = task.ALPHABET, context: int = 54, head: bool = True) -> Path:
        config = tiny_config(len(alphabet), max_position_embeddings=context)
        params = {n: x for n, x in random_params(config).items() if head or not n.startswith("score.")}
        folder = tmp_path_factory.mktemp(name) / name
        checkpoint.save(folder, params, config, Tokenizer.of_characters(alphabet))
        return folder

    return save


@pytest.fixture(scope="session")
def answers() -> Callable[[Path], list[dict[str, Any]]]:
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]
