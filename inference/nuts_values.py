"""What a program returns for given values of its draws."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from numpyro import handlers

from ppl import effects
from ppl.distributions import Categorical
from ppl.effects import Call, Sample
from ppl.numpyro_bridge import to_numpyro
from ppl.numpyro_device import values_of
from ppl.program import Program
from ppl.run import Run
from ppl.weighted import Proposed

T = TypeVar("T")
_PLAIN = (str, bytes, int, float, complex, bool, np.generic, np.ndarray)


def returned(program: Program[T], draws: dict[str, np.ndarray]) -> list[T]:
    """One return value for each row of `draws` (by address, [rows, ...]): numbers are Python's, arrays numpy's.

    All rows are computed by one compiled function. Where the program returns an object that JAX cannot look into, it is
    run once for each row instead.
    """
    constants: list[Any] = []  # leaves of the return value that do not depend on the draws, None where one does
    tree: Any = None

    def one(row: dict[str, Any]) -> list[Any]:
        nonlocal tree
        leaves, tree = jax.tree.flatten(handlers.substitute(to_numpyro(program), data=row)())
        constants[:] = [None if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    columns = jax.jit(lambda rows: jax.lax.map(one, rows, batch_size=1024))(draws)
    rows = len(next(iter(draws.values())))
    if not all(leaf is None or isinstance(leaf, _PLAIN) for leaf in constants):
        return [_replay(program, {site: values_of(x[i : i + 1])[0] for site, x in draws.items()}) for i in range(rows)]
    varying = iter([values_of(np.asarray(column)) for column in columns])
    filled = [next(varying) if leaf is None else [leaf] * rows for leaf in constants]
    return [jax.tree.unflatten(tree, [column[i] for column in filled]) for i in range(rows)]


def _replay(program: Program[T], draws: dict[str, Any]) -> T:
    run = Run(program)
    while not run.done:
        for request in run.requests():
            effect, answer = request.effect, None
            if isinstance(effect, Sample):
                if request.address not in draws:
                    raise TypeError(
                        f"{request.address}: {program!r} must return numbers, arrays, tuples, lists or dicts"
                    )
                answer, dist = draws[request.address], effect.dist
                while isinstance(dist, Proposed):
                    dist = dist.target
                if isinstance(dist, Categorical):
                    answer = dist.values[answer]
                answer = (answer, 0.0) if effect.weighted else answer
            elif isinstance(effect, Call):
                answer = 0.0 if effect.fn is effects._log_prob else effect.fn(*effect.args)
            request.answer(answer)
    return run.result()
