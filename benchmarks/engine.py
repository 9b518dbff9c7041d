"""Decoding speed against the machine's matrix products, and the share of the host in a whole particle filter."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
from timing import best

import ppl
from ppl.demo import keyed
from ppl.models import sloppy
from ppl.solving import batch_size, method, solve_all


def matrix_products(lm: sloppy.LanguageModel) -> float:
    """Seconds per token and row of the model's matrix products alone, at the engine's batch: the limit."""
    rows = lm.engine.most
    params = {k: v for k, v in lm.engine.params.items() if v.ndim == 2 and k != "score.weight"}
    inputs = {k: jnp.ones((rows, v.shape[1])) for k, v in params.items()}
    run = jax.jit(lambda w, x: [x[k] @ w[k].T for k in w])
    return best(lambda: jax.block_until_ready([run(params, inputs) for _ in range(50)])) / 50 / rows


def main() -> None:
    lm = sloppy.load_model()
    problems = sloppy.held_out()[:32]
    how = method("particle-filter")
    limit, rows = matrix_products(lm), lm.engine.most
    print(f"matrix products alone: {1 / limit:,.0f} tokens/s")

    def decode() -> None:
        text = lm.text(sloppy.task.prompt(problems[0].problem))
        dist = lm.extend(text, until=None, max_tokens=30)
        type(dist).begin_many([ppl.Key.of(i) for i in range(4 * rows)], [dist] * (4 * rows))()

    seconds = best(decode) / (4 * rows * 30)
    print(f"blocks of 30 tokens:   {1 / seconds:,.0f} tokens/s, {seconds / limit:.1f} times the limit")
    for n in (1, 8, 32):
        work = keyed(problems, 0, "benchmark")
        list(solve_all(lm, work, how.algorithm(n), batch=batch_size(n)))
        tokens, busy, start = lm.engine.usage.tokens, lm.engine.usage.clock.seconds, time.perf_counter()
        list(solve_all(lm, work, how.algorithm(n), batch=batch_size(n)))
        wall, tokens = time.perf_counter() - start, lm.engine.usage.tokens - tokens
        share = 1 - (lm.engine.usage.clock.seconds - busy) / wall
        print(
            f"particle filter, N = {n:2}: {tokens / wall:,.0f} tokens/s, {wall / tokens / limit:.1f} times the limit, "
            f"device idle {100 * share:.0f} % of the time"
        )


if __name__ == "__main__":
    main()
