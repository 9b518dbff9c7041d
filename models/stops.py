"""When a block ends: an automaton over tokens that watches for strings, also where they straddle tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from ppl.models.tokenizer import Tokenizer

Until = str | Sequence[str] | None


def stops_of(until: Until) -> tuple[str, ...]:
    """What ends a block, as a tuple."""
    return () if until is None else (until,) if isinstance(until, str) else tuple(until)


def check_block(until: tuple[str, ...], max_tokens: int) -> None:
    """Raise `ValueError` for a block that cannot end as it is said to."""
    if max_tokens < 1 or "" in until:
        raise ValueError(
            f"extend(until={until}, max_tokens={max_tokens}): max_tokens must be at least 1, until not empty"
        )


def stop_table(tokenizer: Tokenizer, until: tuple[str, ...], vocab_size: int | None = None) -> np.ndarray:
    """int32 [states, vocab_size]: how much of which string of `until` is matched after each token.

    The last state is final: one of them is complete, within a token or across several, or the text has ended. A special
    token is no text, nor is one that the model has beyond the tokenizer's: what follows them starts a new match. But
    where one of `until` is the name of a special token, that token is final.

    Raises:
        ValueError: one of `until` holds a special token among other text.
    """
    size = tokenizer.size if vocab_size is None else vocab_size
    tokens = {one: named(tokenizer, one) for one in until}
    by_byte = automaton([one.encode() for one in until if tokens[one] is None])
    final = len(by_byte) - 1
    order, columns = tokenizer.columns
    states = np.tile(np.arange(final, dtype=np.int32)[:, None], len(order))
    for column in columns:  # the tokens that have another byte come first
        going = states[:, : len(column)]
        going[:] = by_byte[going, column]
    table = np.zeros((final + 1, size), np.int32)
    table[:final, order] = states
    table[:final, [token for token, piece in enumerate(tokenizer.token_bytes()) if not piece]] = 0
    stops = [token for token in tokens.values() if token is not None]
    table[final] = table[:, [*tokenizer.eos, *stops]] = final
    return table


def named(tokenizer: Tokenizer, until: str) -> int | None:
    """The special token that `until` is the name of, if it is of one.

    Raises:
        ValueError: as for `stop_table`.
    """
    names = {name: token for token in tokenizer.special if (name := tokenizer.backend.id_to_token(token))}
    if until not in names and (inside := [name for name in names if name in until]):
        raise ValueError(f"until={until!r} is text with {inside[0]} in it, which is a token and no text: "
                         "a block ends with a string or with one such token")  # fmt: skip
    return names.get(until)


def automaton(patterns: Sequence[bytes]) -> np.ndarray:
    """int32 [states, 256]: how much of which pattern the last bytes match (Aho and Corasick 1975).

    State 0 is nothing. The last state is final, and never left; without patterns nothing is found.
    """
    children: list[dict[int, int]] = [{}]
    ends = set[int]()
    for pattern in patterns:
        state = 0
        for byte in pattern:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
            state = children[state][byte]
        ends.add(state)
    table = np.zeros((len(children), 256), np.int64)
    shorter, queue = [0] * len(children), deque([0])  # the longest other state that the same bytes lead to
    while queue:
        state = queue.popleft()
        table[state] = table[shorter[state]]
        if shorter[state] in ends:
            ends.add(state)
        for byte, child in children[state].items():
            shorter[child] = int(table[state, byte]) if state else 0
            table[state, byte] = child
            queue.append(child)
    kept = [state for state in range(len(children)) if state not in ends]
    number = np.full(len(children), len(kept), np.int32)
    number[kept] = range(len(kept))
    return np.concatenate([number[table[kept]], np.full((1, 256), len(kept), np.int32)])
