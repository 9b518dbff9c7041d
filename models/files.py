"""Finding and reading the files of a checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
WANTED = ("config.json", "generation_config.json", INDEX, "model*.safetensors", *TOKENIZER)
"""All that is ever downloaded: no pickle, no code."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file and what is wrong with it."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: naming the file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not an object: {str(data)[:60]!r}")
    return data


def read_optional(path: Path) -> dict[str, Any]:
    """As `read_json`, and nothing if there is no file."""
    return read_json(path) if path.is_file() else {}


def find(path: Path | str) -> Path:
    """The folder of a checkpoint: `path` itself, or where the hub's cache keeps the model of that id.

    Raises:
        CheckpointError: there is no such folder, and the id is not cached and cannot be downloaded.
    """
    if Path(path).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) or str(path).startswith("."):
        return Path(path)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(f"{path} is no folder; to look it up as a model of the Hugging Face hub, "
                              "pip install huggingface_hub") from None  # fmt: skip
    try:
        folder = Path(snapshot_download(str(path), local_files_only=True))
        if _complete(folder):
            return folder
    except Exception:  # not in the cache: each version of the library has errors of its own for it
        pass
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(WANTED)))
    except Exception as error:  # as above, and those of the network
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is no folder, is not in the local cache of the Hugging Face hub and cannot "
                              f"be downloaded ({reason}): give the path of a folder") from None  # fmt: skip


def _complete(folder: Path) -> bool:
    """Whether a cached model has all its weights: others may have fetched a part only."""
    if not all((folder / name).is_file() for name in ("config.json", "tokenizer.json")):
        return False
    if (folder / WEIGHTS).is_file():
        return True
    shards = set(read_optional(folder / INDEX).get("weight_map", {}).values())
    return bool(shards) and all((folder / shard).is_file() for shard in shards)
