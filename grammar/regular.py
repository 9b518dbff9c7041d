"""Regular languages as values: built from patterns and choices, put together with `|`, `&`, `+`, `-`, `~`.

>>> from ppl.grammar import regex
>>> date = regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
>>> "2024-02-29" in date, "2024-2-29" in date
(True, False)
>>> sorted((regex("a|ab|abc") - regex("ab")).texts())
['a', 'abc']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice

import numpy as np

from ppl.grammar.dfa import DFA
from ppl.grammar.errors import EmptyLanguageError
from ppl.grammar.nfa import NFA, Part
from ppl.grammar.rx import compile_regex, repeated
from ppl.grammar.utf8 import ALL, sequences

MAX_STATES = 20_000
_AND, _OR = np.array([[0, 0], [0, 1]], bool), np.array([[0, 1], [1, 1]], bool)
_ONLY, _EITHER = np.array([[0, 0], [1, 0]], bool), np.array([[0, 1], [1, 0]], bool)


class Regular:
    """A set of texts that a finite automaton recognises.

    `a | b` is what is in one of them, `a & b` in both, `a - b` in `a` alone, `~a` every other text; `a + b` is a text
    of `a` followed by one of `b`; a string stands for itself. Two languages are equal if their texts are. `text in a`
    asks; `start`, `advance`, `accepts`, `is_dead` and `mask` read byte by byte.

    `max_states` limits the automata on the way, and goes on to what is made of it.

    Raises:
        TooLargeError: more states than that.
    """

    def __init__(self, dfa: DFA, about: str, max_states: int = MAX_STATES) -> None:
        self.dfa = dfa
        self.about = about
        self.max_states = max_states
        self.check: Callable[[str], bool] | None = None
        """What a finished text must pass beside; of languages that hold more than was asked for."""

    def start(self) -> int:
        """The state before the first byte."""
        return 0

    def advance(self, state: int, text: str | bytes) -> int:
        """The state behind some more of a text."""
        return self.dfa.walk(state, text.encode() if isinstance(text, str) else text)

    def accepts(self, state: int) -> bool:
        """Whether a text may end in this state."""
        return bool(self.dfa.accept[state])

    def is_dead(self, state: int) -> bool:
        """Whether no text goes on from this state."""
        return state == self.dfa.size

    def mask(self, state: int) -> np.ndarray:
        """Which bytes can follow, bool [256]."""
        return self.dfa.next[state] < self.dfa.size

    def __contains__(self, text: str | bytes) -> bool:
        if not self.accepts(self.advance(0, text)):
            return False
        return self.check is None or self.check(text if isinstance(text, str) else text.decode())

    @property
    def empty(self) -> bool:
        return self.dfa.size == 0

    @property
    def finite(self) -> bool:
        """Whether there are finitely many texts."""
        return self.dfa.finite

    def count(self, max_bytes: int) -> int:
        """How many texts have at most so many bytes."""
        return sum(self.dfa.counts(max_bytes))

    def texts(self) -> Iterator[str]:
        """All texts, the short ones (in bytes) first; without end if there are infinitely many."""
        return (data.decode() for data in self.dfa.texts())

    def shortest(self) -> str:
        """The first of the shortest texts.

        Raises:
            EmptyLanguageError: there is none.
        """
        data = self.dfa.shortest()
        if data is None:
            raise EmptyLanguageError(f"{self!r} has no text")
        return data.decode()

    def difference(self, other: Regular | str) -> str | None:
        """The shortest text that is in one of two languages only; None if they are equal."""
        other = _language(other)
        apart = self.dfa.product(other.dfa, _EITHER, max(self.max_states, other.max_states)).shortest()
        return None if apart is None else apart.decode()

    def repeat(self, least: int, most: int | None = None) -> Regular:
        """From `least` to `most` texts, one behind the other; without `most` any number from `least` on.

        Raises:
            ValueError: not 0 <= least <= most.
        """
        if least < 0 or (most is not None and most < least):
            raise ValueError(f"repeat({least}, {most}): at least 0 times, and at least as often as at least")
        times = f"{{{least},{'' if most is None else most}}}"
        return self._built(lambda nfa: repeated(nfa, lambda: nfa.embedded(self.dfa), least, most), times)

    def optional(self) -> Regular:
        """A text or nothing."""
        return self.repeat(0, 1)

    def __or__(self, other: Regular | str) -> Regular:
        return self._product(other, _OR, "|")

    def __and__(self, other: Regular | str) -> Regular:
        if not isinstance(other, Regular | str) and hasattr(other, "__rand__"):
            return NotImplemented  # not regular itself
        return self._product(other, _AND, "&")

    def complete(self, state: int) -> bool:
        """Whether a text may end here, and no longer one begins with it."""
        return self.accepts(state) and bool((self.dfa.next[state] == self.dfa.size).all())

    def needs(self, state: int) -> float:
        """How many bytes it takes at least from here to the end of a text; infinitely many from the dead state."""
        return float(self.dfa.distance[state]) if state < self.dfa.size else float("inf")

    def __sub__(self, other: Regular | str) -> Regular:
        return self._product(other, _ONLY, "-")

    def __invert__(self) -> Regular:
        out = everything(self.max_states) - self
        return Regular(out.dfa, f"~{self.about}", self.max_states)

    def __add__(self, other: Regular | str) -> Regular:
        other = _language(other)
        return self._built(lambda nfa: nfa.joined([nfa.embedded(self.dfa), nfa.embedded(other.dfa)]),
                           f" + {other.about}", other)  # fmt: skip

    def __radd__(self, other: str) -> Regular:
        return _language(other) + self

    def __ror__(self, other: str) -> Regular:
        return _language(other) | self

    def __rand__(self, other: str) -> Regular:
        return _language(other) & self

    def __rsub__(self, other: str) -> Regular:
        return _language(other) - self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regular) and self.dfa == other.dfa and self.check is other.check

    def __hash__(self) -> int:
        return hash(self.dfa)

    def __repr__(self) -> str:
        about = self.about if len(self.about) <= 80 else f"{self.about[:77]}..."
        return f"<language {about}, {self.dfa.size} states>"

    @cached_property
    def examples(self) -> list[str]:
        """The first few texts."""
        return list(islice(self.texts(), 5))

    def _built(self, build: Callable[[NFA], Part], about: str, *others: Regular) -> Regular:
        if any(one.check is not None for one in (self, *others)):
            raise TypeError(f"{self!r}: a language whose texts are checked when they are finished cannot be part of "
                            "another")  # fmt: skip
        nfa = NFA(self.max_states)
        return Regular(nfa.determined(build(nfa)), f"{self.about}{about}", self.max_states)

    def _product(self, other: Regular | str, accept: np.ndarray, sign: str) -> Regular:
        other = _language(other)
        most = max(self.max_states, other.max_states)
        out = Regular(self.dfa.product(other.dfa, accept, most), f"({self.about} {sign} {other.about})", most)
        checks = [one.check for one in (self, other) if one.check is not None]
        if checks and sign != "&":
            raise TypeError(f"{self!r} {sign} {other!r}: a language whose texts are checked when they are finished can "
                            "be met by `&` only")  # fmt: skip
        out.check = (lambda text: all(check(text) for check in checks)) if checks else None
        return out


def regex(pattern: str, *, max_states: int = MAX_STATES) -> Regular:
    """The texts that `re.fullmatch(pattern, text)` matches, all of them and no other.

    Flags are written in the pattern, like (?i). `max_states` limits the automaton.

    Raises:
        RegexError: not a pattern; or look-around, back-references, word boundaries, atomic groups, possessive
            repetitions or (?m)^, which no regular language has. It has the position.
        TooLargeError: too many states.
    """
    return Regular(compile_regex(pattern, max_states), pattern, max_states)


def choice(texts: list[str] | tuple[str, ...], *, max_states: int = MAX_STATES) -> Regular:
    """One of these texts.

    Raises:
        TypeError: a string in place of a list, or something else among them.
        EmptyLanguageError: there are none.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"choice({texts!r}): a list of strings is needed")
    if not texts:
        raise EmptyLanguageError("choice([]): there is nothing to choose")
    nfa = NFA(max_states)
    part = nfa.sequences(tuple((byte, byte) for byte in text.encode()) for text in texts)
    return Regular(nfa.determined(part), " | ".join(map(repr, texts)), max_states)


def everything(max_states: int = MAX_STATES) -> Regular:
    """All texts."""
    nfa = NFA(max_states)
    return Regular(nfa.determined(nfa.starred(nfa.sequences(sequences(ALL)))), "everything", max_states)


def _language(what: Regular | str) -> Regular:
    if isinstance(what, str):
        return choice([what])
    if not isinstance(what, Regular):
        raise TypeError(f"{what!r} is no regular language: regex(...), choice([...]) and strings are")
    return what
