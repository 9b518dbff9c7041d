"""A grammar over the tokens of one model: what a block may be, and the look-ahead that steers it there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ppl.grammar.errors import EmptyLanguageError, GrammarError
from ppl.grammar.lookahead import ROWS, log_ahead
from ppl.grammar.regular import Regular
from ppl.grammar.tokens import TokenDFA
from ppl.grammar.vocabulary import Vocabulary
from ppl.models.decode import Stop
from ppl.models.draw import PLAIN
from ppl.models.text import Text
from ppl.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ppl.models.language_model import LanguageModel

PILOTS, PILOT_TOKENS = 64, 16


class Guide:
    """The automaton of a grammar and a stop over the tokens of a vocabulary, and its look-ahead.

    Raises:
        EmptyLanguageError: no text is in the language, or none but the empty one.
        UnreachableByTokensError: no sequence of tokens writes one.
    """

    def __init__(
        self, grammar: Regular, vocabulary: Vocabulary, stops: np.ndarray, finish: bool, probabilities: np.ndarray
    ) -> None:
        if grammar.empty:
            raise EmptyLanguageError(f"{grammar!r} has no text: nothing can be written")
        automaton = TokenDFA.of(grammar.dfa, vocabulary)
        if not finish:
            automaton = automaton.completed()
        if len(stops) > 2 or stops[0].any():  # there is something that ends a block
            automaton = automaton.until(stops)
        if automaton.size == 0:
            raise EmptyLanguageError(
                f"{grammar!r}: no text of it ends where `until` does, or with an end-of-text token"
            )
        self.grammar = grammar
        self.automaton = automaton
        self.name = f"{grammar.about[:40]}#{grammar.dfa.digest.hex()[:8]}{', to the end' if finish else ''}"
        self._log_h = log_ahead(automaton, probabilities)

    def ahead(self, state: int, left: int) -> float:
        """log psi, nats: how probable it is, by a proxy of the model, that a block ends well in `left` more tokens."""
        return float(self._log_h[min(left, ROWS), state])

    def check(self, max_tokens: int) -> None:
        """Raise `GrammarError` if there is no block of at most so many tokens."""
        if max_tokens < 1 or self.ahead(0, max_tokens) > -np.inf:
            return
        least = max(1, int(self.automaton.distance[0]))
        what = f"the shortest takes {least} tokens" if max_tokens < least else "none comes to an end before"
        raise GrammarError(f"{self.grammar!r} has no block for max_tokens={max_tokens}: {what}")

    @cached_property
    def steered(self) -> Stop:
        """On the device, with the look-ahead."""
        return Stop.of(self.automaton.next, self.automaton.classes, self.automaton.done, self._log_h)

    @cached_property
    def masked(self) -> Stop:
        """On the device: whatever can still end well is as it is."""
        mask = np.where(self._log_h > -np.inf, 0.0, -np.inf)
        return Stop.of(self.automaton.next, self.automaton.classes, self.automaton.done, mask)

    def walk(self, state: int, tokens: Sequence[int]) -> int:
        """The state behind some tokens."""
        for token in tokens:
            state = self.automaton.advance(state, token)
        return state

    def __repr__(self) -> str:
        return f"Guide({self.name})"


def vocabulary_of(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """What the tokens of a model write."""
    return Vocabulary(tokenizer.token_bytes(), tokenizer.eos, size)


def unigram(lm: LanguageModel) -> np.ndarray:
    """How probable each token is on average, float64 [vocab_size]: behind `PILOTS` short texts that the model writes.

    The same whenever it is computed.
    """
    engine, rng = lm.engine, np.random.default_rng(0)
    starts: list[bytes] = [lm.tokenizer.prefix] * PILOTS
    if not lm.tokenizer.prefix:
        ids = [i for i, token in enumerate(lm.tokenizer.token_bytes()) if token and i not in lm.tokenizer.eos]
        starts = [np.int32(ids[i]).tobytes() for i in rng.integers(len(ids), size=PILOTS)]
    keys = rng.integers(2**32, size=(PILOTS, 2), dtype=np.uint32)
    texts = [Text(lm.tokenizer, data) for data in starts]
    written = engine.decode(texts, keys, lm.stop(())[0], min(PILOT_TOKENS, engine.capacity // 2), PLAIN)()
    mean = np.exp(np.asarray(engine.next_log_probs(written), np.float64)[:PILOTS]).mean(0)
    return 0.99 * mean / mean.sum() + 0.01 / len(mean)
