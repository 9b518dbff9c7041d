"""Distributions over the next token, alone and as products of powers: contrast, experts, two models in one program."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.draw import PLAIN, pick
from ppl.models.sums import log_normalised
from ppl.models.text import Text
from ppl.source import Key

if TYPE_CHECKING:
    from ppl.models.language_model import LanguageModel

Expert = tuple["LanguageModel", float]


class NextToken:
    """A text with one more token, drawn with probability proportional to the product of p_i(token)^beta_i.

    `lm.next_token(text)` is one model's own. `a * b` is a product of experts (Hinton 2002), `a ** beta` a power,
    `a ** 1.5 * b ** -0.5` the contrast of a large with a small model (Li et al. 2023, "Contrastive Decoding"). The
    product is normalised over the vocabulary token by token, so it is a distribution like any other: a target, or a
    proposal whose weight is exact. A token that an expert of negative power gives probability 0 is impossible.

    Raises:
        ValueError: the texts or vocabularies of two experts differ; a power that is not finite; or the text is full.
    """

    __slots__ = ("experts", "text")

    def __init__(self, text: Text, experts: Sequence[Expert]) -> None:
        first = experts[0][0]
        for lm, power in experts:
            if not math.isfinite(power):
                raise ValueError(f"next_token of {lm.name}: the power {power} is not finite")
            if lm.tokenizer.fingerprint != first.tokenizer.fingerprint:
                raise ValueError(f"{first.name} and {lm.name} have different tokenizers: a product of their next "
                                 "tokens has no meaning; weigh whole texts by `lm.log_prob`")  # fmt: skip
            if len(text.data) >= lm.engine.full:
                raise ValueError(f"next_token: a text of {len(text)} tokens fills the context of {lm.name}")
        self.text = text
        self.experts = tuple(experts)

    def __mul__(self, other: NextToken) -> NextToken:
        if not isinstance(other, NextToken):
            return NotImplemented
        if other.text.key != self.text.key:
            raise ValueError(f"a product of next tokens of two texts: {self.text!r} and {other.text!r}")
        return NextToken(self.text, self.experts + other.experts)

    def __pow__(self, beta: float) -> NextToken:
        return NextToken(self.text, [(lm, power * beta) for lm, power in self.experts])

    def powered(self, alpha: float) -> NextToken:
        """The power, normalised again."""
        return self**alpha

    @property
    def family(self) -> Hashable:
        return NextToken, tuple((lm.engine, power) for lm, power in self.experts)

    @staticmethod
    def begin_many(keys: Sequence[Key], dists: Sequence[NextToken]) -> Callable[[], list[Text]]:
        """Draw one token for each; the returned function waits for them."""
        logits, words = _logits(dists), np.frombuffer(b"".join([key.digest[:8] for key in keys]), "<u4").reshape(-1, 2)
        token, log_q = _draw(logits, _padded(words, len(logits)))

        def texts() -> list[Text]:
            out = []
            for dist, one, log_prob in zip(dists, np.asarray(token, "<i4"), np.asarray(log_q).tolist(), strict=False):
                text = Text(dist.text.tokenizer, data := dist.text.data + one.tobytes(), dist.text, log_prob)
                text.full = any(len(data) >= lm.engine.full for lm, _ in dist.experts)
                for lm in {id(lm): lm for lm, _ in dist.experts}.values():
                    lm.tokens += 1
                out.append(text)
            return out

        return texts

    @staticmethod
    def log_prob_many(dists: Sequence[NextToken], values: Sequence[Any]) -> list[float]:
        """Nats; `-inf` for what is not the text with one more token."""
        last = [dist._last(value) for dist, value in zip(dists, values, strict=True)]
        log_p = np.asarray(_normalised(_logits(dists)))
        return [-math.inf if token is None else float(row[token]) for token, row in zip(last, log_p, strict=False)]

    def sample(self, key: Key) -> Text:
        return self.begin_many([key], [self])()[0]

    def log_prob(self, value: Any) -> float:
        return self.log_prob_many([self], [value])[0]

    def probabilities(self) -> np.ndarray:
        """Of every token of the vocabulary, float32 [vocab_size]. In a program: `await call(dist.probabilities)`."""
        return np.exp(np.asarray(_normalised(_logits([self])))[0])

    def encode(self, value: Text) -> Any:
        """A draw as JSON: [token, log_prob, full]."""
        return [int(value.tokens[-1]), value.log_prob, value.full]

    def decode(self, data: Any) -> Text:
        """The draw that `encode` wrote."""
        token, log_prob, full = data
        return Text(self.text.tokenizer, self.text.data + np.array([token], "<i4").tobytes(), self.text, log_prob, full)

    def sketch(self) -> str:
        """What identifies the distribution when a record is compared with a program."""
        return f"{self!r} behind {len(self.text)} tokens"

    def __repr__(self) -> str:
        return " * ".join(
            f"next_token({lm.name})" + (f" ** {beta:g}" if beta != 1 else "") for lm, beta in self.experts
        )

    def _last(self, value: Any) -> int | None:
        """The token that a value adds; None if it is no value of this."""
        if not isinstance(value, Text) or len(value) != len(self.text) + 1 or not value.data.startswith(self.text.data):
            return None
        return int(value.tokens[-1])


def _logits(dists: Sequence[NextToken]) -> Array:
    """Of the products, not normalised, float32 [rows, vocab_size]; rows that surpass the number of `dists` are none."""
    texts = [dist.text for dist in dists]
    total: Any = 0.0
    for i, (lm, beta) in enumerate(dists[0].experts):
        if dists[0].experts[:i].count((lm, beta)) == 0:  # the same twice is its square, made once
            beta *= dists[0].experts.count((lm, beta))
            total = total + _scaled(lm.engine.next_log_probs(texts), beta)
    return total


@jax.jit
def _scaled(log_p: Array, beta: float) -> Array:
    """A power of probabilities; 0 to a power of 0 is 1, and to a negative one it stays impossible."""
    return jnp.where(log_p > -jnp.inf, log_p * beta, jnp.where(beta == 0, 0.0, -jnp.inf))


@jax.jit
def _normalised(logits: Array) -> Array:
    return log_normalised(logits)


@jax.jit
def _draw(logits: Array, keys: Array) -> tuple[Array, Array]:
    u = jax.vmap(lambda key: jax.random.uniform(jax.random.wrap_key_data(key)))(keys)
    picked = pick(logits, u, jnp.full(len(u), -1), PLAIN.on_device(logits.shape[-1]))
    return picked.token, picked.log_q


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])
