"""Blocks of text as distributions: what `LanguageModel.extend` denotes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl.models.draw import Options
from ppl.models.pieces import Pieces
from ppl.models.stops import check_block
from ppl.models.text import Text
from ppl.models.tokenizer import TOKEN_BYTES
from ppl.source import Key

if TYPE_CHECKING:
    from ppl.models.language_model import LanguageModel


class Extension:
    """The distribution over texts that `LanguageModel.extend` denotes."""

    __slots__ = ("lm", "max_tokens", "options", "state", "text", "until")

    def __init__(
        self, lm: LanguageModel, text: Text, until: tuple[str, ...], max_tokens: int, options: Options, state: int = 0
    ) -> None:
        if not isinstance(text, Text):
            raise TypeError(f"extend needs a Text, like lm.text({text!r})")
        check_block(until, max_tokens)
        if len(text.data) >= lm.engine.full:
            raise ValueError(f"extend: a text of {len(text)} tokens fills the context of {lm.engine.capacity}")
        self.lm = lm
        self.text = text
        self.until = until
        self.max_tokens = max_tokens
        self.options = options
        self.state = state
        """Of the stop: what `text`, that goes on with a block, has matched of `until`."""

    @property
    def family(self) -> Hashable:
        return self.lm.engine, self.until, self.max_tokens, self.options

    @property
    def drawn_by(self) -> Hashable:
        """What a text that this distribution drew carries: its log probability need not be computed again."""
        return self.lm.engine, self.options

    @staticmethod
    def begin_many(keys: Sequence[Key], dists: Sequence[Extension]) -> Callable[[], list[Text]]:
        """Start one block for each, decoded together; the returned function waits for them."""
        lm, until, max_tokens, options = dists[0].lm, dists[0].until, dists[0].max_tokens, dists[0].options
        data = np.frombuffer(b"".join([key.digest[:8] for key in keys]), "<u4").reshape(-1, 2)
        states = np.array([dist.state for dist in dists], np.int32)
        finish = lm.engine.decode([dist.text for dist in dists], data, lm.stop(until)[0], max_tokens, options, states)

        def texts() -> list[Text]:
            out = finish()
            for dist, text in zip(dists, out, strict=True):
                text.drawn_by = dist.drawn_by
                dist.lm.tokens += (len(text.data) - len(dist.text.data)) // TOKEN_BYTES
            return out

        return texts

    @staticmethod
    def log_prob_many(dists: Sequence[Extension], values: Sequence[Text]) -> list[float]:
        """Nats, summed over the tokens of the block; `-inf` for a text the distribution cannot write."""
        out = [-math.inf] * len(dists)
        possible: list[int] = []
        for i, (dist, value) in enumerate(zip(dists, values, strict=True)):
            if dist.can_write(value):
                known = dist._known(value)
                if known is None:
                    possible.append(i)
                else:
                    out[i] = known
        if possible:
            texts, parents = [values[i] for i in possible], [dists[i].text for i in possible]
            sums = dists[0].lm.engine.log_probs(parents, texts, dists[0].options)
            for i, log_prob in zip(possible, sums, strict=True):
                out[i] = log_prob
        return out

    def sample(self, key: Key) -> Text:
        return self.begin_many([key], [self])()[0]

    def log_prob(self, value: Any) -> float:
        return self.log_prob_many([self], [value])[0]

    def can_write(self, value: Any) -> bool:
        """Whether `value` is the text with one whole block behind it, no more and no less."""
        if not isinstance(value, Text) or not value.data.startswith(self.text.data):
            return False
        block = np.frombuffer(value.data[len(self.text.data) :], "<i4").tolist()
        limit = min(self.max_tokens, self.lm.engine.capacity - len(self.text))
        if not 1 <= len(block) <= limit:
            return False
        table, state = self.lm.stop(self.until)[1], self.state
        for position, token in enumerate(block):
            state = table[state, token]
            if state == len(table) - 1:
                return position == len(block) - 1
        return len(block) == limit

    def stopped(self, value: Text) -> bool:
        """Whether a block that this drew has come to its end, and not only to `max_tokens`."""
        return value.full or self._matched(value) == len(self.lm.stop(self.until)[1]) - 1

    def piece(self, text: Text, tokens: int) -> Extension:
        """At most so many further tokens of the block, of which `text` has some more than `self.text`."""
        return Extension(self.lm, text, self.until, tokens, self.options, self._matched(text))

    def resample_every(self, tokens: int) -> Pieces:
        """The same block, written in pieces of so many tokens: see `ppl.models.pieces`.

        Raises:
            ValueError: `tokens` < 1.
        """
        return Pieces(self, tokens)

    def _matched(self, text: Text) -> int:
        """What `text` has matched of `until`."""
        table, state = self.lm.stop(self.until)[1], self.state
        for token in np.frombuffer(text.data[len(self.text.data) :], "<i4").tolist():
            state = int(table[state, token])
        return state

    def _known(self, value: Text) -> float | None:
        """The log probability of a value, where whoever drew it has computed it."""
        if value.drawn_by is None or value.parent is None or value.parent.key != self.text.key:
            return None
        engine, options, *_ = value.drawn_by  # pyright: ignore[reportGeneralTypeIssues]
        if engine is not self.lm.engine:
            return None
        return value.log_prob if options == self.options else value.log_model if self.options.plain else None

    def misses(self, target: Any) -> str | None:
        """What this, as a proposal, cannot draw of the target, in words: see `Proposed`."""
        return missed(self, target) if isinstance(target, Extension) else None

    def powered(self, alpha: float) -> Extension:
        """Each token from the power of its distribution: at temperature / alpha. As `Options.powered`."""
        return Extension(self.lm, self.text, self.until, self.max_tokens, self.options.powered(alpha), self.state)

    def encode(self, value: Text) -> Any:
        """A draw as JSON: [the tokens behind `text`, log_prob, full, log_model].

        Raises:
            TypeError: `value` is not one link behind `text`, so `decode` could not give it back.
        """
        if not isinstance(value, Text) or value.parent is None or value.parent.key != self.text.key:
            raise TypeError(f"{value!r} is not a block written behind {self.text!r}")
        return [value.tokens[len(self.text) :].tolist(), value.log_prob, value.full, value.log_model]

    def decode(self, data: Any) -> Text:
        """The draw that `encode` wrote: the same tokens, parent, log_prob, full and log_model."""
        tokens, log_prob, full, log_model = data
        block = np.array(tokens, "<i4").tobytes()
        text = Text(self.lm.tokenizer, self.text.data + block, self.text, log_prob, full)
        text.drawn_by, text.log_model = self.drawn_by, log_model
        return text

    def sketch(self) -> str:
        """What identifies the distribution when a record is compared with a program: the same in every process."""
        return (
            f"extend({self.lm.name}, text={zlib.crc32(self.text.data):08x}, until={self.until!r}, "
            f"max_tokens={self.max_tokens}, {self.options!r}{self._since()})"
        )

    def _since(self) -> str:
        return f", from state {self.state} of the stop" if self.state else ""

    def __repr__(self) -> str:
        block = f"until={self.until!r}, max_tokens={self.max_tokens}, {self.options!r}{self._since()}"
        return f"Extension(of {len(self.text)} tokens, {block})"


def missed(proposal: Any, target: Any) -> str | None:
    """Why blocks of one kind cannot be all that another asks for; None if they can, as far as one can tell."""
    grammars = [getattr(one, "guide", None) for one in (proposal, target)]
    if grammars[0] is not grammars[1]:
        names = ["no grammar" if one is None else one.name for one in grammars]
        return (f"its blocks end elsewhere: it has {names[0]} where the target has {names[1]}; give both the same "
                "grammar, until and finish")  # fmt: skip
    return proposal.options.misses(target.options)
