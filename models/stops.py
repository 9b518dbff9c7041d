"""When a block ends: an automaton over tokens that watches for a string, also where it straddles them."""

from __future__ import annotations

import numpy as np

from ppl.models.tokenizer import Tokenizer


def stop_table(tokenizer: Tokenizer, until: str | None, vocab_size: int | None = None) -> np.ndarray:
    """int32 [states, vocab_size]: how many bytes of `until` are matched after each token.

    The last state is final: `until` is complete, within a token or across several, or the text has ended. A special
    token is no text, nor is one that the model has beyond the tokenizer's: what follows them starts a new match. But
    where `until` is the name of one, that token is final.

    Raises:
        ValueError: `until` holds a special token among other text.
    """
    size, stop = tokenizer.size if vocab_size is None else vocab_size, named(tokenizer, until or "")
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
    table[final] = table[:, [*tokenizer.eos, *stop]] = final
    return table


def named(tokenizer: Tokenizer, until: str) -> list[int]:
    """The special token that `until` is the name of, if it is of one.

    Raises:
        ValueError: as for `stop_table`.
    """
    names = {tokenizer.backend.id_to_token(token) or "": token for token in tokenizer.special}
    if until in names:
        return [names[until]]
    if inside := [name for name in names if name and name in until]:
        raise ValueError(f"until={until!r} is text with {inside[0]} in it, which is a token and no text: "
                         "a block ends with a string or with one such token")  # fmt: skip
    return []


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
