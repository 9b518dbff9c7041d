"""The algorithms of the matrix: add a line for a new one.

    Row("mh", MH(...), only=finite, replications=16)

A row says with which budget it runs and to which models it applies. Algorithms whose populations are `normalised`
(Markov chains) need no other entry: their evidence is not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ppl import NUTS, SMC, Adaptive, Algorithm, Enumerate, Importance, Multinomial, Residual, Stratified, Systematic

from .known import Known

N, R = 32, 64  # particles and replications; one N R for all, since a device call is compiled for each
Predicate = Callable[[Known], bool]


def everywhere(model: Known) -> bool:
    return True


def finite(model: Known) -> bool:
    return model.finite


def named(*names: str) -> Predicate:
    return lambda model: model.name in names


@dataclass(frozen=True)
class Row:
    name: str
    algorithm: Algorithm
    only: Predicate = everywhere
    replications: int = R
    exact: bool = False
    """Whether the answer has no Monte Carlo error: then it is compared to 1e-12."""
    slow: bool = False


ROWS: tuple[Row, ...] = (
    Row("enumerate", Enumerate(), finite, replications=1, exact=True),
    Row("importance", Importance(N)),
    Row("smc", SMC(N)),
    Row("smc-adaptive", SMC(N, Adaptive(Multinomial, 0.9))),  # resamples at some factors and not at others
    Row("smc-multinomial", SMC(N, Multinomial)),
    Row("smc-stratified", SMC(N, Stratified)),
    Row("smc-systematic", SMC(N, Systematic)),
    Row("smc-residual", SMC(N, Residual)),
    Row("nuts", NUTS(500, 200, 1), named("normal-normal", "linear-gaussian"), replications=16, slow=True),
)
