"""Checkpoints: a folder with `config.json`, safetensors and `tokenizer.json`, as Hugging Face writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from ppl.models.files import WEIGHTS, CheckpointError, read_json
from ppl.models.tokenizer import Tokenizer
from ppl.models.tokenizer_files import load_tokenizer
from ppl.models.transformer import Config, Params, shapes
from ppl.models.weights import FLOATS, Weights

__all__ = ["CheckpointError", "load", "save"]

STEP_HEAD = ("score.weight", "score.bias")
"""The head of models that judge the steps they write: see `language_model.StepReward`."""


def save(folder: Path, params: Params, config: Config, tokenizer: Tokenizer) -> None:
    """Write a checkpoint folder; weights as float16, which halves the file and moves log-probs by < 1e-2 nats."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {**config.to_json(), "eos_token_id": sorted(tokenizer.eos)}
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    save_file({name: np.asarray(value, np.float16) for name, value in params.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    tokenizer.backend.save(str(folder / "tokenizer.json"))


def load(
    folder: Path | str, dtype: str | None = None, heads: Sequence[str] | None = None
) -> tuple[Params, Config, Tokenizer]:
    """Parameters, sizes and tokenizer of a checkpoint folder.

    `dtype` is float32, bfloat16 or float16. By default it is float32 on a CPU, where 16 bits are slower, and what the
    file holds elsewhere. Heads are float32 whatever it is: they are small, and their scores are weights.

    With `heads`, the folder is that of a model that judges: it need not have an `lm_head.weight`, and its tensors whose
    names begin with one of `heads` ("score.", "v_head.") are given too, in the shapes they have; each must be there.
    Without, it is a language model, which can have a head for its steps (`score.weight`, `score.bias`).

    Raises:
        CheckpointError: a file is missing, damaged, or lacks something; tensors are missing, misshapen or unknown; the
            architecture is not known; the tokenizer is another model's.
        ValueError: no such dtype.
    """
    if dtype not in (None, *FLOATS.values()):
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(FLOATS.values())}")
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder / 'config.json'} does not exist: a checkpoint is a folder with config.json, "
                              "model.safetensors and tokenizer.json")  # fmt: skip
    about = read_json(folder / "config.json")
    try:
        config = Config.from_json(about)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error.args[0]}") from None
    weights = Weights(folder)
    names = _chosen(weights, config, heads)
    tokenizer = load_tokenizer(folder, about, config.vocab_size)
    if dtype is None:
        stored = FLOATS.get(weights.types["model.embed_tokens.weight"], "float32")
        dtype = "float32" if jax.default_backend() == "cpu" else stored
    params, backbone = dict[str, jax.Array](), shapes(config)
    for name, value in weights.read(names):
        with np.errstate(over="ignore"):  # said below
            params[name] = jnp.asarray(value, dtype if name in backbone else jnp.float32)
        if not jnp.isfinite(params[name]).all():
            why = f"does not fit {dtype}" if np.isfinite(np.asarray(value, np.float32)).all() else "is damaged"
            raise CheckpointError(f"{weights.files[name]}: {name} holds inf or nan: it {why}")
    return params, config, tokenizer


def _chosen(weights: Weights, config: Config, heads: Sequence[str] | None) -> list[str]:
    """The names of the tensors to read, after a check that they are there and as they should be."""
    expected, found = shapes(config), weights.shapes
    if heads is None:
        if STEP_HEAD[0] in found:
            expected |= {STEP_HEAD[0]: (1, config.hidden_size), STEP_HEAD[1]: (1,)}
    else:
        expected.pop("lm_head.weight", None)
        for head in heads:
            taken = {name: shape for name, shape in found.items() if name.startswith(head)}
            if not taken:
                raise CheckpointError(f"{weights.main} has no tensor {head}...: it is not a model of that kind")
            expected |= taken
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"{weights.main} lacks the tensor {name}")
        if found[name] != shape:
            raise CheckpointError(f"{weights.files[name]}: {name} has shape {found[name]}, config.json implies {shape}")
    harmless = config.tie_word_embeddings or heads is not None
    unknown = sorted(name for name in found if name not in expected and not (_stray(name, harmless)))
    if unknown:
        raise CheckpointError(f"{weights.files[unknown[0]]} holds tensors that this architecture does not use: "
                              f"{', '.join(unknown[:5])}")  # fmt: skip
    return list(expected)


def _stray(name: str, no_lm_head: bool) -> bool:
    """Whether files are known to hold a tensor that nobody needs: a constant of RoPE, the copy of a tied embedding."""
    return re.fullmatch(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq", name) is not None or (
        no_lm_head and name == "lm_head.weight"
    )
