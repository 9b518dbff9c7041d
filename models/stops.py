"""When a block ends: an automaton over tokens that watches for a string, also where it straddles them."""

from __future__ import annotations

import numpy as np

from ppl.models.tokenizer import Tokenizer


def stop_table(tokenizer: Tokenizer, until: str | None, vocab_size: int | None = None) -> np.ndarray:
    """int32 [states, vocab_size]: how many bytes of `until` are matched after each token.

    The last state is final: `until` is complete, within a token or across several, or the text has ended. A special
    token is no text, nor is one that the model has beyond the tokenizer's: what follows them starts a new match.
    """
    size = tokenizer.size if vocab_size is None else vocab_size
    pattern = (until or "").encode()
    by_byte = automaton(pattern)
    final = len(by_byte) - 1
    order, columns = tokenizer.columns
    states = np.tile(np.arange(final, dtype=np.int32)[:, None], len(order))
    for column in columns:  # the tokens that have another byte come first
        going = states[:, : len(column)]
        going[:] = by_byte[going, column]
    table = np.zeros((final + 1, size), np.int32)
    table[:final, order] = states
    table[:final, [token for token, piece in enumerate(tokenizer.token_bytes()) if not piece]] = 0
    table[final] = table[:, sorted(tokenizer.eos)] = final
    return table


def automaton(pattern: bytes) -> np.ndarray:
    """int32 [states, 256]: how much of `pattern` the last bytes match (Knuth, Morris and Pratt 1977).

    The last state is final, and never left; an empty pattern is never found.
    """
    table = np.zeros((max(len(pattern), 1) + 1, 256), np.int32)
    table[-1] = len(table) - 1
    shorter = 0  # the longest state but this one that the same bytes lead to
    for state, byte in enumerate(pattern):
        table[state] = table[shorter]
        table[state, byte] = state + 1
        if state:
            shorter = table[shorter, byte]
    return table
