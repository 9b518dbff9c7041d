"""A decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU (Llama, Mistral, Qwen 2 and 3).

Parameters are a flat dictionary under the names and in the shapes ([out, in]) of Hugging Face
checkpoints, so that loading is a copy. There is one forward function, `advance`: it feeds S tokens
to rows that already hold `lengths` tokens. Training and scoring call it without a cache, prefill
with S > 1, decoding with S = 1.

Sources: Touvron et al. 2023 (Llama); Su et al. 2021 (RoPE); Ainslie et al. 2023 (GQA); Shazeer 2020 (SwiGLU).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models.config import Config
from ppl.models.sums import total

Params = dict[str, Array]
CHUNK = 64  # tokens of the cache that are attended at a time; capacities are multiples
GROUP = 8  # neighbouring rows that may share a stem


class Cache(NamedTuple):
    """Keys and values of the tokens that each row holds, in chunks of `CHUNK` tokens; one array per layer.

    `keys[l]` is [chunks, rows, kv_heads, head_dim, CHUNK] and `values[l]` [chunks, rows, kv_heads, CHUNK, head_dim]:
    attention reads whole chunks, one after the other, and both of its products contract over the layout that XLA:CPU
    multiplies fastest (a third faster in all at 64 rows than [rows, kv_heads, head_dim, capacity]).
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]

    @property
    def rows(self) -> int:
        return self.keys[0].shape[1]

    @property
    def capacity(self) -> int:
        """Tokens that a row has room for."""
        return self.keys[0].shape[0] * CHUNK


_Sums = tuple[Array, Array, Array]  # largest score, sum of the weights, weighted sum of the values; of each query


class Stems(NamedTuple):
    """What rows have in common, kept once for every `GROUP` neighbours: the whole chunks that their texts begin with.

    One product attends a chunk of a stem for all rows of the group, several times as fast as a chunk for each. The
    sums are the same, to the last bit: a text does not know whether its row has a stem.
    """

    cache: Cache
    """Group g's chunks are those of row g."""
    chunks: Array
    """How many there are, int32 [groups]; the rows of the group hold what comes behind them."""


def empty_cache(config: Config, rows: int, capacity: int, dtype: Any = jnp.float32) -> Cache:
    """A cache of `rows` empty rows with room for at least `capacity` tokens each."""
    heads, dim, chunks = config.num_key_value_heads, config.head_dim, -(-capacity // CHUNK)
    layers = range(config.num_hidden_layers)
    return Cache(
        tuple(jnp.zeros((chunks, rows, heads, dim, CHUNK), dtype) for _ in layers),
        tuple(jnp.zeros((chunks, rows, heads, CHUNK, dim), dtype) for _ in layers),
    )


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of the language model (reward heads come on top)."""
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, d)}
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        out |= {
            f"{layer}.input_layernorm.weight": (d,),
            f"{layer}.self_attn.q_proj.weight": (q, d),
            f"{layer}.self_attn.k_proj.weight": (kv, d),
            f"{layer}.self_attn.v_proj.weight": (kv, d),
            f"{layer}.self_attn.o_proj.weight": (d, q),
            f"{layer}.post_attention_layernorm.weight": (d,),
            f"{layer}.mlp.gate_proj.weight": (f, d),
            f"{layer}.mlp.up_proj.weight": (f, d),
            f"{layer}.mlp.down_proj.weight": (d, f),
        }
        if config.qkv_bias:
            out |= {f"{layer}.self_attn.{part}_proj.bias": (size,) for part, size in (("q", q), ("k", kv), ("v", kv))}
        if config.attention_bias:
            out[f"{layer}.self_attn.o_proj.bias"] = (d,)
        if config.mlp_bias:
            out |= {f"{layer}.mlp.{part}_proj.bias": (size,) for part, size in (("gate", f), ("up", f), ("down", d))}
        if config.qk_norm:
            out |= {f"{layer}.self_attn.{part}_norm.weight": (config.head_dim,) for part in "qk"}
    out["model.norm.weight"] = (d,)
    if not config.tie_word_embeddings:
        out["lm_head.weight"] = (config.vocab_size, d)
    return out


def init_params(config: Config, key: Array) -> Params:
    """Random parameters: norms one, biases zero, matrices normal with standard deviation 1/sqrt(fan in)."""
    table = shapes(config)
    params: Params = {}
    for (name, shape), k in zip(table.items(), jax.random.split(key, len(table)), strict=True):
        if len(shape) == 1:
            params[name] = (jnp.zeros if name.endswith(".bias") else jnp.ones)(shape, jnp.float32)
        else:
            params[name] = jax.random.normal(k, shape, jnp.float32) * shape[1] ** -0.5
    return params


def advance(
    params: Params, config: Config, tokens: Array, cache: Cache | None = None, lengths: Array | None = None,
    live: Array | None = None, stems: Stems | None = None,
) -> tuple[Array, Cache | None]:  # fmt: skip
    """Feed `tokens` [rows, S] to rows that hold `lengths` [rows] tokens.

    Returns the hidden states after the final norm, [rows, S, hidden_size], and the cache with the
    tokens written behind the old ones. Rows may be ragged: a row's surplus tokens (padding) are
    written past its true length, where nothing attends and the next call overwrites. Nothing is written to rows that
    are not `live` [rows]; their lengths should be 0. `lengths` count the tokens of `stems`, which the cache does not
    hold. Without a cache the rows start empty and nothing is kept.
    """
    rows, steps = tokens.shape
    start = jnp.zeros((rows,), jnp.int32) if lengths is None else lengths
    positions = start[:, None] + jnp.arange(steps)
    cos, sin = _rope(config, positions)
    row = jnp.arange(rows)[:, None]
    begin = jnp.zeros((rows, 1), jnp.int32) if stems is None else CHUNK * jnp.repeat(stems.chunks, GROUP)[:, None]
    x = params["model.embed_tokens.weight"][tokens]
    keys, values = [], []
    for i in range(config.num_hidden_layers):
        attn, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        h = _norm(x, params[f"model.layers.{i}.input_layernorm.weight"], config.rms_norm_eps)
        q, k, v = (_heads(_project(params, f"{attn}.{part}_proj", h), config.head_dim) for part in "qkv")
        if config.qk_norm:
            q = _norm(q, params[f"{attn}.q_norm.weight"], config.rms_norm_eps)
            k = _norm(k, params[f"{attn}.k_norm.weight"], config.rms_norm_eps)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if cache is None:
            attended = _attend(q, k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), _visible(config, positions, steps))
        else:
            # A place beyond the end is dropped.
            places = positions - begin if live is None else jnp.where(live[:, None], positions - begin, cache.capacity)
            chunk, place = places // CHUNK, places % CHUNK
            keys.append(cache.keys[i].at[chunk, row, :, :, place].set(k, mode="drop"))
            values.append(cache.values[i].at[chunk, row, :, place].set(v, mode="drop"))
            stem = None if stems is None else (stems.cache.keys[i], stems.cache.values[i], stems.chunks)
            attended = _attend_chunks(config, q, keys[i], values[i], positions, begin, stem)
        x = x + _project(params, f"{attn}.o_proj", attended.astype(x.dtype))
        h = _norm(x, params[f"model.layers.{i}.post_attention_layernorm.weight"], config.rms_norm_eps)
        gated = jax.nn.silu(_project(params, f"{mlp}.gate_proj", h)) * _project(params, f"{mlp}.up_proj", h)
        x = x + _project(params, f"{mlp}.down_proj", gated)
    hidden = _norm(x, params["model.norm.weight"], config.rms_norm_eps)
    return hidden, None if cache is None else Cache(tuple(keys), tuple(values))


def logits(params: Params, hidden: Array) -> Array:
    """Next-token logits [..., vocab_size] of hidden states [..., hidden_size], float32 whatever the weights are."""
    weight = params.get("lm_head.weight", params["model.embed_tokens.weight"])
    return _linear(hidden, weight, jnp.float32)  # 16 bits would round a logit of 20 by 0.06


def score(params: Params, hidden: Array) -> Array:
    """The scalar head `score.{weight,bias}` on hidden states [..., hidden_size]: logits [...], float32."""
    return _linear(hidden, params["score.weight"], jnp.float32)[..., 0] + params["score.bias"][0]


def _linear(x: Array, weight: Array, out: Any = None) -> Array:
    # One flat matrix product: XLA:CPU is a quarter faster on it, forward and backward, than on a batched one.
    return jnp.matmul(x.reshape(-1, x.shape[-1]), weight.T, preferred_element_type=out).reshape(*x.shape[:-1], -1)


def _project(params: Params, name: str, x: Array) -> Array:
    """The linear map `name`, with its bias where it has one."""
    out, bias = _linear(x, params[f"{name}.weight"]), params.get(f"{name}.bias")
    return out if bias is None else out + bias


def _norm(x: Array, weight: Array, eps: float) -> Array:
    wide = x.astype(jnp.float32)  # the mean of squares loses too much in 16 bits
    mean = total(wide * wide, x.shape[-1])[..., None] / x.shape[-1]
    return (wide * jax.lax.rsqrt(mean + eps)).astype(x.dtype) * weight


def _heads(x: Array, head_dim: int) -> Array:
    return x.reshape(*x.shape[:-1], -1, head_dim)


def frequencies(config: Config) -> np.ndarray:
    """What RoPE turns each pair of a head by from one position to the next, radians, float32 [head_dim / 2]."""
    half, scaling = config.head_dim // 2, config.rope_scaling
    plain = config.rope_theta ** (-np.arange(half) / half)
    if scaling is None:
        return plain.astype(np.float32)
    slow = plain / scaling.factor
    if scaling.rope_type == "linear":
        return slow.astype(np.float32)
    turns = scaling.original_max_position_embeddings * plain / (2 * math.pi)  # in the context of training
    fast = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    fast = np.clip(fast, 0.0, 1.0)
    return (fast * plain + (1 - fast) * slow).astype(np.float32)


def _rope(config: Config, positions: Array) -> tuple[Array, Array]:
    angles = positions[..., None] * frequencies(config)
    return jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]  # [rows, S, 1, head_dim / 2]


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)  # at a far position 16 bits do not tell angles apart
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def _attend(q: Array, k: Array, v: Array, visible: Array) -> Array:
    """q [rows, S, heads, D], k [rows, kv_heads, D, C], v [rows, kv_heads, C, D] -> [rows, S, heads * D]."""
    rows, steps, heads, dim = q.shape
    kv_heads = k.shape[1]
    q = q.reshape(rows, steps, kv_heads, heads // kv_heads, dim).transpose(0, 2, 1, 3, 4)
    q = q.reshape(rows, kv_heads, -1, dim) * dim**-0.5
    scores = jnp.einsum("bhqd,bhdc->bhqc", q, k).reshape(rows, kv_heads, steps, -1, k.shape[-1])
    scores = jnp.where(visible[:, None, :, None, :], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, -1).reshape(rows, kv_heads, -1, k.shape[-1])
    out = jnp.einsum("bhqc,bhcd->bhqd", weights, v).reshape(rows, kv_heads, steps, -1, dim)
    return out.transpose(0, 2, 1, 3, 4).reshape(rows, steps, heads * dim)


def _visible(config: Config, positions: Array, capacity: int, first: Array | int = 0) -> Array:
    """Which of the tokens `first` ([rows, 1]) and so on one at these positions [rows, S] sees: [rows, S, capacity]."""
    places = jnp.asarray(first)[..., None] + jnp.arange(capacity)
    visible = places <= positions[..., None]
    if config.sliding_window is not None:
        visible &= places > positions[..., None] - config.sliding_window
    return visible


def _attend_chunks(
    config: Config, q: Array, keys: Array, values: Array, positions: Array, begin: Array,
    stem: tuple[Array, Array, Array] | None,
) -> Array:  # fmt: skip
    """As `_attend` over a cache (see `Cache`) and its stems: the cost follows the longest row, not the capacity."""
    rows, steps, heads, dim = q.shape
    kv_heads, shared = keys.shape[2], heads // keys.shape[2]
    q = q.reshape(rows, steps, kv_heads, shared, dim).transpose(0, 2, 3, 1, 4) * dim**-0.5
    q = q.reshape(rows, kv_heads, shared * steps, dim)
    lowest = jnp.finfo(jnp.float32).min  # finite, so that chunks outside of a window are nothing and not nan
    sums = jnp.full((*q.shape[:-1], 1), lowest), jnp.zeros((*q.shape[:-1], 1)), jnp.zeros(q.shape, jnp.float32)

    def visible(first: Array) -> Array:
        """Of a chunk whose tokens are `first` and so on, what each query of each head sees: [rows, queries, CHUNK]."""
        seen = _visible(config, positions, CHUNK, first)[:, None]
        return jnp.broadcast_to(seen, (rows, shared, steps, CHUNK)).reshape(rows, -1, CHUNK)

    if stem is not None:
        sums = _attend_stems(heads, q, sums, *stem, visible, steps == 1 and _same_together(config))

    def step(i: Array, sums: _Sums) -> _Sums:
        return _attend_chunk(heads, q, sums, _chunk(keys, i), _chunk(values, i), visible(begin + i * CHUNK))

    chunks = jnp.minimum(jnp.max(positions - begin) // CHUNK + 1, len(keys))
    _, weight, out = jax.lax.fori_loop(0, chunks, step, sums)
    out = (out / weight).reshape(rows, kv_heads, shared, steps, dim)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, steps, heads * dim)


def _attend_stems(
    heads: int, q: Array, sums: _Sums, keys: Array, values: Array, chunks: Array, visible: Callable[[Array], Array],
    together: bool,
) -> _Sums:  # fmt: skip
    """What each query has seen of the stem of its group; `together`: by one product for all rows of the group."""
    mine = jnp.repeat(chunks, GROUP)[:, None, None]

    def group(x: Array) -> Array:
        """[rows, kv_heads, queries, n] -> [groups, kv_heads, GROUP * queries, n]"""
        x = x.reshape(-1, GROUP, *x.shape[1:]).swapaxes(1, 2)
        return x.reshape(*x.shape[:2], -1, x.shape[-1])

    def ungroup(x: Array) -> Array:
        x = x.reshape(*x.shape[:2], GROUP, -1, x.shape[-1]).swapaxes(1, 2)
        return x.reshape(-1, *x.shape[2:])

    if together:
        q, sums = group(q), jax.tree.map(group, sums)

    def step(i: Array, sums: _Sums) -> _Sums:
        k, v = _chunk(keys, i), _chunk(values, i)
        if not together:
            k, v = jnp.repeat(k, GROUP, 0), jnp.repeat(v, GROUP, 0)
        return _attend_chunk(heads, q, sums, k, v, (visible(i * CHUNK) & (i < mine)).reshape(len(q), -1, CHUNK))

    sums = jax.lax.fori_loop(0, jnp.max(chunks), step, sums)
    return jax.tree.map(ungroup, sums) if together else sums


def _same_together(config: Config) -> bool:
    """Whether one product for `GROUP` rows gives the bits that one for each gives.

    XLA:CPU takes another routine for some shapes. Measured with jax 0.10, not documented: `tests/models/test_stems.py`
    would see it change.
    """
    if jax.default_backend() != "cpu" or config.head_dim in (64, 128):
        return True
    return config.head_dim >= 32 and config.num_attention_heads <= 6 * config.num_key_value_heads


def _chunk(x: Array, i: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False)


def _attend_chunk(heads: int, q: Array, before: _Sums, k: Array, v: Array, visible: Array) -> _Sums:
    """Add a chunk to the sums of a softmax (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax").

    A chunk of which a query sees nothing leaves its sums as they are, to the last bit.
    """
    top, weight, out = before
    scores = jnp.einsum("bhqd,bhdc->bhqc", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(visible[:, None], scores, -jnp.inf)
    new = jnp.maximum(top, jnp.max(scores, -1, keepdims=True))
    shrink, weights = jnp.exp(top - new), jnp.exp(scores - new)
    weight = weight * shrink + total(weights, heads * CHUNK)[..., None]
    seen = jnp.einsum("bhqc,bhcd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return new, weight, out * shrink + seen
