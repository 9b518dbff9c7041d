"""A bigram model of bytes, as a transformer: whatever the engine does with it can be compared with exact values.

`ppl.grammar.hmm` computes evidence and conditional distributions of the same model.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

from ppl.grammar.hmm import HMM
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.tokenizer import Tokenizer
from ppl.models.transformer import Config, init_params

END = 256  # the token behind the 256 bytes


def bigram(text: str, end: float = 1e-3, context: int = 128) -> tuple[LanguageModel, HMM]:
    """The bigrams of a text, in which each byte ends it with probability `end`; the second, behind a newline.

    One layer that adds nothing: the embedding of a token goes to the logits as it is.
    """
    data = np.frombuffer(text.encode(), np.uint8)
    counts = np.full((END + 1, END + 1), 0.01)
    np.add.at(counts, (data[:-1], data[1:]), 1.0)
    counts[:, END] = end * counts[:, :END].sum(1)
    p = counts / counts.sum(1, keepdims=True)
    config = Config(END + 1, END + 1, 8, 1, 1, 1, 2, context)
    params = init_params(config, jax.random.key(0))
    for part in ("self_attn.o_proj", "mlp.down_proj"):
        name = f"model.layers.0.{part}.weight"
        params[name] = jnp.zeros_like(params[name])
    # Rows of mean square 1 the norm leaves as they are.
    params["model.embed_tokens.weight"] = jnp.eye(END + 1) * math.sqrt(END + 1)
    params["lm_head.weight"] = jnp.asarray(np.log(p).T / math.sqrt(END + 1), jnp.float32)
    return LanguageModel(Engine(params, config), _bytes(), "bigram"), HMM.bigram(p[ord("\n")], p)


def _bytes() -> Tokenizer:
    """A token for each byte, by the names that byte-level vocabularies have for them, and one that ends a text."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(256, 512))
    names = {chr(byte if byte in plain else next(rest)): byte for byte in range(256)} | {"<end>": END}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(names, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(backend, [END])
