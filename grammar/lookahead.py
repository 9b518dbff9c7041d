"""Look-ahead: how probable it is, under a simple model, that a text will still come out right.

A mask sees the next token only, and a particle filter with a mask goes wrong in silence: where the ending that the
grammar wants is rare, all particles agree on texts that are improbable as a whole. A twist psi(state, tokens left) that
estimates the probability of a good end steers them; whatever it is, the weight p/q stays exact, so the estimate stays
unbiased. Here it is the exact value for a proxy of the model, by dynamic programming backwards over the automaton
(Zhang et al. 2024, "Adaptable logical control for large language models", for hidden Markov models).
"""

from __future__ import annotations

import numpy as np

from ppl.grammar.dfa import distances
from ppl.grammar.tokens import TokenDFA

ROWS = 256  # of a table; longer horizons use the last row
LEAST = 1e-12  # probability of a class of tokens
FAR = -30.0  # nats below the least that is known, for states from which the end is further than the table goes


def log_ahead(grammar: TokenDFA, mass: np.ndarray) -> np.ndarray:
    """log P(the block ends well within k tokens) from each state, under a proxy of the model.

    The proxy is `mass`, the probability of each class of tokens, [K], or in each state, [size, K]: see `class_mass`.

    float64 [ROWS + 1, size + 2], nats, by k; a block ends well in `done`, or in a state that accepts when no token is
    left. `-inf` exactly where no tokens lead there in time, whatever their probabilities. The last row stands for all
    longer horizons too: it is finite wherever any number of tokens leads to `done`.
    """
    mass = np.maximum(mass, LEAST)
    source, to, log_mass = _arrows(grammar, np.broadcast_to(mass, (grammar.size, mass.shape[-1])))
    log_h = np.full((ROWS + 1, len(grammar.next)), -np.inf)
    log_h[:, grammar.done] = 0.0
    log_h[0, grammar.accept] = 0.0
    if not len(source):
        return log_h
    begins = np.flatnonzero(np.diff(source, prepend=-1))
    count = np.diff(np.append(begins, len(source)))
    states = source[begins]
    with np.errstate(divide="ignore"):
        for k in range(1, ROWS + 1):
            scores = log_h[k - 1, to] + log_mass
            top = np.maximum.reduceat(scores, begins)
            top[np.isneginf(top)] = 0.0
            log_h[k, states] = np.log(np.add.reduceat(np.exp(scores - np.repeat(top, count)), begins)) + top
    steps = distances(grammar.next[:-1], np.arange(len(grammar.next) - 1) == grammar.done)
    far = np.flatnonzero(steps > ROWS)
    log_h[-1, far] = log_h[-1][log_h[-1] > -np.inf].min() + FAR * (steps[far] - ROWS)
    return log_h


def class_mass(grammar: TokenDFA, probabilities: np.ndarray) -> np.ndarray:
    """The probability of each class, [K], from that of each token, [V]."""
    return np.bincount(grammar.classes, probabilities, grammar.next.shape[1])


def _arrows(grammar: TokenDFA, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(from, to, log probability of a token that leads there) among states that are not done or dead; sorted."""
    wide = len(grammar.next)
    pairs = np.arange(grammar.size)[:, None] * wide + grammar.next[: grammar.size]
    alive = grammar.next[: grammar.size] <= grammar.done
    found, which = np.unique(pairs[alive], return_inverse=True)
    return found // wide, found % wide, np.log(np.bincount(which.reshape(-1), mass[alive], len(found)))
