"""`Text`: an immutable token sequence, and the tokenizer that reads and writes it."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any
from weakref import WeakSet

import numpy as np
import tokenizers

from ppl.codec import register

TOKEN_BYTES = 4


class Tokenizer:
    """A `tokenizers.Tokenizer` with its end-of-text tokens."""

    def __init__(self, backend: tokenizers.Tokenizer, eos: Sequence[int] = ()) -> None:
        self.backend = backend
        self.eos = frozenset(eos)
        self.size = backend.get_vocab_size()
        self._eos_data = frozenset(np.int32(t).tobytes() for t in eos)
        # Replay asks for the same prompts and lines again and again.
        self.encode = lru_cache(10_000)(self._encode)
        self.decode = lru_cache(100_000)(self._decode)
        _alive.add(self)

    @classmethod
    def of_characters(cls, alphabet: str) -> Tokenizer:
        """One token per character, numbered in the order of `alphabet`."""
        model = tokenizers.models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token="")
        backend = tokenizers.Tokenizer(model)
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        backend.decoder = tokenizers.decoders.Fuse()
        return cls(backend)

    def _encode(self, text: str) -> bytes:
        """Token ids, int32 as bytes.

        Raises:
            ValueError: the vocabulary cannot write the text; names the first character that is lost.
        """
        try:
            ids = self.backend.encode(text, add_special_tokens=False).ids
        except Exception:  # the library raises bare exceptions
            ids = []
        if self.backend.decode(ids, skip_special_tokens=False) != text:
            known = self.backend.get_vocab()
            lost = next((c for c in text if c not in known), text)
            raise ValueError(f"the tokenizer cannot write {lost!r} (in {text!r})")
        return np.array(ids, "<i4").tobytes()

    def _decode(self, data: bytes) -> str:
        """The text of int32 token ids given as bytes."""
        return self.backend.decode(np.frombuffer(data, "<i4").tolist(), skip_special_tokens=False)

    def pieces(self) -> list[str]:
        """What each token writes, by id."""
        return [self.backend.decode([i], skip_special_tokens=False) for i in range(self.size)]

    @cached_property
    def fingerprint(self) -> str:
        """Equal for tokenizers of the same vocabulary, rules and end-of-text tokens: 32 hex digits of BLAKE2b."""
        what = f"{self.backend.to_str()}{sorted(self.eos)}"
        return blake2b(what.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def ends(self, data: bytes) -> bool:
        """Whether the last token is an end-of-text token."""
        return data[-TOKEN_BYTES:] in self._eos_data


_alive: WeakSet[Tokenizer] = WeakSet()  # texts in files name their tokenizer by its fingerprint


class Text:
    """Tokens that never change, with a link to the text they extend: clones share them.

    Two texts are equal when their tokens are. `log_prob` is what the sampler reported for the tokens after
    `parent`: nats, summed over tokens, under the distribution they were drawn from; None if they were not drawn.

    A text is a chain of links, each the tokens behind a `parent`: *sampled* where `log_prob` is a number, else *given*
    (a prompt, `text + "..."`). A link without tokens is none.
    """

    __slots__ = ("data", "drawn_by", "full", "links", "log_model", "log_prob", "parent", "tokenizer")

    def __init__(
        self,
        tokenizer: Tokenizer,
        data: bytes,
        parent: Text | None = None,
        log_prob: float | None = None,
        full: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.data = data
        self.parent = parent
        self.log_prob = log_prob
        self.full = full  # the model's context has no room for more
        self.drawn_by: Hashable = None  # under which `log_prob` is that of the last link: see `Extension.drawn_by`
        self.log_model: float | None = None  # of the last link, under the model as it is; known if `drawn_by` is
        # One int32 a link: where it ends, in bytes (a multiple of 4), plus 1 if it was sampled.
        if parent is None:
            self.links = len(data).to_bytes(4, "little") if data else b""
        elif len(data) == len(parent.data):
            self.links = parent.links
        else:
            self.links = parent.links + (len(data) + (log_prob is not None)).to_bytes(4, "little")

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str) -> Text:
        """The tokens of a string."""
        return cls(tokenizer, tokenizer.encode(text))

    @property
    def key(self) -> tuple[bytes, bytes]:
        """The tokens and how they came about, (data, links): with equal keys, a model computes the same bits."""
        return self.data, self.links

    @property
    def sampled(self) -> bool:
        """Whether what was written after `parent` was drawn from a distribution."""
        return self.log_prob is not None and self.parent is not None

    @property
    def start(self) -> int:
        """Tokens before the last link."""
        return 0 if self.parent is None else len(self.parent)

    def chain(self, until: Container[tuple[bytes, bytes]] = ()) -> Iterator[Text]:
        """This text, then its ancestors; from links without tokens the parent. Ends before a key of `until`."""
        text: Text | None = self
        while text is not None and text.data and text.key not in until:
            if text.parent is None or text.links != text.parent.links:
                yield text
            text = text.parent

    @property
    def tokens(self) -> np.ndarray:
        """int32 [length]."""
        return np.frombuffer(self.data, "<i4")

    @property
    def last(self) -> str:
        """What was written after `parent`."""
        return self.tokenizer.decode(self.data[len(self.parent.data) :] if self.parent else self.data)

    @property
    def finished(self) -> bool:
        """Whether the text ends in an end-of-text token, or fills the context of the model that wrote it."""
        return self.full or self.tokenizer.ends(self.data)

    def __add__(self, text: str) -> Text:
        """The text followed by given (not sampled) characters."""
        return Text(self.tokenizer, self.data + self.tokenizer.encode(text), self)

    def __len__(self) -> int:
        return len(self.data) // TOKEN_BYTES

    def __str__(self) -> str:
        return self.tokenizer.decode(self.data)

    def __repr__(self) -> str:
        return f"Text({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)


def _to(text: Text) -> dict[str, Any]:
    """Tokens, and of each text of the chain from the first to this one: length in tokens, log_prob, full."""
    chain: list[list[Any]] = []
    link: Text | None = text
    while link is not None:
        if link.tokenizer is not text.tokenizer or not text.data.startswith(link.data):
            raise TypeError("extends a text that it does not begin with, or one of another tokenizer")
        chain.append([len(link), link.log_prob, link.full])
        link = link.parent
    return {"tokens": text.tokens.tolist(), "chain": chain[::-1], "tokenizer": text.tokenizer.fingerprint}


def _from(body: dict[str, Any]) -> Text:
    tokenizer = next((t for t in list(_alive) if t.fingerprint == body["tokenizer"]), None)
    if tokenizer is None:
        raise ValueError(
            f"no tokenizer with fingerprint {body['tokenizer']} is in use: load the model of the text first"
        )
    data = np.array(body["tokens"], "<i4").tobytes()
    text: Text | None = None
    for length, log_prob, full in body["chain"]:
        text = Text(tokenizer, data[: length * TOKEN_BYTES], text, log_prob, full)
    if text is None:
        raise ValueError("a text without its chain")
    return text


register(Text, "text", _to, _from)
