"""Recipes: how to build a numpyro distribution, split into a structure and the numbers that fill it.

Building one numpyro object costs 0.4 ms, so a program never does. It notes class and arguments; recipes of equal
structure differ in their *leaves* alone, numbers and arrays, which are stacked to build the whole batch at once, inside
of one compiled function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Distribution

from ppl.numpyro_text import show

R = TypeVar("R", bound="Recipe")
FLOAT, INT, STATIC = "float", "int", "static"  # what a Python int is, given for a parameter
_COUNTS = ("Multinomial", "MultinomialProbs", "MultinomialLogits", "DirichletMultinomial")  # theirs fix a shape


class Leaf(NamedTuple):
    """A number or an array, given to the compiled function. `dtype` is JAX's: float64 is named float32."""

    shape: tuple[int, ...]
    dtype: str

    def build(self, leaves: Iterator[Any]) -> Any:
        return next(leaves)


class Static(NamedTuple):
    """A constant of the compiled function."""

    cls: type
    value: Hashable

    def build(self, leaves: Iterator[Any]) -> Any:
        return self.value.value if isinstance(self.value, Same) else self.value


class Many(NamedTuple):
    """A list or a tuple."""

    cls: type
    parts: tuple[Structure, ...]

    def build(self, leaves: Iterator[Any]) -> Any:
        return self.cls(part.build(leaves) for part in self.parts)


class Tree(NamedTuple):
    """A pytree of JAX: a numpyro distribution that exists already, a transform, a constraint."""

    tree: Same
    parts: tuple[Structure, ...]

    def build(self, leaves: Iterator[Any]) -> Any:
        return jax.tree.unflatten(self.tree.value, [part.build(leaves) for part in self.parts])


class Node(NamedTuple):
    """A call of a maker."""

    maker: Maker
    names: tuple[str, ...]
    parts: tuple[Structure, ...]

    def build(self, leaves: Iterator[Any]) -> Any:
        arguments = {name: part.build(leaves) for name, part in zip(self.names, self.parts, strict=True)}
        return self.maker.make(**arguments)


Structure = Leaf | Static | Many | Tree | Node


class Same:
    """Hashable hold of a value: equal if the values are, and where they cannot be compared, if they are identical."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same):
            return NotImplemented
        try:
            return self.value is other.value or bool(self.value == other.value)
        except (TypeError, ValueError):  # arrays among the constants
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return hash(type(self.value))


@dataclass(frozen=True, eq=False)
class Maker:
    """What makes a numpyro distribution from named arguments."""

    name: str
    make: Callable[..., Distribution]
    kinds: Mapping[str, str] = field(repr=False)
    """Each parameter, in order, with what a Python int given for it is."""

    @classmethod
    def of(cls, name: str, make: Callable[..., Distribution]) -> Maker:
        """From a class of numpyro, or one of its functions that choose a class, like `Bernoulli`."""
        constraints = getattr(make, "arg_constraints", None)
        function = not inspect.isclass(make)

        def kind(parameter: str) -> str:
            if parameter == "total_count" and name in _COUNTS:
                return STATIC
            if function:
                return INT if (name, parameter) == ("Binomial", "total_count") else FLOAT
            if constraints is None or parameter not in constraints:
                return STATIC
            return INT if parameter == "v" or constraints[parameter].is_discrete else FLOAT

        kinds = {p: STATIC if p == "validate_args" else kind(p) for p in inspect.signature(make).parameters}
        return cls(name, make, kinds)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            TypeError: an unknown name, one given twice, or too many.
        """
        kinds = self.kinds
        bound = dict(zip(kinds, args))  # noqa: B905
        if twice := bound.keys() & kwargs.keys():
            raise TypeError(f"{self.name}: {sorted(twice)[0]} is given twice")
        if kwargs:
            bound |= kwargs
        if len(args) > len(kinds) or not kinds.keys() >= bound.keys():
            raise TypeError(
                f"{self.name} takes ({', '.join(kinds)}), not {len(args)} values and {', '.join(kwargs) or 'no names'}"
            )
        return bound


class Recipe:
    """A maker with its arguments."""

    __slots__ = ("_family", "_leaves", "arguments", "maker")

    def __init__(self, maker: Maker, arguments: dict[str, Any]) -> None:
        self.maker = maker
        self.arguments = arguments
        self._family: Node | None = None
        self._leaves: list[Any] = []

    @property
    def family(self) -> Node:
        """The structure. Recipes of equal structure are drawn and scored by one device call."""
        if self._family is None:
            leaves: list[Any] = []
            self._family = _node(self, leaves)
            self._leaves = leaves
        return self._family

    @property
    def leaves(self) -> list[Any]:
        """The numbers and arrays, in the order in which the structure asks for them."""
        _ = self.family
        return self._leaves

    def as_numpyro(self) -> Distribution:
        """The numpyro distribution itself.

        Raises:
            ValueError: an invalid parameter.
        """
        return self.family.build(iter(self.leaves))

    def to_event(self: R, reinterpreted_batch_ndims: int | None = None) -> R:
        """The last batch dimensions (None: all) become part of one event, as in numpyro."""
        return type(self)(_TO_EVENT, {"base": self, "n": reinterpreted_batch_ndims})

    def expand(self: R, batch_shape: Sequence[int]) -> R:
        """Independent copies: the batch shape becomes `batch_shape`."""
        return type(self)(_EXPAND, {"base": self, "shape": tuple(batch_shape)})

    def mask(self: R, mask: Any) -> R:
        """Scores count only where `mask` (bool, shape of the batch) is true; draws are as before."""
        return type(self)(_MASK, {"base": self, "mask": mask})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        return self.family == other.family and all(map(np.array_equal, self.leaves, other.leaves))

    def __hash__(self) -> int:
        return hash((self.family, *(leaf for leaf in self._leaves if isinstance(leaf, int | float))))

    def __repr__(self) -> str:
        if self.maker in _METHODS:
            base, argument = self.arguments.values()
            return f"{base!r}.{self.maker.name}({'' if argument is None else show(argument)})"
        if self.maker is WRAP:
            return show(self.arguments["base"])
        return f"{self.maker.name}({', '.join(f'{k}={show(v)}' for k, v in self.arguments.items())})"

    def sketch(self) -> str:
        """What a journal compares: the `repr`."""
        return repr(self)


WRAP = Maker("wrap", lambda base: base, {"base": STATIC})
_TO_EVENT = Maker("to_event", lambda base, n: base.to_event(n), {"base": STATIC, "n": STATIC})
_EXPAND = Maker("expand", lambda base, shape: base.expand(shape), {"base": STATIC, "shape": STATIC})
_MASK = Maker("mask", lambda base, mask: base.mask(mask), {"base": STATIC, "mask": STATIC})
_METHODS = (_TO_EVENT, _EXPAND, _MASK)
_REAL = Leaf((), "float32")


def is_traced(*values: Any) -> bool:
    """Whether JAX is tracing one of them."""
    return any(isinstance(value, Tracer) for value in values)


def flatten(value: Any, kind: str, leaves: list[Any]) -> Structure:
    """The structure of an argument; its numbers and arrays are appended to `leaves`."""
    cls = type(value)
    if cls is float:
        leaves.append(value)
        return _REAL
    if cls is int or cls is bool:
        if kind == STATIC:
            return Static(cls, value)
        leaves.append(float(value) if kind == FLOAT else value)
        return _REAL if kind == FLOAT else Leaf((), "int32" if cls is int else "bool")
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        leaves.append(value)
        return Leaf(value.shape, _dtype_name(value.dtype))
    if isinstance(value, Recipe):
        return _node(value, leaves)
    if isinstance(value, list) and value and all(map(_is_numeric, value)):  # e.g. probs=[0.2, 0.8]
        traced = is_traced(*value) or any(is_traced(*row) for row in value if isinstance(row, list))
        return flatten(jnp.array(value) if traced else np.array(value), kind, leaves)
    if isinstance(value, list | tuple):
        return Many(cls, tuple(flatten(part, STATIC, leaves) for part in value))
    if hasattr(cls, "__await__"):
        raise TypeError(f"{value!r} was given as a parameter: did you forget `await`?")
    parts, tree = jax.tree.flatten(value)
    if len(parts) != 1 or parts[0] is not value:
        return Tree(Same(tree), tuple(flatten(part, INT, leaves) for part in parts))
    try:
        hash(value)
    except TypeError:
        return Static(cls, Same(value))
    return Static(cls, value)


def dtype_of(leaf: Any) -> np.dtype:
    """Of a leaf on the device: float32 for a Python float, unless JAX computes in float64."""
    return np.dtype(jax.dtypes.canonicalize_dtype(leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)))


def _node(recipe: Recipe, leaves: list[Any]) -> Node:
    arguments, kinds = recipe.arguments, recipe.maker.kinds
    parts = tuple([flatten(value, kinds[name], leaves) for name, value in arguments.items()])
    return Node(recipe.maker, tuple(arguments), parts)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return isinstance(value, int | float | np.generic | np.ndarray | jax.Array)


def _dtype_name(dtype: Any) -> str:
    name: str = dtype.name
    return {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(name, name)
