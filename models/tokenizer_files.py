"""The tokenizer of a checkpoint folder: `tokenizer.json`, and what the files beside it say of special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from ppl.models.chat import Template
from ppl.models.files import CheckpointError, read_optional
from ppl.models.token_bytes import prefix_of
from ppl.models.tokenizer import Tokenizer

NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def load_tokenizer(folder: Path, about: Mapping[str, Any], vocab_size: int) -> Tokenizer:
    """The tokenizer of a folder whose `config.json` is `about`, for a model of `vocab_size` tokens.

    A text ends with the tokens that `config.json` or `generation_config.json` call `eos_token_id` (chat models list
    <|im_end|> or <|eot_id|> there), or where neither does, with the tokenizer's `eos_token`. A prompt begins with what
    the tokenizer's own template puts there, or as `add_bos_token` in `tokenizer_config.json` says.

    Raises:
        CheckpointError: the tokenizer is missing, damaged, of an unknown kind, or not that of the model.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(_missing(folder))
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise CheckpointError(f"{path}: {error}") from None
    largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    if backend.get_vocab_size() > vocab_size or largest >= vocab_size:
        raise CheckpointError(f"{path}: the tokenizer has {backend.get_vocab_size()} tokens, numbered to {largest}, "
                              f"but the model knows only {vocab_size}: it is that of another model")  # fmt: skip
    config = read_optional(folder / "tokenizer_config.json")
    names = _names(read_optional(folder / "special_tokens_map.json")) | _names(config)
    eos = [*_eos(folder / "config.json", about)]
    eos += _eos(folder / "generation_config.json", read_optional(folder / "generation_config.json"))
    if not eos and (token := backend.token_to_id(names.get("eos_token", ""))) is not None:
        eos = [token]
    for token in eos:
        if backend.id_to_token(token) is None:
            raise CheckpointError(f"{path}: there is no token {token}, which is the eos_token_id in config.json or "
                                  "generation_config.json: it is the tokenizer of another model")  # fmt: skip
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    template = _template(folder, config)
    try:
        tokenizer = Tokenizer(
            backend, sorted(set(eos)), prefix=_prefix(backend, config, names),
            template=None if template is None else Template(template, names, special),
        )  # fmt: skip
        tokenizer.token_bytes()
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return tokenizer


def _eos(path: Path, about: Mapping[str, Any]) -> list[int]:
    eos = about.get("eos_token_id")
    eos = [] if eos is None else [eos] if isinstance(eos, int) else eos
    if not isinstance(eos, list) or not all(isinstance(token, int) for token in eos):
        raise CheckpointError(f"{path}: eos_token_id must be a token id or a list of them, not {eos!r}")
    return eos


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """The names of special tokens, which stand there plain or with their flags."""
    found = {name: config.get(name) for name in NAMES}
    found = {name: what.get("content") if isinstance(what, dict) else what for name, what in found.items()}
    return {name: what for name, what in found.items() if isinstance(what, str)}


def _prefix(backend: tokenizers.Tokenizer, config: Mapping[str, Any], names: Mapping[str, str]) -> list[int]:
    if config.get("add_bos_token") is None:
        return prefix_of(backend)
    token = backend.token_to_id(names.get("bos_token", ""))
    return [token] if config["add_bos_token"] and token is not None else []


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template; of several the one called default."""
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {part["name"]: part["template"] for part in found if isinstance(part, dict) and len(part) == 2}.get(
            "default"
        )
    return found if isinstance(found, str) else None


def _missing(folder: Path) -> str:
    start = f"{folder / 'tokenizer.json'} does not exist"
    others = [
        name for name in ("tokenizer.model", "vocab.json", "spiece.model", "tekken.json") if (folder / name).is_file()
    ]
    if not others:
        return f"{start}: a checkpoint is a folder with config.json, model.safetensors and tokenizer.json"
    return (
        f"{start}, only {others[0]}: convert it once, where transformers is installed: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    )
