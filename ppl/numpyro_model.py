"""A numpyro model as a properly weighted distribution of programs."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from ppl import codec
from ppl.distributions import NotFinite
from ppl.numpyro_device import Batched, Invalid, jax_key, key_data, values_of
from ppl.numpyro_dist import LARGEST_TABLE, wrap, x64
from ppl.numpyro_recipe import STATIC, Same, Static, Structure, dtype_of, flatten
from ppl.numpyro_score import score, valid
from ppl.source import Key

LARGEST_LEAF = 4096  # numbers; a larger array is a constant of the compiled model


class Sites(Mapping[str, Any]):
    """The values at the sites of a model, by name: immutable, hashable, equal if all values are."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sites):
            return NotImplemented
        return self.keys() == other.keys() and all(_equal(self[name], other[name]) for name in self)

    def __hash__(self) -> int:
        return hash(frozenset((k, v if isinstance(v, int | float) else None) for k, v in self._values.items()))

    def __repr__(self) -> str:
        return f"Sites({', '.join(f'{name}={value!r}' for name, value in self.items())})"


codec.register(Sites, "sites", dict, Sites)


class Family(NamedTuple):
    """Models that differ in numbers alone."""

    model: Same
    names: tuple[str, ...]
    parts: tuple[Structure, ...]

    def trace(
        self, leaves: Sequence[Any], key: Any = None, values: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Any]:
        """The sample sites of the model, drawn with `key` or given, and what it returns."""
        rest = iter(leaves)
        arguments = [part.build(rest) for part in self.parts]
        count = len(arguments) - len(self.names)

        def given(site: dict[str, Any]) -> Any:
            if site["type"] != "sample" or values is None or (name := site["name"]) not in values:
                return None
            if values[name].shape != (shape := site["fn"].shape()):
                raise ValueError(f"site {name!r}: a value has shape {shape}, not {values[name].shape}")
            return values[name]

        fn = handlers.substitute(self.model.value, substitute_fn=given)
        if key is not None:
            fn = handlers.seed(fn, key)
        with handlers.trace() as sites:
            returned = fn(*arguments[:count], **dict(zip(self.names, arguments[count:], strict=True)))
        for name, site in sites.items():
            if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
                raise ValueError(f"from_numpyro: plate {name!r} takes a random part of its data; give it all")
        return {name: site for name, site in sites.items() if site["type"] == "sample"}, returned


class Model:
    """What `from_numpyro` gives; a draw is a pair (`Sites`, log weight).

    The sites are those that the model neither observes nor computes, and under "return" what it returns unless that
    is None.
    """

    __slots__ = ("_family", "_leaves", "text")
    weighted = True

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._leaves: list[Any] = []
        parts = [self._part(value) for value in (*args, *kwargs.values())]
        self._family = Family(Same(model), tuple(kwargs), tuple(parts))
        self.text = getattr(model, "__name__", type(model).__name__)

    @property
    def family(self) -> Family:
        return self._family

    def _part(self, value: Any) -> Structure:
        if getattr(value, "size", 0) > LARGEST_LEAF:
            return Static(type(value), Same(value))
        return flatten(value, STATIC, self._leaves)

    def sample(self, key: Key) -> Any:  # a pair; programs see its value
        return self.draw_many([key], [self])[0]

    def log_prob(self, value: Mapping[str, Any]) -> float:
        """Log density of the latent values together with the observed ones and the factors, natural log."""
        return self.log_prob_many([self], [value])[0]

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Model]) -> list[tuple[Sites, float]]:
        """Latent sites drawn from their priors, with the log weight that the observed ones and the factors give."""
        values, returned, _, log_w = _call(_draws(dists[0].family), dists, [key_data(keys)])
        return list(zip(_sites(values, returned, len(keys)), log_w.tolist(), strict=True))

    @staticmethod
    def log_prob_many(dists: Sequence[Model], values: Sequence[Mapping[str, Any]]) -> list[float]:
        names = tuple(name for name in values[0] if name != "return")
        columns = [np.array([value[name] for value in values]) for name in names]
        columns = [column.astype(jax.dtypes.canonicalize_dtype(column.dtype)) for column in columns]
        columns = columns or [np.zeros(len(values), np.float32)]  # a model without latent sites
        _, _, log_p, log_w = _call(_joint(dists[0].family, names), dists, columns)
        return (log_p + log_w).tolist()

    def table(self) -> list[tuple[tuple[Sites, float], float]]:
        """All values of the latent sites with their log weights, and their prior probabilities (float64).

        Raises:
            NotFinite: a latent site is not finite, or there are more than 10,000 combinations.
        """
        with x64():
            sites, _ = self._family.trace(self._leaves, jax.random.key(0))
            names = [name for name, site in sites.items() if not site["is_observed"]]
            supports = [[value for value, _ in wrap(sites[name]["fn"]).table()] for name in names]
            if np.prod([float(len(support)) for support in supports]) > LARGEST_TABLE:
                raise NotFinite(f"{self!r} has more than {LARGEST_TABLE} outcomes")
            rows = list(itertools.product(*supports))
            columns = [np.array([row[i] for row in rows]) for i in range(len(names))] or [np.zeros(1)]
            joint = _joint(self._family, tuple(names))
            values, returned, log_p, log_w = _call(joint, [self] * len(rows), columns)
            p = np.exp(log_p)
        if not abs(p.sum() - 1.0) < 1e-6:
            raise NotFinite(f"{self!r} has no table: the outcomes at a site depend on the value of another")
        pairs = zip(_sites(values, returned, len(rows)), log_w.tolist(), strict=True)
        return list(zip(pairs, (p / p.sum()).tolist(), strict=True))

    def inside(self, scope: str) -> Sites:
        """Run the model as part of another numpyro model, its sites named `scope/...`."""
        with handlers.scope(prefix=scope, divider="/"):
            sites, returned = self._family.trace(self._leaves)
        values = {name[len(scope) + 1 :]: site["value"] for name, site in sites.items() if not site["is_observed"]}
        return Sites(values if returned is None else values | {"return": returned})

    def __repr__(self) -> str:
        return f"from_numpyro({self.text})"


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Model:
    """A numpyro model with its arguments as a distribution: `sites = await sample("m", from_numpyro(model, data))`.

    It denotes the joint measure of the model: priors times the densities of observed sites and factors, whose log is
    the weight of a draw. Models of equal arguments up to their floats and arrays are drawn by one device call; arrays
    of more than 4,096 numbers are constants, and equal only if identical.
    """
    return Model(model, args, kwargs)


def _result(sites: dict[str, Any], returned: Any) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Checks, and (latent values, what was returned, log prior, log weight)."""
    checks: dict[str, Any] = {}
    log_p = log_w = jnp.zeros(())
    values: OrderedDict[str, Any] = OrderedDict()
    for name, site in sites.items():
        checks |= {f"site {name!r}: {text}": ok for text, ok in valid(site["fn"]).items()}
        log_density = jnp.sum(score(site["fn"], site["value"]))
        scaled = log_density if site["scale"] is None else site["scale"] * log_density
        if site["is_observed"]:
            log_w += scaled
        else:
            values[name] = jnp.asarray(site["value"])
            log_p += log_density
            log_w += scaled - log_density if site["scale"] is not None else 0.0
    return checks, lambda: (values, returned, log_p, log_w)


@lru_cache(maxsize=256)
def _draws(family: Family) -> Batched:
    return Batched(lambda key, *leaves: _result(*family.trace(leaves, jax_key(key))), guard=False)


@lru_cache(maxsize=256)
def _joint(family: Family, names: tuple[str, ...]) -> Batched:
    def row(*columns: jax.Array) -> Any:
        count = max(len(names), 1)
        values = dict(zip(names, columns, strict=False))
        sites, returned = family.trace(columns[count:], jax.random.key(0), values)
        latent = {name for name, site in sites.items() if not site["is_observed"]}
        if latent != set(names):
            raise ValueError(f"the model has latent sites {sorted(latent)}, the value has {sorted(names)}")
        return _result(sites, returned)

    return Batched(row, guard=False)


def _call(batched: Batched, models: Sequence[Model], columns: list[np.ndarray]) -> Any:
    stacked = list(zip(*[model._leaves for model in models], strict=True))
    kinds = [dtype_of(leaf) for leaf in models[0]._leaves]
    try:
        return batched(len(models), columns + stacked, [column.dtype for column in columns] + kinds)
    except Invalid as error:
        raise ValueError(f"{models[error.row]!r}: {error.check}") from None
    except Exception as error:
        error.add_note(f"in {models[0]!r}")
        raise


def _sites(values: Mapping[str, np.ndarray], returned: Any, count: int) -> list[Sites]:
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, column in values.items():
        for row, value in zip(rows, values_of(column), strict=True):
            row[name] = value
    leaves, tree = jax.tree.flatten(returned)
    if leaves:
        for row, parts in zip(rows, zip(*map(values_of, leaves), strict=True), strict=True):
            row["return"] = jax.tree.unflatten(tree, parts)
    return [Sites(row) for row in rows]


def _equal(a: Any, b: Any) -> bool:
    leaves_a, tree_a = jax.tree.flatten(a)
    leaves_b, tree_b = jax.tree.flatten(b)
    return tree_a == tree_b and all(map(np.array_equal, leaves_a, leaves_b))
