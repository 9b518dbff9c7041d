"""`Tokenizer`: from strings to tokens and back, also where a text is cut inside a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
import tokenizers

from ppl.models import token_bytes

if TYPE_CHECKING:
    from ppl.models.chat import Template

TOKEN_BYTES = 4


class Tokenizer:
    """A `tokenizers.Tokenizer` with its end-of-text tokens.

    What a reader sees of a text are the bytes of its tokens as UTF-8. *Special* tokens (<s>, <|im_end|>) steer the
    model and show nothing, though they are tokens like all others when texts are compared. Bytes that may still
    become a character are held back until the next token tells, so that what is seen only grows; bytes that cannot,
    or that a special token cuts off, read as U+FFFD.

    `prefix` are the tokens that a prompt begins with, where the vocabulary wants some; `template` lays out a chat.

    Raises:
        ValueError: tokens of this kind of vocabulary are no text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos: Sequence[int] = (),
        *,
        prefix: Sequence[int] = (),
        template: Template | None = None,
    ) -> None:
        backend.no_truncation()  # a `tokenizer.json` can ask for either; a text is all of its tokens and nothing else
        backend.no_padding()
        self.backend = backend
        self.eos = frozenset(eos)
        self.prefix = np.array(prefix, "<i4").tobytes()
        self.template = template
        self.size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._eos_data = frozenset(np.int32(t).tobytes() for t in eos)
        # Replay asks for the same prompts and lines again and again.
        self.encode = lru_cache(10_000)(self._encode)
        self.follow = lru_cache(10_000)(self._follow)
        self._show = lru_cache(100_000)(self._shown)
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
        """The tokens of a string at the start of a text, int32 as bytes; names of special tokens become those.

        Raises:
            ValueError: the vocabulary cannot write the text; names the first character that is lost.
        """
        follow = self.follow(text)  # raises for what is lost
        return follow if self._middle is self.backend else _ids(self.backend, text)

    def _follow(self, text: str) -> bytes:
        """The tokens of a string behind other text, int32 as bytes: as `encode`, with no space put in front.

        Raises:
            ValueError: the vocabulary cannot write the text; names the first character that is lost.
        """
        data = _ids(self._middle, text)
        if not self._writes(data, text):
            lost = next((c for c in text if not self._writes(_ids(self._middle, c), c)), text)
            raise ValueError(f"the tokenizer cannot write {lost!r} (in {text!r})")
        return data

    def verbatim(self, text: str) -> bytes:
        """As `follow`, but names of special tokens are text like any other.

        Raises:
            ValueError: the vocabulary cannot write the text, or writes it with special tokens only.
        """
        data = _ids(self._verbatim, text)
        if not self._writes(data, text) or not self.special.isdisjoint(np.frombuffer(data, "<i4").tolist()):
            raise ValueError(f"the tokenizer cannot write {text!r} other than as a special token")
        return data

    def decode(self, data: bytes, before: bytes = b"") -> str:
        """What a reader sees of the tokens `data` (int32 as bytes) behind those of `before`.

        decode(a + b) == decode(a) + decode(b, a).
        """
        first = self._written.leading_space and (
            not before or all(self._shows_nothing(int(token)) for token in np.frombuffer(before, "<i4"))
        )
        return self._show(data, self._held(before), first)

    def _shown(self, data: bytes, held: bytes, first: bool) -> str:
        out, run, pieces = "", [held], self.token_bytes()
        for token in np.frombuffer(data, "<i4").tolist():
            if self._shows_nothing(token):
                out += b"".join(run).decode("utf-8", "replace")
                run = []
            else:
                run.append(pieces[token])
        out += codecs.utf_8_decode(b"".join(run), "replace", False)[0]
        return out.removeprefix(" ") if first else out

    def _held(self, before: bytes) -> bytes:
        """The bytes at the end of `before` that do not show yet: at most 3."""
        tail, pieces = b"", self.token_bytes()
        for token in np.frombuffer(before[-3 * TOKEN_BYTES :], "<i4")[::-1].tolist():
            if self._shows_nothing(token) or len(tail) >= 3:
                break
            tail = pieces[token] + tail
            if tail[-1] < 0x80:  # the end of a character
                return b""
        return tail[codecs.utf_8_decode(tail, "replace", False)[1] :]

    def _writes(self, data: bytes, text: str) -> bool:
        """Whether these are tokens of `text`, up to how the vocabulary normalizes it and writes spaces."""
        out = b"".join([self._written.pieces[token] for token in np.frombuffer(data, "<i4").tolist()])
        if out == text.encode("utf-8", "surrogatepass"):
            return True
        normal = self._middle.normalizer.normalize_str(text) if self._middle.normalizer else text
        return out == normal.replace(token_bytes.SPACE, " ").encode("utf-8", "surrogatepass")

    @cached_property
    def _written(self) -> token_bytes.Written:
        return token_bytes.written(self.backend)

    @cached_property
    def _middle(self) -> tokenizers.Tokenizer:
        return token_bytes.without_prefix(self.backend)

    @cached_property
    def _verbatim(self) -> tokenizers.Tokenizer:
        return token_bytes.without_prefix(self.backend, added=False)

    @property
    def special(self) -> frozenset[int]:
        """Tokens that steer the model and show nothing."""
        return self._written.special

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [b"" if token in self.special else piece for token, piece in enumerate(self._written.pieces)]

    def _shows_nothing(self, token: int) -> bool:
        """Whether a token is no text; nothing joins across it."""
        return token >= self.size or not self._bytes[token]

    def token_bytes(self) -> list[bytes]:
        """What each token writes, by id: b"" for special tokens and ids without one, raw bytes for parts of characters.

        In SentencePiece vocabularies a first token's leading space is not part of the text: see `decode`.
        """
        return self._bytes

    def pieces(self) -> list[str]:
        """As `token_bytes`, as strings: a part of a character is U+FFFD."""
        return [piece.decode("utf-8", "replace") for piece in self._bytes]

    @cached_property
    def columns(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The bytes of all tokens, transposed: (ids from the longest token to the shortest, their first bytes, their
        second bytes, ...); each array is as long as there are tokens with such a byte."""
        lengths = np.array([len(piece) for piece in self._bytes])
        order = np.argsort(-lengths, kind="stable")
        joined = np.frombuffer(b"".join(self._bytes), np.uint8)
        starts = (np.cumsum(lengths) - lengths)[order]
        counts = [int(np.count_nonzero(lengths > at)) for at in range(lengths.max(initial=0))]
        return order, [joined[starts[:count] + at] for at, count in enumerate(counts)]

    @cached_property
    def fingerprint(self) -> str:
        """Equal for tokenizers of the same vocabulary, rules and end-of-text tokens: 32 hex digits of BLAKE2b."""
        what = f"{self.backend.to_str()}{sorted(self.eos)}"
        return blake2b(what.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def ends(self, data: bytes) -> bool:
        """Whether the last token is an end-of-text token."""
        return data[-TOKEN_BYTES:] in self._eos_data

    @staticmethod
    def find(fingerprint: str) -> Tokenizer | None:
        """The tokenizer of that fingerprint, if one is in use."""
        return next((tokenizer for tokenizer in list(_alive) if tokenizer.fingerprint == fingerprint), None)


_alive: WeakSet[Tokenizer] = WeakSet()  # texts in files name their tokenizer by its fingerprint


def _ids(backend: tokenizers.Tokenizer, text: str) -> bytes:
    try:
        return np.array(backend.encode(text, add_special_tokens=False).ids, "<i4").tobytes()
    except Exception:  # the library raises bare exceptions for what it cannot write
        return b""
