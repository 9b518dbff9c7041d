"""Posteriors as pandas tables and ArviZ data (extras `pandas` and `arviz`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl.codec_arrays import is_array
from ppl.inference.resampling import Systematic
from ppl.source import Key

if TYPE_CHECKING:
    import pandas

    from ppl.posterior import Posterior


def to_pandas(posterior: Posterior[Any]) -> pandas.DataFrame:
    """One row per particle of positive weight, in order, with `log_weight` (nats, not normalised) and `probability`.

    The value is in the column `value`. Values that are all dicts of the same strings, NamedTuples or dataclasses of one
    class, or tuples of one length, have a column for each part: its name, or `value_0`, `value_1`, ... of tuples.

    Raises:
        ImportError: pandas is not installed.
        ZeroEvidence: every particle has weight zero.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("to_pandas needs pandas: pip install 'ppl[pandas]'") from None
    population = posterior.population
    rows = zip(population.values, population.log_weights, posterior.probabilities, strict=True)
    alive = [row for row in rows if row[1] > -math.inf]
    parts = columns([value for value, _, _ in alive], {"log_weight", "probability"})
    data = {name: pandas.Series([_scalar(x) for x in part]) for name, part in parts.items()}
    return pandas.DataFrame(data | {"log_weight": [w for _, w, _ in alive], "probability": [p for _, _, p in alive]})


def to_arviz(posterior: Posterior[Any], seed: int | Key = 0) -> Any:
    """ArviZ's `InferenceData` (a `DataTree` from ArviZ 1.0 on) with groups `posterior` and `sample_stats`.

    Markov chains give the arrays [chain, draw, ...] in `diagnostics["draws"]` by name, the chains of merged runs side
    by side, and `diverging` from `diagnostics["divergences"]` if that is [chain, draw].

    Weighted particles have no place in ArviZ, so as many draws as there are particles are taken by weight, with
    replacement and systematically (`ppl.Systematic`; the same `seed`, the same draws): chain 0, the names of
    `to_pandas`, and in `sample_stats` the `log_weight` that each had before. Copies of a particle stand side by side.
    A `/` in a name becomes a `.`.

    Raises:
        ImportError: ArviZ is not installed.
        TypeError: values have parts that are no arrays of one shape.
        ZeroEvidence: every particle has weight zero.
    """
    try:
        import arviz
    except ImportError:
        raise ImportError("to_arviz needs ArviZ: pip install 'ppl[arviz]'") from None
    chains = [run.diagnostics.get("draws") or {} for run in posterior.runs]
    if all(chains):
        names = [name for name in chains[0] if all(name in chain for chain in chains)]
        shortest = min(np.shape(x)[1] for chain in chains for x in chain.values())
        draws = {name: np.concatenate([np.asarray(chain[name])[:, :shortest] for chain in chains]) for name in names}
        stats = _divergences(posterior)
    else:
        draws, stats = _resampled(posterior, seed)
    groups = {"posterior": {name.replace("/", "."): x for name, x in draws.items()}}
    groups |= {"sample_stats": stats} if stats else {}
    modern = int(arviz.__version__.partition(".")[0]) >= 1
    return arviz.from_dict(groups) if modern else arviz.from_dict(**groups)  # pyright: ignore


def _divergences(posterior: Posterior[Any]) -> dict[str, np.ndarray]:
    found = [np.asarray(run.diagnostics.get("divergences", 0)) for run in posterior.runs]
    return {"diverging": np.concatenate(found)} if all(x.ndim == 2 for x in found) else {}


def _resampled(posterior: Posterior[Any], seed: int | Key) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draws and statistics [chain 0, particle, ...]."""
    population = posterior.population
    _ = posterior.probabilities  # raises if there are none
    ancestors = Systematic(population.log_weights).sample(Key.of(seed))
    parts = columns([population.values[a] for a in ancestors], {"chain", "draw"})
    draws = {name: _array(name, part)[None] for name, part in parts.items()}
    return draws, {"log_weight": np.array([[population.log_weights[a] for a in ancestors]])}


def _array(name: str, part: Sequence[Any]) -> np.ndarray:
    try:
        array = np.stack([np.asarray(x) for x in part])
    except ValueError:
        array = np.array(None)
    if array.dtype == object:
        raise TypeError(
            f"{name}, like {part[0]!r}, is no array of one shape: turn it into numbers first, with .map(...)"
        )
    return array


def _scalar(x: Any) -> Any:
    """The number in an array of no dimensions."""
    return np.asarray(x)[()] if is_array(x) and x.ndim == 0 else x


def columns(values: Sequence[Any], taken: Collection[str] = ()) -> dict[str, list[Any]]:
    """The parts of the values by name where all have the same names, else all of them as `value`.

    A name that is taken is written `value_<name>`.
    """
    parts = [_parts(value) for value in values]
    names = list(parts[0] or ())
    if not names or any(part is None or [*part] != names for part in parts):
        return {"value": list(values)}
    return {f"value_{name}" if name in taken else name: [part[name] for part in parts if part] for name in names}


def _parts(value: Any) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value if all(isinstance(key, str) for key in value) else None
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None) or [f"value_{i}" for i in range(len(value))]
        return dict(zip(names, value, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None
