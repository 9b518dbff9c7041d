"""Every algorithm and kernel that claims to keep the meaning, with the size of program that it can be enumerated on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppl import (
    MCMC,
    PMMH,
    SMC,
    SSP,
    Adaptive,
    Block,
    Categorical,
    Enumerate,
    Importance,
    Islands,
    Multinomial,
    ParallelTempering,
    ParticleGibbs,
    Program,
    Residual,
    SingleSite,
    Stratified,
    Suffix,
    Systematic,
    Tempered,
    TreeWalk,
    WithoutReplacement,
    annealed,
    collapse,
    cycle,
    mixture,
    repeat,
    sample,
    select,
    stepwise,
)
from ppl.distributions import table

Algorithm = Callable[[Program[Any]], Program[Any]]
SCHEMES = [Multinomial, Stratified, Systematic, Residual, SSP]


@dataclass(frozen=True)
class Row:
    """One algorithm or kernel."""

    name: str
    what: Any
    paths: int = 6
    """Of the programs that it is checked on, at most."""
    most: int = 100
    """Paths of the algorithm on a program: where it has more, the program is rejected, and another one checked."""


def _flat(dist: Any) -> Categorical[Any]:
    values = [value for value, _ in table(dist)]
    return Categorical(values, [0.1 * i for i in range(len(values))])


def near(old: Any, dist: Any) -> Categorical[Any]:
    """A walk that is not symmetric, and does not go everywhere."""
    values = [value for value, _ in table(dist) if value != old or old == 0]
    return Categorical(values or [old], [0.5 * i for i in range(max(len(values), 1))])


def collapsed(algorithm: Algorithm) -> Algorithm:
    """The bridge back to a program, as an algorithm has it inside another."""
    return lambda program: Importance(1)(collapse(algorithm(program)))


def _stepwise(smc: SMC) -> Algorithm:
    return lambda program: Importance(1)(stepwise(smc, program))


async def _smc2(program: Program[Any]) -> Any:
    theta = await sample("theta", Categorical.of({0: 1.0, 1: 2.0}))
    inner = SMC(2, Systematic) if theta else SMC(1)
    return await stepwise(inner, program)


def _marginal(algorithm: Algorithm) -> Algorithm:
    """Over a program whose parameter decides how well the inner evidence is estimated: it must not matter."""
    return lambda program: algorithm(Program("smc2", _smc2, (program,), {}))


ALGORITHMS = [
    Row("enumerate", Enumerate(), 12),
    Row("importance", Importance(2), 8),
    Row("importance, proposals", Importance(2, {"**": _flat}), 8),
    Row("importance, keep 1", Importance(2, keep=1), 8),
    Row("importance, keep 3", Importance(2, keep=3), 8),
    *[Row(f"smc 2, {scheme.__name__}", SMC(2, scheme), 6 if scheme is Multinomial else 12) for scheme in SCHEMES],
    *[Row(f"smc 2, adaptive {s.__name__}", SMC(2, Adaptive(s, 0.75)), 8) for s in SCHEMES],
    *[Row(f"smc 3, {scheme.__name__}", SMC(3, scheme), 3 if scheme is Multinomial else 4) for scheme in SCHEMES],
    Row("smc 2, tempered", SMC(2, Tempered(Systematic, 0.5)), 8),
    Row("smc 2, tempered by ess", SMC(2, Tempered(Stratified, threshold=0.8)), 8),
    Row("smc 3, adaptive tempered", SMC(3, Adaptive(Tempered(SSP, 0.5), 0.8)), 4),
    Row("steering 1 x 2", SMC(1, WithoutReplacement, expand=2), 8),
    Row("steering 2 x 2", SMC(2, WithoutReplacement, expand=2), 2, 100),
    Row("steering 1 x 2, multinomial", SMC(1, Multinomial, expand=2), 8),
    Row("steering 1 x 3, tempered", SMC(1, Tempered(Systematic, 0.5), expand=3), 3),
    Row("resample-move 1, single site", SMC(1, Systematic, rejuvenate=SingleSite()), 6),
    Row("resample-move 1, suffix", SMC(1, Systematic, rejuvenate=Suffix()), 4),
    Row("resample-move 2, suffix", SMC(2, Systematic, rejuvenate=Suffix()), 2, 100),
    Row("resample-move 2, adaptive", SMC(2, Adaptive(Systematic, 0.75), rejuvenate=Block("**")), 2, 100),
    Row("resample-move, particle gibbs", SMC(1, Systematic, rejuvenate=ParticleGibbs(2, Systematic)), 3, 100),
    Row("resample-move, tree walk", SMC(1, Systematic, rejuvenate=TreeWalk(2)), 4, 100),
    Row("tempered likelihood", SMC(2, Systematic, temper=(0.5, 1.0)), 6),
    Row("tempered likelihood, moves", SMC(1, Systematic, rejuvenate=SingleSite(), temper=(0.3, 1.0)), 4, 60),
    Row("islands", Islands(2, SMC(1)), 6),
    Row("islands of smc", Islands(2, SMC(2, Systematic)), 3),
    Row("mcmc, suffix", MCMC(Suffix(), samples=1, chains=1, start=Importance(2)), 4),
    Row("mcmc, warm and thin", MCMC(SingleSite(), samples=1, warmup=1, thin=2, chains=1, start=Importance(1)), 3),
    Row("mcmc, two chains", MCMC(Block("**"), samples=1, chains=2, start=Importance(2)), 2),
    Row("mcmc, from smc", MCMC(SingleSite(), samples=1, chains=1, start=SMC(2, Systematic)), 4),
    Row("nested importance", collapsed(Importance(2)), 8),
    Row("nested smc in smc", lambda program: SMC(2, Systematic)(collapse(SMC(1)(program))), 6),
    Row("stepwise", _stepwise(SMC(2, Systematic)), 8),
    Row("smc2, no moves", _marginal(SMC(2, Systematic)), 2, 100),
    Row("smc2", _marginal(SMC(1, Systematic, rejuvenate=PMMH("**/theta", near))), 2, 40),
    Row("pmmh", _marginal(MCMC(PMMH("**/theta", near), samples=1, chains=1, start=Importance(1))), 3, 60),
    Row("mcmc inside", lambda p: Importance(1)(collapse(MCMC(Suffix(), 1, chains=1, start=Importance(1))(p))), 8),
    Row("annealed", lambda program: SMC(2, Systematic)(annealed(program, (0.5, 1.0))), 8),
]

# Their draws are of the posterior and their weights known up to a constant: checked as posteriors.
POSTERIORS = [
    Row("tempering", ParallelTempering(SingleSite(), (1.0, 0.5), 1, chains=1, start=Importance(1)), 3),
    Row("tempering to the prior", ParallelTempering(Block("**"), (1.0, 0.0), 1, chains=1, start=Importance(1)), 3),
]

KERNELS: list[Row] = [
    Row("suffix", Suffix(), 12),
    Row("single site", SingleSite(), 12),
    Row("single site, near", SingleSite(proposals={"**": near}), 12),
    Row("single site, some", SingleSite("**/x:*"), 12),
    Row("block", Block("**/x:*"), 12),
    Row("block, near", Block(select("**/x") | select("**/times"), {"**/x": near}), 12),
    Row("pmmh", PMMH("**/x", near), 12),
    Row("independent", PMMH("**"), 12),
    *[Row(f"particle gibbs, {s.__name__}", ParticleGibbs(2, s), 4 if s is Multinomial else 6) for s in SCHEMES],
    Row("particle gibbs, adaptive", ParticleGibbs(2, Adaptive(Multinomial, 0.75)), 4),
    Row("particle gibbs, tempered", ParticleGibbs(2, Tempered(Systematic, 0.5)), 6),
    Row("particle gibbs 3", ParticleGibbs(3, Multinomial), 3, 80),
    Row("particle gibbs 3, systematic", ParticleGibbs(3, Systematic), 3),
    Row("ancestor sampling", ParticleGibbs(2, Multinomial, ancestor_sampling=True), 4, 100),
    Row("ancestor sampling, systematic", ParticleGibbs(2, Systematic, ancestor_sampling=True), 6),
    Row("ancestor sampling, adaptive", ParticleGibbs(2, Adaptive(SSP, 0.75), ancestor_sampling=True), 6),
    Row("ancestor sampling 3", ParticleGibbs(3, Systematic, ancestor_sampling=True), 3, 60),
    Row("tree walk 2", TreeWalk(2), 12),
    Row("tree walk 4", TreeWalk(4), 4),
    Row("cycle", cycle(SingleSite(), Suffix()), 6),
    Row("mixture", mixture(Suffix(), Block("**"), weights=(1.0, 3.0)), 8),
    Row("repeat", repeat(SingleSite(), 2), 6),
    Row("suffix, where", Suffix(lambda t: [0.5 * i - c.log_prob for i, c in enumerate(t.choices.values())]), 12),
]
