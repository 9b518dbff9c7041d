"""Decoding against a bare loop, `transformers.generate` and the limits of the machine, and the price of resampling.

python benchmarks/decode.py                 # 1M and 10M parameters, N = 64 and 256
python benchmarks/decode.py --peers         # and `transformers` on the same checkpoint (extra `parity`)
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/decode.py
python benchmarks/decode.py --models 0.5B 1.5B 7B --n 1 16 64 256 --peers       # on a GPU

On a CPU seconds are those of the processor, elsewhere of the clock. Parameters are random, float32 on a CPU, else
bfloat16.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import best

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
    logits,
    shapes,
)  # fmt: skip
from ppl.source import Key

PROMPT, BLOCK, READ = 64, 64, 512
MODELS = {
    "1M": Config(512, 160, 432, 3, 5, 5, 32, 1024, tie_word_embeddings=True),
    "10M": Config(2048, 320, 864, 7, 5, 5, 64, 1024, tie_word_embeddings=True),
    "30M": Config(4096, 512, 1408, 8, 8, 4, 64, 1024, tie_word_embeddings=True),
    # Qwen2.5's
    "0.5B": Config(151936, 896, 4864, 24, 14, 2, 64, 4096, model_type="qwen2", tie_word_embeddings=True),
    "1.5B": Config(151936, 1536, 8960, 28, 12, 2, 128, 4096, model_type="qwen2", tie_word_embeddings=True),
    "7B": Config(152064, 3584, 18944, 28, 28, 4, 128, 4096, model_type="qwen2"),
}
LETTERS = "".join(map(chr, [*range(0x4E00, 0xD800), *range(0xE000, 0x30000)]))
ON_CPU = jax.default_backend() == "cpu"
DTYPE = jnp.dtype("float32" if ON_CPU else "bfloat16")


def seconds_of(run: Callable[[], object], repeats: int = 3) -> float:
    return best(run, repeats, time.process_time if ON_CPU else time.perf_counter)


def random_params(config: Config) -> Params:
    """Made one by one: on a device that has room for no more than the model."""
    params: Params = {}
    for i, (name, shape) in enumerate(shapes(config).items()):
        normal = 0.02 * jax.random.normal(jax.random.key(i), shape, DTYPE)
        params[name] = normal if len(shape) > 1 else jnp.full(shape, float("bias" not in name), DTYPE)
    return params


class Limits(NamedTuple):
    """What the machine can do, measured."""

    flops: float
    """Floating point operations of a product of large matrices, a second."""
    bandwidth: float
    """Bytes read and written by a copy, a second."""

    @classmethod
    def measured(cls) -> Limits:
        size, words = (1024, 2**25) if ON_CPU else (8192, 2**31)
        square, long = jnp.ones((size, size), DTYPE), jnp.ones(words // DTYPE.itemsize, DTYPE)
        multiply, scale = jax.jit(lambda x: x @ x), jax.jit(lambda x: -x)
        flops = 2 * size**3 / seconds_of(lambda: jax.block_until_ready(multiply(square)), 10)
        return cls(flops, 2 * words / seconds_of(lambda: jax.block_until_ready(scale(long)), 10))

    def shares(self, config: Config, params: Params, n: int, step: float, tokens: int) -> dict[str, float]:
        """Of a pass over `tokens` tokens of each of n rows that takes `step` seconds: its share of both limits.

        It reads the parameters and keys and values of `PROMPT` + `BLOCK` / 2 tokens a row, which is what decoding does.
        """
        weights = sum(x.nbytes for name, x in params.items() if config.tie_word_embeddings or "embed" not in name)
        cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * DTYPE.itemsize
        work = 2 * n * tokens * sum(x.size for name, x in params.items() if x.ndim == 2 and "embed" not in name)
        work += 2 * n * config.vocab_size * config.hidden_size * config.tie_word_embeddings * (tokens == 1)
        read = weights + n * cached * (PROMPT + BLOCK / 2)
        return {"flops": work / step / self.flops, "bandwidth": read / step / self.bandwidth}


@partial(jax.jit, static_argnames=("config", "steps"), donate_argnums=2)
def bare(
    params: Params, config: Config, cache: Cache, stems: Stems | None, token: jax.Array, length: jax.Array, steps: int
) -> Any:
    """The least that decoding can be: greedy, all rows of one length, no stops, nothing counted."""

    def step(_: int, state: Any) -> Any:
        cache, token, lengths = state
        hidden, cache = advance(params, config, token[:, None], cache, lengths, None, stems)
        return cache, jnp.argmax(logits(params, hidden[:, 0]), -1).astype(jnp.int32), lengths + 1

    return jax.lax.fori_loop(0, steps, step, (cache, token, length))


def bare_loop(params: Params, config: Config, n: int) -> Callable[[], object]:
    groups, room = n // GROUP, PROMPT + BLOCK
    stems = None
    if groups:
        stems, room = Stems(empty_cache(config, groups, PROMPT, DTYPE), jnp.full(groups, PROMPT // CHUNK)), BLOCK

    def run() -> object:
        cache, token = empty_cache(config, n, room, DTYPE), jnp.zeros(n, jnp.int32)
        return jax.block_until_ready(bare(params, config, cache, stems, token, jnp.full(n, PROMPT), BLOCK))

    return run


def model(config: Config, params: Params, rows: int | None) -> LanguageModel:
    return LanguageModel(Engine(params, config, rows=rows), Tokenizer.of_characters(LETTERS[: config.vocab_size]))


def prefill(lm: LanguageModel, n: int) -> Callable[[], object]:
    """The keys and values of `READ` given tokens of n texts that have nothing in common."""
    rng = np.random.default_rng(0)

    def run() -> object:
        data = rng.integers(lm.engine.config.vocab_size, size=(n, READ), dtype=np.int32)
        return lm.engine.hidden([Text(lm.tokenizer, row.tobytes()) for row in data])

    return run


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
    device = "cpu" if ON_CPU else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), params, config, Tokenizer.of_characters(LETTERS[: config.vocab_size]))
        peer: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, DTYPE.name))
    peer = peer.eval().to(device)
    prompt = torch.tensor([list(range(4)) * (PROMPT // 4)] * n, device=device)

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
    limits = Limits.measured()
    print(json.dumps({"limits": {"GFLOP/s": round(limits.flops / 1e9), "GB/s": round(limits.bandwidth / 1e9)},
                      "dtype": DTYPE.name}))  # fmt: skip
    for name in options.models:
        config = MODELS[name]
        params = random_params(config)
        for n in options.n:
            print(json.dumps({"model": name, "n": n} | measured(config, params, n, limits, options)), flush=True)


def measured(config: Config, params: Params, n: int, limits: Limits, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second, and ratios."""
    lm = model(config, params, options.rows)
    size = min(n, lm.engine.most)
    seconds = {"bare": seconds_of(bare_loop(params, config, size)) * n / size, "block": seconds_of(block(lm, n)),
               "8 blocks": seconds_of(block(lm, n, 8)), "smc": seconds_of(smc(lm, n, 8))}  # fmt: skip
    reading = seconds_of(prefill(lm, min(n, 8)), 2)
    if options.peers:
        seconds["transformers"] = seconds_of(generate(config, params, n), 2)
    rate = {what: round(n * BLOCK / s) for what, s in seconds.items()}
    ratios = {
        "block / bare (goal 0.94)": rate["block"] / rate["bare"],
        "smc of 8 blocks / block, time (goal 1.15)": rate["block"] / rate["smc"],
    }
    if options.peers:
        ratios["block / transformers (goal 2)"] = rate["block"] / rate["transformers"]
    calls = -(-n // size)
    shares = limits.shares(config, params, size, seconds["block"] / calls / BLOCK, 1)
    ratios |= {f"decoding / limit of {what}": share for what, share in shares.items()}
    ratios["reading / limit of flops"] = limits.shares(config, params, min(n, 8), reading, READ)["flops"]
    return {"tokens a second": rate | {"reading": round(min(n, 8) * READ / reading)},
            "ratios": {what: round(x, 2) for what, x in ratios.items()}}  # fmt: skip


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"# {time.perf_counter() - start:.0f} s, jax {jax.__version__} on {jax.devices()[0].device_kind}, "
          f"numpy {np.__version__}")  # fmt: skip
