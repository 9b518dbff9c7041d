"""Small vocabularies of the kinds that checkpoints have, trained here, in folders that transformers reads too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "Hello world, this is a test. Hello again, world!\n\n",
    "The question is: what is 12 * 34? Let us think, step by step.\n\nStep 1: 12 * 34 = 408\n",
    "naïve café, Привет мир, 你好世界, 😀 😃\n",
    "def f(x):\n    return x\n\n\n",
]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def _byte_level(specials: list[str], prefix_space: bool = False) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet))
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return backend


def qwen() -> Tokenizer:
    """Byte-level, NFC, no token in front; <think> is an added token that is text."""
    backend = _byte_level(CHAT)
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def llama3() -> Tokenizer:
    """Byte-level, begins with <|begin_of_text|>."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    backend = _byte_level(names)
    begin = (names[0], backend.token_to_id(names[0]))
    template = processors.TemplateProcessing(single=f"{names[0]} $A", special_tokens=[begin])
    backend.post_processor = processors.Sequence([processors.ByteLevel(), template])
    return backend


def _sentencepiece() -> Tokenizer:
    """BPE over text in which spaces are U+2581, rare characters as bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS[:2] * 3, trainers.BpeTrainer(vocab_size=150))
    data = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [piece for piece in data["vocab"] if piece != "\n"]  # newlines are bytes, as in Llama 2
    merges = [(a, b) for a, b in data["merges"] if "\n" not in a + b]
    vocab = {piece: i for i, piece in enumerate([*names, *pieces])}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names[:3]])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def llama2() -> Tokenizer:
    """As in the files of 2023: a normalizer writes the spaces, and one in front of each run of text."""
    backend = _sentencepiece()
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return backend


def mistral() -> Tokenizer:
    """As in newer files: a pre-tokenizer writes the spaces, and one in front of the text."""
    backend = _sentencepiece()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


def gpt2() -> Tokenizer:
    """Byte-level with a space put in front."""
    return _byte_level(["<|endoftext|>"], prefix_space=True)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "qwen": qwen, "llama 3": llama3, "llama 2": llama2, "mistral": mistral, "gpt 2": gpt2,
}  # fmt: skip


def save(kind: str, folder: Path, **config: Any) -> Any:
    """Write the vocabulary to a folder as transformers does; its own tokenizer of that folder."""
    names = {
        "qwen": (None, "<|im_end|>"),
        "llama 3": ("<|begin_of_text|>", "<|eot_id|>"),
        "gpt 2": (None, "<|endoftext|>"),
    }
    bos, eos = names.get(kind, ("<s>", "</s>"))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](), bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False, **config
    )
    fast.save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
