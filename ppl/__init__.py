"""ppl: a probabilistic programming language for inference with language models.

Write a generation program (an async function with `sample`, `factor`, `twist`, `observe`), and let any inference
algorithm interpret it.
"""

from typing import TYPE_CHECKING, Any

from ppl.choice import Choice
from ppl.distributions import Bernoulli, Categorical, Distribution, NotFinite, log_odds, uniform
from ppl.host import Result, run, run_many
from ppl.infer import Algorithm, infer, infer_many
from ppl.inference.best_first import AStar
from ppl.inference.dispatch import ByDifficulty, Dispatch, UntilSaturation
from ppl.inference.enumerate import Enumerate
from ppl.inference.gibbs import ParticleGibbs
from ppl.inference.importance import Importance
from ppl.inference.islands import Islands
from ppl.inference.kernels import Kernel, cycle, mixture, repeat
from ppl.inference.mcmc import MCMC, ParallelTempering
from ppl.inference.mcts import MCTS
from ppl.inference.mh import PMMH, Block, SingleSite, Suffix
from ppl.inference.nuts import NUTS
from ppl.inference.population import NoEvidence, Population, collapse
from ppl.inference.resampling import Adaptive, Multinomial, Residual, Stratified
from ppl.inference.search import DVTS, REBASE, Beam, Pruned
from ppl.inference.smc import SMC, stepwise
from ppl.inference.ssp import SSP
from ppl.inference.stopping import AdaptiveVote, FirstFinished, Rejection
from ppl.inference.systematic import Systematic, WithoutReplacement
from ppl.inference.tempered import Tempered
from ppl.inference.tree_walk import TreeWalk
from ppl.journal import JournalError
from ppl.language import Last, call, condition, factor, note, observe, parallel, sample, scan, twist
from ppl.measure import Measure, measure
from ppl.posterior import Posterior, ZeroEvidence
from ppl.program import Program, program
from ppl.quality import InferenceWarning
from ppl.regenerate import recorded, regenerate
from ppl.rerun import ReplayError
from ppl.run import Run
from ppl.select import Selection, select
from ppl.source import Key
from ppl.trace import Trace, replay, trace
from ppl.transforms import annealed, intervene, power, propose, tempered

if TYPE_CHECKING:
    from ppl import dist
    from ppl.numpyro_bridge import from_numpyro, to_numpyro

__all__ = [
    "AStar", "Adaptive", "AdaptiveVote", "Algorithm", "Beam", "Bernoulli", "Block", "ByDifficulty", "Categorical",
    "Choice", "DVTS", "Dispatch", "Distribution", "Enumerate", "FirstFinished", "Importance", "InferenceWarning",
    "Islands", "JournalError", "Kernel", "Key", "Last", "MCMC", "MCTS", "Measure", "Multinomial", "NUTS", "NoEvidence",
    "NotFinite", "PMMH", "ParallelTempering", "ParticleGibbs", "Population", "Posterior", "Program", "Pruned",
    "REBASE", "Rejection", "ReplayError", "Residual", "Result", "Run", "SMC", "SSP", "Selection", "SingleSite",
    "Stratified", "Suffix", "Systematic", "Tempered", "Trace", "TreeWalk", "UntilSaturation", "WithoutReplacement",
    "ZeroEvidence", "annealed", "call", "collapse", "condition", "cycle", "dist", "factor", "from_numpyro", "infer",
    "infer_many", "intervene", "log_odds", "measure", "mixture", "note", "observe", "parallel", "power", "program",
    "propose", "recorded", "regenerate", "repeat", "replay", "run", "run_many", "sample", "scan", "select", "stepwise",
    "tempered", "to_numpyro", "trace", "twist", "uniform",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What needs numpyro is imported when it is asked for: that takes a second."""
    import importlib

    if name == "dist":
        return importlib.import_module("ppl.dist")
    if name in ("from_numpyro", "to_numpyro"):
        return getattr(importlib.import_module("ppl.numpyro_bridge"), name)
    raise AttributeError(f"module 'ppl' has no attribute {name!r}")
