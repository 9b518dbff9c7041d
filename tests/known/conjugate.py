"""Conjugate pairs: the posterior is the prior's family with other numbers, the evidence a ratio of constants.

Gelman et al. 2013, "Bayesian Data Analysis", chapters 2 and 3.
"""

from __future__ import annotations

import math
from math import lgamma
from typing import Any

from ppl import dist, observe, program, sample

from .known import Function, Known

HEADS, TOSSES = (3, 5, 2), 6
COUNTS = (2, 4, 1)
REALS = (1.3, 0.2, 2.1, 0.6)


def _moments(mean: float, square: float) -> dict[str, tuple[Function, float]]:
    return {"E x": (float, mean), "E x^2": (lambda x: float(x) ** 2, square)}


@program
async def coin() -> Any:
    p = await sample("p", dist.Beta(2.0, 3.0))
    for heads in HEADS:
        await observe("heads", dist.Binomial(TOSSES, p), heads)
    return p


def beta_binomial() -> Known:
    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    a, b = 2.0 + sum(HEADS), 3.0 + sum(TOSSES - heads for heads in HEADS)
    log_z = sum(math.log(math.comb(TOSSES, heads)) for heads in HEADS) + log_beta(a, b) - log_beta(2.0, 3.0)
    mean = a / (a + b)
    return Known("beta-binomial", coin(), log_z, _moments(mean, mean * (a + 1) / (a + b + 1)), smooth=True)


@program
async def counter() -> Any:
    rate = await sample("rate", dist.Gamma(3.0, 1.5))
    for count in COUNTS:
        await observe("count", dist.Poisson(rate), count)
    return rate


def gamma_poisson() -> Known:
    a, b = 3.0 + sum(COUNTS), 1.5 + len(COUNTS)
    log_z = 3.0 * math.log(1.5) - lgamma(3.0) + lgamma(a) - a * math.log(b)
    log_z -= sum(lgamma(count + 1) for count in COUNTS)
    return Known("gamma-poisson", counter(), log_z, _moments(a / b, a * (a + 1) / b**2), smooth=True)


@program
async def location() -> Any:
    x = await sample("x", dist.Normal(0.5, 1.0))
    for y in REALS:
        await observe("y", dist.Normal(x, 1.5), y)
    return x


def normal_normal() -> Known:
    mean, variance, log_z = 0.5, 1.0, 0.0
    for y in REALS:  # one at a time: each is normal given those before it
        s = variance + 1.5**2
        log_z += -0.5 * (math.log(2 * math.pi * s) + (y - mean) ** 2 / s)
        mean, variance = mean + variance / s * (y - mean), variance - variance**2 / s
    return Known("normal-normal", location(), log_z, _moments(mean, mean**2 + variance), smooth=True)


@program
async def unknown_scale() -> Any:
    """The mean, and the variance."""
    variance = await sample("variance", dist.InverseGamma(5.0, 4.0))
    mean = await sample("mean", dist.Normal(0.5, variance**0.5))  # a prior worth one observation
    for y in REALS:
        await observe("y", dist.Normal(mean, variance**0.5), y)
    return mean, variance


def normal_inverse_gamma() -> Known:
    n, average = len(REALS), sum(REALS) / len(REALS)
    k, a = 1.0 + n, 5.0 + n / 2
    m = (0.5 + sum(REALS)) / k
    b = 4.0 + 0.5 * sum((y - average) ** 2 for y in REALS) + 0.5 * n / k * (average - 0.5) ** 2
    log_z = lgamma(a) - lgamma(5.0) + 5.0 * math.log(4.0) - a * math.log(b) - 0.5 * math.log(k)
    log_z -= n / 2 * math.log(2 * math.pi)
    expectations: dict[str, tuple[Function, float]] = {
        "E mean": (lambda x: float(x[0]), m),
        "E mean^2": (lambda x: float(x[0]) ** 2, m**2 + b / (a - 1) / k),
        "E variance": (lambda x: float(x[1]), b / (a - 1)),
    }
    return Known("normal-inverse-gamma", unknown_scale(), log_z, expectations, smooth=True)
