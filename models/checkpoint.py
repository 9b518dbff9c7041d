"""Checkpoints: a folder with `config.json`, `model.safetensors` and `tokenizer.json`, as Hugging Face writes them."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
import tokenizers
from safetensors.numpy import load_file, save_file

from ppl.models.text import Tokenizer
from ppl.models.transformer import Config, Params, shapes


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be loaded; the message names the file and what is wrong with it."""


def save(folder: Path, params: Params, config: Config, tokenizer: Tokenizer) -> None:
    """Write a checkpoint folder; weights as float16, which halves the file and moves log-probs by < 1e-2 nats."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {**config.to_json(), "eos_token_id": sorted(tokenizer.eos)}
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    save_file({name: np.asarray(value, np.float16) for name, value in params.items()}, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.backend.save(str(folder / "tokenizer.json"))


def load(folder: Path | str) -> tuple[Params, Config, Tokenizer]:
    """Parameters (float32), sizes and tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: a file is missing, damaged, or lacks something; tensors are missing, misshapen or unknown.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} does not exist: a checkpoint is a folder with config.json, "
                                  "model.safetensors and tokenizer.json")  # fmt: skip
    try:
        about = json.loads((folder / "config.json").read_text())
        config = Config.from_json(about)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error.args[0]}") from None
    weights = folder / "model.safetensors"
    try:
        tensors = load_file(weights)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{weights} is damaged or truncated ({error}): copy or download it again") from None
    try:
        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:
        raise CheckpointError(f"{folder / 'tokenizer.json'}: {error}") from None
    _check(weights, tensors, config)
    if backend.get_vocab_size() > config.vocab_size:
        raise CheckpointError(f"{folder}: the tokenizer has {backend.get_vocab_size()} tokens but the model knows only "
                              f"{config.vocab_size}")  # fmt: skip
    eos = about.get("eos_token_id") or []
    eos = [eos] if isinstance(eos, int) else eos
    if not isinstance(eos, list) or not all(isinstance(token, int) for token in eos):
        raise CheckpointError(
            f"{folder / 'config.json'}: eos_token_id must be a token id or a list of them, not {eos!r}"
        )
    return (
        {name: jnp.asarray(value, jnp.float32) for name, value in tensors.items()},
        config,
        Tokenizer(backend, eos),
    )


def _check(path: Path, tensors: dict[str, np.ndarray], config: Config) -> None:
    expected = shapes(config)
    if "score.weight" in tensors:
        expected |= {"score.weight": (1, config.hidden_size), "score.bias": (1,)}
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{path} lacks the tensor {name}")
        if tensors[name].shape != shape:
            raise CheckpointError(f"{path}: {name} has shape {tensors[name].shape}, config.json implies {shape}")
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise CheckpointError(f"{path} holds tensors that this architecture does not use: {', '.join(unknown[:5])}")
