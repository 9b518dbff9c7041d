"""Short texts of distributions and their arguments."""

from __future__ import annotations

import inspect
import zlib
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Distribution
from numpyro.distributions.util import lazy_property


def show(value: Any) -> str:
    """A short text of an argument, the same in every process; of a large array its type, shape and CRC-32."""
    if isinstance(value, Distribution):
        return _built(value)
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | np.generic | jax.Array):
        text = repr(value)
        return getattr(value, "__qualname__", type(value).__qualname__) if " at 0x" in text else text
    array = np.asarray(value)
    if array.size <= 8:
        return str(jax.tree.map(lambda x: float(f"{x:.6g}") if isinstance(x, float) else x, array.tolist()))
    return f"{array.dtype}{list(array.shape)}:{zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"


def _built(dist: Distribution) -> str:
    cls, held = type(dist), vars(dist)
    found: dict[str, Any] = {}
    for name in inspect.signature(cls).parameters:
        lazy = isinstance(getattr(cls, name, None), lazy_property) and name not in held
        value = None if lazy else held.get(f"_{name}", getattr(dist, name, None))
        if value is not None and name != "validate_args":
            found[name] = value
    return f"{cls.__name__}({', '.join(f'{name}={show(value)}' for name, value in found.items())})"
