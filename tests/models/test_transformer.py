"""The transformer against a reference written from its definition, and cached against uncached."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.models import transformer
from ppl.models.transformer import Config, Params, advance, empty_cache, init_params, logits, shapes

forward = partial(jax.jit, static_argnames="config")(advance)


def reference(params: Params, c: Config, tokens: list[int]) -> np.ndarray:
    """Logits [length, vocabulary] of Llama, one position and one head at a time, float64."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / math.sqrt(sum(v * v for v in x) / len(x) + c.rms_norm_eps) * weight

    def rotate(x: np.ndarray, position: int) -> np.ndarray:
        half, out = c.head_dim // 2, np.zeros_like(x)
        for j in range(half):  # the pair (j, j + half) is a complex number, turned by position * theta^(-2j/head_dim)
            turned = complex(x[j], x[j + half]) * np.exp(1j * position * c.rope_theta ** (-2 * j / c.head_dim))
            out[j], out[j + half] = turned.real, turned.imag
        return out

    def head(x: np.ndarray, h: int) -> np.ndarray:
        return x[h * c.head_dim : (h + 1) * c.head_dim]

    xs = [p["model.embed_tokens.weight"][t] for t in tokens]
    group = c.num_attention_heads // c.num_key_value_heads
    for i in range(c.num_hidden_layers):
        w = {name.removeprefix(f"model.layers.{i}."): value for name, value in p.items()}
        keys: list[list[np.ndarray]] = []
        values: list[np.ndarray] = []
        for t, x in enumerate(xs):
            h = norm(x, w["input_layernorm.weight"])
            q = w["self_attn.q_proj.weight"] @ h
            k = w["self_attn.k_proj.weight"] @ h
            keys.append([rotate(head(k, g), t) for g in range(c.num_key_value_heads)])
            values.append(w["self_attn.v_proj.weight"] @ h)
            mixed = []
            for a in range(c.num_attention_heads):
                query = rotate(head(q, a), t)
                e = np.exp([query @ keys[s][a // group] / math.sqrt(c.head_dim) for s in range(t + 1)])
                mixed.append(sum(e[s] / e.sum() * head(values[s], a // group) for s in range(t + 1)))
            xs[t] = x = x + w["self_attn.o_proj.weight"] @ np.concatenate(mixed)
            h = norm(x, w["post_attention_layernorm.weight"])
            gate = w["mlp.gate_proj.weight"] @ h
            gate = gate / (1 + np.exp(-gate))
            xs[t] = x + w["mlp.down_proj.weight"] @ (gate * (w["mlp.up_proj.weight"] @ h))
    unembed = p["model.embed_tokens.weight"] if c.tie_word_embeddings else p["lm_head.weight"]
    return np.array([unembed @ norm(x, p["model.norm.weight"]) for x in xs])


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"tie_word_embeddings": False, "rope_theta": 10_000.0},
        {"num_key_value_heads": 4, "head_dim": 6},
        {"num_key_value_heads": 1, "rms_norm_eps": 0.1},
    ],
)
def test_logits_agree_with_the_definition(
    other: dict[str, Any], config_of: Callable[..., Config], params_of: Callable[..., Params]
) -> None:
    config = config_of(11, **other)
    params = params_of(config)
    rows = np.random.default_rng(0).integers(11, size=(3, 9))
    hidden, cache = forward(params, config, rows)
    assert cache is None
    ours = np.asarray(logits(params, hidden))
    theirs = np.array([reference(params, config, row.tolist()) for row in rows])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert theirs.std() > 0.3  # there is something to agree on


def test_cached_in_ragged_pieces_equals_uncached(
    config_of: Callable[..., Config], params_of: Callable[..., Params]
) -> None:
    """Rows are fed 0 to 5 tokens at a time, padded with rubbish, until all are full to the last place."""
    config, rng = config_of(11, max_position_embeddings=14), np.random.default_rng(1)
    params, rows, capacity = params_of(config), 6, 14
    tokens = rng.integers(11, size=(rows, capacity))
    expected = np.asarray(forward(params, config, tokens)[0])
    cache, lengths, seen = empty_cache(config, rows, capacity), np.zeros(rows, int), 0
    while (lengths < capacity).any():
        width = 5 if seen == 0 else int(rng.choice([1, 1, 5]))
        counts = np.minimum(rng.integers(width + 1, size=rows), capacity - lengths)
        piece = rng.integers(11, size=(rows, width))
        for row, count in enumerate(counts):
            piece[row, :count] = tokens[row, lengths[row] : lengths[row] + count]
        hidden, cache = forward(params, config, piece, cache, jnp.asarray(lengths))
        for row, count in enumerate(counts):
            new = slice(lengths[row], lengths[row] + count)
            np.testing.assert_allclose(hidden[row, :count], expected[row, new], atol=1e-4)
            seen += count
        lengths += counts
    assert seen == rows * capacity


def test_what_comes_later_changes_nothing_before(
    config_of: Callable[..., Config], params_of: Callable[..., Params]
) -> None:
    config = config_of(11)
    a = np.arange(9)[None] % 11
    b = np.where(np.arange(9) < 5, a, (a + 1) % 11)
    x, y = (np.asarray(forward(params_of(config), config, tokens)[0])[0] for tokens in (a, b))
    np.testing.assert_array_equal(x[:5], y[:5])
    assert np.abs(x[5:] - y[5:]).max(1).min() > 1e-3


def test_the_head_is_tied_or_its_own(config_of: Callable[..., Config]) -> None:
    tied, untied = config_of(11), config_of(11, tie_word_embeddings=False)
    assert set(shapes(untied)) - set(shapes(tied)) == {"lm_head.weight"}
    params = init_params(untied, jax.random.key(0))
    assert {name: value.shape for name, value in params.items()} == shapes(untied)
    hidden = jax.random.normal(jax.random.key(1), (2, 3, untied.hidden_size))
    np.testing.assert_allclose(logits(params, hidden), hidden @ params["lm_head.weight"].T, rtol=1e-4, atol=1e-5)
    del params["lm_head.weight"]
    np.testing.assert_allclose(
        logits(params, hidden), hidden @ params["model.embed_tokens.weight"].T, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, ["num_attention_heads=3", "num_key_value_heads=2"]),
        ({"head_dim": 5}, ["head_dim=5", "even"]),
    ],
)
def test_config_errors_name_the_value(
    other: dict[str, Any], words: list[str], config_of: Callable[..., Config]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        config_of(11, **other)
    assert all(word in str(caught.value) for word in words)


def test_from_json_reads_what_it_needs_and_names_what_is_missing(config_of: Callable[..., Config]) -> None:
    config = config_of(11, tie_word_embeddings=False)
    data = {**vars(config), "model_type": "llama", "hidden_act": "silu"}
    assert Config.from_json(data) == config
    del data["rope_theta"], data["rms_norm_eps"]
    assert Config.from_json(data).rope_theta == 10_000.0
    del data["hidden_size"], data["num_hidden_layers"]
    with pytest.raises(KeyError, match="hidden_size, num_hidden_layers"):
        Config.from_json(data)


def test_norms_are_computed_in_32_bits() -> None:
    """Of 16-bit states, rounded once. With a mean of squares in 16 bits a fifth of them come out otherwise."""
    x = jax.random.normal(jax.random.key(0), (32, 1000)).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    exact /= np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6)
    found = transformer._norm(x, jnp.ones(1000, jnp.bfloat16), 1e-6)
    assert found.dtype == jnp.bfloat16
    assert np.mean(np.asarray(found) != np.asarray(jnp.asarray(exact, jnp.bfloat16))) < 0.001
