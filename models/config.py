"""The sizes and variants of a model, read from Hugging Face's `config.json` as transformers 4 and 5 write it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

FAMILIES: dict[str, dict[str, int]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
}
"""What a `config.json` of each `model_type` means where it says nothing, other than the defaults of `Config`."""

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class RopeScaling:
    """How the frequencies of RoPE are lowered for a longer context, named as in `config.json`.

    `linear` divides all by `factor`; `llama3` divides those whose wavelength exceeds
    `original_max_position_embeddings / low_freq_factor`, leaves those below
    `original_max_position_embeddings / high_freq_factor`, and goes smoothly from one to the other.
    """

    rope_type: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        if self.rope_type not in ("linear", "llama3"):
            raise ValueError(f"RoPE scaling of type {self.rope_type!r} is not supported, only linear and llama3")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if not _number(value) or value <= 0:
                raise ValueError(f"RoPE scaling: {field.name} must be a positive number, not {value!r}")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"RoPE scaling: low_freq_factor={self.low_freq_factor} must be less than "
                             f"high_freq_factor={self.high_freq_factor}")  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The sizes and variants of a model, named as in Hugging Face's `config.json`.

    Raises:
        ValueError: a value makes no sense, or the architecture is not known.
    """

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
    model_type: str = "llama"
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    """A token attends to this many, itself the last; None: to all before it."""
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name in (*SIZES, *(("sliding_window",) if self.sliding_window is not None else ())):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        for name in ("rope_theta", "rms_norm_eps"):
            value = getattr(self, name)
            if not _number(value) or value <= 0:
                raise ValueError(f"{name} must be a positive number, not {value!r}")
        if self.model_type not in FAMILIES:
            raise ValueError(f"model_type {self.model_type!r} is not supported, only {', '.join(FAMILIES)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: RoPE rotates pairs")

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have a bias: in Qwen 2 always, though its `config.json` does not say so."""
        return self.model_type == "qwen2" or self.attention_bias

    @property
    def qk_norm(self) -> bool:
        """Whether each head's queries and keys are normed before they are rotated."""
        return self.model_type == "qwen3"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Config:
        """What a `config.json` says; where it says nothing, what transformers would assume.

        Raises:
            KeyError: a size is missing.
            ValueError: a value makes no sense, or the model is not of a known architecture.
        """
        if not isinstance(data, dict):
            raise ValueError(f"not an object: {data!r}")
        family = data.get("model_type", "llama")
        if family not in FAMILIES:
            raise ValueError(f"model_type {family!r} is not supported, only {', '.join(FAMILIES)}")
        if data.get("hidden_act", "silu") != "silu":
            raise ValueError(f"hidden_act {data['hidden_act']!r} is not supported, only 'silu'")
        if data.get("quantization_config"):
            raise ValueError("quantized weights (quantization_config) are not supported: use the float checkpoint")
        data = {**FAMILIES[family], **data}
        if data.get("num_key_value_heads") is None:
            data["num_key_value_heads"] = data.get("num_attention_heads")
        if data.get("head_dim") is None and _sizes(data, "hidden_size", "num_attention_heads"):
            data["head_dim"] = data["hidden_size"] // data["num_attention_heads"]
        missing = [name for name in SIZES if data.get(name) is None and name not in ("num_key_value_heads", "head_dim")]
        if missing:
            raise KeyError(f"config.json lacks {', '.join(missing)}")
        data |= _rope(data)
        data["sliding_window"] = _window(data, family)
        if family not in ("llama", "qwen3"):  # flags that transformers ignores there
            data["attention_bias"] = False
        if family != "llama":
            data["mlp_bias"] = False
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads as this, and transformers 4 and 5 as the same model."""
        name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[self.model_type]
        out = {"architectures": [f"{name}ForCausalLM"], "hidden_act": "silu", **asdict(self)}
        if self.sliding_window is not None:
            out |= {"use_sliding_window": True, "max_window_layers": 0}
        return out


def _rope(data: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` from a file that says them side by side or in one `rope_parameters`."""
    rope = data.get("rope_scaling") or data.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ValueError(f"RoPE parameters {rope!r} are not supported: one set for all layers is")
    if rope.get("partial_rotary_factor", data.get("partial_rotary_factor")) not in (None, 1):
        raise ValueError("partial_rotary_factor is not supported: all of a head is rotated")
    theta = rope.get("rope_theta", data.get("rope_theta", Config.rope_theta))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if "factor" not in rope:
        raise ValueError(f"RoPE scaling of type {kind!r} is not supported, only linear and llama3, with their factor")
    rope = {"original_max_position_embeddings": data["max_position_embeddings"], **rope, "rope_type": kind}
    scaling = RopeScaling(**{f.name: rope[f.name] for f in fields(RopeScaling) if f.name in rope})
    return {"rope_theta": theta, "rope_scaling": scaling}


def _window(data: dict[str, Any], family: str) -> int | None:
    """The window of all layers: in Mistral wherever there is one, in Qwen where it is switched on."""
    layers, window = data["num_hidden_layers"], data.get("sliding_window")
    if family == "llama" or window is None or (family != "mistral" and not data.get("use_sliding_window", False)):
        return None
    if family == "mistral" or not isinstance(layers, int):
        return window
    full = data.get("max_window_layers", 28)
    types = data.get("layer_types") or ["full_attention" if i < full else "sliding_attention" for i in range(layers)]
    if len(set(types)) > 1:
        raise ValueError("sliding windows in some of the layers only (max_window_layers, layer_types) "
                         "are not supported: all or none")  # fmt: skip
    return window if types[0] == "sliding_attention" else None


def _sizes(data: dict[str, Any], *names: str) -> bool:
    return all(type(data.get(name)) is int and data[name] > 0 for name in names)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
