"""What a finished block must pass beside its grammar's automaton."""

from __future__ import annotations

from typing import Any, Self

from ppl.grammar.language import check
from ppl.grammar.vocabulary import Vocabulary
from ppl.models.text import Text
from ppl.models.tokenizer import TOKEN_BYTES


class Finished:
    """The last word on a block: the check of its grammar, if it has one; and that its tokens are canonical."""

    grammar: Any
    vocabulary: Vocabulary
    name: str
    canonical = False

    def only_canonical(self) -> Self:
        """From now on, of blocks whose tokens are those that the tokenizer has for their text."""
        self.canonical, self.name = True, f"{self.name}, canonical"
        return self

    @property
    def checks(self) -> bool:
        """Whether there is anything to check."""
        return self.canonical or check(self.grammar) is not None

    def passes(self, value: Text, start: int) -> bool:
        """Whether the block behind the first `start` tokens does."""
        last = check(self.grammar)
        if last is not None and not last(self.vocabulary.text(value.tokens[start:].tolist())):
            return False
        return not self.canonical or is_canonical(value, start)


def is_canonical(value: Text, start: int) -> bool:
    """Whether the tokens behind the first `start` are those that the tokenizer has for their text, the end left out."""
    tokens = value.tokens[start:].tolist()
    if tokens and tokens[-1] in value.tokenizer.eos:
        tokens.pop()
    if not tokens:
        return True
    words = value.tokenizer.token_bytes()
    text = b"".join([words[token] for token in tokens if token < len(words)])
    try:
        again = Text(value.tokenizer, value.data[: start * TOKEN_BYTES]) + text.decode()
    except ValueError:  # not whole characters, or nothing that the vocabulary writes
        return False
    return again.tokens[start:].tolist() == tokens
