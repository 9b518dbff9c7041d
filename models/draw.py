"""Drawing one token for each row from its logits.

No sort over the vocabulary and one uniform number a row: at 32,000 tokens a draw costs 30 us a row on a CPU where
Gumbel noise costs 900.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.sums import log_normalised, total

BISECTIONS = 24  # of the edge of top-k and top-p


class Sampling(NamedTuple):
    """How tokens are drawn from logits, on the device. Scalars but for `bias`; the order is that of `transformers`."""

    kind: Array
    """0: as they are; 1: bias, temperature, min-p; 2: top-k and top-p too."""
    temperature: Array
    top_k: Array
    top_p: Array
    min_p: Array
    bias: Array
    """Added to the logits, [vocab_size]; -inf bans a token."""


@dataclass(frozen=True)
class Options:
    """How tokens are drawn, as a program asks for it; in this order.

    Raises:
        ValueError: an option that makes no sense, or a bias that leaves no token.
    """

    temperature: float = 1.0
    top_k: int | None = None
    """Only the so many most probable tokens (and what is as probable as the last of them)."""
    top_p: float | None = None
    """Only the most probable tokens, as many as it takes to reach this probability."""
    min_p: float | None = None
    """Only tokens at least so probable relative to the most probable one."""
    bias: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit): -inf bans it."""

    def __post_init__(self) -> None:
        def need(right: bool, name: str, what: str) -> None:
            if not right:
                raise ValueError(f"{name}={getattr(self, name)!r}: {name} must be {what}")

        need(0 < self.temperature < math.inf, "temperature", "positive and finite")
        k, p, least = self.top_k, self.top_p, self.min_p
        need(k is None or (isinstance(k, int) and k >= 1), "top_k", "a whole number from 1 on")
        need(p is None or 0 < p <= 1, "top_p", "above 0 and at most 1")
        need(least is None or 0 <= least <= 1, "min_p", "from 0 to 1")
        need(all(x < math.inf for _, x in self.bias), "bias", "numbers or -inf by token")

    @classmethod
    def of(
        cls, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None,
        bias: Mapping[int, float] | None,
    ) -> Options:  # fmt: skip
        """From what users write: all that changes nothing is left out, so that equal distributions are equal."""
        return cls(
            float(temperature), top_k, None if top_p == 1 else top_p, None if min_p == 0 else min_p,
            tuple(sorted((int(token), float(x)) for token, x in (bias or {}).items() if x)),
        )  # fmt: skip

    @property
    def plain(self) -> bool:
        """Whether this is the model as it is."""
        return self == Options()

    def misses(self, target: Options) -> str | None:
        """Why draws by these options cannot be all that `target` asks for; None if they can, as far as one can tell."""
        for name in ("top_k", "top_p", "min_p"):
            if getattr(self, name) is not None and self != target:
                return (
                    f"{name} cuts off tokens that the target has, and no weight brings them back; propose by "
                    "temperature or bias, or make the cut model the target"
                )
        banned = {token for token, x in self.bias if x == -math.inf}
        if banned - {token for token, x in target.bias if x == -math.inf}:
            return f"it bans tokens {sorted(banned)}, which the target does not"
        return None

    def powered(self, alpha: float) -> Options:
        """Those of the power of the distribution of a token: temperature / alpha.

        Raises:
            ValueError: with top-p or min-p, whose choice of tokens another temperature would change.
        """
        if self.top_p is not None or self.min_p is not None:
            raise ValueError(f"no power of a distribution with top_p={self.top_p}, min_p={self.min_p}: take the power "
                             "of the model as it is, and propose from this")  # fmt: skip
        return replace(self, temperature=self.temperature / alpha)

    def cut(self, logits: np.ndarray) -> np.ndarray:
        """On the host: the logits [..., vocabulary] of what is drawn from, -inf for what is not; float64.

        As `transformers` does it, by sorting: what the device must agree with.
        """
        y = np.array(logits, np.float64)
        for token, x in self.bias:
            y[..., token] += x
        y /= self.temperature
        if self.top_k is not None:
            k = min(self.top_k, y.shape[-1])
            y[y < np.sort(y, -1)[..., -k, None]] = -np.inf
        if self.top_p is not None:
            largest = -np.sort(-y, -1)
            p = np.exp(largest - largest[..., :1])
            p /= p.sum(-1, keepdims=True)
            kept = np.cumsum(p, -1) - p < self.top_p
            y[y < np.where(kept, largest, np.inf).min(-1, keepdims=True)] = -np.inf
        if self.min_p is not None:
            with np.errstate(divide="ignore"):
                y[y < y.max(-1, keepdims=True) + np.log(self.min_p)] = -np.inf
        return y

    def on_device(self, vocab_size: int) -> Sampling:
        """Raises `ValueError` for a bias of a token that there is not, or that bans all."""
        bias = np.zeros(vocab_size, np.float32)
        for token, x in self.bias:
            if not 0 <= token < vocab_size:
                raise ValueError(f"bias of token {token}: the vocabulary has {vocab_size} tokens")
            bias[token] = x
        if not bias.max() > -math.inf:
            raise ValueError("the bias bans every token")
        kind = 2 if self.top_k is not None or self.top_p is not None else 0 if self.plain else 1
        return Sampling(
            jnp.int32(kind), jnp.float32(self.temperature), jnp.int32(min(self.top_k or vocab_size, vocab_size)),
            jnp.float32(self.top_p or 1.0), jnp.float32(self.min_p or 0.0), jnp.asarray(bias),
        )  # fmt: skip

    def __repr__(self) -> str:
        others = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p", "bias")}
        return f"temperature={self.temperature}" + "".join(f", {name}={x}" for name, x in others.items() if x)


PLAIN = Options()


class Picked(NamedTuple):
    """A token for each row, and its log probabilities, nats, [rows]."""

    token: Array
    log_q: Array
    """Under what it was drawn from."""
    log_prob: Array
    """By the options alone, without what steers the draw."""
    log_model: Array
    """Under the model as it is."""


class Steer(NamedTuple):
    """What is added to the logits before a draw: `values[row, classes[token]]`."""

    values: Array
    """float32 [rows, K], -inf for what is forbidden."""
    classes: Array
    """int32 [vocabulary]"""


def pick(logits: Array, u: Array, forced: Array, how: Sampling, steer: Steer | None = None) -> Picked:
    """A token for each row.

    `logits` [rows, vocabulary]; `u` [rows] uniform on [0, 1); `forced` [rows] the token, where that is not negative.
    `steer` is added to the logits that the options leave. Where no token is left, token 0 is written, of `log_prob`
    -inf and `log_q` 0: the weight of such a row is 0, and nothing is `nan`.
    """
    logits = logits.astype(jnp.float32)

    def drawn(y: Array) -> tuple[Array, Array, Array]:
        if steer is not None:
            return _steered(y, u, forced, steer)
        token, log_q = _draw(y, u, forced)
        return token, log_q, log_q

    def plain() -> Picked:
        token, log_q, log_prob = drawn(logits)
        return Picked(token, log_q, log_prob, log_prob)

    def other(change: Any) -> Picked:
        token, log_q, log_prob = drawn(change(logits, how))
        return Picked(token, log_q, log_prob, _at(log_normalised(logits), token))

    branches = [plain, partial(other, _warped), partial(other, _cut)]
    return jax.lax.switch(how.kind, branches)


def _warped(logits: Array, how: Sampling) -> Array:
    y = (logits + how.bias) / how.temperature
    return jnp.where(y >= jnp.max(y, -1, keepdims=True) + jnp.log(how.min_p), y, -jnp.inf)


def _cut(logits: Array, how: Sampling) -> Array:
    """Top-k, then top-p of what is left, then min-p. What is as large as the smallest that is kept is kept too."""
    y = (logits + how.bias) / how.temperature
    top, none = jnp.max(y, -1, keepdims=True), jnp.full((len(y), 1), -jnp.inf)
    lowest = jnp.min(jnp.where(y > -jnp.inf, y, jnp.inf), -1, keepdims=True)
    kth = jax.lax.cond(
        how.top_k < y.shape[-1], lambda: _edge(y, jnp.ones_like(y), how.top_k, lowest, top), lambda: none
    )
    weights = jnp.where(y >= kth, jnp.exp(y - top), 0.0)
    whole = total(weights, y.shape[-1])[:, None]
    # All tokens that are less probable than (1 - p) / V together are not more probable than 1 - p.
    tail = top + jnp.log(jnp.maximum(1 - how.top_p, 1e-30) * whole / y.shape[-1])
    edge = jax.lax.cond(
        how.top_p < 1, lambda: _edge(y, weights, how.top_p * whole, jnp.maximum(tail, lowest), top), lambda: none
    )
    least = jnp.maximum(jnp.maximum(edge, kth), top + jnp.log(how.min_p))
    return jnp.where(y >= least, y, -jnp.inf)


def _edge(y: Array, weights: Array, wanted: Array, low: Array, high: Array) -> Array:
    """The largest edge [rows, 1] from `low` to `high` such that the weights of what is not below it sum to `wanted`.

    By bisection to 2^-24 of the range, about the spacing of float32: at 32,000 tokens less work than to find the 1,024
    largest, and right whatever number it takes.
    """

    def step(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = total(jnp.where(y >= middle, weights, 0.0), y.shape[-1])[:, None] >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    return jax.lax.fori_loop(0, BISECTIONS, step, (low, high))[0]


def _draw(y: Array, u: Array, forced: Array) -> tuple[Array, Array]:
    """A token by its probability, and the log of that."""
    top = jnp.max(y, -1, keepdims=True)
    token, mass = _inverse(jnp.exp(y - top), u)
    token = jnp.where(forced < 0, token, forced)
    return token, _at(y, token) - top[:, 0] - jnp.log(mass)


def _steered(y: Array, u: Array, forced: Array, steer: Steer) -> tuple[Array, Array, Array]:
    """As `_draw` from y with what steers, and the log probability without.

    One exponential a token serves both: weights are exp(y) times a factor for each class. Where these leave nearly
    nothing, the product has lost what is too small for a float, and the row is made from sums of logs.
    """
    top, peak = (jnp.max(x, -1, keepdims=True) for x in (y, steer.values))
    peak = jnp.where(peak > -jnp.inf, peak, 0.0)
    plain = jnp.exp(y - top)
    weights = plain * jnp.exp(steer.values - peak)[:, steer.classes]
    drawn = *_inverse(weights, u), (top + peak)[:, 0]
    # This sum makes XLA:CPU keep the weights: it would compute them in the order of the blocks, three times as long.
    fine = total(weights, y.shape[-1]) > 1e-15

    def mended() -> tuple[Array, Array, Array]:
        logs = y + steer.values[:, steer.classes]
        highest = jnp.max(logs, -1, keepdims=True)
        exact = jnp.where(highest > -jnp.inf, jnp.exp(logs - highest), 0.0)
        again = *_inverse(exact, u), highest[:, 0]
        return jax.tree.map(partial(jnp.where, fine), drawn, again)

    token, mass, scale = jax.lax.cond(jnp.all(fine), lambda: drawn, mended)
    token = jnp.where(forced < 0, token, forced)
    chosen = _at(y, token)
    log_q = chosen + _at(steer.values, steer.classes[token]) - scale - jnp.log(mass)
    log_prob = chosen - top[:, 0] - jnp.log(total(plain, y.shape[-1]))
    none = jnp.where(forced > 0, -jnp.inf, 0.0)
    return token, jnp.where(mass > 0, log_q, none), jnp.where(mass > 0, log_prob, -jnp.inf)


def _inverse(weights: Array, u: Array) -> tuple[Array, Array]:
    """A token by its weight, by the inverse CDF in two levels, blocks and then tokens, and the sum of the weights.

    Never an impossible token; token 0 where all are.
    """
    rows, size = weights.shape
    width = max(1, 1 << ((size - 1).bit_length() + 1) // 2)
    blocks = -(-size // width)
    weights = jnp.pad(weights, ((0, 0), (0, blocks * width - size))).reshape(rows, blocks, width)
    sums = jnp.cumsum(total(weights, size), -1)
    at = u * sums[:, -1]
    block = jnp.argmax(sums > jnp.minimum(at, _below(sums[:, -1]))[:, None], -1)
    inside = jnp.cumsum(jnp.take_along_axis(weights, block[:, None, None], 1)[:, 0], -1)
    rest = at - jnp.where(block > 0, jnp.take_along_axis(sums, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    rest = jnp.clip(rest, 0.0, _below(inside[:, -1]))  # sums in another order round otherwise
    return (block * width + jnp.argmax(inside > rest[:, None], -1)).astype(jnp.int32), sums[:, -1]


def _below(x: Array) -> Array:
    return jnp.nextafter(x, jnp.zeros_like(x))


def _at(y: Array, token: Array) -> Array:
    return jnp.take_along_axis(y, token[:, None], 1)[:, 0]
