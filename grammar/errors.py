"""What can be wrong with a grammar. All of it is raised when the grammar is built, not in the middle of a run."""

from __future__ import annotations


class GrammarError(ValueError):
    """A grammar that cannot be used."""


class RegexError(GrammarError):
    """A regular expression that is none, or that holds what no regular language has; `position` is where, or None."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class UnsupportedSchemaError(GrammarError):
    """A JSON schema that says what is not implemented; `pointer` is the JSON pointer to it."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class EmptyLanguageError(GrammarError):
    """Nothing can be written: no text is in the language, or none within the limits."""


class UnreachableByTokensError(GrammarError):
    """The language has texts, but no sequence of tokens writes one; `witness` is the shortest of these texts."""

    def __init__(self, message: str, witness: str) -> None:
        super().__init__(message)
        self.witness = witness


class TooLargeError(GrammarError):
    """An automaton that would have more states than the limit."""
