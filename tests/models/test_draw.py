"""One token: what the device draws, and how probable it is, against sorting in float64 and `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import Importance, collapse, infer, measure, program, sample
from ppl.models import TableLM
from ppl.models.draw import Options, pick
from ppl.models.language_model import Extension, LanguageModel
from ppl.models.text import Text
from ppl.source import Key

MakeModel = Callable[..., LanguageModel]
SIZES = (3, 64, 1000)
OPTIONS = [
    Options.of(temperature, top_k, top_p, min_p, bias)
    for temperature, top_k, top_p, min_p, bias in [
        (1.0, None, None, None, None),
        (0.5, None, None, None, {0: 2.0, 2: -np.inf}),
        (2.0, 2, None, None, None),
        (1.0, None, 0.6, None, None),
        (0.8, 40, 0.9, None, {1: -1.0}),
        (1.3, None, None, 0.2, None),
        (1.0, 5, 0.99, 0.1, None),
        (1.0, 1, None, None, None),
        (1.0, None, 1e-6, None, None),
    ]
]


def logits_of(size: int, rows: int = 50) -> np.ndarray:
    spread = jnp.linspace(0.1, 6.0, rows)[:, None]  # flat rows, where the cut is far down, and steep ones
    return np.array(jax.random.normal(jax.random.key(size), (rows, size)) * spread)


def log_q(logits: np.ndarray, options: Options) -> np.ndarray:
    """The log probability of every token on the device, [rows, vocabulary]."""
    how, rows = options.on_device(logits.shape[-1]), len(logits)
    every = jax.jit(jax.vmap(lambda token: pick(jnp.array(logits), jnp.zeros(rows), jnp.full(rows, token), how)[1]))
    return np.asarray(every(jnp.arange(logits.shape[-1]))).T


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("size", SIZES)
def test_probabilities_are_those_of_sorting(size: int, options: Options) -> None:
    logits = logits_of(size)
    expected = options.cut(logits)
    expected = expected - np.logaddexp.reduce(expected, -1, keepdims=True)
    found = log_q(logits, options)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=2e-6)


@pytest.mark.parametrize("options", OPTIONS[2:7], ids=repr)
def test_cuts_are_those_of_transformers(options: Options) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    logits = logits_of(64)
    y = logits.copy()
    for token, x in options.bias:
        y[:, token] += x
    steps: list[Any] = [transformers.TemperatureLogitsWarper(options.temperature)]
    steps += [transformers.TopKLogitsWarper(options.top_k)] if options.top_k else []
    steps += [transformers.TopPLogitsWarper(options.top_p)] if options.top_p else []
    steps += [transformers.MinPLogitsWarper(options.min_p)] if options.min_p else []
    scores = torch.tensor(y)
    for step in steps:
        scores = step(None, scores)
    np.testing.assert_array_equal(np.isfinite(log_q(logits, options)), np.isfinite(scores.numpy()))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000])
def test_every_uniform_gives_the_token_of_the_inverse_cdf(size: int) -> None:
    """Also 0 and the largest below 1; and never a token that cannot be."""
    logits = logits_of(size, 1)
    if size > 2:
        logits[0, ::2] = -np.inf
        logits[0, 1] = 0.0
    u = np.concatenate([np.linspace(0, 1, 500, endpoint=False), [np.nextafter(np.float32(1), 0)]]).astype(np.float32)
    how = Options().on_device(size)
    token, log_p, *_ = pick(jnp.array(np.repeat(logits, len(u), 0)), jnp.array(u), jnp.full(len(u), -1), how)
    p = np.exp(logits[0].astype(np.float64) - np.logaddexp.reduce(logits[0].astype(np.float64)))
    after = np.cumsum(p)
    token = np.asarray(token)
    assert (p[token] > 0).all() and np.isfinite(log_p).all()
    assert (after[token] >= u - 1e-6).all() and (after[token] - p[token] <= u + 1e-6).all()
    np.testing.assert_allclose(np.exp(log_p), p[token], rtol=1e-4)


def test_rounding_at_the_edge_of_a_block_gives_no_impossible_token() -> None:
    """Sums of blocks and sums within a block round differently; the first token of each block is impossible here."""
    size, width = 1000, 32
    impossible = 0
    for seed in range(20):
        logits = 4 * jax.random.normal(jax.random.key(seed), (1, size)).at[:, ::width].set(-jnp.inf)
        weights = jnp.pad(jnp.exp(logits - logits.max()), ((0, 0), (0, 24))).reshape(-1, width)
        edges = np.asarray(jnp.cumsum(weights.sum(-1)) / weights.sum(), np.float32)[:-1]
        u = np.concatenate([edges, *[np.nextafter(edges, np.float32(x)) for x in (0, 1)]]).clip(0, 1 - 2**-24)
        many = jnp.repeat(logits, len(u), 0)
        token, log_p, *_ = pick(many, jnp.array(u), jnp.full(len(u), -1), Options().on_device(size))
        impossible += int((~np.isfinite(log_p)).sum()) + int((np.asarray(token) % width == 0).sum())
    assert impossible == 0


def test_the_model_itself_is_told_beside_what_was_drawn_from(new_model: MakeModel) -> None:
    """So a proposal costs one pass, and the weight is p / q."""
    lm = new_model("abcd")
    start = lm.text("ab")
    proposal, target = lm.extend(start, max_tokens=5, temperature=2.0, top_k=3), lm.extend(start, max_tokens=5)
    texts = Extension.begin_many([Key.of(i) for i in range(20)], [proposal] * 20)()
    calls = lm.engine.usage.calls
    known = Extension.log_prob_many([target] * 20, texts), Extension.log_prob_many([proposal] * 20, texts)
    assert lm.engine.usage.calls == calls
    again = [Text(lm.tokenizer, text.data, text.parent, 0.0) for text in texts]
    for dist, found in zip((target, proposal), known, strict=True):
        np.testing.assert_allclose(found, Extension.log_prob_many([dist] * 20, again), atol=1e-4)
    assert lm.engine.usage.calls > calls
    copied = [target.decode(proposal.encode(text)) for text in texts]
    assert [text.log_model for text in copied] == known[0]


NEXT = {"a": 0.5, "b": 0.25, "c": 0.15, ".": 0.1}


@program
async def proposed(lm: Any, how: dict[str, Any]) -> str:
    text = lm.text("a")
    text = await sample("text", lm.extend(text, max_tokens=2), proposal=lm.extend(text, max_tokens=2, **how))
    return str(text)


@pytest.mark.parametrize("how", [{"temperature": 3.0}, {"bias": {2: 1.5, 0: -1.0}}])
def test_a_changed_model_as_a_proposal_changes_nothing(new_model: MakeModel, how: dict[str, Any]) -> None:
    lm = TableLM("abc.", lambda text: NEXT, eos=".")
    plain = measure(proposed(lm, {}))
    assert len(plain) == 1 + 3 * 4
    assert measure(collapse(Importance(1)(proposed(lm, how)))) == plain
    posterior = infer(proposed(new_model("abc.", eos="."), how), Importance(500), seed=0)
    assert abs(posterior.log_evidence) < 0.3


CUTS: list[dict[str, Any]] = [{"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.2}, {"bias": {1: -np.inf}}]


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("table", [False, True])
def test_a_proposal_that_cuts_what_the_target_has_is_refused(
    new_model: MakeModel, how: dict[str, Any], table: bool
) -> None:
    lm = TableLM("abc.", lambda text: NEXT, eos=".") if table else new_model("abc.", eos=".")
    with pytest.raises(ValueError, match=r"(cuts off tokens that the target has|bans tokens \[1\])"):
        infer(proposed(lm, how), Importance(10), seed=0)
    text = lm.text("a")
    assert lm.extend(text, **how).misses(lm.extend(text, max_tokens=3, **how)) is None


def test_the_power_of_a_cut_distribution_is_refused() -> None:
    assert Options.of(0.5, 3, None, None, None).powered(2.0) == Options(0.25, 3)
    for options in (Options(top_p=0.5), Options(min_p=0.5)):
        with pytest.raises(ValueError, match=r"no power of a distribution with top_p"):
            options.powered(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k=0: top_k must be a whole number from 1 on"),
        ({"top_k": 1.5}, "top_k=1.5"),
        ({"top_p": 0.0}, "top_p=0.0: top_p must be above 0"),
        ({"top_p": 1.2}, "top_p=1.2"),
        ({"min_p": -0.1}, "min_p=-0.1: min_p must be from 0 to 1"),
        ({"temperature": 0.0}, "temperature=0.0: temperature must be positive"),
        ({"bias": {1: np.inf}}, "bias must be numbers or -inf"),
        ({"bias": {1: np.nan}}, "bias must be numbers or -inf"),
        ({"bias": {9: 1.0}}, "bias of token 9: the vocabulary has 4 tokens"),
        ({"bias": dict.fromkeys(range(4), -np.inf)}, "the bias bans every token"),
    ],
)
def test_bad_options_are_named(new_model: MakeModel, options: dict[str, Any], message: str) -> None:
    lm = new_model("abcd")
    with pytest.raises(ValueError, match=message):
        lm.extend(lm.text("a"), **options).sample(Key.of(0))


def test_several_stops(new_model: MakeModel) -> None:
    """The first that is complete ends the block, wherever the tokens are cut."""
    lm = new_model("abcd")
    dist = lm.extend(lm.text("a"), until=("bc", "d", "ccc"), max_tokens=9)
    texts = Extension.begin_many([Key.of(i) for i in range(200)], [dist] * 200)()
    ended = 0
    for text in texts:
        block = str(text)[1:]
        at = min((block.index(stop) + len(stop) for stop in ("bc", "d", "ccc") if stop in block), default=9)
        assert len(block) == at
        ended += at < 9
    assert ended > 100


def test_automata_of_several_patterns_find_what_searching_finds() -> None:
    from ppl.models.stops import automaton

    rng = np.random.default_rng(0)
    for patterns in [(b"ab",), (b"aab", b"ab"), (b"abab", b"ba"), (b"a", b"aa"), (b"bb", b"abb", b"babb"), ()]:
        table = automaton(patterns)
        for _ in range(200):
            text, state = bytes(rng.choice([97, 98], size=8).tolist()), 0
            for n, byte in enumerate(text, 1):
                state = table[state, byte]
                found = any(pattern in text[:n] for pattern in patterns)
                assert (state == len(table) - 1) == found
                if found:
                    break


def test_equal_options_are_equal() -> None:
    """Else one batch would be two."""
    same = [Options.of(1, None, p, m, b) for p, m, b in product((None, 1.0), (None, 0.0), (None, {}, {3: 0.0}))]
    assert {*same} == {Options()} and all(options.plain for options in same)
