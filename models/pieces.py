"""Blocks that are written in pieces, so that algorithms can act inside of them.

    text = await sample("step", lm.extend(text, until="\\n\\n").resample_every(16), proposal=lm.extend(...))

means what it means without `resample_every`, and its value is the same text. But each piece is a draw of its own, with
a suspension point behind it: where a proposal (or a grammar) weighs tokens, SMC can resample every 16 tokens, and need
not wait for the end of the block.
"""

from __future__ import annotations

from typing import Any, Protocol

from ppl.language import Stepwise, factor, sample, twist
from ppl.models.text import Text
from ppl.program import Program


class Block(Protocol):
    """What can be written in pieces: see `Extension`."""

    @property
    def text(self) -> Text: ...
    @property
    def until(self) -> tuple[str, ...]: ...
    @property
    def max_tokens(self) -> int: ...
    def piece(self, text: Text, tokens: int) -> Any: ...
    def stopped(self, value: Text) -> bool: ...


class Pieces(Stepwise[Text]):
    """A block, in pieces of `tokens` tokens.

    Raises:
        ValueError: `tokens` < 1.
    """

    __slots__ = ("block", "tokens")

    def __init__(self, block: Block, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"resample_every({tokens}): a piece has one token or more")
        self.block = block
        self.tokens = tokens

    def written(self, name: str, proposal: Any = None) -> Program[Text]:
        """Draws "piece", "piece:1", ... in a scope of this name, with a factor "pause" of 0 between them.

        With a grammar there is a twist "ahead" in its place.

        Raises:
            TypeError: the proposal is not a block of a language model.
            ValueError: it is one that ends elsewhere.
        """
        block = self.block
        if isinstance(proposal, Pieces):
            proposal = proposal.block
        if proposal is not None:
            if not hasattr(proposal, "piece"):
                raise TypeError(f"sample({name!r}, ...): a block in pieces cannot be proposed by {proposal!r}: another "
                                "lm.extend(...) can")  # fmt: skip
            ours, other = (block.text, block.until, block.max_tokens), (
                proposal.text, proposal.until, proposal.max_tokens)  # fmt: skip
            if ours != other:
                raise ValueError(f"sample({name!r}, ...): {proposal!r} as a proposal, in pieces, for {block!r}: both "
                                 "must have the same text, until and max_tokens")  # fmt: skip
        return Program(name, _write, (block, self.tokens, proposal), {})

    def __repr__(self) -> str:
        return f"{self.block!r}.resample_every({self.tokens})"


async def _write(block: Block, tokens: int, proposal: Block | None) -> Text:
    text, parts, piece = block.text, list[Text](), block
    while True:
        left = block.max_tokens - (len(text) - len(block.text))
        piece, proposal = piece.piece(text, min(tokens, left)), proposal and proposal.piece(text, min(tokens, left))
        text = await sample("piece", piece, proposal)
        parts.append(text)
        over, steers = len(text) - len(piece.text) == left or piece.stopped(text), hasattr(piece, "ahead")
        if over and not steers:
            return _joined(block.text, parts)
        # What a grammar sees ahead is in the weights by which particles are resampled, and behind the block no more.
        await (twist("ahead", 0.0 if over else piece.ahead(text)) if steers else factor("pause", 0.0))
        if over:
            return _joined(block.text, parts)


def _joined(start: Text, parts: list[Text]) -> Text:
    """One link of them."""
    last = parts[-1]
    text = Text(start.tokenizer, last.data, start, sum(part.log_prob or 0.0 for part in parts), last.full)
    if all(part.log_model is not None for part in parts):
        text.log_model = sum(part.log_model or 0.0 for part in parts)
    text.drawn_by = last.drawn_by
    return text
