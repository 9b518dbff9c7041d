"""A site of 1,000 particles whose distribution is numpyro's: host and device cost of a draw and of a score, warm."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
import numpyro.distributions as nd
from timing import best

import ppl
from ppl import dist
from ppl.numpyro_dist import _draws, _scores
from ppl.source import Key

COUNT = 1000
EAGER = 20  # particles of which the eager cost is measured, and multiplied
KEYS = [Key.of(0).fold(str(i)) for i in range(COUNT)]


@ppl.program
async def walk(sites: int) -> float:
    x = 0.0
    for _ in range(sites):
        x = await ppl.sample("x", dist.Normal(x, 1.0))
        await ppl.observe("y", dist.Normal(x, 1.0), 0.5)
    return x


def eager_draws() -> None:
    """What a program would do without recipes: build, draw and read each object."""
    for i in range(EAGER):
        float(nd.Normal(0.1 * i, 1.0).sample(jax.random.wrap_key_data(KEYS[i].data)))  # pyright: ignore[reportArgumentType]


def eager_scores() -> None:
    for i in range(EAGER):
        float(nd.Normal(0.1 * i, 1.0).log_prob(0.3))


def line(text: str, seconds: float) -> None:
    print(f"{text:62} {1e3 * seconds:8.2f} ms")


def counted(f: Callable[[], object]) -> int:
    """Device calls of the batched draws and scores of Normal."""
    calls = []
    family = dist.Normal(0.0, 1.0).family
    for batched in (_draws(family), _scores(family)):
        compiled = batched.compiled
        batched.compiled = lambda *args, g=compiled: calls.append(1) or g(*args)
    f()
    return len(calls)


def main() -> None:
    same = [dist.Normal(0.0, 1.0)] * COUNT
    own = [dist.Normal(0.1 * i, 1.0 + i) for i in range(COUNT)]
    arrays = [dist.Normal(np.full(3, 0.1 * i), 1.0) for i in range(COUNT)]
    mixture = [
        dist.MixtureSameFamily(dist.Categorical([0.2, 0.8]), dist.Normal([0.1 * i, 1], 1.0)) for i in range(COUNT)
    ]
    start = time.perf_counter()
    own[0].draw_many(KEYS, own)
    line("Normal: first draw, with compilation", time.perf_counter() - start)
    values = own[0].draw_many(KEYS, own)
    line(f"make {COUNT} recipes and their families",
         best(lambda: [dist.Normal(0.1 * i, 1.0).family for i in range(COUNT)]))  # fmt: skip
    line(f"draw {COUNT}, one distribution", best(lambda: same[0].draw_many(KEYS, same), 20))
    line(f"draw {COUNT}, each its own parameters", best(lambda: own[0].draw_many(KEYS, own), 20))
    line(f"score {COUNT}, each its own parameters", best(lambda: own[0].log_prob_many(own, values), 20))
    line(f"draw {COUNT} arrays of 3", best(lambda: arrays[0].draw_many(KEYS, arrays), 20))
    line(f"draw {COUNT} of a mixture", best(lambda: mixture[0].draw_many(KEYS, mixture), 20))
    line("draw 1", best(lambda: own[0].sample(KEYS[0]), 20))
    line(f"eager numpyro: draw {COUNT}, extrapolated from {EAGER}", best(eager_draws) * COUNT / EAGER)
    line(f"eager numpyro: score {COUNT}, extrapolated from {EAGER}", best(eager_scores) * COUNT / EAGER)
    sites = 20
    seconds = best(lambda: ppl.run(ppl.Importance(COUNT)(walk(sites)), 0), 3) / sites
    line(f"importance with {COUNT} particles: one draw and one observe", seconds)
    calls = counted(lambda: ppl.run(ppl.Importance(COUNT)(walk(sites)), 0))
    print(f"device calls: {calls} for {sites} draws and {sites} observes of {COUNT} particles")


if __name__ == "__main__":
    main()
