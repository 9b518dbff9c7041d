"""Enum members, NamedTuples and dataclasses by the names of their classes and fields.

Reading runs no code that a file names: a class is looked up among the modules imported already, must be of these three
kinds, and is filled without calling it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, Flag
from functools import cached_property
from types import ModuleType
from typing import Any


def full_name(cls: type) -> str:
    """`module:qualname`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def dump_enum(value: Enum) -> list[Any]:
    """[class, name of the member]; of a flag, which may be several members at once, the value."""
    return [_importable(type(value)), value.value if isinstance(value, Flag) else value.name]


def load_enum(body: Any) -> Enum:
    """The member that `dump_enum` described."""
    name, member = body
    cls = _find(name)
    if issubclass(cls, Flag):
        return cls(member)
    if not issubclass(cls, Enum) or member not in cls.__members__:
        raise ValueError(f"{name} has no member {member!r}")
    return cls.__members__[member]


def dump_fields(value: Any) -> tuple[str, dict[str, Any]] | None:
    """(class, fields) of a NamedTuple or dataclass; None of anything else.

    Raises:
        TypeError: the object is more than its fields, or its class cannot be found by its name.
    """
    cls = type(value)
    if (names := _field_names(cls)) is None:
        return None
    extra = {n for n in getattr(value, "__dict__", {}) if not isinstance(_static(cls, n), cached_property)} - {*names}
    missing = [name for name in names if not hasattr(value, name)]
    if extra or missing:
        raise TypeError(f"is more than its fields ({', '.join([*sorted(extra), *missing])}): register(...) its class")
    return _importable(cls), {name: getattr(value, name) for name in names}


def load_fields(name: str, parts: Mapping[str, Any]) -> Any:
    """The object that `dump_fields` described."""
    cls = _find(name)
    names = _field_names(cls)
    if names is None:
        raise ValueError(f"{name} is neither a NamedTuple nor a dataclass")
    if {*names} != {*parts}:
        raise ValueError(f"{name} has the fields {', '.join(names)}, the file {', '.join(parts)}")
    if issubclass(cls, tuple):
        return tuple.__new__(cls, [parts[name] for name in names])
    out = object.__new__(cls)
    for field in names:
        object.__setattr__(out, field, parts[field])
    return out


def _field_names(cls: type) -> list[str] | None:
    if issubclass(cls, tuple):
        return list(named) if isinstance(named := getattr(cls, "_fields", None), tuple) else None
    if is_dataclass(cls) and cls.__new__ is object.__new__:
        return [field.name for field in fields(cls)]
    return None


def _static(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _importable(cls: type) -> str:
    """The name that finds this class again."""
    name = full_name(cls)
    try:
        found = _find(name)
    except ValueError:
        found = None
    if found is not cls:
        raise TypeError("has a class that cannot be found by its name: define it at the top level of a module")
    return name


def _find(name: str) -> type:
    """The class of this name; attributes are looked up, never computed."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    if found is None:
        raise ValueError(f"the class {name} is not loaded: import {module} first")
    for part in path.split("."):
        found = vars(found).get(part) if isinstance(found, type | ModuleType) else None
    if not isinstance(found, type):
        raise ValueError(f"there is no class {name}")
    return found
