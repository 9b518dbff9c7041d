"""The No-U-Turn sampler of numpyro, for programs whose draws have densities.

Hoffman & Gelman 2014, "The No-U-Turn Sampler"; warm-up, step size and mass matrix as in Stan. r-hat and effective
sample size: Vehtari et al. 2021, "Rank-normalization, folding, and localization: an improved R-hat" (the split r-hat).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from ppl.effects import Sample
from ppl.inference.arguments import check_count
from ppl.inference.diagnostics import r_hat_and_n_eff
from ppl.inference.population import Population
from ppl.program import Program
from ppl.source import Key

T = TypeVar("T")


@dataclass(frozen=True)
class NUTS:
    """`chains` Markov chains of `samples` draws each, after `warmup` steps of adaptation that are dropped.

    The program is run by JAX (see `ppl.numpyro_bridge.to_numpyro`): draws from `ppl.dist` or numpyro distributions, no
    branches on their values. Discrete draws are summed out, and drawn afterwards given the rest: over all their
    combinations if there are at most 256, else by funsor (`pip install ppl[numpyro]`), one number a site.

    The population holds what the program returns for each draw, chain after chain, all of weight 1: it is normalised,
    and there is no evidence. Its diagnostics: "r_hat" and "n_eff" (dicts, by site, the worst of its numbers),
    "divergences" (a count), "chains", and "draws" (dict by site, [chains, samples, ...]; of a host `Categorical` the
    indices of its values). Warns when a transition diverged, or r-hat exceeds 1.05 at a site.

    Raises:
        ValueError: a count below 1, `target_accept` not within (0, 1), a program without a continuous draw, or none of
            its tried starting points has a positive density.
        TypeError: the program branches on a draw, or has one without density or without finitely many outcomes.
    """

    samples: int = 1000
    warmup: int = 1000
    chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False

    def __post_init__(self) -> None:
        for name in ("samples", "warmup", "chains", "max_tree_depth"):
            check_count("NUTS", name, getattr(self, name))
        if not 0.0 < self.target_accept < 1.0:
            raise ValueError(f"NUTS: target_accept must lie within (0, 1), not {self.target_accept}")

    def __call__(self, program: Program[T]) -> Program[Population[T]]:
        return Program("nuts", _nuts, (program, self), {})


async def _nuts(program: Program[T], config: NUTS) -> Population[T]:
    from ppl.inference.nuts_values import returned

    result = await Sample("chains", Chains(program, config))
    draws, divergences = result["draws"], result["divergences"]
    r_hat, n_eff = r_hat_and_n_eff(draws)
    values = returned(program, {site: x.reshape(-1, *x.shape[2:]) for site, x in draws.items()})
    diagnostics = {
        "r_hat": r_hat, "n_eff": n_eff, "divergences": divergences, "chains": config.chains, "draws": draws
    }  # fmt: skip
    return Population(tuple(values), (0.0,) * len(values), diagnostics=diagnostics, normalised=True)


class Chains:
    """What the chains visit, as a distribution: `sample(key)` runs them."""

    def __init__(self, program: Program[Any], config: NUTS) -> None:
        self.program = program
        self.config = config

    @property
    def family(self) -> Chains:
        return self

    def sample(self, key: Key) -> dict[str, Any]:
        """{"draws": {site: array [chains, samples, ...]}, "divergences": int}."""
        from ppl.inference.nuts_chains import run_chains

        return run_chains(self.program, self.config, key)

    def log_prob(self, value: Any) -> float:
        raise TypeError("NUTS: the draws of a Markov chain have no density to score")

    def __repr__(self) -> str:
        return f"Chains({self.program!r}, {self.config!r})"
