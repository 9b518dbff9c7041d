"""Small random models, one of each kind per session: compiled code is shared between the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import pytest

from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.text import Tokenizer
from ppl.models.transformer import Config, Params, init_params

MakeConfig = Callable[..., Config]
MakeModel = Callable[..., LanguageModel]


def tiny_config(vocab_size: int, **other: object) -> Config:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 24, "rope_theta": 100.0}  # fmt: skip
    return Config(vocab_size=vocab_size, **(sizes | other))  # pyright: ignore[reportArgumentType]


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


def make_model(alphabet: str = "abcd", eos: str = "", context: int = 24) -> LanguageModel:
    """A fresh engine (nothing cached) over shared random parameters."""
    plain = Tokenizer.of_characters(alphabet)
    config = tiny_config(len(alphabet), max_position_embeddings=context)
    tokenizer = Tokenizer(plain.backend, [alphabet.index(c) for c in eos])
    return LanguageModel(Engine(random_params(config), config), tokenizer, "tiny")


@pytest.fixture(scope="session")
def config_of() -> MakeConfig:
    return tiny_config


@pytest.fixture(scope="session")
def params_of() -> Callable[..., Params]:
    return random_params


@pytest.fixture(scope="session")
def new_model() -> MakeModel:
    return make_model
