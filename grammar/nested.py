"""Languages of automata that call one another: what recursive schemas denote, read byte by byte on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from ppl.grammar import language
from ppl.grammar.dfa import DFA
from ppl.grammar.errors import EmptyLanguageError, GrammarError
from ppl.grammar.language import Meeting
from ppl.grammar.regular import Regular

CALL = 0xFF  # followed by a number: no text in UTF-8 has this byte


def call(number: int) -> bytes:
    """What stands for a text of automaton `number` in the automata of a `Nested`."""
    return bytes([CALL, number])


class Frame:
    """Somewhere within an automaton, and where to go on when it has come to its end. There is one of each."""

    __slots__ = ("automaton", "back", "left", "state")

    def __init__(self, automaton: int, state: int, back: Frame | None, needs: float) -> None:
        self.automaton = automaton
        self.state = state
        self.back = back
        self.left = needs if back is None else needs + back.left
        """The fewest bytes to the end of the text."""


class Spot:
    """A state: all the ways in which a text may have been read so far."""

    __slots__ = ("following", "frames")

    def __init__(self, frames: frozenset[Frame]) -> None:
        self.frames = frames
        self.following: dict[int, Spot] = {}


class Nested(Meeting):
    """The texts of the first of some automata, where `call(i)` stands for any text of automaton i, from 1 on.

    Texts may be read in several ways at once; states are interned, so that what is read once is known. `a + b` and
    `a | b` are as for a `Regular`, with one or with a string.

    Raises:
        EmptyLanguageError: there is no text that ends.
        GrammarError: an automaton may begin with itself; `names` are those of the automata that are called.
    """

    def __init__(self, automata: Sequence[DFA], names: Sequence[str], about: str = "nested") -> None:
        self.about = about
        self.names = names
        self._automata = automata
        self.check: Callable[[str], bool] | None = None
        """Of finished texts, where the automata let in more."""
        self._next = [automaton.next.tolist() for automaton in automata]
        self._accept = [automaton.accept.tolist() for automaton in automata]
        self._calls = [
            [
                [(number, table[to][number]) for number in range(len(automata)) if table[to][number] < automaton.size]
                if (to := row[CALL]) < automaton.size else []
                for row in table
            ]
            for automaton, table in zip(automata, self._next, strict=True)
        ]  # fmt: skip
        self._needs = self._shortest(automata)
        if self._needs[0][0] == math.inf:
            raise EmptyLanguageError(f"{about}: no text of it comes to an end")
        self._refuse_loops()
        self._spots: dict[frozenset[Frame], Spot] = {}
        self._frames: dict[tuple[int, int, Frame | None], Frame] = {}
        self._dead = Spot(frozenset())

    def _shortest(self, automata: Sequence[DFA]) -> list[list[float]]:
        """The fewest bytes from each state of each automaton to its end, whatever it calls included."""
        out = [[0.0 if ends else math.inf for ends in accept] for accept in self._accept]
        changed = True
        while changed:
            changed = False
            for i, automaton in enumerate(automata):
                for state in reversed(range(automaton.size)):
                    ways = [1 + out[i][to] for byte, to in enumerate(self._next[i][state]) if byte != CALL]
                    ways += [out[number][0] + out[i][to] for number, to in self._calls[i][state]]
                    if (best := min(ways)) < out[i][state]:
                        out[i][state], changed = best, True
        return out

    def _refuse_loops(self) -> None:
        first = [{number for number, _ in calls[0]} for calls in self._calls]
        for _ in first:
            first = [ways.union(*(first[number] for number in ways)) for ways in first]
        for i, ways in enumerate(first):
            if i in ways:
                raise GrammarError(f"{self.about}: {self.names[i - 1]} is defined as itself, or as one of several of "
                                   "which it is one")  # fmt: skip

    @cached_property
    def _start(self) -> Spot:
        return self._spot([self._frame(0, 0, None)])

    def _frame(self, automaton: int, state: int, back: Frame | None) -> Frame:
        key = automaton, state, back
        if key not in self._frames:
            self._frames[key] = Frame(*key, self._needs[automaton][state])
        return self._frames[key]

    def _spot(self, frames: Sequence[Frame]) -> Spot:
        """Where these are, whatever is called or returned to from there too."""
        found, todo = set[Frame](), list(frames)
        while todo:
            frame = todo.pop()
            if frame in found or frame.left == math.inf:
                continue
            found.add(frame)
            i, state, back = frame.automaton, frame.state, frame.back
            if self._accept[i][state] and back is not None:
                todo.append(back)
            todo += [self._frame(number, 0, self._frame(i, to, back)) for number, to in self._calls[i][state]]
        key = frozenset(found)
        if len(self._spots) >= language.KEPT:
            self._spots.clear()
            self._frames.clear()
            self._start.following.clear()
        return self._spots.setdefault(key, Spot(key)) if key else self._dead

    def start(self) -> Spot:
        return self._start

    def advance(self, state: Spot, data: bytes | str) -> Spot:
        for byte in data.encode() if isinstance(data, str) else data:
            if byte not in state.following:
                state.following[byte] = (
                    self._dead if byte == CALL else
                    self._spot([self._frame(one.automaton, self._next[one.automaton][one.state][byte], one.back)
                                for one in state.frames])
                )  # fmt: skip
            state = state.following[byte]
        return state

    def accepts(self, state: Spot) -> bool:
        return any(one.back is None and self._accept[one.automaton][one.state] for one in state.frames)

    def is_dead(self, state: Spot) -> bool:
        return state is self._dead

    def complete(self, state: Spot) -> bool:
        """As `Language`."""
        return self.accepts(state) and all(
            self._needs[one.automaton][to] == math.inf
            for one in state.frames
            for byte, to in enumerate(self._next[one.automaton][one.state])
            if byte != CALL
        )

    def needs(self, state: Spot) -> float:
        return min((one.left for one in state.frames), default=math.inf)

    def _whole(self) -> Regular:
        out = Regular(self._automata[0], self.about)
        out.check = self.check
        return out

    def _with(self, whole: Regular) -> Nested:
        return Nested([whole.dfa, *self._automata[1:]], self.names, whole.about)

    def __add__(self, other: Regular | str) -> Nested:
        return self._with(self._whole() + other)

    def __radd__(self, other: Regular | str) -> Nested:
        return self._with(other + self._whole())

    def __or__(self, other: Regular | str) -> Nested:
        return self._with(self._whole() | other)

    __ror__ = __or__

    def __contains__(self, text: Any) -> bool:
        data = text.encode() if isinstance(text, str) else text
        if not self.accepts(self.advance(self.start(), data)):
            return False
        return self.check is None or self.check(data.decode())

    def __repr__(self) -> str:
        return f"<nested language {self.about}, {len(self._next)} automata>"
