"""Grammars in jitted loops of one's own: what a text of tokens weighs, read from left to right on the device.

A `Potential` weighs a sequence of tokens by exp(`log_final`) of the state behind it. What is known on the way is
`log_value`, a twist: its steps, added to the logits of a model, steer the draws, and a sampler that multiplies its
weights by p/q and divides the value out at the end is exact whatever the value is (Del Moral, Doucet and Jasra 2006;
Zhao et al. 2024, "Probabilistic inference in language models via twisted sequential Monte Carlo").

Potentials are pytrees: pass them to jitted functions as arguments. Grammars of one size share one compiled program.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

from ppl.grammar.errors import GrammarError
from ppl.grammar.hmm import HMM, log_ends
from ppl.grammar.lookahead import LEAST, ROWS, class_mass, log_ahead
from ppl.grammar.tokens import TokenDFA, narrow, padded


class Potential(ABC):
    """A weight of sequences of tokens; every method traces and maps over states with `vmap`.

    A subclass is a pytree (`jax.tree_util.register_dataclass`), a state a pytree of fixed shapes. Values are nats in
    float32, -inf allowed, never nan. `a * b` is the product of two, `a ** beta` a power.
    """

    @abstractmethod
    def init(self) -> Any:
        """The state before the first token."""

    @abstractmethod
    def advance(self, state: Any, token: Array) -> Any:
        """The state behind one more token, int32 []."""

    @abstractmethod
    def log_value(self, state: Any) -> Array:
        """What is known of the weight on the way, []: -inf only where it is 0 however the text goes on."""

    @abstractmethod
    def log_final(self, state: Any) -> Array:
        """Log of the weight of a text that ends here, []."""

    @abstractmethod
    def log_step(self, state: Any) -> Array:
        """`log_value` behind each token less that before it, [V]; -inf for what is forbidden, ends of texts too."""

    def over(self, state: Any) -> Array:
        """Whether the text has ended here, and no token may follow, bool []."""
        return jnp.zeros((), bool)

    def __mul__(self, other: Potential) -> Potential:
        return Product(self, other) if isinstance(other, Potential) else NotImplemented

    def __pow__(self, beta: float) -> Potential:
        return Power(self, beta)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Product(Potential):
    """The weights of both."""

    a: Potential
    b: Potential

    def init(self) -> Any:
        return self.a.init(), self.b.init()

    def advance(self, state: Any, token: Array) -> Any:
        return self.a.advance(state[0], token), self.b.advance(state[1], token)

    def log_value(self, state: Any) -> Array:
        return self.a.log_value(state[0]) + self.b.log_value(state[1])

    def log_final(self, state: Any) -> Array:
        return self.a.log_final(state[0]) + self.b.log_final(state[1])

    def log_step(self, state: Any) -> Array:
        return self.a.log_step(state[0]) + self.b.log_step(state[1])

    def over(self, state: Any) -> Array:
        return self.a.over(state[0]) | self.b.over(state[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Power(Potential):
    """The weights to the power of `beta`.

    Raises:
        ValueError: it is a number, but not a positive and finite one.
    """

    base: Potential
    beta: float | Array

    def __post_init__(self) -> None:
        if isinstance(self.beta, int | float) and not 0 < self.beta < math.inf:
            raise ValueError(f"a potential ** {self.beta}: the power is positive and finite")

    def init(self) -> Any:
        return self.base.init()

    def advance(self, state: Any, token: Array) -> Any:
        return self.base.advance(state, token)

    def log_value(self, state: Any) -> Array:
        return self.beta * self.base.log_value(state)

    def log_final(self, state: Any) -> Array:
        return self.beta * self.base.log_final(state)

    def log_step(self, state: Any) -> Array:
        return self.beta * self.base.log_step(state)

    def over(self, state: Any) -> Array:
        return self.base.over(state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Words(Potential):
    """The blocks of a token automaton that end within so many tokens, each of weight 1.

    A state is (state of the automaton, tokens that may follow), int32. A block ends with `over`, or where whoever
    writes it stops; it counts if it is in the language then.
    """

    table: Array
    """Of integers, [states, classes]: the state behind each class of tokens. The last is dead."""
    classes: Array
    """Of integers, [V]"""
    accept: Array
    """bool [states]"""
    done: Array
    """int32 []: the state in which nothing can follow."""
    ahead: Array
    """float32 [k, states]: `log_value` with k tokens left; the last row stands for more."""
    horizon: Array
    """int32 []"""

    def init(self) -> Any:
        return jnp.zeros((), jnp.int32), jnp.asarray(self.horizon, jnp.int32)

    def advance(self, state: Any, token: Array) -> Any:
        at, left = state
        to = jnp.where(left > 0, self.table[at, self.classes[token]], len(self.table) - 1)
        return to.astype(jnp.int32), jnp.maximum(left - 1, 0)

    def log_value(self, state: Any) -> Array:
        at, left = state
        return self.ahead[jnp.minimum(left, len(self.ahead) - 1), at]

    def log_final(self, state: Any) -> Array:
        return jnp.where(self.accept[state[0]], 0.0, -jnp.inf)

    def log_step(self, state: Any) -> Array:
        at, left = state
        behind = self.ahead[jnp.clip(left - 1, 0, len(self.ahead) - 1)][self.table[at]]
        return _step(behind, self.log_value(state), left)[self.classes]

    def over(self, state: Any) -> Array:
        return state[0] == self.done


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WordsOfHMM(Potential):
    """As `Words`, with the value by a hidden Markov model that follows what is written.

    A state is that of `words` and log of what is believed of the hidden state that emits next, float32 [k]. Zhang et
    al. 2024, "Adaptable logical control for large language models".
    """

    words: Words
    log_start: Array
    """[k]"""
    log_transition: Array
    """[k, k]"""
    log_emission: Array
    """[k, V]"""
    log_ends: Array
    """[horizon + 1, states, k]: see `ppl.grammar.hmm.log_ends`."""

    def init(self) -> Any:
        return self.words.init(), self.log_start

    def advance(self, state: Any, token: Array) -> Any:
        words, belief = state
        joint = belief + self.log_emission[:, token]
        behind = logsumexp(joint[:, None] + self.log_transition, 0)
        return self.words.advance(words, token), behind - logsumexp(behind)

    def log_value(self, state: Any) -> Array:
        (at, left), belief = state
        return logsumexp(belief + self.log_ends[left, at])

    def log_final(self, state: Any) -> Array:
        return self.words.log_final(state[0])

    def log_step(self, state: Any) -> Array:
        (at, left), belief = state
        ends = self.log_ends[jnp.maximum(left - 1, 0)][self.words.table[at]]  # [classes, k]
        ends = logsumexp(self.log_transition + ends[:, None], -1)  # by the hidden state that emits the token
        joint = (belief[:, None] + self.log_emission).T  # [V, k]
        behind = logsumexp(joint + ends[self.words.classes], -1) - logsumexp(joint, -1)
        return _step(behind, self.log_value(state), left)

    def over(self, state: Any) -> Array:
        return self.words.over(state[0])


def _step(behind: Array, now: Array, left: Array) -> Array:
    """`behind` less `now`: -inf where nothing may follow, or all is lost already."""
    open_ = (left > 0) & (now > -jnp.inf)
    return jnp.where(open_, behind - jnp.where(open_, now, 0.0), -jnp.inf)


def potential(automaton: TokenDFA, horizon: int, proxy: np.ndarray | HMM | None = None) -> Potential:
    """Of the blocks of an automaton that end within `horizon` tokens, looking ahead by a proxy of the model.

    The proxy is the probability of each token, [V]; or a hidden Markov model over them (`HMM.of_classes` for bigrams
    of classes of tokens); None masks what cannot end well, and knows no more. With the model itself as its proxy the
    value is exact, and draws by p(token) * exp(log_step) have the evidence for their weight, each of them.

    Raises:
        GrammarError: no block ends within so many tokens.
        ValueError: the proxy has another number of tokens than the vocabulary.
    """
    size = len(automaton.classes)
    tokens = size if proxy is None else proxy.vocab_size if isinstance(proxy, HMM) else len(proxy)
    if tokens != size:
        raise ValueError(f"potential: a proxy over {tokens} tokens for an automaton over {size}")
    masses = np.full(size, 1 / size) if proxy is None or isinstance(proxy, HMM) else proxy
    log_h = log_ahead(automaton, class_mass(automaton, masses))
    if proxy is None:
        log_h = np.where(log_h > -np.inf, 0.0, -np.inf)
    words = words_of(automaton, log_h, horizon)
    if not isinstance(proxy, HMM):
        return words
    # No token is impossible to the proxy: what it does not expect a model may write all the same.
    emission = np.maximum(proxy.emission, LEAST)
    hmm = HMM(proxy.start, proxy.transition, emission / emission.sum(-1, keepdims=True))
    ends = log_ends(automaton, hmm, horizon)
    more = len(words.table) - len(automaton.next)
    ends = np.pad(ends, ((0, 0), (0, more), (0, 0)), constant_values=-np.inf)
    with np.errstate(divide="ignore"):
        logs = [jnp.asarray(np.log(x), jnp.float32) for x in (hmm.start, hmm.transition, hmm.emission)]
    return WordsOfHMM(words, *logs, jnp.asarray(ends, jnp.float32))


def words_of(automaton: TokenDFA, log_h: np.ndarray, horizon: int) -> Words:
    """The potential of an automaton, with `log_h` [k, states] as `lookahead.log_ahead` makes it for its value.

    Raises as `potential`.
    """
    if horizon < 1 or not automaton.size or log_h[min(horizon, ROWS), 0] == -np.inf:
        least = int(automaton.distance[0]) if automaton.size else None
        what = "it has none" if least is None else f"the shortest takes {max(1, least)} tokens"
        raise GrammarError(f"{automaton!r} has no block that ends within {horizon} tokens: {what}")
    table, ahead = padded(automaton.next, log_h)
    accept = np.pad(automaton.accept, (0, len(table) - len(automaton.accept)))
    return Words(jnp.asarray(table), jnp.asarray(narrow(automaton.classes)), jnp.asarray(accept),
                 jnp.int32(automaton.done), jnp.asarray(ahead, jnp.float32), jnp.int32(horizon))  # fmt: skip
