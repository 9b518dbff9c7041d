"""ppl: a probabilistic programming language for inference with language models.

Write a generation program (an async function with `sample`, `factor`, `twist`, `observe`), and let any inference
algorithm interpret it.
"""

from ppl.distributions import Bernoulli, Categorical, Distribution, NotFinite, log_odds, uniform
from ppl.host import Result, run, run_many
from ppl.infer import Algorithm, infer, infer_many
from ppl.inference.enumerate import Enumerate
from ppl.inference.importance import Importance
from ppl.inference.population import Population, collapse
from ppl.inference.resampling import Adaptive, Multinomial, Residual, Stratified, Systematic
from ppl.inference.smc import SMC
from ppl.journal import JournalError
from ppl.language import Last, call, condition, factor, note, observe, parallel, sample, scan, twist
from ppl.measure import Measure, measure
from ppl.posterior import Posterior, ZeroEvidence
from ppl.program import Program, program
from ppl.regenerate import recorded, regenerate
from ppl.run import ReplayError, Run
from ppl.select import Selection, select
from ppl.source import Key
from ppl.trace import Choice, Trace, replay, trace
from ppl.transforms import intervene, propose

__all__ = [
    "Adaptive", "Algorithm", "Bernoulli", "Categorical", "Choice", "Distribution", "Enumerate", "Importance",
    "JournalError", "Key", "Last", "Measure", "Multinomial", "NotFinite", "Population", "Posterior", "Program", "ReplayError", "Residual",
    "Result", "Run", "SMC", "Selection", "Stratified", "Systematic", "Trace", "ZeroEvidence", "call", "collapse",
    "condition", "factor", "infer", "infer_many", "intervene", "log_odds", "measure", "note", "observe", "parallel",
    "program", "propose", "recorded", "regenerate", "replay", "run", "run_many", "sample", "scan", "select", "trace",
    "twist", "uniform",
]  # fmt: skip
