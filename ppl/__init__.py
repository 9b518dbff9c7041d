"""ppl: a probabilistic programming language for inference with language models.

Write a generation program (an async function with `sample`, `factor`, `twist`, `observe`), and let any inference
algorithm interpret it.
"""

from ppl.distributions import Bernoulli, Categorical, Distribution, NotFinite, log_odds, uniform
from ppl.effects import call, condition, factor, note, observe, parallel, sample, twist
from ppl.host import Trace, run, run_many
from ppl.infer import Algorithm, infer, infer_many
from ppl.inference.importance import Importance
from ppl.inference.population import Population, collapse
from ppl.inference.resampling import Adaptive, Multinomial, Residual, Stratified, Systematic
from ppl.inference.smc import SMC
from ppl.measure import Measure, measure
from ppl.posterior import Posterior, ZeroEvidence
from ppl.program import Program, program
from ppl.run import ReplayError, Run
from ppl.source import Key

__all__ = [
    "Adaptive", "Algorithm", "Bernoulli", "Categorical", "Distribution", "Importance", "Key", "Measure", "Multinomial",
    "NotFinite", "Population", "Posterior", "Program", "ReplayError", "Residual", "Run", "SMC", "Stratified",
    "Systematic", "Trace", "ZeroEvidence", "call", "collapse", "condition", "factor", "infer", "infer_many",
    "log_odds", "measure", "note", "observe", "parallel", "program", "run", "run_many", "sample", "twist", "uniform",
]  # fmt: skip
