"""Decoding against a bare loop, against `transformers.generate`, and the price of resampling; CPU seconds, one run.

python benchmarks/decode.py                 # 1M and 10M parameters, N = 64 and 256
python benchmarks/decode.py --peers         # and `transformers` on the same checkpoint (extra `parity`)
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/decode.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import best_cpu

import ppl
from ppl.models.engine import Engine
from ppl.models.extension import Extension
from ppl.models.language_model import LanguageModel
from ppl.models.text import Text
from ppl.models.tokenizer import Tokenizer
from ppl.models.transformer import (
    CHUNK,
    GROUP,
    Cache,
    Config,
    Params,
    Stems,
    advance,
    empty_cache,
    init_params,
    logits,
)  # fmt: skip
from ppl.source import Key

PROMPT, BLOCK = 64, 64
MODELS = {
    "1M": Config(512, 160, 432, 3, 5, 5, 32, 1024, tie_word_embeddings=True),
    "10M": Config(2048, 320, 864, 7, 5, 5, 64, 1024, tie_word_embeddings=True),
    "30M": Config(4096, 512, 1408, 8, 8, 4, 64, 1024, tie_word_embeddings=True),
}


@partial(jax.jit, static_argnames=("config", "steps"), donate_argnums=2)
def bare(
    params: Params, config: Config, cache: Cache, stems: Stems, token: jax.Array, length: jax.Array, steps: int
) -> Any:
    """The least that decoding can be: greedy, all rows of one length, no stops, nothing counted."""

    def step(_: int, state: Any) -> Any:
        cache, token, lengths = state
        hidden, cache = advance(params, config, token[:, None], cache, lengths, None, stems)
        return cache, jnp.argmax(logits(params, hidden[:, 0]), -1).astype(jnp.int32), lengths + 1

    return jax.lax.fori_loop(0, steps, step, (cache, token, length))


def bare_loop(params: Params, config: Config, n: int) -> Callable[[], object]:
    groups = -(-n // GROUP)
    stems = Stems(empty_cache(config, groups, PROMPT), jnp.full(groups, PROMPT // CHUNK, jnp.int32))

    def run() -> object:
        cache, token = empty_cache(config, n, BLOCK), jnp.zeros(n, jnp.int32)
        return jax.block_until_ready(bare(params, config, cache, stems, token, jnp.full(n, PROMPT), BLOCK))

    return run


def model(config: Config, params: Params, rows: int | None) -> LanguageModel:
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + config.vocab_size)))
    return LanguageModel(Engine(params, config, rows=rows), Tokenizer.of_characters(letters))


def block(lm: LanguageModel, n: int, pieces: int = 1) -> Callable[[], list[Text]]:
    """`BLOCK` tokens behind one prompt for each of n texts, in so many pieces; each call under other keys."""
    prompt = lm.text("一丁七万" * (PROMPT // 4))
    lm.engine.last([prompt])
    seeds = iter(range(10**6))

    def run() -> list[Text]:
        root, texts = Key.of(next(seeds)), [prompt] * n
        for piece in range(pieces):
            keys = [root.fold(f"{piece}/{i}") for i in range(n)]
            texts = Extension.begin_many(keys, [lm.extend(text, max_tokens=BLOCK // pieces) for text in texts])()
        return texts

    return run


@ppl.program
async def blocks(lm: LanguageModel, prompt: Text, pieces: int) -> Text:
    text = prompt
    for _ in range(pieces):
        text = await ppl.sample("block", lm.extend(text, max_tokens=BLOCK // pieces))
        await ppl.factor("weight", float(text.tokens[-1] % 7))
    return text


def smc(lm: LanguageModel, n: int, pieces: int) -> Callable[[], object]:
    prompt = lm.text("一丁七万" * (PROMPT // 4))
    seeds = iter(range(10**6))
    return lambda: ppl.infer_many([blocks(lm, prompt, pieces)], ppl.SMC(n, ppl.Systematic), [next(seeds)])


def generate(config: Config, params: Params, n: int) -> Callable[[], object]:
    """The same by `transformers`, sampling."""
    import torch
    import transformers

    from ppl.models import checkpoint

    torch.set_num_threads(1)
    letters = Tokenizer.of_characters("".join(map(chr, range(0x4E00, 0x4E00 + config.vocab_size))))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), params, config, letters)
        peer: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([list(range(4)) * (PROMPT // 4)] * n)

    def run() -> object:
        with torch.inference_mode():
            return peer.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=BLOCK, min_new_tokens=BLOCK,
                do_sample=True, top_k=0, pad_token_id=0,
            )  # fmt: skip

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["1M", "10M"], choices=MODELS)
    parser.add_argument("--n", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--rows", type=int, help="fixed number of rows in each call (default: the engine's)")
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    for name in options.models:
        config = MODELS[name]
        params = init_params(config, jax.random.key(0))
        for n in options.n:
            lm = model(config, params, options.rows)
            size = min(n, lm.engine.most)
            loop, whole = bare_loop(params, config, size), block(lm, n)
            seconds = {"bare": best_cpu(loop, 3) * n / size, "block": best_cpu(whole, 3)}
            seconds["8 blocks"] = best_cpu(block(lm, n, 8), 3)
            seconds["smc"] = best_cpu(smc(lm, n, 8), 3)
            if options.peers:
                seconds["transformers"] = best_cpu(generate(config, params, n), 2)
            rate = {what: round(n * BLOCK / s) for what, s in seconds.items()}
            ratios = {
                "block / bare (goal 0.94)": rate["block"] / rate["bare"],
                "smc of 8 blocks / block, time (goal 1.15)": rate["block"] / rate["smc"],
            }
            if options.peers:
                ratios["block / transformers (goal 2)"] = rate["block"] / rate["transformers"]
            print(json.dumps({"model": name, "n": n, "tokens per CPU second": rate,
                              "ratios": {what: round(x, 2) for what, x in ratios.items()}}), flush=True)  # fmt: skip


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"# {time.perf_counter() - start:.0f} s, jax {jax.__version__} on {jax.devices()[0].device_kind}, "
          f"numpy {np.__version__}")  # fmt: skip
