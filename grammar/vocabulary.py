"""Vocabularies: what each token writes, as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b

import numpy as np


class Node:
    """What begins with some bytes: the tokens that are these, and longer ones."""

    __slots__ = ("children", "tokens")

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.tokens: list[int] = []


class Vocabulary:
    """`tokens[i]` are the bytes of token i, empty for those that are no text; `eos` are the tokens that end a text.

    Special tokens write nothing, whatever their names look like, and nor do tokens that a model has beyond those of its
    tokenizer (`size` of them in all): a grammar never matches them. A token may be a part of a character.
    """

    def __init__(self, tokens: Sequence[bytes], eos: Iterable[int] = (), size: int | None = None) -> None:
        self.eos = frozenset(eos)
        self.tokens = [b"" if i in self.eos else token for i, token in enumerate(tokens)]
        self.size = len(tokens) if size is None else size

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        """One token for each byte, and one, 256, that ends a text."""
        return cls([*(bytes([byte]) for byte in range(256)), b""], [256])

    def text(self, block: Iterable[int]) -> str:
        """What some tokens write."""
        return b"".join([self.tokens[token] for token in block if token < len(self.tokens)]).decode()

    @cached_property
    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens that write something: their ids, all their bytes, and where each begins, with the end."""
        ids = np.array([i for i, token in enumerate(self.tokens) if token], np.int32)
        lengths = np.array([len(self.tokens[i]) for i in ids], np.int64)
        return ids, np.frombuffer(b"".join(self.tokens), np.uint8), np.append(0, np.cumsum(lengths))

    @cached_property
    def trie(self) -> Node:
        """The tokens that write something, by their bytes."""
        root = Node()
        for i, token in enumerate(self.tokens):
            if token:
                node = root
                for byte in token:
                    node = node.children.setdefault(byte, Node())
                node.tokens.append(i)
        return root

    @cached_property
    def digest(self) -> bytes:
        """Equal for equal vocabularies."""
        ids, data, starts = self.joined
        what = [ids.tobytes(), data.tobytes(), starts.tobytes(), repr((sorted(self.eos), self.size)).encode()]
        return blake2b(b"".join(what), digest_size=16).digest()

    def __repr__(self) -> str:
        return f"Vocabulary({self.size} tokens, {len(self.eos)} of them ends)"
