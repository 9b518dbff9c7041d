"""Look-ahead, hidden Markov models and their exact evidence, against listing all blocks."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from ppl.grammar import Regular, regex
from ppl.grammar.hmm import HMM, Conditioned, log_partition
from ppl.grammar.lookahead import ROWS, class_mass, log_ahead
from ppl.grammar.tokens import TokenDFA
from ppl.grammar.vocabulary import Vocabulary

TOKENS = [b"a", b"b", b"ab", b"ba", b""]
VOCABULARY = Vocabulary(TOKENS, [4])


def random_hmm(seed: int, hidden: int = 3) -> HMM:
    rng = np.random.default_rng(seed)
    rows = [rng.dirichlet(np.ones(n), size) for n, size in ((hidden, None), (hidden, hidden), (5, hidden))]
    return HMM(*rows)


def blocks(grammar: TokenDFA, horizon: int) -> list[tuple[int, ...]]:
    """All blocks of at most so many tokens, by running through all sequences."""
    found = []
    for length in range(1, horizon + 1):
        for tokens in product(range(5), repeat=length):
            states = [0]
            for token in tokens:
                states.append(grammar.advance(states[-1], token))
            if any(state >= grammar.done for state in states[:-1]):
                continue
            if states[-1] == grammar.done or (length == horizon and grammar.accept[states[-1]]):
                found.append(tokens)
    return found


@pytest.mark.parametrize(
    "language", [regex("(ab)*"), regex("a|ab|abba"), regex("[ab]*bb"), regex("(a|b){1,3}")], ids=str
)
@pytest.mark.parametrize("completed", [False, True])
def test_partition_and_conditional(language: Regular, completed: bool) -> None:
    grammar = TokenDFA.of(language.dfa, VOCABULARY)
    grammar = grammar.completed() if completed else grammar
    for seed, hmm in enumerate([random_hmm(0), random_hmm(1), HMM.unigram(random_hmm(2).emission[0]),
                                HMM.bigram(random_hmm(3).emission[0], random_hmm(4, 5).emission)]):  # fmt: skip
        for horizon in (1, 2, 4):
            right = {block: hmm.log_prob(block) for block in blocks(grammar, horizon)}
            total = sum(map(math.exp, right.values()))
            found = log_partition(grammar, hmm, horizon)
            assert math.exp(found) == pytest.approx(total, abs=1e-14)
            if total == 0:
                continue
            dist = Conditioned(grammar, hmm, horizon)
            table = dict(dist.table())
            assert table == pytest.approx({block: math.exp(x) / total for block, x in right.items()}, abs=1e-12)
            for block in table:
                assert dist.log_prob(block) == pytest.approx(math.log(table[block]))
            assert dist.log_prob((3, 3, 3)) == -math.inf or (3, 3, 3) in table
            assert seed >= 0


def test_the_look_ahead_is_the_partition_of_a_unigram() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5))
    for language in (regex("(ab)*"), regex("[ab]*bb"), regex("a{3,}b")):
        grammar = TokenDFA.of(language.dfa, VOCABULARY).completed()
        table = log_ahead(grammar, class_mass(grammar, p))
        for k in (0, 1, 2, 5, 40, ROWS):
            want = log_partition(grammar, HMM.unigram(p), k)
            assert table[k, 0] == pytest.approx(want, rel=1e-10) or table[k, 0] == want == -math.inf


def test_the_look_ahead_is_finite_where_the_end_is_in_reach() -> None:
    """Also for tokens that the proxy finds impossible, and behind the horizon of the table."""
    p = np.array([0.5, 0.0, 0.0, 0.0, 0.5])
    grammar = TokenDFA.of(regex(f"(ab){{{ROWS}}}").dfa, VOCABULARY)
    table = log_ahead(grammar, class_mass(grammar, p))
    assert np.isfinite(table[-1, :-1]).all() and np.isneginf(table[:, -1]).all()
    steps = grammar.distance[:-1] + (np.arange(len(grammar.next) - 1) != grammar.done)  # and the end-of-text token
    for k in (1, 2, 3, 100, ROWS - 1):
        cut = table[k, :-1] > -np.inf
        assert (cut >= (steps <= k)).all()
        assert not cut[steps > k + 1].any()


def test_no_proxy_changes_the_support() -> None:
    grammar = TokenDFA.of(regex("(a|b)*ab").dfa, VOCABULARY)
    rng = np.random.default_rng(0)
    shape = grammar.size, grammar.next.shape[1]
    tables = [log_ahead(grammar, rng.dirichlet(np.full(shape[1], 0.1), shape[0])) > -np.inf for _ in range(20)]
    assert all((table == tables[0]).all() for table in tables)


def test_bad_models_are_named() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        HMM(np.ones(1), np.ones((2, 2)) / 2, np.ones((1, 3)) / 3)
    with pytest.raises(ValueError, match="emission"):
        HMM.unigram(np.ones(3))
    with pytest.raises(ValueError, match="impossible"):
        HMM.unigram(np.array([1.0, 0.0])).next_tokens([1])
