"""`Text`: an immutable token sequence."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator
from typing import Any

import numpy as np

from ppl.codec import register
from ppl.models.tokenizer import TOKEN_BYTES, Tokenizer

TextKey = tuple[bytes, bytes]


class Text:
    """Tokens that never change, with a link to the text they extend: clones share them.

    Two texts are equal when their tokens are. `log_prob` is what the sampler reported for the tokens after
    `parent`: nats, summed over tokens, under the distribution they were drawn from, a grammar left out; None if they
    were not drawn.

    A text is a chain of links, each the tokens behind a `parent`: *sampled* where `log_prob` is a number, else *given*
    (a prompt, `text + "..."`). A link without tokens is none. For `key`, sampled links that follow each other are one:
    a model computes the same, however many blocks the tokens were drawn in.

    `str(text)` is what a reader sees (`Tokenizer.decode`): no special tokens, and the bytes of a character at the end
    only once it is whole. So `str(text) == str(text.parent) + text.last` even where a block ends inside a character.
    """

    __slots__ = (
        "_last",
        "_prompt",
        "data",
        "drawn_by",
        "full",
        "links",
        "log_model",
        "log_prob",
        "log_q",
        "parent",
        "tokenizer",
    )

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
        self.log_q: float | None = None  # where a grammar steered the draw: under what it was drawn from
        # One int32 a link: where it ends, in bytes (a multiple of 4), plus 1 if it was sampled.
        if parent is None:
            self.links = len(data).to_bytes(4, "little") if data else b""
        elif len(data) == len(parent.data):
            self.links = parent.links
        else:
            before = parent.links
            if log_prob is not None and before and before[-4] & 1:  # two sampled ones are one
                before = before[:-4]
            self.links = before + (len(data) + (log_prob is not None)).to_bytes(4, "little")
        self._last: str | None = None  # once somebody has asked: clones ask again
        self._prompt: Text | None = None  # all of it is given
        if parent is not None:
            self._prompt = parent if parent._prompt is None and self.sampled else parent._prompt

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str) -> Text:
        """The tokens of a string."""
        return cls(tokenizer, tokenizer.encode(text))

    @property
    def key(self) -> TextKey:
        """The tokens and how they came about, (data, links): with equal keys, a model computes the same bits."""
        return self.data, self.links

    @property
    def sampled(self) -> bool:
        """Whether what was written after `parent` was drawn from a distribution."""
        return self.log_prob is not None and self.parent is not None

    @property
    def prompt(self) -> Text:
        """What was given before anything was sampled."""
        return self if self._prompt is None else self._prompt

    @property
    def start(self) -> int:
        """Tokens before the last link."""
        return 0 if self.parent is None else len(self.parent)

    def chain(self, until: Container[TextKey] = ()) -> Iterator[Text]:
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
        """What a reader sees more of than of `parent`."""
        if self._last is None:
            before = self.parent.data if self.parent else b""
            self._last = self.tokenizer.decode(self.data[len(before) :], before)
        return self._last

    @property
    def finished(self) -> bool:
        """Whether the text ends in an end-of-text token, or fills the context of the model that wrote it."""
        return self.full or self.tokenizer.ends(self.data)

    def __add__(self, text: str) -> Text:
        """The text followed by given (not sampled) characters; names of special tokens become those."""
        write = self.tokenizer.follow if self.data else self.tokenizer.encode
        return Text(self.tokenizer, self.data + write(text), self)

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
    tokenizer = Tokenizer.find(body["tokenizer"])
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
