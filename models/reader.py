"""A language that is checked on the host, over the tokens of one model: a `Guide` without tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from ppl.grammar import language
from ppl.grammar.errors import EmptyLanguageError, GrammarError
from ppl.grammar.language import Language, complete, log_value, log_weight, needs
from ppl.grammar.vocabulary import Vocabulary
from ppl.models.finished import Finished

LATE = math.log(1e-3)  # how much those are looked for that might not end in time, nats
FEW = 1000  # tokens that it pays to weigh all


class Around(NamedTuple):
    """All tokens that a language lets follow in a state, and what is behind each."""

    tokens: list[int]
    value: np.ndarray
    """What is known of the weight, nats."""
    least: np.ndarray
    """Bytes to the end of a text, at least."""
    ends: np.ndarray
    """The weight of a block that ends there, nats."""


UNKNOWN = Around([], *[np.zeros(0)] * 3)


class Place:
    """Where a block stands: in the language, in the stop, and where each token that was seen leads."""

    __slots__ = ("around", "at", "following", "log_weight", "matched")

    def __init__(self, at: Any, matched: int, log_weight: float | None = None) -> None:
        self.at = at
        self.matched = matched
        self.following: dict[int, Place] = {}
        self.around: Around | None = UNKNOWN
        self.log_weight = log_weight
        """Of a block that has ended here, nats; None while it goes on."""


class Reader(Finished):
    """Reads blocks token by token.

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
        self.longest = max(map(len, vocabulary.tokens), default=1)
        self._stops = stops
        self._finish = finish
        self._start = Place(start, 0)
        self._places: dict[tuple[Any, int], Place] = {}
        self.dead = self._end(-math.inf)

    @property
    def automaton(self) -> Reader:
        """Itself: it reads tokens as the automaton of a regular language does."""
        return self

    def start(self) -> Place:
        """The state before the first token."""
        return self._start

    def advance(self, place: Place, token: int) -> Place:
        """The state behind one more token."""
        if place.log_weight is not None:
            return self.dead
        if token not in place.following:
            place.following[token] = self._read(place.at, place.matched, token)
        return place.following[token]

    def walk(self, place: Place, tokens: Sequence[int]) -> Place:
        """The state behind some tokens."""
        for token in tokens:
            place = self.advance(place, token)
        return place

    def over(self, place: Place) -> bool:
        """Whether a block has ended, well or not."""
        return place.log_weight is not None

    def ahead(self, place: Place, left: int) -> float:
        """log psi, nats: what is known of the weight of a block with so many tokens left; its weight where it is over.

        -inf where it can't end well in `left` more tokens, less where it may not be able to in tokens of a byte each.
        How probable an end is to the model it does not say.
        """
        if place.log_weight is not None:
            return place.log_weight
        if left <= 0:
            return log_weight(self.grammar, place.at)
        least = needs(self.grammar, place.at)
        if least > left * self.longest:
            return -math.inf
        return self.value(place) + (0.0 if least <= left else LATE)

    def value(self, place: Place) -> float:
        """As `ahead`, of the weight alone."""
        return log_value(self.grammar, place.at)

    def around(self, place: Place, left: int) -> tuple[list[int], np.ndarray] | None:
        """All tokens that may follow, and `ahead` behind each; None if there are more than `FEW`."""
        if place.around is UNKNOWN:
            place.around = self._around(place)
        if place.around is None:
            return None
        tokens, value, least, ends = place.around
        if left <= 0:
            return tokens, ends
        late = np.where(least <= left, 0.0, np.where(least <= left * self.longest, LATE, -np.inf))
        return tokens, value + late

    def _around(self, place: Place) -> Around | None:
        grammar = self.grammar
        tokens = sorted(self.vocabulary.eos) if grammar.accepts(place.at) else []
        todo = [(self.vocabulary.trie, place.at)]
        while todo:
            node, before = todo.pop()
            for byte, child in node.children.items():
                if not grammar.is_dead(behind := grammar.advance(before, bytes([byte]))):
                    tokens += child.tokens
                    todo.append((child, behind))
            if len(tokens) > FEW:
                return None
        places = [self.advance(place, token) for token in tokens]
        ends = [self.ahead(one, 0) for one in places]
        over = [one.log_weight is not None for one in places]
        value = [end if done else self.value(one) for one, end, done in zip(places, ends, over, strict=True)]
        least = [0.0 if done else needs(grammar, one.at) for one, done in zip(places, over, strict=True)]
        return Around(tokens, np.array(value), np.array(least), np.array(ends))

    def check(self, max_tokens: int) -> None:
        """Raise `GrammarError` if it is plain that there is no block of at most so many tokens."""
        if max_tokens < 1 or self.ahead(self._start, max_tokens) > -math.inf:
            return
        least = needs(self.grammar, self._start.at)
        raise GrammarError(f"{self.grammar!r} has no block for max_tokens={max_tokens}: the shortest text has "
                           f"{least:g} bytes, and no token has more than {self.longest}")  # fmt: skip

    def _read(self, at: Any, matched: int, token: int) -> Place:
        grammar, tokens = self.grammar, self.vocabulary.tokens
        if token in self.vocabulary.eos:
            return self._end(log_weight(grammar, at))
        if token >= len(tokens) or not tokens[token]:
            return self.dead
        at = grammar.advance(at, tokens[token])
        if grammar.is_dead(at):
            return self.dead
        matched = int(self._stops[matched, token])
        if matched == len(self._stops) - 1 or (not self._finish and complete(grammar, at)):
            return self._end(log_weight(grammar, at))
        if len(self._places) >= language.KEPT:  # who stands somewhere keeps the place; the others are read again
            self._places.clear()
            self._start.following.clear()
        return self._places.setdefault((at, matched), Place(at, matched))

    def _end(self, log_weight: float) -> Place:
        if not log_weight < math.inf:  # nan too
            raise ValueError(f"{self.grammar!r} has given a text the log weight {log_weight}: finite, or -inf")
        return Place(None, 0, log_weight)

    def __repr__(self) -> str:
        return f"Reader({self.name})"


def check_mode(mode: str, guide: Any) -> None:
    """Raise `ValueError` for a mode that there is not, or not for this grammar."""
    if mode not in ("exact", "local"):
        raise ValueError(f"mode={mode!r}: exact or local")
    if mode == "local" and guide.canonical:
        raise ValueError("mode='local', canonical=True: whether tokens are the tokenizer's own is known at the end, "
                         "and a local mask has no weights")  # fmt: skip
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
