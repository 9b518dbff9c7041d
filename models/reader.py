"""A language that is checked on the host, over the tokens of one model: a `Guide` without tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from ppl.grammar.errors import EmptyLanguageError, GrammarError
from ppl.grammar.language import Language, complete, needs
from ppl.grammar.vocabulary import Vocabulary

LATE = math.log(1e-3)  # how much those are looked for that might not end in time, nats
DONE, DEAD = 2**40, 2**40 + 1


class Reader:
    """Reads blocks token by token. States are numbers: `done` ends a block well, what is above it is dead.

    Raises:
        EmptyLanguageError: the language is dead from the start.
    """

    def __init__(self, grammar: Language, vocabulary: Vocabulary, stops: np.ndarray, finish: bool) -> None:
        self.grammar = grammar
        self.vocabulary = vocabulary
        self.name = _name(grammar, finish)
        start = grammar.start()
        if grammar.is_dead(start):
            raise EmptyLanguageError(f"{grammar!r} has no text: nothing can be written")
        self.done = DONE
        self.longest = max(map(len, vocabulary.tokens), default=1)
        self._stops = stops
        self._finish = finish
        self._states: list[tuple[Any, int]] = [(start, 0)]
        self._numbers = {self._states[0]: 0}
        self._following: list[dict[int, int]] = [{}]
        self.automaton = self

    def advance(self, state: int, token: int) -> int:
        """The state behind one more token."""
        if state >= DONE:
            return DEAD
        following = self._following[state]
        if token not in following:
            following[token] = self._read(*self._states[state], token)
        return following[token]

    def walk(self, state: int, tokens: Sequence[int]) -> int:
        """The state behind some tokens."""
        for token in tokens:
            state = self.advance(state, token)
        return state

    def ahead(self, state: int, left: int) -> float:
        """log psi, nats: 0 where a block can end well in `left` more tokens of a byte each, -inf where it can't in any.

        It says nothing of how probable that is.
        """
        if state >= DONE:
            return 0.0 if state == DONE else -math.inf
        at = self._states[state][0]
        if left <= 0:
            return 0.0 if self.grammar.accepts(at) else -math.inf
        least = needs(self.grammar, at)
        return 0.0 if least <= left else LATE if least <= left * self.longest else -math.inf

    def check(self, max_tokens: int) -> None:
        """Raise `GrammarError` if it is plain that there is no block of at most so many tokens."""
        if max_tokens < 1 or self.ahead(0, max_tokens) > -math.inf:
            return
        least = needs(self.grammar, self._states[0][0])
        raise GrammarError(f"{self.grammar!r} has no block for max_tokens={max_tokens}: the shortest text has "
                           f"{least:g} bytes, and no token has more than {self.longest}")  # fmt: skip

    def passes(self, block: Sequence[int]) -> bool:
        """As `Guide.passes`: nothing is left to be checked."""
        return True

    def _read(self, at: Any, matched: int, token: int) -> int:
        grammar, tokens = self.grammar, self.vocabulary.tokens
        if token in self.vocabulary.eos:
            return DONE if grammar.accepts(at) else DEAD
        if token >= len(tokens) or not tokens[token]:
            return DEAD
        at = grammar.advance(at, tokens[token])
        if grammar.is_dead(at):
            return DEAD
        matched = int(self._stops[matched, token])
        if matched == len(self._stops) - 1:
            return DONE if grammar.accepts(at) else DEAD
        if not self._finish and complete(grammar, at):
            return DONE
        if (at, matched) not in self._numbers:
            self._numbers[at, matched] = len(self._states)
            self._states.append((at, matched))
            self._following.append({})
        return self._numbers[at, matched]

    def __repr__(self) -> str:
        return f"Reader({self.name})"


def check_mode(mode: str, guide: Any) -> None:
    """Raise `ValueError` for a mode that there is not, or not for this grammar."""
    if mode not in ("exact", "local"):
        raise ValueError(f"mode={mode!r}: exact or local")
    if mode == "local" and isinstance(guide, Reader):
        raise ValueError(f"mode='local' of {guide.grammar!r}: it is checked token by token, and nobody knows what "
                         "a mask would leave; only regular languages have one")  # fmt: skip


def _name(grammar: Language, finish: bool) -> str:
    """What it is called in journals: the same in every process if the language says what it is about."""
    about = getattr(grammar, "about", None)
    if about is None:
        about = f"{type(grammar).__module__}.{type(grammar).__qualname__}"
    digest = blake2b(about.encode(), digest_size=4).hexdigest()
    return f"{about[:40]}#{digest}{', to the end' if finish else ''}"
