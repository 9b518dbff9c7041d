"""An extension is a probability distribution over blocks, and draws come from it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import tokenizers
from scipy.stats import chi2

from ppl.models.language_model import Extension, LanguageModel
from ppl.models.stops import stop_table
from ppl.models.text import Text, Tokenizer
from ppl.source import Key

MakeModel = Callable[..., LanguageModel]
FALSE_ALARM = 1e-4  # of each chi-square test, over the choice of its seed, which is fixed

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # eos, prompt, options
    "one character": ("", "ab", {"until": "c", "max_tokens": 4}),
    "two characters": ("", "ab", {"until": "ca", "max_tokens": 4}),
    "the same twice": ("", "ac", {"until": "cc", "max_tokens": 4, "temperature": 0.7}),
    "no stop": ("", "dcab", {"max_tokens": 4, "temperature": 1.5}),
    "one token": ("", "a", {"until": "cc", "max_tokens": 1}),
    "end of text": ("d", "ab", {"max_tokens": 4}),
    "end of text and until": ("ad", "ab", {"until": "bc", "max_tokens": 4}),
    "end of the context": ("", "abcabca", {"until": "c", "max_tokens": 4}),
}


def case(new_model: MakeModel, name: str) -> Extension:
    eos, prompt, options = CASES[name]
    lm = new_model("abcd", eos=eos, context=10)
    return lm.extend(lm.text(prompt), **options)


def blocks(dist: Extension) -> list[Text]:
    """Every text behind the prompt that can be written; longer ones than allowed are tried too."""
    size, prompt = dist.lm.tokenizer.size, dist.text.data
    tokens = (t for n in range(dist.max_tokens + 2) for t in product(range(size), repeat=n))
    texts = [Text(dist.lm.tokenizer, prompt + np.array(t, "<i4").tobytes(), dist.text) for t in tokens]
    return [text for text in texts if dist.can_write(text)]


@pytest.mark.parametrize("name", CASES)
def test_probabilities_sum_to_one(new_model: MakeModel, name: str) -> None:
    dist = case(new_model, name)
    every = blocks(dist)
    log_probs = Extension.log_prob_many([dist] * len(every), every)
    assert abs(math.fsum(map(math.exp, log_probs)) - 1) < 1e-4
    assert len(every) > 3 and np.std(log_probs) > 0.2


@pytest.mark.parametrize("name", CASES)
def test_a_block_ends_at_the_first_stop(new_model: MakeModel, name: str) -> None:
    """`can_write` against the words of the docstring of `extend`."""
    dist = case(new_model, name)
    room = min(dist.max_tokens, 10 - len(dist.text))

    def ended(block: str) -> bool:
        stop = any(one in block for one in dist.until)
        return stop or len(block) == room or any(dist.lm.tokenizer.pieces()[t] in block for t in dist.lm.tokenizer.eos)

    expected = {"".join(b) for n in range(1, room + 1) for b in product("abcd", repeat=n)}
    expected = {b for b in expected if ended(b) and not any(ended(b[:n]) for n in range(1, len(b)))}
    assert {text.last for text in blocks(dist)} == expected


def test_what_cannot_be_written_has_probability_zero(new_model: MakeModel) -> None:
    dist = case(new_model, "one character")
    prompt = dist.text
    values: list[Any] = [prompt, prompt + "a", prompt + "ca", prompt + "aaaaa", dist.lm.text("bbc"), "abc", None]
    values.append(prompt + "bc")
    log_probs = Extension.log_prob_many([dist] * len(values), values)
    assert log_probs[:-1] == [-math.inf] * (len(values) - 1) and -math.inf < log_probs[-1] < 0
    assert dist.log_prob(prompt + "bc") == log_probs[-1]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """p-value; cells that expect fewer than 5 are one cell."""
    small = expected < 5
    o, e = (np.append(x[~small], x[small].sum()) for x in (counts, expected))
    o, e = (o, e) if e[-1] >= 5 else (o[:-1], e[:-1])
    return float(chi2.sf(((o - e) ** 2 / e).sum(), len(e) - 1))


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_log_prob(new_model: MakeModel, name: str) -> None:
    dist, n = case(new_model, name), 4000
    root = Key.of(0).fold(name)
    drawn = Counter(Extension.begin_many([root.fold(str(i)) for i in range(n)], [dist] * n)())
    every = blocks(dist)
    assert set(drawn) <= set(every)
    expected = n * np.exp(Extension.log_prob_many([dist] * len(every), every))
    assert chi_square(np.array([drawn[text] for text in every]), expected) > FALSE_ALARM
    assert chi_square(np.array([drawn[text] for text in every]), np.full(len(every), n / len(every))) < FALSE_ALARM


@pytest.mark.parametrize("apart", [1, 64, 128])
def test_lanes_are_independent(new_model: MakeModel, apart: int) -> None:
    """First tokens of lanes `apart` places apart (128: of different device calls) have the product distribution."""
    lm, n = new_model("abcd", context=10), 8192
    dist, root = lm.extend(lm.text("ab"), max_tokens=1), Key.of(11)
    texts = Extension.begin_many([root.fold(str(i)) for i in range(n)], [dist] * n)()
    tokens = np.array([text.tokens[-1] for text in texts])
    p = np.exp(Extension.log_prob_many([dist] * 4, [lm.text("ab") + c for c in "abcd"]))
    pairs = tokens.reshape(-1, 2, apart)
    counts = np.bincount(4 * pairs[:, 0].ravel() + pairs[:, 1].ravel(), minlength=16)
    assert chi_square(counts, n / 2 * np.outer(p, p).ravel()) > FALSE_ALARM


def test_different_keys_draw_differently_and_the_same_key_the_same(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    dist = lm.extend(lm.text("a"), max_tokens=20, temperature=9.0)  # nearly uniform: collisions have probability 1e-7
    keys = [Key.of(i) for i in range(100)] * 2
    texts = Extension.begin_many(keys, [dist] * 200)()
    assert texts[:100] == texts[100:] and len({*texts}) == 100


def test_the_stop_is_found_within_and_across_tokens_of_several_characters() -> None:
    pieces = ["a", "b", "ab", "ba", "aab", "bb"]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="a"))
    tokenizer = Tokenizer(backend)
    for until in ("b", "ab", "aab", "abab", "bbb"):
        table = stop_table(tokenizer, (until,))
        for tokens in product(range(len(pieces)), repeat=4):
            state, written = 0, ""
            for token in tokens:
                state, written = table[state, token], written + pieces[token]
                assert (state == len(table) - 1) == (until in written)


def test_a_draw_survives_json(new_model: MakeModel) -> None:
    lm = new_model("abcd", eos="d", context=10)
    for prompt, max_tokens in (("abca", 3), ("abcabca", 9)):
        dist = lm.extend(lm.text(prompt) + "b", until="c", max_tokens=max_tokens, temperature=1.7)
        drawn = Extension.begin_many([Key.of(i) for i in range(40)], [dist] * 40)()
        assert {text.full for text in drawn} == {False, max_tokens == 9}
        for text in [*drawn, dist.text + "abc"]:
            data = json.loads(json.dumps(dist.encode(text), allow_nan=False))
            assert data[0] == text.tokens[len(dist.text) :].tolist()
            back = dist.decode(data)
            assert back.parent is dist.text and back.tokenizer is lm.tokenizer and back.key == text.key
            assert (back.data, back.log_prob, back.full) == (text.data, text.log_prob, text.full)
            assert back.last == text.last and back.finished == text.finished


def test_what_is_no_draw_is_not_written_down(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    dist = lm.extend(lm.text("ab"), max_tokens=3)
    strangers: list[Any] = [
        lm.text("abc"),
        lm.text("a") + "b" + "c" + "d",
        lm.text("ba") + "c",
        (lm.text("a") + "b") + "c",
    ]
    for value in [*strangers, "abc", None]:
        with pytest.raises(TypeError, match="is not a block written behind Text"):
            dist.encode(value)


def test_a_sketch_tells_distributions_apart_and_processes_not(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    text = lm.text("ab")
    assert lm.extend(text, until="cd", max_tokens=3).sketch() == (
        "extend(tiny, text=dd9eb80c, until=('cd',), max_tokens=3, temperature=1.0)"
    )
    some: list[dict[str, Any]] = [
        {},
        {"until": "a"},
        {"until": "b"},
        {"max_tokens": 3},
        {"temperature": 0.5},
        {"top_p": 0.5},
    ]
    sketches = [lm.extend(text, **options).sketch() for options in some] + [lm.extend(lm.text("ba")).sketch()]
    other = new_model("abcd")
    other.name = "other"
    sketches.append(other.extend(text).sketch())
    assert len({*sketches}) == len(sketches)
    assert lm.handle().extend(lm.text("ab")).sketch() == sketches[0]
    assert lm.extend(text, temperature=1).sketch() == sketches[0]
