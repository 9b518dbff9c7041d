"""What a language must be able to say, so that a model's texts can be held to it token by token on the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

KEPT = 200_000
"""States that a language keeps for the next time; those beyond are worked out again."""


@runtime_checkable
class Language(Protocol):
    """A set of texts that is read byte by byte: `CFG` is one, and whatever else has these methods.

    States are hashable, and equal where what can follow is the same. `is_dead` may take a state for alive from which
    no text comes out: that costs draws, and changes no distribution. A language may have two methods more:
    `complete(state)`, whether a text may end there and no longer one begins with it, and `needs(state)`, a bound from
    below for the bytes from there to the end of a text.

    A *weighted* language says how much a text counts, `log_weight(state)` of one that ends there, nats; those of a
    plain language count 1. What it says on the way, `log_value(state)`, steers the draws and does not change what they
    mean: it is at least the `log_weight` of every text that goes on from there and never rises, as the probability of
    a prefix does. Without it nothing is known on the way, and no text may count more than 1.
    """

    def start(self) -> Any:
        """The state before the first byte."""
        ...

    def advance(self, state: Any, data: bytes, /) -> Any:
        """The state behind some more of a text, which may end inside a character."""
        ...

    def accepts(self, state: Any, /) -> bool:
        """Whether a text may end in this state."""
        ...

    def is_dead(self, state: Any, /) -> bool:
        """Whether no text goes on from this state."""
        ...


class Meeting:
    """What `&` and `**` mean for languages that are read byte by byte."""

    def __and__(self: Any, other: Language) -> Meet:
        return Meet(self, other)

    def __rand__(self: Any, other: Language) -> Meet:
        return Meet(other, self)

    def __pow__(self: Any, beta: float) -> Tempered:
        return Tempered(self, beta)


class Meet(Meeting):
    """The texts of two languages: what both of them can say. The weights of a text are multiplied."""

    def __init__(self, one: Language, other: Language) -> None:
        self.parts = one, other

    @property
    def about(self) -> str:
        return " & ".join(str(getattr(part, "about", part)) for part in self.parts)

    def start(self) -> Any:
        return tuple(part.start() for part in self.parts)

    def advance(self, state: Any, data: bytes) -> Any:
        return tuple(part.advance(at, data) for part, at in zip(self.parts, state, strict=True))

    def accepts(self, state: Any) -> bool:
        return all(part.accepts(at) for part, at in zip(self.parts, state, strict=True))

    def is_dead(self, state: Any) -> bool:
        """One is dead; or one can only end here, and the other cannot."""
        if any(part.is_dead(at) for part, at in zip(self.parts, state, strict=True)):
            return True
        over = any(complete(part, at) for part, at in zip(self.parts, state, strict=True))
        return over and not self.accepts(state)

    def complete(self, state: Any) -> bool:
        return self.accepts(state) and any(complete(part, at) for part, at in zip(self.parts, state, strict=True))

    def needs(self, state: Any) -> float:
        return max(needs(part, at) for part, at in zip(self.parts, state, strict=True))

    def log_weight(self, state: Any) -> float:
        return sum(log_weight(part, at) for part, at in zip(self.parts, state, strict=True))

    def log_value(self, state: Any) -> float:
        return sum(log_value(part, at) for part, at in zip(self.parts, state, strict=True))

    @property
    def check(self) -> Callable[[str], bool] | None:
        """What finished texts must pass beside."""
        checks = [one for part in self.parts if (one := check(part)) is not None]
        return (lambda text: all(one(text) for one in checks)) if checks else None

    def __contains__(self, text: str | bytes) -> bool:
        data = text.encode() if isinstance(text, str) else text
        return self.accepts(self.advance(self.start(), data)) and (self.check is None or self.check(data.decode()))

    def __repr__(self) -> str:
        return f"{self.parts[0]!r} & {self.parts[1]!r}"


class Tempered(Meeting):
    """A weighted language whose weights are raised to a power.

    Raises:
        ValueError: the power is not positive and finite.
    """

    def __init__(self, language: Language, beta: float) -> None:
        if not 0 < beta < math.inf:
            raise ValueError(f"{language!r} ** {beta}: the power of a language is positive and finite")
        self.language = language
        self.beta = float(beta)

    @property
    def about(self) -> str:
        return f"({getattr(self.language, 'about', self.language)}) ** {self.beta}"

    def start(self) -> Any:
        return self.language.start()

    def advance(self, state: Any, data: bytes) -> Any:
        return self.language.advance(state, data)

    def accepts(self, state: Any) -> bool:
        return self.language.accepts(state)

    def is_dead(self, state: Any) -> bool:
        return self.language.is_dead(state)

    def complete(self, state: Any) -> bool:
        return complete(self.language, state)

    def needs(self, state: Any) -> float:
        return needs(self.language, state)

    @property
    def check(self) -> Callable[[str], bool] | None:
        return check(self.language)

    def log_weight(self, state: Any) -> float:
        return self.beta * log_weight(self.language, state)

    def log_value(self, state: Any) -> float:
        return self.beta * log_value(self.language, state)

    def __repr__(self) -> str:
        return f"{self.language!r} ** {self.beta:g}"


def log_weight(language: Language, state: Any) -> float:
    """Of a text that ends here, nats; -inf if none may."""
    if not language.accepts(state):
        return -math.inf
    return language.log_weight(state) if hasattr(language, "log_weight") else 0.0  # pyright: ignore[reportAttributeAccessIssue]


def log_value(language: Language, state: Any) -> float:
    """What is known on the way of the weight of a text that goes on from here, nats."""
    return language.log_value(state) if hasattr(language, "log_value") else 0.0  # pyright: ignore[reportAttributeAccessIssue]


def check(language: Language) -> Callable[[str], bool] | None:
    """What finished texts must pass beside, if anything."""
    return getattr(language, "check", None)


def complete(language: Language, state: Any) -> bool:
    """Whether a text may end here and no longer one begins with it, as far as the language says so."""
    return language.complete(state) if hasattr(language, "complete") else False  # pyright: ignore[reportAttributeAccessIssue]


def needs(language: Language, state: Any) -> float:
    """Bytes from here to the end of a text, at least."""
    if hasattr(language, "needs"):
        return language.needs(state)  # pyright: ignore[reportAttributeAccessIssue]
    return 0 if language.accepts(state) else float("inf") if language.is_dead(state) else 1
