"""The same small checkpoint and task in our loop, llamppl, genlm-control and `transformers.generate`, in CPU seconds.

python benchmarks/peers.py --python /tmp/peers-venv/bin/python      # benchmarks/README.md says how to make that one
taskset -c 0 python benchmarks/peers.py --python ... --seeds 20     # on one core, more runs

64 particles write 64 tokens without the letter e: the measure p(x) 1[no e in x], its mass estimated by SMC that resamples
systematically where the effective sample size is below one half. The end of text is banned too, so that all do the same
work. `transformers.generate` has no weights: it is the floor. Everybody runs in a process of his own, with one thread,
once to warm up and then once for each seed. All must agree on the evidence; if they do not, the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

PROMPT = "This module provides a way of looking up many of the names that a program knows."
VOCABULARY = 2048
LOGITS = 2.5  # their standard deviation, about
SPECIAL = ["<|begin|>", "<|end|>"]
TOLERANCE = 4.0  # standard errors
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
}  # fmt: skip


class Task(NamedTuple):
    """What is asked of everybody."""

    folder: str
    n: int
    tokens: int
    prompt: list[int]
    banned: list[int]
    """Tokens with an e in them, and the special ones."""


Run = Callable[[int], float | None]
"""From a seed: all of the particles, and the log evidence."""


def make(folder: str) -> None:
    """A Llama of the shape of the 1M in decode.py, with random parameters, and a byte-level BPE vocabulary."""
    tokenizers, transformers, torch = (import_module(name) for name in ("tokenizers", "transformers", "torch"))
    topics = import_module("pydoc_data.topics").topics
    parts = tokenizers.pre_tokenizers, tokenizers.decoders, tokenizers.trainers
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer, backend.decoder = parts[0].ByteLevel(add_prefix_space=False), parts[1].ByteLevel()
    alphabet = parts[0].ByteLevel.alphabet()
    trainer = parts[2].BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=SPECIAL)
    backend.train_from_iterator([topics[name] for name in sorted(topics)], trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1], clean_up_tokenization_spaces=False
    ).save_pretrained(folder)
    width = 160
    config = transformers.LlamaConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=width, intermediate_size=432, num_hidden_layers=3,
        num_attention_heads=5, num_key_value_heads=5, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, initializer_range=LOGITS / math.sqrt(width),
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    names = sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    banned = [token for name, token in names if "e" in name or name in SPECIAL]
    facts = {"prompt": backend.encode(PROMPT).ids, "banned": banned, "vocabulary": len(names)}
    Path(folder, "task.json").write_text(json.dumps(facts))


def ours(task: Task, block: int) -> Run:
    """Blocks drawn without the banned tokens, weighed by what the model gives them over what they were drawn with."""
    import ppl
    from ppl.models import load

    lm = load(task.folder)
    prompt, bias = lm.text(PROMPT), dict.fromkeys(task.banned, -math.inf)
    assert prompt.tokens.tolist() == task.prompt

    @ppl.program
    async def without_e() -> Any:
        text = prompt
        for _ in range(task.tokens // block):
            text = await ppl.sample("block", lm.extend(text, max_tokens=block, bias=bias))
            assert text.log_model is not None and text.log_prob is not None
            await ppl.factor("mass", text.log_model - text.log_prob)
        return text

    def run(seed: int) -> float:
        posterior = ppl.infer(without_e(), ppl.SMC(task.n), seed=seed)
        assert not any({*text.tokens[len(prompt) :].tolist()} & {*task.banned} for text in posterior.values)
        return posterior.log_evidence

    return run


def generate(task: Task) -> Run:
    """Tokens alone."""
    torch, transformers = import_module("torch"), import_module("transformers")
    peer = transformers.AutoModelForCausalLM.from_pretrained(task.folder).eval()
    prompt = torch.tensor([task.prompt])

    def run(seed: int) -> None:
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = peer.generate(
                prompt, attention_mask=torch.ones_like(prompt), num_return_sequences=task.n, do_sample=True, top_k=0,
                max_new_tokens=task.tokens, min_new_tokens=task.tokens, suppress_tokens=task.banned, pad_token_id=0,
            )  # fmt: skip
        assert out.shape == (task.n, len(task.prompt) + task.tokens)

    return run


def llamppl(task: Task, cached: bool) -> Run:
    """As its tutorial has it: observe that the next token is none of a set, then sample it."""
    np, peer = import_module("numpy"), import_module("llamppl")
    lm = peer.CachedCausalLM.from_pretrained(task.folder, backend="hf", batch_size=task.n)
    banned = set(task.banned)

    class WithoutE(peer.Model):
        def __init__(self) -> None:
            super().__init__()
            self.context = peer.LMContext(lm, PROMPT)
            assert self.context.tokens == task.prompt

        async def step(self) -> None:
            await self.observe(self.context.mask_dist(banned), False)
            await self.sample(self.context.next_token())
            if self.context.token_count == task.tokens:
                self.finish()

    def run(seed: int) -> float:
        np.random.seed(seed)
        lm.clear_cache()
        if cached:
            lm.cache_kv(task.prompt)
        particles = asyncio.run(peer.smc_standard(WithoutE(), task.n, 0.5, resampling_method="systematic"))
        return log_mean([particle.weight for particle in particles])

    return run


def genlm(task: Task, cached: bool, sampler: str) -> Run:
    """Its sampler `direct` over the product of the model with a mask in one piece, or `awrs` with a regular expression."""
    np, torch, control = import_module("numpy"), import_module("torch"), import_module("genlm.control")
    llm = control.PromptedLLM.from_name(task.folder, backend="hf", batch_size=task.n, prompt_ids=task.prompt)
    banned = set(task.banned)

    class WithoutE(control.Potential):
        """0 for tokens that are allowed, -inf for others and for the end."""

        def __init__(self) -> None:
            super().__init__(llm.vocab, tables=llm.tables)
            allowed = [token.token_id not in banned for token in self.vocab]
            self.row = torch.tensor([0.0 if ok else -math.inf for ok in [*allowed, False]])

        async def prefix(self, context: list[Any]) -> float:
            return -math.inf if any(token.token_id in banned for token in context[-1:]) else 0.0

        async def complete(self, context: list[Any]) -> float:
            return -math.inf

        async def logw_next(self, context: list[Any]) -> Any:
            return self.make_lazy_weights(self.row)

        async def batch_logw_next(self, contexts: list[list[Any]]) -> Any:
            return self.make_lazy_weights(self.row.expand(len(contexts), -1))

    if sampler == "direct":
        drawn = control.direct_token_sampler(llm * WithoutE())
    else:
        drawn = control.AWRS(llm, WithoutE())

    def run(seed: int) -> float:
        np.random.seed(seed)
        torch.manual_seed(seed)
        llm.model.clear_cache()
        if cached:
            llm.model.cache_kv(task.prompt)
        sequences = asyncio.run(
            drawn.smc(
                n_particles=task.n, ess_threshold=0.5, max_tokens=task.tokens + 2, resampling_method="systematic",
                terminate_when=lambda context: len(context) == task.tokens,
            )
        )  # fmt: skip
        return float(sequences.log_ml)

    return run


def log_mean(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(statistics.fmean(math.exp(x - top) for x in logs))


WHO: dict[str, tuple[str, Callable[[Task], Run]]] = {
    "ours": ("ppl", lambda task: ours(task, 8)),
    "ours, token by token": ("ppl", lambda task: ours(task, 1)),
    "transformers.generate": ("transformers", generate),
    "llamppl": ("llamppl", lambda task: llamppl(task, False)),
    "llamppl, cached prompt": ("llamppl", lambda task: llamppl(task, True)),
    "genlm-control, direct": ("genlm-control", lambda task: genlm(task, False, "direct")),
    "genlm-control, direct, cached prompt": ("genlm-control", lambda task: genlm(task, True, "direct")),
    "genlm-control, AWRS, cached prompt": ("genlm-control", lambda task: genlm(task, True, "awrs")),
}


def child(who: str, folder: str, n: int, tokens: int, seeds: int) -> dict[str, Any]:
    """Run one of them, in this process."""
    facts = json.loads(Path(folder, "task.json").read_text())
    package, prepare = WHO[who]
    run = prepare(Task(folder, n, tokens, facts["prompt"], facts["banned"]))
    run(0)
    times, logs = list[float](), list[float | None]()
    for seed in range(1, seeds + 1):
        start = time.process_time()
        logs.append(run(seed))
        times.append(time.process_time() - start)
    return {"version": metadata.version(package), "seconds": times, "logs": logs}


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        print(json.dumps(child(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))))
