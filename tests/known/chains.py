"""A hidden Markov and a linear-Gaussian model; answers by forward-backward, Kalman filter and RTS smoother.

The recursions (Rabiner 1989; Kalman 1960; Rauch, Tung and Striebel 1965) are in numpy and share nothing with `ppl`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl import Categorical, dist, observe, program, sample

from .known import Function, Known

# The hidden Markov model: 3 states, 3 symbols.
INITIAL = np.array([0.5, 0.3, 0.2])
MOVE = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
EMIT = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
SYMBOLS = (0, 0, 1, 2, 2, 1, 0, 2)


def _rows(matrix: np.ndarray) -> list[Categorical[int]]:
    return [Categorical.of({i: float(p) for i, p in enumerate(row)}) for row in matrix]


FIRST, NEXT, SHOW = _rows(INITIAL[None])[0], _rows(MOVE), _rows(EMIT)


@program
async def markov() -> tuple[int, int]:
    """The first and the last state."""
    state = first = await sample("state", FIRST)
    await observe("symbol", SHOW[state], SYMBOLS[0])
    for symbol in SYMBOLS[1:]:
        state = await sample("state", NEXT[state])
        await observe("symbol", SHOW[state], symbol)
    return first, state


def forward_backward() -> tuple[float, np.ndarray, np.ndarray]:
    """log evidence, and the posterior of the first and of the last state."""
    alpha, log_z = INITIAL, 0.0
    for t, symbol in enumerate(SYMBOLS):
        alpha = (alpha if t == 0 else alpha @ MOVE) * EMIT[:, symbol]
        log_z += math.log(alpha.sum())
        alpha = alpha / alpha.sum()
    beta = np.ones(3)
    for symbol in SYMBOLS[:0:-1]:
        beta = MOVE @ (EMIT[:, symbol] * beta)
    first = INITIAL * EMIT[:, SYMBOLS[0]] * beta
    return log_z, first / first.sum(), alpha


def hidden_markov() -> Known:
    log_z, first, last = forward_backward()

    def at(place: int, state: int) -> Function:
        return lambda ends: float(ends[place] == state)

    expectations = {}
    for state in (0, 2):  # the third follows from these and the evidence
        expectations[f"P(first={state})"] = at(0, state), float(first[state])
        expectations[f"P(last={state})"] = at(1, state), float(last[state])
    return Known("hidden-markov", markov(), log_z, expectations, finite=True)


# The linear-Gaussian model: x' = A x + noise of sd Q, seen with noise of sd R; x starts with sd P.
A, Q, R, P = 0.9, 0.5, 1.2, 1.0
SEEN = (0.4, -0.3, 0.8, 1.5, 0.9, 0.2, 1.1, 0.7)


@program
async def gaussian() -> Any:
    """The first and the last state."""
    x = first = await sample("x", dist.Normal(0.0, P))
    await observe("y", dist.Normal(x, R), SEEN[0])
    for y in SEEN[1:]:
        x = await sample("x", dist.Normal(A * x, Q))
        await observe("y", dist.Normal(x, R), y)
    return first, x


def kalman() -> tuple[float, np.ndarray, np.ndarray]:
    """log evidence; smoothed means and variances (the last of them are the filtered ones)."""
    means, variances, predicted, log_z = [], [], [], 0.0
    m, v = 0.0, P**2
    for t, y in enumerate(SEEN):
        if t:
            m, v = A * m, A**2 * v + Q**2
        predicted.append((m, v))
        s = v + R**2
        log_z += -0.5 * (math.log(2 * math.pi * s) + (y - m) ** 2 / s)
        m, v = m + v / s * (y - m), v - v**2 / s
        means.append(m)
        variances.append(v)
    for t in range(len(SEEN) - 2, -1, -1):
        ahead, spread = predicted[t + 1]
        gain = A * variances[t] / spread
        means[t] += gain * (means[t + 1] - ahead)
        variances[t] += gain**2 * (variances[t + 1] - spread)
    return log_z, np.array(means), np.array(variances)


def linear_gaussian() -> Known:
    log_z, mean, variance = kalman()
    expectations: dict[str, tuple[Function, float]] = {
        "E first": (lambda ends: float(ends[0]), float(mean[0])),
        "E last": (lambda ends: float(ends[1]), float(mean[-1])),
        "E first^2": (lambda ends: float(ends[0]) ** 2, float(mean[0] ** 2 + variance[0])),
        "E last^2": (lambda ends: float(ends[1]) ** 2, float(mean[-1] ** 2 + variance[-1])),
    }
    return Known("linear-gaussian", gaussian(), log_z, expectations, smooth=True)
