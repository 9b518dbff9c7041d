"""A decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU (Llama 2/3, Qwen 2).

Parameters are a flat dictionary under the names and in the shapes ([out, in]) of Hugging Face
checkpoints, so that loading is a copy. There is one forward function, `advance`: it feeds S tokens
to rows that already hold `lengths` tokens. Training and scoring call it without a cache, prefill
with S > 1, decoding with S = 1.

Sources: Touvron et al. 2023 (Llama); Su et al. 2021 (RoPE); Ainslie et al. 2023 (GQA); Shazeer 2020 (SwiGLU).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Params = dict[str, Array]
CHUNK = 64  # tokens of the cache that are attended at a time; capacities are multiples


@dataclass(frozen=True)
class Config:
    """The sizes of a model, named as in Hugging Face's `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for field in fields(self)[:8]:
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: RoPE rotates pairs")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Config:
        """The sizes in a `config.json` of a Llama.

        Raises:
            KeyError: a size is missing.
            ValueError: a size makes no sense, or the model is not of this architecture.
        """
        if not isinstance(data, dict):
            raise ValueError(f"not an object: {data!r}")
        rope = data.get("rope_scaling") or data.get("rope_parameters") or {}
        for name, expected in {"model_type": "llama", "hidden_act": "silu"}.items():
            if data.get(name, expected) != expected:
                raise ValueError(f"{name} {data[name]!r} is not supported, only {expected!r}")
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"rope scaling {rope} is not supported")
        data = {"rope_theta": rope["rope_theta"], **data} if "rope_theta" in rope else data
        names = [f.name for f in fields(cls)]
        required = names[: names.index("rope_theta")]
        missing = [name for name in required if name not in data]
        if missing:
            raise KeyError(f"config.json lacks {', '.join(missing)}")
        return cls(**{name: data[name] for name in names if name in data})


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
    out["model.norm.weight"] = (d,)
    if not config.tie_word_embeddings:
        out["lm_head.weight"] = (config.vocab_size, d)
    return out


def init_params(config: Config, key: Array) -> Params:
    """Random parameters: norms one, matrices normal with standard deviation 1/sqrt(fan in)."""
    table = shapes(config)
    params: Params = {}
    for (name, shape), k in zip(table.items(), jax.random.split(key, len(table)), strict=True):
        if len(shape) == 1:
            params[name] = jnp.ones(shape, jnp.float32)
        else:
            params[name] = jax.random.normal(k, shape, jnp.float32) * shape[1] ** -0.5
    return params


def advance(
    params: Params, config: Config, tokens: Array, cache: Cache | None = None, lengths: Array | None = None,
    live: Array | None = None,
) -> tuple[Array, Cache | None]:  # fmt: skip
    """Feed `tokens` [rows, S] to rows that hold `lengths` [rows] tokens.

    Returns the hidden states after the final norm, [rows, S, hidden_size], and the cache with the
    tokens written behind the old ones. Rows may be ragged: a row's surplus tokens (padding) are
    written past its true length, where nothing attends and the next call overwrites. Nothing is written to rows that
    are not `live` [rows]; their lengths should be 0. Without a cache the rows start empty and nothing is kept.
    """
    rows, steps = tokens.shape
    start = jnp.zeros((rows,), jnp.int32) if lengths is None else lengths
    positions = start[:, None] + jnp.arange(steps)
    cos, sin = _rope(config, positions)
    if cache is not None:
        row = jnp.arange(rows)[:, None]
        places = positions if live is None else jnp.where(live[:, None], positions, cache.capacity)  # there: dropped
        chunk, place = places // CHUNK, places % CHUNK
        chunks = jnp.minimum((jnp.max(start) + steps + CHUNK - 1) // CHUNK, len(cache.keys[0]))
    x = params["model.embed_tokens.weight"][tokens]
    keys, values = [], []
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        h = _norm(x, params[f"{layer}.input_layernorm.weight"], config.rms_norm_eps)
        q = _rotate(_heads(h, params[f"{layer}.self_attn.q_proj.weight"], config.head_dim), cos, sin)
        k = _rotate(_heads(h, params[f"{layer}.self_attn.k_proj.weight"], config.head_dim), cos, sin)
        v = _heads(h, params[f"{layer}.self_attn.v_proj.weight"], config.head_dim)
        if cache is None:
            visible = jnp.arange(steps) <= positions[..., None]
            attended = _attend(q, k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), visible)
        else:
            keys.append(cache.keys[i].at[chunk, row, :, :, place].set(k, mode="drop"))
            values.append(cache.values[i].at[chunk, row, :, place].set(v, mode="drop"))
            attended = _attend_chunks(q, keys[i], values[i], positions, chunks)
        x = x + _linear(attended, params[f"{layer}.self_attn.o_proj.weight"])
        h = _norm(x, params[f"{layer}.post_attention_layernorm.weight"], config.rms_norm_eps)
        gate = jax.nn.silu(_linear(h, params[f"{layer}.mlp.gate_proj.weight"]))
        up = _linear(h, params[f"{layer}.mlp.up_proj.weight"])
        x = x + _linear(gate * up, params[f"{layer}.mlp.down_proj.weight"])
    hidden = _norm(x, params["model.norm.weight"], config.rms_norm_eps)
    return hidden, None if cache is None else Cache(tuple(keys), tuple(values))


def logits(params: Params, hidden: Array) -> Array:
    """Next-token logits [..., vocab_size] of hidden states [..., hidden_size]."""
    return _linear(hidden, params.get("lm_head.weight", params["model.embed_tokens.weight"]))


def score(params: Params, hidden: Array) -> Array:
    """The scalar head `score.{weight,bias}` on hidden states [..., hidden_size]: logits [...]."""
    return _linear(hidden, params["score.weight"])[..., 0] + params["score.bias"][0]


def _linear(x: Array, weight: Array) -> Array:
    # One flat matrix product: XLA:CPU is a quarter faster on it, forward and backward, than on a batched one.
    return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], -1)


def _norm(x: Array, weight: Array, eps: float) -> Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * weight


def _heads(x: Array, weight: Array, head_dim: int) -> Array:
    return _linear(x, weight).reshape(*x.shape[:-1], -1, head_dim)


def _rope(config: Config, positions: Array) -> tuple[Array, Array]:
    half = config.head_dim // 2
    angles = positions[..., None] * config.rope_theta ** (-jnp.arange(half) / half)
    return jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]  # [rows, S, 1, head_dim / 2]


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


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


def _attend_chunks(q: Array, keys: Array, values: Array, positions: Array, chunks: Array) -> Array:
    """As `_attend` over the first `chunks` chunks: the cost follows the longest row, not the capacity.

    The softmax is summed chunk by chunk (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"); a
    chunk of which a row sees nothing leaves its sums as they are, to the last bit.
    """
    rows, steps, heads, dim = q.shape
    kv_heads = keys.shape[2]
    q = q.reshape(rows, steps, kv_heads, heads // kv_heads, dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(rows, kv_heads, -1, dim) * dim**-0.5  # queries: head by head, each with its steps
    last = jnp.tile(positions, (1, heads // kv_heads))[:, None, :, None]

    def step(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, out = state
        k = jax.lax.dynamic_index_in_dim(keys, i, 0, keepdims=False)
        v = jax.lax.dynamic_index_in_dim(values, i, 0, keepdims=False)
        scores = jnp.einsum("bhqd,bhdc->bhqc", q, k)
        scores = jnp.where(i * CHUNK + jnp.arange(CHUNK) <= last, scores, -jnp.inf)
        new = jnp.maximum(top, jnp.max(scores, -1, keepdims=True))
        shrink, weights = jnp.exp(top - new), jnp.exp(scores - new)
        total = total * shrink + jnp.sum(weights, -1, keepdims=True)
        return new, total, out * shrink + jnp.einsum("bhqc,bhcd->bhqd", weights, v)

    start = jnp.full((*q.shape[:-1], 1), -jnp.inf), jnp.zeros((*q.shape[:-1], 1)), jnp.zeros(q.shape)
    _, total, out = jax.lax.fori_loop(0, chunks, step, start)  # the first chunk is never empty: `top` is finite then
    out = (out / total).reshape(rows, kv_heads, -1, steps, dim)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, steps, heads * dim)
