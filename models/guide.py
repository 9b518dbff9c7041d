"""A grammar over the tokens of one model: what a block may be, and the look-ahead that steers it there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ppl.grammar.errors import EmptyLanguageError, GrammarError
from ppl.grammar.lookahead import ROWS, class_mass, log_ahead
from ppl.grammar.potential import Words, words_of
from ppl.grammar.regular import Regular
from ppl.grammar.tokens import TokenDFA
from ppl.grammar.vocabulary import Vocabulary
from ppl.models.decode import Stop
from ppl.models.draw import PLAIN
from ppl.models.finished import Finished
from ppl.models.text import Text

if TYPE_CHECKING:
    from ppl.models.language_model import LanguageModel

PILOTS, PILOT_TOKENS, PILOT_BLOCK = 32, 16, 64  # texts that are written to learn from, and tokens of each
LESSONS = 2  # how often: the second time looking ahead by what the first has shown
PRIOR = 1.0  # visits of a state that what is known of all together counts for


class Guide(Finished):
    """The automaton of a grammar and a stop over the tokens of a vocabulary, and its look-ahead.

    That is by a proxy of the model: `prior`, the probability of each class of tokens, and what is learnt of each state.
    """

    def __init__(
        self, grammar: Regular, vocabulary: Vocabulary, automaton: TokenDFA, finish: bool, prior: np.ndarray
    ) -> None:
        self.grammar = grammar
        self.vocabulary = vocabulary
        self.automaton = automaton
        self.name = f"{grammar.about[:40]}#{grammar.dfa.digest.hex()[:8]}{', to the end' if finish else ''}"
        self._prior = prior
        self._log_h = log_ahead(automaton, prior)

    @classmethod
    def of(
        cls, grammar: Regular, vocabulary: Vocabulary, stops: np.ndarray, finish: bool, probabilities: np.ndarray
    ) -> Guide:
        """Looking ahead by how probable each token is on average."""
        automaton = automaton_of(grammar, vocabulary, stops, finish)
        return cls(grammar, vocabulary, automaton, finish, class_mass(automaton, probabilities))

    def ahead(self, state: int, left: int) -> float:
        """log psi, nats: how probable it is, by a proxy of the model, that a block ends well in `left` more tokens."""
        return float(self._log_h[min(left, ROWS), state])

    def over(self, state: int) -> bool:
        """Whether a block has ended, well or not."""
        return state >= self.automaton.done

    def check(self, max_tokens: int) -> None:
        """Raise `GrammarError` if there is no block of at most so many tokens."""
        if max_tokens < 1 or self.ahead(0, max_tokens) > -np.inf:
            return
        least = max(1, int(self.automaton.distance[0]))
        what = f"the shortest takes {least} tokens" if max_tokens < least else "none comes to an end before"
        raise GrammarError(f"{self.grammar!r} has no block for max_tokens={max_tokens}: {what}")

    def learn(self, seen: np.ndarray, visits: np.ndarray) -> None:
        """Look ahead by what the model writes in each state.

        `seen` [size, K] are sums of probabilities of classes over `visits` [size] of each state.
        """
        self._log_h = log_ahead(self.automaton, (seen + PRIOR * self._prior) / (visits + PRIOR)[:, None])
        self.__dict__.pop("steered", None)

    @cached_property
    def steered(self) -> Stop:
        """On the device, with the look-ahead."""
        return Stop.of(self.automaton.next, self.automaton.classes, self.automaton.done, self._log_h)

    @cached_property
    def masked(self) -> Stop:
        """On the device: whatever can still end well is as it is."""
        mask = np.where(self._log_h > -np.inf, 0.0, -np.inf)
        return Stop.of(self.automaton.next, self.automaton.classes, self.automaton.done, mask)

    def potential(self, max_tokens: int) -> Words:
        """For a jitted loop of one's own: see `ppl.grammar.potential`.

        What `canonical` or the check of a grammar says of finished blocks is not in it.

        Raises:
            GrammarError: there is no block of at most so many tokens.
        """
        return words_of(self.automaton, self._log_h, max_tokens)

    def walk(self, state: int, tokens: Sequence[int]) -> int:
        """The state behind some tokens."""
        for token in tokens:
            state = self.automaton.advance(state, token)
        return state

    def __repr__(self) -> str:
        return f"Guide({self.name})"


def automaton_of(grammar: Regular, vocabulary: Vocabulary, stops: np.ndarray, finish: bool) -> TokenDFA:
    """What blocks may be.

    Raises:
        EmptyLanguageError: no text is in the language, or none but the empty one.
        UnreachableByTokensError: no sequence of tokens writes one.
    """
    if grammar.empty:
        raise EmptyLanguageError(f"{grammar!r} has no text: nothing can be written")
    automaton = TokenDFA.of(grammar.dfa, vocabulary)
    if not finish:
        automaton = automaton.completed()
    if len(stops) > 2 or stops[0].any():  # there is something that ends a block
        automaton = automaton.until(stops)
    if automaton.size == 0:
        raise EmptyLanguageError(f"{grammar!r}: no text of it ends where `until` does, or with an end-of-text token")
    return automaton


def taught(lm: LanguageModel, grammar: Regular, vocabulary: Vocabulary, stops: np.ndarray, finish: bool) -> Guide:
    """The guide of a grammar for a model, that has seen what the model writes; from disk, if it was made before.

    Raises as `automaton_of`.
    """
    what = grammar.dfa.digest, vocabulary.digest, stops.tobytes(), bytes([finish])
    if lm.kept is not None and (found := lm.kept.read(*what)) is not None:
        automaton = TokenDFA(found["next"], found["classes"], found["accept"])
        guide = Guide(grammar, vocabulary, automaton, finish, found["prior"])
        guide.learn(found["seen"], found["visits"])
        return guide
    guide = Guide.of(grammar, vocabulary, stops, finish, lm.unigram)
    seen, visits = teach(guide, lm)
    if lm.kept is not None:
        automaton = guide.automaton
        lm.kept.write({"next": automaton.next, "classes": automaton.classes, "accept": automaton.accept,
                       "prior": guide._prior, "seen": seen, "visits": visits}, *what)  # fmt: skip
    return guide


def unigram(lm: LanguageModel) -> np.ndarray:
    """How probable each token is on average, float64 [vocab_size]: behind short texts that the model writes.

    The same whenever it is computed.
    """
    keys = np.random.default_rng(1).integers(2**32, size=(PILOTS, 2), dtype=np.uint32)
    most = min(PILOT_TOKENS, lm.engine.capacity // 2)
    written = lm.engine.decode(_starts(lm), keys, lm.stop(())[0], most, PLAIN)()
    mean = np.exp(np.asarray(lm.engine.next_log_probs(written), np.float64)[:PILOTS]).mean(0)
    return 0.99 * mean / mean.sum() + 0.01 / len(mean)


def teach(guide: Guide, lm: LanguageModel) -> tuple[np.ndarray, np.ndarray]:
    """Let the guide see what the model writes where: blocks under the grammar, behind nothing in particular.

    The same whenever it is done, so that a program's draws do not depend on what was asked before it. What is learnt
    makes weights more even; they are exact without. It is given back, as `Guide.learn` takes it.
    """
    rng, automaton, starts = np.random.default_rng(2), guide.automaton, _starts(lm)
    order = np.argsort(automaton.classes, kind="stable")
    first = np.searchsorted(automaton.classes[order], np.arange(automaton.next.shape[1]))
    seen, visits = np.zeros((automaton.size, len(first))), np.zeros(automaton.size)
    for lesson in range(LESSONS):
        texts, states = list(starts), np.zeros(PILOTS, np.int32)
        what = f"seeing what {lm.name} writes under {guide.name} ({lesson + 1} of {LESSONS})"
        for _ in _shown(range(PILOT_BLOCK), what):
            p = np.exp(np.asarray(lm.engine.next_log_probs(texts))[:PILOTS])
            np.add.at(seen, states, np.add.reduceat(p[:, order], first, 1))
            np.add.at(visits, states, 1.0)
            keys = rng.integers(2**32, size=(PILOTS, 2), dtype=np.uint32)
            texts = lm.engine.decode(texts, keys, guide.steered, 1, PLAIN, states, ROWS)()
            for i, text in enumerate(texts):
                states[i] = automaton.advance(int(states[i]), int(text.tokens[-1]))
                if guide.over(states[i]) or text.full:  # begin again: as many rows, so that nothing is compiled
                    texts[i], states[i] = starts[i], 0
        guide.learn(seen, visits)
    return seen, visits


def _shown(steps: Sequence[int], what: str) -> Iterable[int]:
    """With a bar where somebody may watch, gone when it is done: a large model takes its time."""
    if not sys.stderr.isatty():
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, what, console=Console(stderr=True), transient=True)


def _starts(lm: LanguageModel) -> list[Text]:
    """Texts that say nothing: what every text begins with, or else tokens at random."""
    data = [lm.tokenizer.prefix] * PILOTS
    if not lm.tokenizer.prefix:
        ids = [i for i, token in enumerate(lm.tokenizer.token_bytes()) if token and i not in lm.tokenizer.eos]
        data = [np.int32(ids[i]).tobytes() for i in np.random.default_rng(0).integers(len(ids), size=PILOTS)]
    return [Text(lm.tokenizer, one) for one in data]
