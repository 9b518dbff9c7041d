"""The strategies of the literature for spending compute at inference time, by name, on one program.

A strategy is an algorithm for a budget of N generations, what the scores of the reward mean to it, and how its
population answers. `docs/strategies.md` is written from this table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ppl.infer import Algorithm
from ppl.inference.best_first import AStar
from ppl.inference.dispatch import ByDifficulty, Dispatch, UntilSaturation
from ppl.inference.gibbs import ParticleGibbs
from ppl.inference.importance import Importance
from ppl.inference.islands import Islands
from ppl.inference.kernels import repeat
from ppl.inference.mcmc import MCMC, ParallelTempering
from ppl.inference.mcts import MCTS
from ppl.inference.mh import Suffix
from ppl.inference.population import Population
from ppl.inference.published import PublishedGibbs
from ppl.inference.resampling import Adaptive, Multinomial
from ppl.inference.search import DVTS, REBASE, Beam, Pruned
from ppl.inference.smc import SMC
from ppl.inference.stopping import AdaptiveVote, FirstFinished, Rejection
from ppl.inference.systematic import Systematic, WithoutReplacement
from ppl.inference.tempered import Tempered
from ppl.inference.tree_walk import TreeWalk
from ppl.layers import generate, layered, rank, verify
from ppl.program import Program
from ppl.selectors import RPC, BestOfMajority, Majority
from ppl.strategy import Strategy, Task
from ppl.trace import Trace
from ppl.transforms import power

__all__ = ["STRATEGIES", "TABLE", "Strategy", "Task", "document", "strategies"]


def _independent(n: int, _: Task[Any]) -> Algorithm[Any]:
    return Importance(n)


def _filter(n: int, _: Task[Any]) -> Algorithm[Any]:
    return SMC(n, Adaptive(Systematic, 0.75))


def _published(n: int, _: Task[Any]) -> Algorithm[Any]:
    return SMC(n, Multinomial)


def _beam(n: int, _: Task[Any]) -> Algorithm[Any]:
    return Beam(n, 4)


def _dvts(n: int, _: Task[Any]) -> Algorithm[Any]:
    return DVTS(n, 4)


def _probed(n: int) -> tuple[int, int]:
    """A probe, and what is left of N >= 2."""
    probe = max(1, n // 4)
    return probe, n - probe


def _by_difficulty(n: int, task: Task[Any]) -> Algorithm[Any]:
    probe, rest = _probed(n)
    return Dispatch(Importance(probe), ByDifficulty([-1.0], [_filter(rest, task), Importance(max(1, rest // 2))]))


def _planned(n: int, _: Task[Any]) -> Algorithm[Any]:
    probe, rest = _probed(n)
    return Dispatch(Importance(probe), UntilSaturation(rest))


def _blame(trace: Trace[Any]) -> list[float]:
    """Where to write again: log of P(this step is wrong) of each draw, by the factor behind it."""
    wrong = [-math.expm1(min(log_weight, 0.0)) + 0.01 for log_weight in trace.factors.values()]
    return [math.log(p) for p in wrong] if len(wrong) == len(trace.choices) else [0.0] * len(trace.choices)


@dataclass(frozen=True)
class _Archon:
    """Layers: generate candidates, keep those that pass (all, if none does), and of these the best `count` / 4."""

    count: int

    def __call__(self, program: Program[Any]) -> Program[Population[Any]]:
        return Program("archon", _archon, (program, self.count), {})


async def _archon(program: Program[Any], count: int) -> Population[Any]:
    def score(one: Population[Any]) -> float:
        return one.log_weights[0]

    kept = await layered(
        generate(Importance(1)(program), count),
        verify(lambda one: score(one) >= math.log(0.5)),
        rank(score, -(-count // 4)),
    )
    killed = sum((one.killed or Counter() for one in kept), Counter[str]())  # all of them, where none lives
    return Population(tuple(one.values[0] for one in kept), tuple(map(score, kept)), killed=killed, normalised=True)


@dataclass(frozen=True)
class _Sharper:
    """Power sampling as an algorithm: of the program whose draws have a power of their probability."""

    algorithm: Algorithm[Any]
    alpha: float

    def __call__(self, program: Program[Any]) -> Any:
        return self.algorithm(power(program, self.alpha))


def _rpc(task: Task[Any]) -> RPC:
    assert task.log_prob is not None
    return RPC(task.log_prob, task.answer)


def _best_of_majority(answers: Any) -> Hashable:
    return BestOfMajority(1, 0.1)(answers)[0]


PUBLISHED = "Puri et al. 2025, A probabilistic inference approach to inference-time scaling of LLMs"
SNELL = "Snell et al. 2024, Scaling LLM test-time compute optimally"
BEECHING = "Beeching et al. 2024, Scaling test-time compute with open models"
TABLE = (
    Strategy("majority", _independent, Majority(), reward=False, source="Wang et al. 2022, Self-consistency",
             about="the most frequent answer; of ties the first seen"),
    Strategy("best-of-n", _independent, "argmax", source="Cobbe et al. 2021, Training verifiers",
             about="the answer of the highest score"),
    Strategy("weighted-best-of-n", _independent, meaning="preserves", source="Li et al. 2023, DiVeRSe",
             about="the answer of the largest sum of weights: importance sampling"),
    Strategy("best-of-majority", _independent, _best_of_majority, source="Di et al. 2025, Best-of-majority",
             about="the best score among answers that 10 % gave"),
    Strategy("rpc", _independent, _rpc, reward=False, on_paths=True, source="Zhou et al. 2025, Bridging internal "
             "probability and self-consistency", about="the answer whose distinct paths are most probable"),
    Strategy("adaptive-majority", lambda n, t: AdaptiveVote(n, t.answer, max(1, n // 8)), Majority(), reward=False,
             source="Aggarwal et al. 2023, Adaptive-consistency", cost="at most N",
             about="stops when the vote is decided (Beta rule, 0.95)"),
    Strategy("adaptive-majority-share", lambda n, t: AdaptiveVote(n, t.answer, max(1, n // 8), "share"), Majority(),
             reward=False, source="Li et al. 2024, Escape sky-high cost (early stopping)", cost="at most N",
             about="stops when 95 % of the answers so far agree"),
    Strategy("short-3-of-n", lambda n, _: FirstFinished(n, min(3, n)), Majority(), reward=False,
             source="Hassid et al. 2025, Don't overthink it", about="the majority of the first 3 to finish"),
    Strategy("rejection", lambda n, _: Rejection(n, math.log(0.5)), cost="at most N",
             source="Stroebl et al. 2024, Inference scaling fLaws", about="until the score is 1/2 or more; else none"),
    Strategy("pruned", lambda n, t: Pruned(2 * n, {max(1, t.steps // 4): 0.5, max(2, t.steps // 2): 0.5}),
             source="Manvi et al. 2024, Adaptive inference-time compute", cost="2 N begun, N / 2 ended",
             about="half are given up after a quarter of the steps, and half of the rest after half"),
    Strategy("generative-verifier", _independent, verdicts=4, meaning="preserves",
             source="Singhi et al. 2025, When to solve, when to verify", cost="N generations, 4 verdicts a step",
             about="scores are shares of 4 yes-or-no verdicts, unbiased; weighted vote"),
    Strategy("archon", lambda n, _: _Archon(n), Majority(), source="Saad-Falcon et al. 2024, Archon",
             about="layers: generate, verify (1/2 or more), keep the best N/4 of these, vote"),
    Strategy("best-of-n-each-step", lambda n, _: Beam(n, n), "argmax", source="Bag of tricks: step-level best-of-N",
             about="the best of N goes on, N times"),
    Strategy("beam", _beam, "argmax", source=SNELL, about="the best N/4 go on 4 times each; the highest score answers"),
    Strategy("beam-weighted", _beam, source=SNELL, about="the same beam, with a weighted vote"),
    Strategy("beam-lookahead", lambda n, _: Beam(n, 4, 1), "argmax", source=SNELL, cost="up to 2 N",
             about="prefixes are judged one step later"),
    Strategy("dvts", _dvts, "argmax", source=BEECHING, about="N/4 trees apart, in each of which the best goes on"),
    Strategy("dvts-weighted", _dvts, source=BEECHING, about="the same trees, with a weighted vote"),
    Strategy("dvts-lookahead", lambda n, _: DVTS(n, 4, 1), "argmax", source=BEECHING, cost="up to 2 N",
             about="the trees, judged one step later"),
    Strategy("rebase", lambda n, _: REBASE(n), source="Wu et al. 2024, Inference scaling laws (REBASE)",
             about="prefixes share the budget by softmax of their rewards; weighted vote"),
    Strategy("a-star", lambda n, t: AStar(4, n * t.steps), "argmax", aggregate="min",
             source="Chatziveroglou et al. 2025, A*-decoding", cost="at most N times the steps of a solution",
             about="the prefix whose least right step is best goes on, however long it is"),
    Strategy("mcts", lambda n, _: MCTS(n, 4), "argmax", source="Feng et al. 2023, AlphaZero-like tree-search",
             cost="N rollouts and 4 children each", about="PUCT over steps, with rollouts"),
    Strategy("mcts-weighted", lambda n, _: MCTS(n, 4), source="Feng et al. 2023", cost="as mcts",
             about="the same tree, with a weighted vote"),
    Strategy("particle-filter", _filter, meaning="preserves", source=f"{PUBLISHED}; weights and vote set right",
             about="one factor a step, systematic resampling at an ESS of 3/4"),
    Strategy("particle-filter-argmax", _filter, "argmax", source=PUBLISHED, about="the same filter, the highest score"),
    Strategy("particle-filter-beta-2", _filter, beta=2.0, meaning="preserves", source="ours",
             about="the reward squared"),
    Strategy("particle-filter-beta-4", _filter, beta=4.0, meaning="preserves", source="ours",
             about="the reward to the fourth power"),
    Strategy("particle-filter-min", _filter, aggregate="min", meaning="preserves", source=f"{PUBLISHED}, Fig. 5b",
             about="the least right step counts, foreseen by a twist"),
    Strategy("particle-filter-mean", _filter, aggregate="mean", meaning="preserves", source=f"{PUBLISHED}, Fig. 5b",
             about="the mean over steps counts, foreseen by a twist"),
    Strategy("particle-filter-last", _filter, aggregate="last", meaning="preserves", source=f"{PUBLISHED}, Fig. 5b",
             about="the last step counts, foreseen by a twist"),
    Strategy("published-filter", _published, "argmax", use="odds_each_step", source=PUBLISHED,
             about="odds of the running product at each step, multinomial, the highest score"),
    Strategy("published-filter-weighted", _published, use="odds_each_step", source=PUBLISHED,
             about="the same filter, with a weighted vote"),
    Strategy("published-gibbs", lambda n, _: PublishedGibbs(max(2, n // 4)), "argmax", use="odds_each_step", least=8,
             source=f"{PUBLISHED}, Alg. 2", about="4 filters of N/4, which keep a particle of the one before"),
    Strategy("published-gibbs-weighted", lambda n, _: PublishedGibbs(max(2, n // 4)), use="odds_each_step", least=8,
             source=f"{PUBLISHED}, Alg. 2", about="the same filters, with a weighted vote"),
    Strategy("published-tempering", lambda n, _: PublishedGibbs(max(2, n // 4), 2, (1.0, 0.5)), "argmax",
             use="odds_each_step", least=8, source=f"{PUBLISHED}, Alg. 3",
             about="2 chains of 2 filters at powers 1 and 1/2, which exchange what they keep"),
    Strategy("entropic-filter", lambda n, _: SMC(n, Tempered(Systematic, None, 0.5)), meaning="preserves",
             source="Entropic particle filtering (2510.05825); children keep the rest of the weight",
             about="selects by a power of the weights that leaves an ESS of 1/2"),
    Strategy("steering", lambda n, _: SMC(max(1, n // 2), WithoutReplacement, expand=2), meaning="preserves",
             source="Lew et al. 2023, SMC steering", about="N/2 particles, 2 children each, none kept twice"),
    Strategy("islands", lambda n, _: Islands(max(1, n // 8), SMC(min(n, 8), Adaptive(Systematic, 0.75))),
             meaning="preserves", source=f"{PUBLISHED}, Fig. 7", about="filters of 8 apart, weighted by evidence"),
    Strategy("particle-gibbs", lambda n, _: MCMC(ParticleGibbs(max(2, n // 4)), 3, chains=1,
             start=SMC(max(2, n // 4))), meaning="preserves", least=8, source=f"{PUBLISHED}; Andrieu et al. 2010",
             about="a filter of N/4, and 3 conditional ones"),
    Strategy("parallel-tempering", lambda n, _: ParallelTempering(ParticleGibbs(max(2, n // 4)), (1.0, 0.5), 2, 0, 1,
             start=SMC(max(2, n // 4))), meaning="preserves", least=8, source=f"{PUBLISHED}, Alg. 3, with right swaps",
             about="conditional filters at powers 1 and 1/2 of the reward, which change places"),
    Strategy("resample-move", lambda n, _: SMC(max(1, n // 2), Adaptive(Systematic, 0.75), Suffix()),
             meaning="preserves", source="Gilks and Berzuini 2001", cost="about N/2 times 1 + half the steps",
             about="N/2 particles, moved at each step by writing a suffix again"),
    Strategy("refinement", lambda n, _: MCMC(Suffix(_blame), max(1, n - 1), chains=1, start=Importance(1)),
             meaning="preserves", source="Chakraborty et al. 2025, Iterative agent decoding; accepted by its ratio",
             cost="N, each move writing a part", about="a chain that writes again from where a step looks wrong"),
    Strategy("speculative", _independent, writes="speculative", source="Pan et al. 2025, SpecReason",
             cost="N drafts, and steps written again",
             about="the draft writes; the model writes again what scores below 0.7"),
    Strategy("drafted", _independent, writes="drafted", meaning="preserves", cost="N drafts",
             source="the exact counterpart of SpecReason", about="the draft writes, weighed by p_model / p_draft"),
    Strategy("drafted-filter", _filter, writes="drafted", meaning="preserves", source="ours", cost="N drafts",
             about="the same in a particle filter"),
    Strategy("by-difficulty", _by_difficulty, meaning="preserves", least=2, source=f"{SNELL}: probe, bin, dispatch",
             cost="at most N",
             about="N/4 runs look; where their evidence is low a filter of 3 N/4, else half as many runs"),
    Strategy("planned", _planned, meaning="preserves", least=2, cost="at most N",
             source="Wang et al. 2025, Scaling over scaling (saturation)",
             about="N/4 runs look; then as many as gain 1 % or more each"),
    Strategy("budget-forcing", lambda n, _: Importance(1), writes="thinking", reward=False,
             source="Muennighoff et al. 2025, s1", cost="one generation with N thoughts",
             about="made to think on N - 1 times: on the shipped task, to write on from its least sure line"),
    Strategy("power-sampling", lambda n, _: _Sharper(MCMC(repeat(Suffix(), 2), max(1, n - 1), chains=1,
             start=Importance(1)), 4.0), Majority(), reward=False, use="none", meaning="preserves",
             source="Karan and Du 2025, Reasoning with sampling", cost="N, each move writing half a solution",
             about="a chain for p^4, without a reward"),
    Strategy("backtracking-walk", lambda n, _: MCMC(TreeWalk(32), max(1, n // 2), chains=1, start=Importance(1)),
             meaning="preserves", source="Rohatgi et al. 2025, Taming imperfect process verifiers (VGB)",
             cost="N/2 excursions of a few steps", about="erases and writes steps by their weights"),
)  # fmt: skip
STRATEGIES = {strategy.name: strategy for strategy in TABLE}


def strategies(names: str | Sequence[str]) -> list[Strategy]:
    """By name, in the order given; "all" for all of them.

    Raises:
        ValueError: a name is unknown; says which there are.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    if list(names) == ["all"]:
        return list(TABLE)
    if unknown := [name for name in names if name not in STRATEGIES]:
        raise ValueError(f"unknown strategy {unknown[0]!r}: choose all, or some of {', '.join(STRATEGIES)}")
    return [STRATEGIES[name] for name in dict.fromkeys(names)]


def document() -> str:
    """The table as markdown."""
    rows = [
        f"| `{one.name}` | {one.about} | {one.meaning} | {one.cost} | {'yes' if one.reward else 'no'} | {one.source} |"
        for one in TABLE
    ]
    return "\n".join(
        ["| strategy | what it does with N | meaning | cost | reward | source |", "| --- " * 6 + "|", *rows, ""]
    )
