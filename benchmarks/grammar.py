"""Grammars: size and time of their tables, their price in the decode loop, and the evidence that a filter finds.

python benchmarks/grammar.py tables         # automata and token tables at 4,096, 32,768 and 151,936 tokens
python benchmarks/grammar.py loop           # decoding with a grammar of 350 states over decoding without one, N = 64
python benchmarks/grammar.py evidence       # SMC, N = 64, against the exact evidence of a byte-bigram model
python benchmarks/grammar.py checked        # JSON of any depth, checked on the host: a byte, and a token, N = 64
python benchmarks/grammar.py                # all of them

Vocabularies are byte-level BPE, trained here on the documentation that Python brings along, then filled up.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pydoc_data.topics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tokenizers
from timing import best

import ppl
from ppl.grammar import Regular, cfg, choice, regex
from ppl.grammar.hmm import log_partition
from ppl.grammar.tokens import TokenDFA, narrow
from ppl.grammar.vocabulary import Vocabulary
from ppl.models.bigram import bigram
from ppl.models.decode import Stop
from ppl.models.draw import PLAIN
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.tokenizer import Tokenizer
from ppl.models.transformer import Config, init_params
from ppl.source import Key, begin_draws

STRING = r'"([^"\\\x00-\x1f]|\\(["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
SHORT = r'"([^"\\\x00-\x1f]|\\(["\\/bfnrt]|u[0-9a-fA-F]{4})){0,20}"'


def nested(depth: int) -> str:
    """JSON values of so many levels."""
    value = f"({STRING}|{NUMBER}|true|false|null)"
    for _ in range(depth):
        value = rf"({value}|\{{({STRING}: {value}(, {STRING}: {value})*)?\}}|\[({value}(, {value})*)?\])"
    return value


PATTERNS = {
    "date": r"\d{4}-\d\d-\d\d",
    "date, ASCII": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "e-mail": r"[A-Za-z0-9._%+-]+@([A-Za-z0-9-]+\.)+[A-Za-z]{2,}",
    "IPv4": r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
    "IPv6": r"([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,6}(:[0-9a-fA-F]{1,4}){1,2}",
    "UUID": "[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}",
    "line of 200": r'[^"\n]{0,200}',
    "50 words": "[a-z]+( [a-z]+){0,49}",
    "a.{30}": "a.{30}",
    "number": NUMBER,
    "string": STRING,
    "schema, small": rf'\{{"name": {STRING}, "age": [0-9]{{1,3}}, "ok": (true|false)\}}',
    "schema, bounded": rf'\{{"name": {SHORT}, "age": [0-9]{{1,3}}, "tags": \[({STRING}(, {STRING}){{0,2}})?\]\}}',
    "JSON, depth 2": nested(2),
}  # fmt: skip


def text() -> str:
    return "\n".join(pydoc_data.topics.topics.values())


@functools.cache
def bpe(size: int) -> Tokenizer:
    """Byte-level, with one end-of-text token; tokens that training does not find are random pairs of others."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([text()], trainer)
    return Tokenizer(backend, [0])  # special tokens come first


def vocabulary(size: int) -> Vocabulary:
    tokenizer = bpe(size)
    tokens = tokenizer.token_bytes()
    known, rng = set(tokens), np.random.default_rng(0)
    words = [token for token in tokens if token]
    while len(tokens) < size:
        word = b"".join(words[i] for i in rng.integers(len(words), size=2))
        if word not in known:
            known.add(word)
            tokens = [*tokens, word] if len(tokens) == size - 1 else tokens
            tokens.append(word)
    return Vocabulary(tokens, tokenizer.eos)


def tables(sizes: tuple[int, ...] = (4096, 32768, 151936)) -> Iterator[dict[str, Any]]:
    for size in sizes:
        words = vocabulary(size)
        _ = words.joined
        for name, pattern in PATTERNS.items():
            times = [time.perf_counter()]
            language = regex(pattern)
            times.append(time.perf_counter())
            grammar = TokenDFA.of(language.dfa, words)
            times.append(time.perf_counter())
            built, spelled = (round(x, 3) for x in np.diff(times))
            kept = narrow(grammar.next).nbytes + narrow(grammar.classes).nbytes
            yield {"vocabulary": size, "language": name, "byte states": language.dfa.size, "states": grammar.size,
                   "classes": grammar.next.shape[1], "regex s": built, "tokens s": spelled,
                   "MB": round(kept / 1e6, 2)}  # fmt: skip


def loop(sizes: tuple[int, ...] = (4096, 32768), n: int = 64, steps: int = 32) -> Iterator[dict[str, Any]]:
    """A model of 1M parameters and the vocabulary, with the schema's grammar; the best of five runs in turn.

    Where a document ends the next begins, so that all rows write as many tokens.
    """
    for size in sizes:
        tokenizer = bpe(size)
        config = Config(size, 160, 432, 3, 5, 5, 32, 1024, tie_word_embeddings=True)
        lm = LanguageModel(Engine(init_params(config, jax.random.key(0)), config), tokenizer)
        prompt = lm.text("The answer, as JSON, is " * 8)
        lm.engine.last([prompt])
        grammar = lm.guide(regex(PATTERNS["schema, bounded"])).automaton
        again = np.where(grammar.next == grammar.done, 0, grammar.next)
        ahead = np.where(grammar.distance >= 0, -0.1 * grammar.distance, -np.inf)
        stops = {"without": lm.stop(())[0],
                 "with": Stop.of(again, grammar.classes, grammar.done, np.tile(ahead, (257, 1)))}  # fmt: skip
        rng = np.random.default_rng(0)

        def run(stop: Any, lm: LanguageModel = lm, prompt: Any = prompt, rng: Any = rng) -> Any:
            keys = rng.integers(2**32, size=(n, 2), dtype=np.uint32)
            return lm.engine.decode([prompt] * n, keys, stop, steps, PLAIN)()

        clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
        seconds = dict.fromkeys(stops, math.inf)
        for _ in range(5):
            for name, stop in stops.items():
                seconds[name] = min(seconds[name], best(functools.partial(run, stop), 1, clock))
        yield {"vocabulary": size, "n": n, "states": grammar.size, "classes": grammar.next.shape[1],
               **{f"{name}, ms a step": round(s / steps * 1e3, 2) for name, s in seconds.items()},
               "with / without (goal 1.3)": round(seconds["with"] / seconds["without"], 2)}  # fmt: skip


JSON = r"""
start: value
?value: object | array | ESCAPED_STRING | SIGNED_NUMBER | "true" | "false" | "null"
array: "[" [value ("," value)*] "]"
object: "{" [ESCAPED_STRING ":" value ("," ESCAPED_STRING ":" value)*] "}"
%import common.ESCAPED_STRING
%import common.SIGNED_NUMBER
%import common.WS
%ignore WS
"""


def checked(sizes: tuple[int, ...] = (4096, 32768), n: int = 64, steps: int = 32) -> Iterator[dict[str, Any]]:
    """JSON of any depth, checked on the host, by the model of `loop`, to which all tokens are much the same.

    The worst case: a model that writes JSON by itself has its first token pass.
    """
    document = json.dumps({"name": ["Ada", 1.5, None], "rest": {str(i): [i, {"x": "y"}] for i in range(20)}})
    for size in sizes:
        begin = time.perf_counter()
        language = cfg(JSON)
        built = time.perf_counter() - begin
        seconds = best(lambda language=language: language.advance(language.start(), document), 5)
        config = Config(size, 160, 432, 3, 5, 5, 32, 1024, tie_word_embeddings=True)
        lm = LanguageModel(Engine(init_params(config, jax.random.key(0)), config), bpe(size))
        prompt = lm.text("The answer, as JSON, is ")
        dists: dict[str, Any] = {"plain": lm.extend(prompt, max_tokens=steps),
                                 "checked": lm.extend(prompt, max_tokens=steps, grammar=language)}  # fmt: skip
        times, tokens = {name: list[float]() for name in dists}, 0
        for run in range(4):  # the first one compiles
            for name, dist in dists.items():
                begin = time.perf_counter()
                keys = [Key.of(1000 * run + i) for i in range(n)]
                texts = [value[0] if name == "checked" else value for value in begin_draws(keys, [dist] * n)[0]()]
                tokens = sum(len(text) - len(prompt) for text in texts)
                times[name].append((time.perf_counter() - begin) / tokens)
        yield {"vocabulary": size, "n": n, "build s": round(built, 2),
               "us a byte": round(seconds / len(document) * 1e6, 3),
               **{f"{name}, us a token": round(min(some[1:]) * 1e6) for name, some in times.items()}}  # fmt: skip


LANGUAGES: dict[str, tuple[Regular, int]] = {
    "three words": (choice(["cat", "horse", "elephant"]) + ".", 12),
    "date": (regex("[0-9]{4}-[0-9]{2}-[0-9]{2}"), 12),
    "call": (regex(r"[a-z]{1,8}\([a-z]{1,8}(, [a-z]{1,8}){0,2}\)"), 40),
    "rare ending": (regex("[a-z ]{0,30}qz"), 34),
    "bounded schema": (regex(rf'\{{"name": {SHORT}, "age": [0-9]{{1,3}}, "ok": (true|false)\}}'), 80),
}
"""And how many tokens (bytes) a block may have."""


@ppl.program
async def constrained(lm: LanguageModel, language: Regular, most: int, every: int) -> str:
    dist = lm.extend(lm.text("\n"), grammar=language, max_tokens=most)
    return str(await ppl.sample("block", dist.resample_every(every)))


def evidence(runs: int = 60, n: int = 64, every: int = 4) -> Iterator[dict[str, Any]]:
    lm, hmm = bigram(text())
    for name, (language, most) in LANGUAGES.items():
        guide = lm.guide(language)
        exact = log_partition(guide.automaton, hmm, most)
        row: dict[str, Any] = {"language": name, "exact log evidence": round(exact, 3)}
        twist = guide._log_h
        for kind, table in {"look-ahead": twist, "mask": np.where(twist > -np.inf, 0.0, -np.inf)}.items():
            guide._log_h = table
            guide.__dict__.pop("steered", None)
            program = constrained(lm, language, most, every)
            found = ppl.infer_many([program] * runs, ppl.SMC(n), seeds=list(range(runs)))
            ratios = np.exp([posterior.log_evidence - exact for posterior in found])
            se = ratios.std(ddof=1) / math.sqrt(runs)
            row |= {f"{kind}: mean Z/exact": round(ratios.mean(), 3), f"{kind}: se": round(se, 3),
                    f"{kind}: sd of log": round(np.log(np.maximum(ratios, 1e-300)).std(), 3)}  # fmt: skip
        guide._log_h = twist
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["tables", "loop", "evidence", "checked"])
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"tables": tables, "loop": loop, "evidence": evidence,
                                                                    "checked": checked}  # fmt: skip
    for part in parser.parse_args().parts:
        for row in parts[part]():
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
