"""What is bad about a posterior, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ppl.inference.diagnostics import pareto_k
from ppl.inference.population import Population, Step

if TYPE_CHECKING:
    from ppl.posterior import Posterior

FEWEST = 8  # particles: with fewer, everything is bad
ESS = 0.05  # of the number of particles
PARETO_K = 0.7  # Vehtari et al. 2024
R_HAT = 1.05
N_EFF = 10  # draws per chain
ACCEPTANCE, TRIED = 0.01, 100  # share of at least so many moves
SE = 0.5  # nats


class InferenceWarning(UserWarning):
    """The diagnostics of a posterior are bad."""


def concerns(posterior: Posterior[Any]) -> list[str]:
    """A sentence for each diagnostic that is bad: what it says, and what to do. None when all weights are zero."""
    if posterior.is_empty:
        return []
    out = [sentence for run in posterior.runs for sentence in _of_run(run.population)]
    if not posterior.population.normalised and (se := posterior.log_evidence_se) is not None and se > SE:
        out.append(
            f"the runs disagree about the evidence: its log is known to ±{se:.1f} nats only; give each more particles"
        )
    return list(dict.fromkeys(out))


def _of_run(population: Population[Any]) -> list[str]:
    diagnostics = population.diagnostics or {}
    out = _of_moves(diagnostics)
    islands = diagnostics.get("islands", ())
    for number, island in enumerate(islands):
        found = _of_moves(island) + (_of_chains(island) if "chains" in island else [])
        if (count := len(population.log_weights) // len(islands)) >= FEWEST and "steps" in island:
            found += _of_steps(island["steps"], count)
        out += [f"in island {number}, {sentence}" for sentence in found]
    if "chains" in diagnostics:
        return out + _of_chains(diagnostics)
    count = len(population.log_weights)
    if count < FEWEST or "island_log_evidence" in diagnostics or diagnostics.get("exact") or population.normalised:
        return out
    return out + (_of_steps(population.steps, count) if population.steps else _of_weights(population, count))


def _of_weights(population: Population[Any], count: int) -> list[str]:
    """Of independent particles."""
    remedy = "use SMC, or draw from better proposals; more particles help slowly"
    k, ess = pareto_k(population.log_weights), population.ess
    if k is not None and k > PARETO_K:
        return [f"the tail of the weights is too heavy (Pareto k = {k:.2f}, should be below {PARETO_K}); {remedy}"]
    if ess < max(ESS * count, 1.5):
        return [f"{count} particles say as much as {ess:.1f}; {remedy}"]
    return []


def _of_steps(steps: Sequence[Step], count: int) -> list[str]:
    """Of SMC."""
    out = []
    worst = min(range(len(steps)), key=lambda i: steps[i].ess)
    if (ess := steps[worst].ess) < max(ESS * count, 1.5):
        out.append(
            f"at step {worst} of {len(steps)}, {count} particles said as much as {ess:.1f}; a twist before "
            "it, a proposal, or `temper` would let the weights come more gently"
        )
    elif steps[-1].unique == 1 and len(steps) > 1:
        out.append(
            f"all {count} particles descend from one of the first: how the values begin is a single sample; more "
            "particles, Islands, or `rejuvenate` would show others"
        )
    return out


def _of_moves(diagnostics: Mapping[str, Any]) -> list[str]:
    tried, rates = diagnostics.get("tried", {}), diagnostics.get("acceptance", {})
    if diagnostics.get("idle"):
        return ["no site was drawn again: the moves found none, or their `sites` match no address of the program"]
    return [
        f"moves at {site} are hardly ever accepted ({rate:.1%} of {tried[site]}); propose values nearer to the old "
        "ones, or fewer sites at a time"
        for site, rate in rates.items()
        if rate < ACCEPTANCE and tried.get(site, 0) >= TRIED
    ]


def _of_chains(diagnostics: Mapping[str, Any]) -> list[str]:
    out, chains = [], diagnostics["chains"]
    if divergences := diagnostics.get("divergences"):
        out.append(
            f"{divergences} transitions of NUTS diverged, so part of the posterior may be missing; try a target_accept "
            "nearer to 1, or other coordinates (non-centred)"
        )
    bad = {site: value for site, value in diagnostics.get("r_hat", {}).items() if value > R_HAT}
    if bad:
        site = max(bad, key=lambda name: bad[name])
        out.append(
            f"the chains have not converged: r-hat is {bad[site]:.2f} at {site} (should be below {R_HAT}); try a "
            "longer warmup"
        )
    few = {site: value for site, value in diagnostics.get("n_eff", {}).items() if value < N_EFF * chains}
    if few and not bad:
        site = min(few, key=lambda name: few[name])
        out.append(f"the draws say as much as {few[site]:.0f} independent ones (n_eff at {site}); take more samples")
    return out
