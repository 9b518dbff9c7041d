"""Arrays and numpy scalars as plain JSON: dtype, shape, and little-endian bytes in base64."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from typing import Any

import numpy as np


def is_array(value: Any) -> bool:
    """Whether the value is exactly a numpy array, or a jax array (jax is not imported for the question)."""
    jax_array = getattr(sys.modules.get("jax"), "Array", None)
    return type(value) is np.ndarray or (jax_array is not None and isinstance(value, jax_array))


def dump(value: Any) -> list[Any]:
    """[dtype, shape, bytes] of an array.

    Raises:
        TypeError: its elements are not plain bytes, or not known yet (traced by jax).
    """
    array = np.asarray(value)
    name = _name(array.dtype)
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return [name, list(array.shape), b64encode(data).decode()]


def load(body: Any) -> np.ndarray:
    """The array that `dump` described, writable."""
    name, shape, data = body
    dtype = _dtype(name)
    return np.frombuffer(b64decode(data, validate=True), dtype.newbyteorder("<")).astype(dtype).reshape(shape)


NUMBERS = bool, int, float, complex


def dump_scalar(value: np.generic) -> list[Any]:
    """[dtype, the Python number or, where Python has none, the bytes]."""
    (name, _, data), item = dump(value), value.item()
    return [name, item if type(item) in NUMBERS and value.dtype.kind not in "mM" else data]


def load_scalar(name: str, item: Any) -> Any:
    """The numpy scalar that `dump_scalar` described."""
    if type(item) in NUMBERS:
        return _dtype(name).type(item)
    return load([name, [], item])[()]


def _name(dtype: np.dtype) -> str:
    if dtype.type.__module__ == "ml_dtypes":  # bfloat16 and its like: numpy's short name is that of raw bytes
        return dtype.name
    if dtype.kind not in "biufcmMSU":
        raise TypeError(
            f"has dtype {dtype}: only numbers, times and fixed-width strings have a JSON form, try .tolist()"
        )
    return dtype.str


def _dtype(name: Any) -> np.dtype:
    import ml_dtypes  # noqa: F401  # numpy knows its names from then on

    dtype = np.dtype(name)
    if _name(dtype) != name:
        raise ValueError(f"{name!r} names no dtype of numbers")
    return dtype
