"""The same small checkpoint and task in our loop, llamppl, genlm-control and `transformers.generate`, in CPU seconds.

taskset -c 0 python benchmarks/peers.py --python /tmp/peers-venv/bin/python     # benchmarks/README.md: how to make that

64 particles write 64 tokens without the letter e: the measure p(x) 1[no e in x], whose mass SMC estimates, resampling
systematically where the effective sample size is below one half. The end of text is banned too, so that all do the same
work. `transformers.generate` has no weights: it is the floor. Everybody runs in a process of his own, with one thread,
once to warm up and then once for each seed. All must agree on the evidence: of 64 tokens with our own 1,024 particles,
and of 2 tokens with an enumeration. The exit status is 1 if they do not; times decide nothing.
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
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

PROMPT = "This module provides a way of looking up many of the names that a program knows."
VOCABULARY = 2048
LOGITS = 2.5  # their standard deviation, about
SPECIAL = ["<|begin|>", "<|end|>"]
TOLERANCE = 5.0  # standard errors, of few runs
SHORT = 2  # tokens, of which all are enumerated
MANY = 1024  # particles of the reference
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
"""All of the particles, under a seed: the log evidence, from who knows it."""


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
    prompt = lm.text(PROMPT)
    assert prompt.tokens.tolist() == task.prompt
    # One distribution, of which blocks are pieces: the bans are sorted once and not for each block.
    whole = lm.extend(prompt, max_tokens=task.tokens, bias=dict.fromkeys(task.banned, -math.inf))

    @ppl.program
    async def without_e() -> Any:
        text = prompt
        for written in range(0, task.tokens, block):
            text = await ppl.sample("block", whole.piece(text, min(block, task.tokens - written)))
            assert text.log_model is not None and text.log_prob is not None
            await ppl.factor("mass", text.log_model - text.log_prob)
        return text

    def run(seed: int) -> float:
        return ppl.infer(without_e(), ppl.SMC(task.n), seed=seed).log_evidence

    return run


def enumerated(task: Task) -> float:
    """The log evidence of `SHORT` tokens, from the probability of every first token and of what may follow it."""
    import numpy as np

    from ppl.models import load
    from ppl.models.text import Text

    assert task.tokens == SHORT == 2
    lm = load(task.folder)
    prompt = lm.text(PROMPT)
    allowed = np.setdiff1d(np.arange(lm.engine.config.vocab_size), task.banned).astype("<i4")
    begun = [Text(lm.tokenizer, prompt.data + token.tobytes(), prompt) for token in allowed]
    first = np.asarray(lm.engine.next_log_probs([prompt]), np.float64)[0, allowed]
    rows = [np.asarray(lm.engine.next_log_probs(begun[i : i + 64]))[: len(begun[i : i + 64])]
            for i in range(0, len(begun), 64)]  # fmt: skip
    second = np.exp(np.concatenate(rows)[:, allowed].astype(np.float64)).sum(-1)
    return float(np.log(np.exp(first) @ second))


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
    """As in its examples: observe that the next token is none of a set, then sample it."""
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
        return log_mean([float(particle.weight) for particle in particles])

    return run


def genlm(task: Task, cached: bool, direct: bool) -> Run:
    """`direct`: from the product of the model and a mask; else by rejection (AWRS) from the model alone."""
    np, torch, control = import_module("numpy"), import_module("torch"), import_module("genlm.control")
    llm = control.PromptedLLM.from_name(task.folder, backend="hf", batch_size=task.n, prompt_ids=task.prompt)
    banned = set(task.banned)

    class WithoutE(control.Potential):
        """0 for tokens that are allowed, -inf for others and for the end."""

        def __init__(self) -> None:
            super().__init__(llm.vocab, tables=llm.tables)
            allowed = [token.token_id not in banned for token in self.vocab]
            self.row = torch.tensor([0.0 if ok else -math.inf for ok in [*allowed, False]])

        async def prefix(self, context: list[Any]) -> float:  # what came before has been allowed
            return -math.inf if any(token.token_id in banned for token in context[-1:]) else 0.0

        async def complete(self, context: list[Any]) -> float:
            return -math.inf

        async def logw_next(self, context: list[Any]) -> Any:
            return self.make_lazy_weights(self.row)

        async def batch_logw_next(self, contexts: list[list[Any]]) -> Any:
            return self.make_lazy_weights(self.row.expand(len(contexts), -1))

    mask = WithoutE()
    drawn = control.direct_token_sampler(llm * mask) if direct else control.AWRS(llm, mask)

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


def log_mean(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(statistics.fmean(math.exp(x - top) for x in logs))


def deviation(logs: Sequence[float]) -> float:
    """Of the evidence of one run, relative to its mean."""
    mean = log_mean(logs)
    return statistics.stdev(math.exp(x - mean) for x in logs)


OURS = "ours"
WHO: dict[str, tuple[str, Callable[[Task], Run]]] = {
    OURS: ("ppl", lambda task: ours(task, 8)),
    "ours, token by token": ("ppl", lambda task: ours(task, 1)),
    "transformers.generate": ("transformers", generate),
    "llamppl": ("llamppl", lambda task: llamppl(task, True)),
    "llamppl, prompt not cached": ("llamppl", lambda task: llamppl(task, False)),
    "genlm-control, direct": ("genlm-control", lambda task: genlm(task, True, True)),
    "genlm-control, direct, prompt not cached": ("genlm-control", lambda task: genlm(task, False, True)),
    "genlm-control, AWRS": ("genlm-control", lambda task: genlm(task, True, False)),
}


class Asked(NamedTuple):
    """What a child runs: one of `WHO`, or what all are held against."""

    folder: str
    who: str | None
    n: int
    tokens: int
    seeds: range


def child(asked: Asked) -> dict[str, Any]:
    """In this process."""
    facts = json.loads(Path(asked.folder, "task.json").read_text())
    task = Task(asked.folder, asked.n, asked.tokens, facts["prompt"], facts["banned"])
    short = task._replace(tokens=SHORT)
    if asked.who is None:
        many = ours(task._replace(n=MANY), 8)
        return {"logs": [many(seed) for seed in asked.seeds], "short": enumerated(short)}
    package, prepare = WHO[asked.who]
    run = prepare(task)
    run(0)
    times, logs = list[float](), list[float | None]()
    for seed in asked.seeds:
        start = time.process_time()
        logs.append(run(seed))
        times.append(time.process_time() - start)
    run = prepare(short)
    return {"version": metadata.version(package), "times": times, "logs": logs, "short": [*map(run, asked.seeds)]}


def started(python: str, *arguments: str) -> str:
    """What this file prints under another interpreter; ends the program if it fails."""
    done = subprocess.run(
        [python, __file__, *arguments], env=os.environ | ONE_THREAD, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"{done.stderr}\npeers.py {' '.join(arguments)} under {python} failed: see benchmarks/README.md"
        )
    return done.stdout.strip().rpartition("\n")[2]


def asked(python: str, question: Asked) -> dict[str, Any]:
    words = json.dumps([*question[:4], question.seeds.start, question.seeds.stop])
    return json.loads(started(python, "--child", words))


def differs(what: str, logs: Sequence[float], other: float, other_se: float) -> bool:
    """Whether the evidence of some runs is another than it should be; if so, says it."""
    se = math.hypot(deviation(logs) / math.sqrt(len(logs)), other_se)
    off = log_mean(logs) - other
    if abs(off) <= TOLERANCE * se + 1e-4:
        return False
    text = (
        f"log evidence {log_mean(logs):.4f} and not {other:.4f}, a difference of {off:.4f} with standard error {se:.4f}"
    )
    print(f"WARNING: {what}: {text}", file=sys.stderr)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--who", nargs="+", choices=[*WHO], default=[who for who in WHO if "not cached" not in who])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="a particle")
    parser.add_argument("--seeds", type=int, default=5, help="runs in a round")
    parser.add_argument("--rounds", type=int, default=2, help="each with everybody in turn")
    options = parser.parse_args()
    if options.seeds * options.rounds < 4:
        parser.error("fewer than 4 runs say nothing about their scatter")
    with tempfile.TemporaryDirectory() as folder:
        started(options.python, "--make", folder)
        wrong = compared(folder, options)
    return int(wrong)


def compared(folder: str, options: argparse.Namespace) -> bool:
    """Run everybody in turn, print a line for each, then a table; whether any evidence is wrong."""
    print(json.dumps({"load": os.getloadavg()}), flush=True)
    found: dict[str, dict[str, Any]] = {who: {"times": [], "logs": [], "short": []} for who in options.who}
    for begin in range(1, 1 + options.seeds * options.rounds, options.seeds):
        for who, one in found.items():
            python = sys.executable if WHO[who][0] == "ppl" else options.python
            seeds = range(begin, begin + options.seeds)
            answer = asked(python, Asked(folder, who, options.n, options.tokens, seeds))
            one["version"] = answer["version"]
            for key in ("times", "logs", "short"):
                one[key] += answer[key]
    true = asked(sys.executable, Asked(folder, None, options.n, options.tokens, range(1, 9)))
    evidence, se = log_mean(true["logs"]), deviation(true["logs"]) / math.sqrt(len(true["logs"]))
    print(json.dumps({"who": f"reference, {MANY} particles", "log_evidence": evidence, "se": se,
                      f"{SHORT} tokens, exact": true["short"]}))  # fmt: skip
    wrong, rows = False, list[dict[str, Any]]()
    for who, one in found.items():
        row: dict[str, Any] = {"who": who, "version": one["version"], "n": options.n, "tokens": options.tokens}
        row |= {"cpu_s": min(one["times"]), "median_cpu_s": statistics.median(one["times"])}
        row["tokens_per_cpu_s"] = options.n * options.tokens / row["cpu_s"]
        if one["logs"][0] is not None:
            sd = deviation(one["logs"])
            row |= {"log_evidence": log_mean(one["logs"]), "se": sd / math.sqrt(len(one["logs"])), "sd_of_a_run": sd,
                    f"log_evidence_of_{SHORT}": log_mean(one["short"])}  # fmt: skip
            wrong |= differs(who, one["logs"], evidence, se)
            wrong |= differs(f"{who}, {SHORT} tokens", one["short"], true["short"], 0.0)
        if OURS in found:
            row["ratio_to_ours"] = row["cpu_s"] / min(found[OURS]["times"])
        rows.append(row)
        print(json.dumps({key: round(x, 4) if isinstance(x, float) else x for key, x in row.items()}), flush=True)
    print(table(rows), json.dumps({"load": os.getloadavg()}), sep="\n")
    return wrong


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Of the lines, for people."""
    columns = {"who": "<42", "cpu_s": ">8.2f", "median_cpu_s": ">13.2f", "tokens_per_cpu_s": ">17.0f",
               "ratio_to_ours": ">14.1f", "log_evidence": ">13.2f", "se": ">6.2f", "sd_of_a_run": ">12.2f"}  # fmt: skip
    lines = ["".join(f"{name:{how.partition('.')[0]}}" for name, how in columns.items())]
    for row in rows:
        cells = [(how, row.get(name)) for name, how in columns.items()]
        lines.append(
            "".join(f"{'' if x is None else x:{how.partition('.')[0] if x is None else how}}" for how, x in cells)
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(sys.argv[2])
    elif sys.argv[1:2] == ["--child"]:
        folder, who, n, tokens, start, stop = json.loads(sys.argv[2])
        print(json.dumps(child(Asked(folder, who, n, tokens, range(start, stop)))))
    else:
        sys.exit(main())
