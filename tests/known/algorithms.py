"""The algorithms of the matrix: add a line for a new one.

    Row("mh", MH(...), only=finite, replications=16)

A row says with which budget it runs and to which models it applies. Algorithms whose populations are `normalised`
(Markov chains) need no other entry: their evidence is not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl import (
    MCMC,
    NUTS,
    SMC,
    SSP,
    Adaptive,
    Algorithm,
    Block,
    Enumerate,
    Importance,
    Islands,
    Multinomial,
    ParallelTempering,
    ParticleGibbs,
    Residual,
    SingleSite,
    Stratified,
    Suffix,
    Systematic,
    Tempered,
    TreeWalk,
    WithoutReplacement,
    cycle,
    mixture,
    repeat,
)

from .known import Known

N, R = 32, 64  # particles and replications; one N R for all, since a device call is compiled for each
Predicate = Callable[[Known], bool]


def everywhere(model: Known) -> bool:
    return True


def finite(model: Known) -> bool:
    return model.finite


def named(*names: str) -> Predicate:
    return lambda model: model.name in names


few = named("hidden-markov", "branching", "lm-reward", "best-of-two")
fewer = named("branching", "lm-reward", "best-of-two")  # for what takes long
START = Importance(N // 2)


def chain(kernel: Any) -> MCMC:
    return MCMC(kernel, samples=2, warmup=1, chains=2, start=START)


@dataclass(frozen=True)
class Row:
    name: str
    algorithm: Algorithm
    only: Predicate = everywhere
    replications: int = R
    exact: bool = False
    """Whether the answer has no Monte Carlo error: then it is compared to 1e-12."""
    slow: bool = False


ROWS: tuple[Row, ...] = (
    Row("enumerate", Enumerate(), finite, replications=1, exact=True),
    Row("importance", Importance(N)),
    Row("smc", SMC(N)),
    Row("smc-adaptive", SMC(N, Adaptive(Multinomial, 0.9))),  # resamples at some factors and not at others
    Row("smc-multinomial", SMC(N, Multinomial)),
    Row("smc-stratified", SMC(N, Stratified)),
    Row("smc-systematic", SMC(N, Systematic)),
    Row("smc-residual", SMC(N, Residual)),
    Row("smc-ssp", SMC(N, SSP), few),
    Row("smc-tempered", SMC(N, Tempered(Systematic, 0.5)), few),
    Row("sir", Importance(N, keep=8), few),
    Row("steering", SMC(N // 4, WithoutReplacement, expand=4), few),
    Row("islands", Islands(4, SMC(N // 4)), few),
    Row("resample-move", SMC(N // 4, rejuvenate=Suffix()), fewer),
    Row("tempered-likelihood", SMC(N // 4, temper=(0.3, 1.0), rejuvenate=SingleSite()), fewer),
    Row("mcmc-suffix", chain(Suffix()), few),
    Row("mcmc-single-site", chain(repeat(SingleSite(), 2)), few),
    Row("mcmc-block", chain(mixture(Block("**"), Suffix())), few),
    Row("particle-gibbs", chain(ParticleGibbs(4)), fewer),
    Row("ancestor-sampling", chain(ParticleGibbs(4, Systematic, ancestor_sampling=True)), fewer),
    Row("tree-walk", chain(cycle(TreeWalk(8), SingleSite())), fewer),
    Row("parallel-tempering", ParallelTempering(Suffix(), (1.0, 0.5), 20, chains=1, start=START), fewer),
    Row("nuts", NUTS(500, 200, 1), named("normal-normal", "linear-gaussian"), replications=16, slow=True),
)
