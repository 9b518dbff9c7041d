"""Token tables against walking byte by byte, over random vocabularies."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ppl.grammar import Regular, UnreachableByTokensError, choice, regex
from ppl.grammar.tokens import TokenDFA
from ppl.grammar.vocabulary import Vocabulary

LANGUAGES = [
    regex("a|ab"), regex("(ab|é)*c?"), regex("[^b]{0,3}"), regex("a(aa)*b"), regex("(a|b)*abb"), regex("é+"),
    regex("(字|a)b{2,5}"), regex(".*"), choice(["cab", "bac", "é字"]),
]  # fmt: skip


def random_tokens(rng: random.Random) -> list[bytes]:
    """Strings, and pieces of strings that are cut inside of characters."""
    out = []
    for _ in range(rng.randint(2, 12)):
        data = "".join(rng.choice("abcé字") for _ in range(rng.randint(1, 3))).encode()
        low = rng.randint(0, len(data))
        out.append(data[low : rng.randint(low, len(data))] if rng.random() < 0.5 else data)
    return out


def walked(language: Regular, tokens: list[bytes]) -> tuple[dict[tuple[int, int], int], set[int]]:
    """The state of bytes behind each token from each state that tokens reach, and the states that can end well."""
    dfa, reached, stack, behind = language.dfa, {0}, [0], dict[tuple[int, int], int]()
    while stack:
        state = stack.pop()
        for i, token in enumerate(tokens):
            if token:
                behind[state, i] = to = dfa.walk(state, token)
                if to != dfa.size and to not in reached:
                    reached.add(to)
                    stack.append(to)
    good = {state for state in reached if dfa.accept[state]}
    while more := {state for (state, _), to in behind.items() if to in good} - good:
        good |= more
    return behind, good


@pytest.mark.parametrize("seed", range(20))
def test_tables_are_what_walking_gives(seed: int) -> None:
    """25 vocabularies each: 500."""
    rng = random.Random(seed)
    for _ in range(25):
        language, tokens = rng.choice(LANGUAGES), random_tokens(rng)
        end = len(tokens)
        vocabulary = Vocabulary([*tokens, b"<end>"], [end], size=end + 3)  # a name that looks like text, and padding
        behind, good = walked(language, tokens)
        if 0 not in good:
            with pytest.raises(UnreachableByTokensError) as caught:
                TokenDFA.of(language.dfa, vocabulary)
            assert caught.value.witness in language
            continue
        grammar = TokenDFA.of(language.dfa, vocabulary)
        number, stack = {0: 0}, [0]
        while stack:
            state = stack.pop()
            mine = number[state]
            mask = grammar.mask(mine)
            assert grammar.accepts(mine) == language.accepts(state) == mask[end] and not mask[end + 1 :].any()
            for i, token in enumerate(tokens):
                assert mask[i] == (bool(token) and behind[state, i] in good), (tokens, state, i)
                if mask[i]:
                    to = behind[state, i]
                    if to not in number:
                        number[to] = grammar.advance(mine, i)
                        stack.append(to)
                    assert number[to] == grammar.advance(mine, i)
        assert len(number) == len(set(number.values())) == grammar.size
        assert (np.diff(np.unique(grammar.classes)) == 1).all() and grammar.classes.max() == grammar.next.shape[1] - 1
