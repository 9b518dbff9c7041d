"""Host cost of Markov moves: per site of the program, next to running it afresh."""

from __future__ import annotations

from timing import best_cpu

import ppl
from ppl import MCMC, SMC, Bernoulli, Importance, ParticleGibbs, SingleSite, Suffix, Systematic, factor, program, sample

CHAINS, MOVES = 16, 4
KERNELS = {"suffix": Suffix(), "single site": SingleSite(), "particle gibbs 4": ParticleGibbs(4)}
COIN = Bernoulli(0.5)


@program
async def walk(sites: int) -> int:
    total = 0
    for _ in range(sites):
        total += await sample("x", COIN)
        await factor("f", -0.1)
    return total


def cost(algorithm: object, sites: int) -> float:
    """Seconds of processor time."""
    return best_cpu(lambda: ppl.infer_many([walk(sites)], algorithm, [0]), 3)  # pyright: ignore[reportArgumentType]


def main() -> None:
    for sites in (20, 100, 200):
        afresh = cost(Importance(CHAINS), sites)
        print(f"{sites} sites: a run afresh {1e6 * afresh / CHAINS / sites:.1f} us a site")
        start = cost(MCMC(Suffix(), 1, chains=CHAINS, start=Importance(CHAINS)), sites)
        for name, kernel in KERNELS.items():
            whole = cost(MCMC(kernel, 1 + MOVES, chains=CHAINS, start=Importance(CHAINS)), sites)
            each = (whole - start) / MOVES / CHAINS
            print(f"  a move by {name}: {1e6 * each / sites:.1f} us a site, {each / (afresh / CHAINS):.1f} runs afresh")
        moving = cost(SMC(CHAINS, Systematic, rejuvenate=Suffix()), sites)
        still = cost(SMC(CHAINS, Systematic), sites)
        print(f"  resample-move: {1e6 * (moving - still) / CHAINS / sites**2:.2f} us a site and step")


if __name__ == "__main__":
    main()
