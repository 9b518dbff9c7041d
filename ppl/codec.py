"""Values as strict JSON and back, without loss: what programs return, draw and receive.

`decode(encode(v))` equals `v` and has its types (jax arrays come back as numpy arrays). What JSON can say stays plain;
the rest is an object with a single key that begins with `$`, and a dict that looks so is written as `$dict`:

    >>> encode([1, 2.5, None, {"x": "y"}, (1, 2), float("inf"), {3: b"ab"}])
    [1, 2.5, None, {'x': 'y'}, {'$tuple': [1, 2]}, {'$float': 'inf'}, {'$dict': [[3, {'$bytes': 'YWI='}]]}]
    >>> decode(encode({"$tuple": {1, 2}}))
    {'$tuple': {1, 2}}

Exact types only: a subclass would come back as its base. Other classes take part through `register`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypeVar

import numpy as np

from ppl import codec_arrays, codec_classes, codec_leaves

T = TypeVar("T")


class _Refused(Exception):
    """A value without a JSON form; `steps` lead to it, the innermost first."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.steps: list[str] = []


def encode(value: Any) -> Any:
    """The JSON form of a value: None, bools, ints, finite floats, strings, and lists and dicts of them.

    Raises:
        TypeError: part of the value has no JSON form; names where it is, as in `value[2].x`, and what would work.
    """
    try:
        return _dump(value)
    except _Refused as refused:
        raise TypeError(f"value{''.join(reversed(refused.steps))} {refused.why}") from None
    except RecursionError:
        raise TypeError("value contains itself, or is nested too deeply to be written") from None


def decode(data: Any) -> Any:
    """The value whose JSON form this is.

    Raises:
        ValueError: `encode` did not write this, or what it needs (a class, a tokenizer) is not loaded.
    """
    try:
        return _load(data)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def register(cls: type[T], tag: str, to: Callable[[T], Any], from_: Callable[[Any], T]) -> None:
    """Let values of exactly this class be encoded: `to` gives an encodable value, `from_` makes the value from it.

    `to` raises TypeError and `from_` ValueError for what they cannot do.

    Raises:
        ValueError: the tag belongs to another class.
    """
    key, name = f"${tag}", codec_classes.full_name(cls)
    if key in _LOADERS and _OWNERS.get(key) != name:
        raise ValueError(f"the tag {tag!r} belongs to {_OWNERS.get(key, 'ppl.codec')}; choose another for {name}")
    _OWNERS[key] = name
    _DUMPERS[cls] = lambda value: {key: _dump(_try(to, value))}
    _LOADERS[key] = lambda body: from_(_load(body))


def sketch(value: Any) -> str:
    """A short text, the same in every process, to compare a recorded run with a program.

    `value.sketch()` if there is one; else compact JSON, the module and name of a callable, or the name of the type.
    Never a memory address. Of more than 200 characters, the first 60 and the CRC-32 of all.
    """
    text = _sketch(value)
    return text if len(text) <= 200 else f"{text[:60]}...crc32:{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def _sketch(value: Any) -> str:
    if not isinstance(value, type) and callable(own := getattr(value, "sketch", None)):
        return str(own())
    try:
        return _compact(encode(value))
    except TypeError:
        named = value if callable(value) and hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}:{named.__qualname__}"


def _compact(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _dump(value: Any) -> Any:
    dump = _DUMPERS.get(type(value))
    return dump(value) if dump is not None else _dump_kin(value)


def _dump_kin(value: Any) -> Any:
    """A value known by what its class derives from."""
    if isinstance(value, Enum):
        return {"$enum": _try(codec_classes.dump_enum, value)}
    if (found := _try(codec_classes.dump_fields, value)) is not None:
        name, parts = found
        return {"$object": [name, dict(_parts(parts.items(), ".{}"))]}
    if isinstance(value, np.generic):
        name, item = _try(codec_arrays.dump_scalar, value)
        return {"$scalar": [name, _dump(item)]}
    if codec_arrays.is_array(value):
        return {"$array": _try(codec_arrays.dump, value)}
    cls = type(value)
    raise _Refused(
        f"is a {codec_classes.full_name(cls)}, which has no JSON form: ppl.codec.register({cls.__name__}, ...), "
        "or turn it into plain values (those of a posterior with .map(...))"
    )


def _try(dump: Callable[[T], Any], value: T) -> Any:
    """`dump` of a value; its TypeError becomes a refusal."""
    try:
        return dump(value)
    except TypeError as error:
        raise _Refused(f"(a {codec_classes.full_name(type(value))}) {error}") from None


def _parts(parts: Iterable[tuple[Any, Any]], step: str = "[{!r}]") -> Iterable[tuple[Any, Any]]:
    """(key, JSON form) of each (key, part); what is refused notes the step to it."""
    for key, part in parts:
        try:
            yield key, _dump(part)
        except _Refused as refused:
            refused.steps.append(step.format(key))
            raise


def _list(values: Iterable[Any], step: str = "[{!r}]") -> list[Any]:
    return [data for _, data in _parts(enumerate(values), step)]


def _dict(value: dict[Any, Any]) -> Any:
    parts = dict(_parts(value.items()))
    keys = _list(value, ".keys()[{}]")
    plain = all(type(key) is str and key is data for key, data in zip(value, keys, strict=True))
    if plain and not _is_tagged(value):
        return parts
    return {"$dict": [[key, part] for key, part in zip(keys, parts.values(), strict=True)]}


def _is_tagged(data: dict[Any, Any]) -> bool:
    return len(data) == 1 and isinstance(key := next(iter(data)), str) and key.startswith("$")


def _load(data: Any) -> Any:
    if isinstance(data, list):
        return [_load(item) for item in data]
    if not isinstance(data, dict):
        return data
    if not _is_tagged(data):
        return {key: _load(item) for key, item in data.items()}
    ((tag, body),) = data.items()
    if tag not in _LOADERS:
        raise ValueError(f"unknown tag {tag!r}: import the module that registers it (ppl.models for texts)")
    try:
        return _LOADERS[tag](body)
    except RecursionError:
        raise
    except Exception as error:  # a broken file can break a loader in any way
        raise error if type(error) is ValueError else ValueError(f"broken {tag[1:]}: {error!r}") from error


_OWNERS: dict[str, str] = {}
_DUMPERS: dict[type, Callable[[Any], Any]] = codec_leaves.DUMPERS | {
    list: _list,
    tuple: lambda value: {"$tuple": _list(value)},
    set: lambda value: {"$set": sorted(_list(value, "{{...}}"), key=_compact)},  # equal sets are written alike
    frozenset: lambda value: {"$frozenset": sorted(_list(value, "{{...}}"), key=_compact)},
    dict: _dict,
}
_LOADERS: dict[str, Callable[[Any], Any]] = codec_leaves.LOADERS | {
    "$tuple": lambda body: tuple(_load(body)),
    "$set": lambda body: set(_load(body)),
    "$frozenset": lambda body: frozenset(_load(body)),
    "$dict": lambda body: {_load(key): _load(item) for key, item in body},
    "$object": lambda body: codec_classes.load_fields(body[0], {key: _load(part) for key, part in body[1].items()}),
    "$enum": codec_classes.load_enum,
    "$scalar": lambda body: codec_arrays.load_scalar(body[0], _load(body[1])),
    "$array": codec_arrays.load,
}

__all__ = ["decode", "encode", "register", "sketch"]
