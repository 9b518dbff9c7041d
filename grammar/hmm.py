"""Hidden Markov models over tokens: language models for which everything about a grammar can be computed exactly.

They are the oracle for every sampler (`log_partition` is the evidence of a grammar), proxies to look ahead with, and a
model class of their own: `Conditioned` draws from p(tokens | a text of the language) without rejection.

Rabiner 1989, "A tutorial on hidden Markov models"; with an automaton: Zhang et al. 2024, "Adaptable logical control for
large language models".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from ppl.distributions import Categorical
from ppl.grammar.errors import EmptyLanguageError
from ppl.grammar.tokens import TokenDFA
from ppl.source import Key


class HMM:
    """z_1 ~ `start` [k], then x_t ~ `emission[z_t]` [k, V] and z_{t+1} ~ `transition[z_t]` [k, k]; rows sum to 1.

    Raises:
        ValueError: shapes that do not fit, or rows that are no distributions.
    """

    def __init__(self, start: np.ndarray, transition: np.ndarray, emission: np.ndarray) -> None:
        self.start, self.transition, self.emission = (np.asarray(x, float) for x in (start, transition, emission))
        k = len(self.start)
        if self.transition.shape != (k, k) or self.emission.shape[:1] != (k,):
            raise ValueError(f"HMM: start {self.start.shape}, transition {self.transition.shape} and emission "
                             f"{self.emission.shape} do not fit: [k], [k, k] and [k, V]")  # fmt: skip
        for name in ("start", "transition", "emission"):
            table = getattr(self, name)
            if not ((table >= 0).all() and np.allclose(table.sum(-1), 1)):
                raise ValueError(f"HMM: {name} must have rows that are not negative and sum to 1")

    @classmethod
    def unigram(cls, probabilities: np.ndarray) -> HMM:
        """Tokens that do not depend on each other."""
        return cls(np.ones(1), np.ones((1, 1)), np.asarray(probabilities)[None])

    @classmethod
    def bigram(cls, start: np.ndarray, transition: np.ndarray) -> HMM:
        """Each token depends on the one before: `start` [V], `transition` [V, V]."""
        return cls(start, transition, np.eye(len(start)))

    @classmethod
    def of_classes(cls, classes: np.ndarray, start: np.ndarray, transition: np.ndarray, within: np.ndarray) -> HMM:
        """Each token is of one class, and depends on the class of the one before: class bigrams.

        `classes` int [V], `start` [K] and `transition` [K, K] of classes, `within` [V] the probability of each token
        in its class (not normalised). A class of no tokens that can be entered is a `ValueError`.
        """
        emission = np.zeros((len(start), len(classes)))
        emission[classes, np.arange(len(classes))] = within
        total = emission.sum(1, keepdims=True)
        return cls(start, transition, np.divide(emission, total, where=total > 0, out=emission))

    @property
    def vocab_size(self) -> int:
        return self.emission.shape[1]

    def log_prob(self, tokens: Sequence[int]) -> float:
        """log P(the first tokens are these), nats: the forward algorithm."""
        belief, total = self.start, 0.0
        for token in tokens:
            p, belief = self.after(belief, token)
            if p == 0:
                return -math.inf
            total += math.log(p)
        return total

    def after(self, belief: np.ndarray, token: int) -> tuple[float, np.ndarray]:
        """P(token | what is believed of the hidden state, [k]), and what is believed behind it."""
        joint = belief * self.emission[:, token]
        p = float(joint.sum())
        return p, joint @ self.transition / p if p else belief

    def next_tokens(self, tokens: Sequence[int]) -> np.ndarray:
        """P of each token behind these, [V].

        Raises:
            ValueError: these are impossible.
        """
        belief = self.start
        for token in tokens:
            p, belief = self.after(belief, token)
            if p == 0:
                raise ValueError(f"HMM: the tokens {list(tokens)} are impossible")
        return belief @ self.emission


def log_ends(grammar: TokenDFA, hmm: HMM, horizon: int) -> np.ndarray:
    """log P(a block ends well within k tokens | state, hidden state that emits next), nats.

    float64 [horizon + 1, size + 2, hidden]: as `lookahead.log_ahead`, for a model with memory.
    """
    emitted = np.zeros((len(hmm.start), grammar.next.shape[1]))
    np.add.at(emitted.T, grammar.classes, hmm.emission.T)
    out = np.full((horizon + 1, len(grammar.next), len(hmm.start)), -np.inf)
    out[:, grammar.done] = 0.0
    out[0, grammar.accept] = 0.0
    log_emitted = _log(emitted.T)
    for k in range(1, horizon + 1):
        behind = _times(out[k - 1], hmm.transition.T)
        for state in range(grammar.size):
            out[k, state] = np.logaddexp.reduce(log_emitted + behind[grammar.next[state]], 0)
    return out


def _times(log_x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """log(exp(log_x) @ matrix)."""
    top = log_x.max(-1, keepdims=True)
    top[np.isneginf(top)] = 0.0
    return _log(np.exp(log_x - top) @ matrix) + top


def _log(x: np.ndarray) -> np.ndarray:
    """-inf for 0."""
    with np.errstate(divide="ignore"):
        return np.log(x)


def log_partition(grammar: TokenDFA, hmm: HMM, horizon: int) -> float:
    """log P(the model's tokens are a block of the language), nats: its evidence, exactly."""
    return float(np.logaddexp.reduce(_log(hmm.start) + log_ends(grammar, hmm, horizon)[-1, grammar.start()]))


class Conditioned:
    """The distribution of blocks of a hidden Markov model, given that they are in the language: tuples of tokens.

    Raises:
        EmptyLanguageError: the model writes no such block.
    """

    def __init__(self, grammar: TokenDFA, hmm: HMM, horizon: int) -> None:
        self.grammar, self.hmm, self.horizon = grammar, hmm, horizon
        self._log_ends = log_ends(grammar, hmm, horizon)
        self.log_evidence = float(np.logaddexp.reduce(_log(hmm.start) + self._log_ends[-1, grammar.start()]))
        if self.log_evidence == -math.inf:
            raise EmptyLanguageError(f"the model writes no block of {grammar!r} in {horizon} tokens")

    @property
    def family(self) -> Hashable:
        return Conditioned

    def sample(self, key: Key) -> tuple[int, ...]:
        block = tuple[int, ...]()
        while (tokens := self._next(block)) is not None:
            block = (*block, tokens.sample(key.fold(str(len(block)))))
        return block

    def log_prob(self, value: Any) -> float:
        """Nats; `-inf` for what is no block of the language."""
        block = tuple(value)
        if any(self._next(block[:i]) is None for i in range(len(block))) or self._next(block) is not None:
            return -math.inf
        state = self._state(block)
        if not self.grammar.accept[state]:
            return -math.inf
        return self.hmm.log_prob(block) - self.log_evidence

    def table(self) -> list[tuple[tuple[int, ...], float]]:
        """Every block, with its probability."""
        return list(self._blocks((), 1.0))

    def _blocks(self, block: tuple[int, ...], p: float) -> Iterator[tuple[tuple[int, ...], float]]:
        tokens = self._next(block)
        if tokens is None:
            yield block, p
            return
        for token, q in tokens.table():
            if q > 0:
                yield from self._blocks((*block, token), p * q)

    def _state(self, block: tuple[int, ...]) -> int:
        state = self.grammar.start()
        for token in block:
            state = self.grammar.advance(state, token)
        return state

    def _next(self, block: tuple[int, ...]) -> Categorical[int] | None:
        """The next token; None behind a whole block, and where none leads to one."""
        state, left = self._state(block), self.horizon - len(block) - 1
        if state >= self.grammar.done or left < 0:
            return None
        belief = self.hmm.start
        for token in block:
            belief = self.hmm.after(belief, token)[1]
        behind = self._log_ends[left, self.grammar.next[state]][self.grammar.classes]  # [V, hidden]
        joint = _times(behind, self.hmm.transition.T) + _log(belief * self.hmm.emission.T)
        logits = np.logaddexp.reduce(joint, 1)
        return Categorical(range(self.hmm.vocab_size), logits.tolist()) if logits.max() > -math.inf else None
