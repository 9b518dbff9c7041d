"""Checkpoints that transformers wrote: the same logits here, and for texts drawn here the same probabilities."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from ppl import models
from ppl.models import checkpoint
from ppl.models.text import Tokenizer
from ppl.models.transformer import Config, advance, init_params, logits
from ppl.source import Key

ALPHABET = "".join(map(chr, range(0x4E00, 0x4E00 + 67)))
SIZES = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 96, "eos_token_id": 66}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip


class Family(NamedTuple):
    model_type: str
    config: dict[str, Any] = {}  # noqa: RUF012
    matters: dict[str, Any] | None = None
    """Changes to our `Config` that must change the logits, or the variant is not tested."""


FAMILIES = {
    "llama 2": Family("llama", {}, {"rope_theta": 100.0}),
    "llama, all heads have keys, tied": Family("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama 3": Family("llama", {"rope_parameters": LLAMA3}, {"rope_scaling": None}),
    "llama, linear": Family(
        "llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, {"rope_scaling": None}
    ),
    "llama, biases": Family("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": Family("mistral", {"sliding_window": None}, {"sliding_window": 40}),
    "mistral, window": Family("mistral", {"sliding_window": 5, "head_dim": 16}, {"sliding_window": 6}),
    "qwen 2": Family("qwen2"),
    "qwen 2, tied": Family("qwen2", {"tie_word_embeddings": True}),
    "qwen 2, window": Family(
        "qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0}, {"sliding_window": None}
    ),
    "qwen 3": Family("qwen3", {"head_dim": 16}, {"model_type": "llama"}),
    "qwen 3, tied, biases": Family("qwen3", {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True}),
}


def build(family: Family, folder: Path, dtype: torch.dtype = torch.float32, **saving: Any) -> Any:
    """A random model of transformers, biases and norms random too, saved with a tokenizer of characters."""
    config = transformers.AutoConfig.for_model(family.model_type, **{**SIZES, **family.config})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder, **saving)
    Tokenizer.of_characters(ALPHABET).backend.save(str(folder / "tokenizer.json"))
    return model


def theirs(model: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens, dtype=torch.int64)).logits.float().numpy()


def ours(params: Any, config: Config, tokens: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        return np.asarray(_forward(params, config, tokens))


@jax.jit(static_argnames="config")
def _forward(params: Any, config: Config, tokens: Any) -> Any:
    return logits(params, advance(params, config, tokens)[0])


TOKENS = np.random.default_rng(0).integers(67, size=(2, 90))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    model = build(family, tmp_path)
    params, config, _ = checkpoint.load(tmp_path)
    expected = theirs(model, TOKENS)
    assert np.abs(ours(params, config, TOKENS) - expected).max() <= 2e-5
    assert expected.std() > 0.3
    if family.matters is not None:
        assert np.abs(ours(params, dataclasses.replace(config, **family.matters), TOKENS) - expected).max() > 1e-2


@pytest.mark.parametrize("name", ["llama 3", "mistral, window", "qwen 2", "qwen 3"])
def test_a_text_drawn_here_has_the_probability_that_transformers_gives_it(name: str, tmp_path: Path) -> None:
    model = build(FAMILIES[name], tmp_path)
    lm = models.load(tmp_path)
    prompt = lm.text(ALPHABET[:9])
    text = lm.extend(prompt, max_tokens=40).sample(Key.of(1))
    log_p = torch.log_softmax(torch.tensor(theirs(model, text.tokens[None])[0]), -1).numpy()
    drawn = log_p[np.arange(8, len(text) - 1), text.tokens[9:]]
    assert len(text) > 20 and text.log_prob is not None
    assert abs(text.log_prob - drawn.sum(dtype=np.float64)) <= 1e-4


def test_shards_are_one_model(tmp_path: Path) -> None:
    model = build(FAMILIES["qwen 2"], tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2 and not (tmp_path / "model.safetensors").exists()
    params, config, _ = checkpoint.load(tmp_path)
    assert np.abs(ours(params, config, TOKENS) - theirs(model, TOKENS)).max() <= 2e-5


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_what_is_stored_in_16_bits_is_read_exactly_and_runs_in_either_width(stored: str, tmp_path: Path) -> None:
    dtype = getattr(torch, stored)
    build(FAMILIES["qwen 3"], tmp_path, dtype)
    wide, config, _ = checkpoint.load(tmp_path)
    narrow, _, _ = checkpoint.load(tmp_path, dtype=stored)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)  # RoPE unrounded
    weights = model.state_dict()
    for name, value in wide.items():
        assert value.dtype == np.float32 and narrow[name].dtype == jnp.dtype(stored)
        np.testing.assert_array_equal(value, weights[name].numpy())
        np.testing.assert_array_equal(value, narrow[name].astype(np.float32))
    exact = theirs(model, TOKENS)
    assert np.abs(ours(wide, config, TOKENS) - exact).max() <= 2e-5
    rough = ours(narrow, config, TOKENS)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    off, their_off = (np.sqrt(np.mean((x - exact) ** 2)) for x in (rough, theirs(model, TOKENS)))
    assert rough.dtype == np.float32
    assert 1e-4 < off < 1.1 * their_off


@pytest.mark.parametrize("name", ["llama 3", "mistral, window", "qwen 2, window", "qwen 3, tied, biases"])
def test_what_is_saved_here_transformers_loads(name: str, tmp_path: Path) -> None:
    build(FAMILIES[name], tmp_path / "theirs")
    _, config, tokenizer = checkpoint.load(tmp_path / "theirs")
    checkpoint.save(tmp_path / "ours", init_params(config, jax.random.key(0)), config, tokenizer)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    params, again, _ = checkpoint.load(tmp_path / "ours")
    assert again == config and model.config.model_type == config.model_type
    assert np.abs(ours(params, again, TOKENS) - theirs(model, TOKENS)).max() <= 2e-5


def rewrite(folder: Path, **changes: Any) -> dict[str, Any]:
    """Change `config.json`; what is changed to None goes."""
    data = json.loads((folder / "config.json").read_text()) | changes
    data = {name: value for name, value in data.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(data))
    return data


def test_the_config_of_transformers_4_says_the_same(tmp_path: Path) -> None:
    build(FAMILIES["llama 3"], tmp_path)
    new = Config.from_json(json.loads((tmp_path / "config.json").read_text()))
    scaling = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    old = rewrite(tmp_path, rope_parameters=None, rope_theta=5000.0, rope_scaling=scaling, head_dim=None)
    assert Config.from_json(old) == new and new.rope_scaling is not None
    old = rewrite(tmp_path, rope_scaling={"type": "linear", "factor": 4.0})
    linear = Config.from_json(old).rope_scaling
    assert linear is not None and (linear.rope_type, linear.factor) == ("linear", 4.0)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_a_config_leaves_out_is_what_transformers_assumes(model_type: str) -> None:
    sizes = {
        "vocab_size": 11,
        "hidden_size": 64,
        "intermediate_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 32,
    }
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    read = Config.from_json({"model_type": model_type, **sizes})
    for name in ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(read, name) == getattr(config, name), name
    assert read.head_dim == (getattr(config, "head_dim", None) or 2)
    assert read.sliding_window == getattr(config, "sliding_window", None)
    assert read.rope_theta == config.rope_parameters["rope_theta"] and read.rope_scaling is None
