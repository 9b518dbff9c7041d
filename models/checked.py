"""Blocks of a language that is checked on the host: token by token, by rejection, with exact weights."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Self

import numpy as np

from ppl import codec
from ppl.models.constrained import OfTarget, Restricted
from ppl.models.reader import Reader
from ppl.models.rejection import Urn, rejection
from ppl.models.text import Text
from ppl.source import Key

ROUNDING = 1e-6  # by which a weight may rise, nats
EXTRA = 4  # tokens that are checked beside, to know better what passes
PATIENCE = 8  # tokens that are rejected before all that could pass are looked for


class Rejected(OfTarget):
    """p(block) times its weight, 1 if it is in the language: properly weighted draws, not a proposal with a density.

    A token is drawn until one passes; the weight is an unbiased estimate of the probability that one does. So blocks
    are drawn as a mask would have them drawn, though only few tokens are checked.
    """

    __slots__ = ("target",)
    weighted = True

    def __init__(self, target: Any) -> None:
        self.target = target

    def log_prob(self, value: Any) -> float:
        return self.target.log_prob(value)

    def passed(self, text: Text, log_weight: float) -> float:
        """The weight of a draw, where finished texts are checked once more."""
        if not self.target.guide.checks or self.target.can_write(text):
            return log_weight
        return -math.inf

    def piece(self, text: Text, tokens: int) -> Self:
        """As `Extension.piece`."""
        return type(self)(self.target.piece(text, tokens))

    def powered(self, alpha: float) -> Self:
        """As `Extension.powered`."""
        return type(self)(self.target.powered(alpha))

    def encode(self, draw: tuple[Text, float]) -> Any:
        """A draw as JSON."""
        return [self.target.encode(draw[0]), codec.encode(draw[1])]

    def decode(self, data: Any) -> tuple[Text, float]:
        """The draw that `encode` wrote."""
        return self.target.decode(data[0]), codec.decode(data[1])

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return f"Checked({self.target.sketch()})"


class Checked(Rejected):
    """Blocks of a language model."""

    __slots__ = ()
    target: Restricted

    @property
    def family(self) -> Hashable:
        return Checked, self.target.family

    def sample(self, key: Key) -> tuple[Text, float]:
        return self.draw_many([key], [self])[0]

    @staticmethod
    def log_prob_many(dists: Sequence[Checked], values: Sequence[Any]) -> list[float]:
        return Restricted.log_prob_many([dist.target for dist in dists], values)

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Checked]) -> list[tuple[Text, float]]:
        """The blocks, and for each log of its weight, nats. All go on together, token by token."""
        one = dists[0].target
        writers = [_Writer(dist.target, key) for dist, key in zip(dists, keys, strict=True)]
        active = writers
        while active:
            rows = np.asarray(one.lm.engine.next_log_probs([writer.text for writer in active]))
            plain = np.exp(rows[: len(active)], dtype=np.float32).astype(np.float64)
            drawn = plain
            if not one.options.plain:
                logits = one.options.cut(rows[: len(active)])
                drawn = np.exp(logits - logits.max(-1, keepdims=True))
                drawn /= drawn.sum(-1, keepdims=True)
            for writer, masses, under in zip(active, drawn, plain, strict=True):
                writer.write(masses, under)
            active = [writer for writer in active if not writer.over]
        finished = [writer.finished() for writer in writers]
        return [(text, dist.passed(text, w)) for dist, (text, w) in zip(dists, finished, strict=True)]


class _Writer:
    """One block while it is written."""

    def __init__(self, target: Restricted, key: Key) -> None:
        room = target.lm.engine.capacity - len(target.text)
        self.target = target
        self.key = key
        self.text = target.text
        self.state = target.state
        self.limit = min(target.max_tokens, room)
        self.horizon = min(target.horizon, room)
        self.log_weight = self.log_prob = self.log_model = 0.0
        self.over = False

    def write(self, masses: np.ndarray, plain: np.ndarray) -> None:
        """One more token, by its probability under what is drawn from; `plain` are the model's."""
        written = len(self.text) - len(self.target.text)
        token, log_weight, self.state = step(
            Urn(masses, self.key.fold(str(written))), self.target.guide, self.state, self.horizon - written - 1, EXTRA,
            PATIENCE,
        )  # fmt: skip
        self.log_weight += log_weight
        with np.errstate(divide="ignore"):
            self.log_prob += float(np.log(masses[token]))
            self.log_model += float(np.log(plain[token]))
        data = self.text.data + np.int32(token).tobytes()
        self.text = Text(self.text.tokenizer, data, self.text, self.log_prob, len(data) >= self.target.lm.engine.full)
        self.over = self.target.guide.over(self.state) or written + 1 == self.limit

    def finished(self) -> tuple[Text, float]:
        """One link of all that was written, and log of the weight."""
        target, last = self.target, self.text
        text = Text(last.tokenizer, last.data, target.text, self.log_prob, last.full)
        text.log_model, text.drawn_by = self.log_model, target.drawn_by
        target.lm.tokens += len(text) - len(target.text)
        return text, self.log_weight


def step(
    source: Any, guide: Reader, state: Any, left: int, extra: int, patience: int
) -> tuple[int, float, Any]:  # fmt: skip
    """One token, log of its weight, and the state behind it. `left` tokens may follow.

    A token is drawn as probable as p(token) * psi behind it, its weight is the sum of these over psi, and over nothing
    where the block is over: psi is its weight there. Where no token passes it is token 0, of weight 0.

    Raises:
        ValueError: what a language knows of its weight rises.
    """
    if guide.over(state):  # a dead end that the text does not show: no token passed
        return 0, -math.inf, guide.dead
    value = guide.value(state)

    def psi(token: int) -> float:
        log_psi = guide.ahead(guide.advance(state, token), left)
        if log_psi > value + ROUNDING:
            raise ValueError(
                f"{guide.grammar!r}: behind {guide.vocabulary.tokens[token]!r} its log_value or log_weight is "
                f"{log_psi}, and {value} before: it must not rise; begin with the most that it can be"
            )
        return math.exp(min(log_psi - value, 0.0))

    def candidates() -> tuple[list[int], list[float]] | None:
        around = guide.around(state, left)
        if around is None:
            return None
        tokens, log_psi = around
        if tokens and log_psi.max() > value:
            return tokens, [psi(token) for token in tokens]
        return tokens, np.exp(log_psi - value).tolist()

    token, total = rejection(source, psi, extra, patience, candidates)
    if token is None:
        return 0, -math.inf, guide.dead
    to = guide.advance(state, token)
    over = left == 0 or guide.over(to)
    return token, math.log(total) + value - (0.0 if over else guide.ahead(to, left)), to
