"""The models of the matrix: add a line for a new one."""

from __future__ import annotations

from . import chains, conjugate, finite
from .known import Known

MODELS: tuple[Known, ...] = (
    chains.hidden_markov(),
    chains.linear_gaussian(),
    conjugate.beta_binomial(),
    conjugate.gamma_poisson(),
    conjugate.normal_normal(),
    conjugate.normal_inverse_gamma(),
    finite.known("branching", finite.branching(), length=lambda value: float(len(value))),
    finite.text("lm-reward", finite.rewarded()),
    finite.text("lm-constrained", finite.constrained()),
    finite.text("lm-twist", finite.twisted()),
    finite.text("lm-proposal", finite.proposed()),
    finite.text("lm-parallel", finite.both_sides()),
    finite.text("lm-scan", finite.scanned()),
)
