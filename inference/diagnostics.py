"""Can an importance sampler be trusted, have chains converged?

Vehtari, Simpson, Gelman, Yao and Gabry 2024, "Pareto smoothed importance sampling"; the fit is that of Zhang and
Stephens 2009, "A new and efficient estimation method for the generalized Pareto distribution".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SMALLEST = math.log(np.finfo(float).tiny)  # of a weight next to the largest, as a log
_PRIOR_TAIL, _PRIOR_K = 10, 0.5  # the prior of k: as much as 10 further tail values that say 0.5


def pareto_k(log_weights: Sequence[float]) -> float | None:
    """The shape k-hat of the generalised Pareto distribution that fits the largest weights of independent particles.

    `log_weights` are natural logs, not normalised; `-inf` (a dead particle) is a weight like others. The tail is the
    ceil(min(N/5, 3 sqrt(N))) largest of the N weights, less those tied with the next. The weights have about 1/k finite
    moments: below 0.5 the central limit theorem holds; up to min(1 - 1/log10(N), 0.7) estimates are practically
    reliable; above it, many more particles or a better proposal are needed.

    `-inf`: all weights are equal, so there is no tail. None: fewer than 5 weights in the tail, too few to say anything
    (fewer than 21 particles, or the largest are tied or nearly all dead). `inf`: a tail too heavy for a float to hold.

    Raises:
        ValueError: no weights, or one that is `nan` or `+inf`.
    """
    logw = np.asarray(log_weights, np.float64)
    if logw.ndim != 1 or not len(logw) or not np.all(logw < math.inf):
        raise ValueError(f"pareto_k needs a row of log weights, each finite or -inf, not {log_weights!r}")
    top = logw.max()
    if logw.min() == top > -math.inf:
        return -math.inf
    logw = np.sort(logw - top) if top > -math.inf else logw
    size = math.ceil(min(len(logw) / 5, 3 * math.sqrt(len(logw))))
    if size >= len(logw):
        return None
    cut = max(logw[-size - 1], _SMALLEST)
    tail = logw[logw > cut]
    return _shape(np.exp(tail) * -np.expm1(cut - tail)) if len(tail) >= 5 else None


def _shape(excess: np.ndarray) -> float:
    """k of sorted positive numbers: the posterior mean of Zhang and Stephens, drawn to 0.5 by the paper's prior."""
    n = len(excess)
    grid = 30 + math.isqrt(n)
    with np.errstate(all="ignore"):
        theta = (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * excess[int(n / 4 + 0.5) - 1])
        theta += 1 / excess[-1]
        shapes = np.log1p(-theta[:, None] * excess).mean(axis=1)
        scales = np.where(theta == 0, 1 / excess.mean(), -theta / shapes)  # -k/theta has a limit at 0
        log_lik = n * (np.log(scales) - shapes - 1)
        likelihood = np.exp(log_lik - log_lik.max())
        k = np.log1p(-np.average(theta, weights=likelihood) * excess).mean()
    k = float((n * k + _PRIOR_TAIL * _PRIOR_K) / (n + _PRIOR_TAIL))
    return k if math.isfinite(k) else math.inf


def r_hat_and_n_eff(draws: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """Worst r-hat and n_eff of each site; nan for a site that never moved, or of fewer than 4 draws."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    r_hat, n_eff = {}, {}
    for site, x in draws.items():
        r_hat[site] = n_eff[site] = float("nan")
        if x.shape[1] >= 4 and x.size:
            with np.errstate(all="ignore"):
                r_hat[site] = float(np.max(split_gelman_rubin(x.astype(float))))
                n_eff[site] = float(np.min(effective_sample_size(x.astype(float))))
    return r_hat, n_eff
