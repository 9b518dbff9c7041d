"""Numbers, strings and bytes as plain JSON: itself where JSON can say it, else an object with one tag."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any


def _int(value: int) -> Any:
    """Python writes and reads at most 4300 decimal digits."""
    return value if value.bit_length() <= 1024 else {"$int": hex(value)}


def _float(value: float) -> Any:
    return value if math.isfinite(value) else {"$float": str(value)}


def _complex(value: complex) -> Any:
    return {"$complex": [str(value.real), str(value.imag)]}


def _str(value: str) -> Any:
    """JSON may write lone surrogates, but reads a pair of them as one character."""
    if value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value):
        return value
    return {"$str": value.encode("unicode_escape").decode()}


DUMPERS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: lambda value: {"$bytes": b64encode(value).decode()},
}
LOADERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda body: int(body, 16),
    "$float": lambda body: float(body),
    "$complex": lambda body: complex(*map(float, body)),
    "$str": lambda body: body.encode().decode("unicode_escape"),
    "$bytes": lambda body: b64decode(body, validate=True),
}
