"""What each token of a vocabulary writes, as bytes, and variants of a tokenizer for text in the middle of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import tokenizers

SPACE = "\u2581"  # how SentencePiece writes a space


class Written(NamedTuple):
    """What the tokens of a vocabulary write."""

    pieces: list[bytes]
    """By id. Special tokens have their name here, ids without a token nothing."""
    special: frozenset[int]
    """Tokens that steer the model and are no text: those that the vocabulary calls special."""
    leading_space: bool
    """Whether the first token of a text writes a space that is not in the text (SentencePiece's dummy prefix)."""


def written(backend: tokenizers.Tokenizer) -> Written:
    """What the tokens of `backend` write, by its decoder.

    Byte-level vocabularies (GPT-2, Llama 3, Qwen) name each byte by a character; SentencePiece ones (Llama 2, Mistral)
    write a space as U+2581 and bytes of rare characters as <0x0A>; without either, tokens write their names.

    Raises:
        ValueError: the decoder does something else.
    """
    steps = list(_steps(backend.decoder))
    kinds = {step["type"] for step in steps}
    if unknown := kinds - {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}:
        raise ValueError(f"the decoder {', '.join(sorted(unknown))} is not supported: byte-level and SentencePiece "
                         "vocabularies are, and those whose tokens are what they write")  # fmt: skip
    spaces = [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]
    for step in steps:
        if step["type"] == "Replace":
            if "String" not in step["pattern"]:
                raise ValueError(f"a decoder that replaces {step['pattern']} is not supported: only plain strings are")
            spaces.append((step["pattern"]["String"], step["content"]))
    strips = any(step["type"] == "Strip" and step["content"] == " " and step["start"] for step in steps)
    prefix = any(step["type"] == "Metaspace" and step.get("prepend_scheme") != "never" for step in steps)
    named = backend.get_vocab(with_added_tokens=True)
    added = backend.get_added_tokens_decoder()
    pieces = [b""] * (max(named.values(), default=-1) + 1)
    for piece, token in named.items():
        if token in added:
            pieces[token] = added[token].content.encode("utf-8", "surrogatepass")
        elif "ByteLevel" in kinds:
            pieces[token] = _byte_level(piece)
        elif "ByteFallback" in kinds and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            pieces[token] = bytes([int(piece[3:5], 16)])
        else:
            for old, new in spaces:
                piece = piece.replace(old, new)
            pieces[token] = piece.encode("utf-8", "surrogatepass")
    special = frozenset(token for token, what in added.items() if what.special)
    return Written(pieces, special, strips or prefix)


def without_prefix(backend: tokenizers.Tokenizer, *, added: bool = True) -> tokenizers.Tokenizer:
    """A tokenizer for what follows other text: it puts no space in front.

    With `added` false it does not know the added tokens either: what looks like one is text.
    """
    if added and not any(
        _prefixes(step) for part in (backend.normalizer, backend.pre_tokenizer) for step in _steps(part)
    ):
        return backend
    data = json.loads(backend.to_str())
    data["normalizer"], data["pre_tokenizer"] = _bare(data["normalizer"]), _bare(data["pre_tokenizer"])
    if not added:
        data["added_tokens"], data["post_processor"] = [], None
    return tokenizers.Tokenizer.from_str(json.dumps(data))


def prefix_of(backend: tokenizers.Tokenizer) -> list[int]:
    """The tokens that the tokenizer's own template puts in front of a text, usually one or none."""
    for step in _steps(backend.post_processor):
        if step["type"] == "TemplateProcessing":
            in_front = takewhile(lambda part: "SpecialToken" in part, step["single"])
            return [token for part in in_front for token in step["special_tokens"][part["SpecialToken"]["id"]]["ids"]]
    return []


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a part of a tokenizer, out of their sequences."""
    if part is not None:
        yield from _flat(json.loads(part.__getstate__()))


def _flat(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if step["type"] != "Sequence":
        yield step
    for name in ("decoders", "normalizers", "pretokenizers", "processors"):
        for part in step.get(name, ()):
            yield from _flat(part)


def _prefixes(step: dict[str, Any]) -> bool:
    if step["type"] == "Metaspace":
        return step.get("prepend_scheme") != "never"
    return step["type"] == "Prepend" or (step["type"] == "ByteLevel" and step["add_prefix_space"])


def _bare(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """The step without the space it puts in front."""
    if step is None or step["type"] == "Prepend":
        return None
    out = dict(step)
    for name in ("normalizers", "pretokenizers"):
        if name in out:
            out[name] = [bare for part in out[name] if (bare := _bare(part)) is not None]
    if step["type"] == "Metaspace":
        out["prepend_scheme"] = "never"
    if step["type"] == "ByteLevel":
        out["add_prefix_space"] = False
    return out


def _byte_names() -> dict[int, int]:
    """For `str.translate`: the characters by which GPT-2 names bytes to those bytes; others below 256 to no byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return (
        dict.fromkeys(rest, 0xFFFF)
        | dict(zip(plain, plain, strict=True))
        | dict(zip(range(256, 512), rest, strict=False))
    )


_BYTES = _byte_names()


def _byte_level(piece: str) -> bytes:
    try:
        return piece.translate(_BYTES).encode("latin-1")
    except UnicodeEncodeError:  # a name that is not made of bytes stands for itself
        return piece.encode("utf-8", "surrogatepass")
