"""How good the default model is: against the student's entropy, at solving, and at judging single steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ppl.host import run_many
from ppl.inference.importance import Importance
from ppl.models import sloppy
from ppl.models.language_model import LanguageModel, StepReward
from ppl.models.sloppy import Problem, task
from ppl.models.transformer import advance, logits, score
from ppl.source import Key

TRACES = 32  # by the student, per problem


def evaluate(lm: LanguageModel, preset: task.Preset, problems: Sequence[Problem], seed: int = 0) -> dict[str, Any]:
    """The figures of the model card. Log-probabilities are in nats; an AUC is between 0 and 1."""
    return {**_against_student(lm, preset, problems, seed), **_at_solving(lm, preset, problems, seed)}


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a right step scores above a wrong one (ties count half); nan when there is none of a kind."""
    if not len(right) or not len(wrong):
        return float("nan")
    low = np.searchsorted(np.sort(wrong), right, side="left")
    high = np.searchsorted(np.sort(wrong), right, side="right")
    return float((low + high).mean() / 2 / len(wrong))


def _against_student(lm: LanguageModel, preset: task.Preset, problems: Sequence[Problem], seed: int) -> dict[str, Any]:
    """Cross-entropy on, and judgement of, fresh traces of the student."""
    config, rng = lm.engine.config, np.random.default_rng(seed)

    @jax.jit
    def forward(params: Any, tokens: jax.Array) -> Any:
        hidden, _ = advance(params, config, tokens)
        return jax.nn.log_softmax(logits(params, hidden)), score(params, hidden)

    nats, floor, scores, right, hard = [], [], [], [], []
    lines = 3 * preset.steps
    for problem in problems:
        attempts = [task.attempt(preset, problem.problem, rng) for _ in range(TRACES)]
        text = task.prompt(problem.problem)
        tokens = np.array([[task.TOKEN[c] for c in text + attempt.text] for attempt in attempts])
        log_p, z = (np.asarray(x) for x in forward(lm.engine.params, tokens))
        taken = np.take_along_axis(log_p[:, -lines - 1 : -1], tokens[:, -lines:, None], 2)
        nats.append(-taken.mean())
        start, operations = task.parse(problem.problem)
        floor += [
            task.step_entropy(preset, value, *operation) / 3
            for attempt in attempts
            for value, operation in zip((start, *attempt.values), operations, strict=False)
        ]
        scores.append(z[:, -lines + 2 :: 3])
        right.append([attempt.right for attempt in attempts])
        hard.append([attempt.hard for attempt in attempts])
    z, r, h = np.array(scores), np.array(right), np.array(hard)  # [problems, traces, steps]
    within = [auc(z[i][r[i] & h[i]], z[i][~r[i] & h[i]]) for i in range(len(problems))]
    line = [
        auc(z[i, :, t][r[i, :, t]], z[i, :, t][~r[i, :, t]])
        for i in range(len(problems))
        for t in range(preset.steps)
        if h[i, :, t].all()
    ]
    return {
        "nats_per_token": float(np.mean(nats)),
        "entropy_floor": float(np.mean(floor)),
        "auc": auc(z[r], z[~r]),
        "auc_easy_steps": auc(z[r & ~h], z[~r & ~h]),
        "auc_hard_steps": auc(z[r & h], z[~r & h]),
        "auc_hard_steps_within_problem": float(np.nanmean(within)),
        "auc_hard_steps_within_problem_and_line": float(np.nanmean(line)),
        "auc_hard_steps_by_depth": [
            round(auc(z[:, :, t][(r & h)[:, :, t]], z[:, :, t][(~r & h)[:, :, t]]), 3) for t in range(preset.steps)
        ],
    }


def _at_solving(lm: LanguageModel, preset: task.Preset, problems: Sequence[Problem], seed: int) -> dict[str, Any]:
    """Eight sampled solutions of each problem."""
    reward, root = StepReward(lm), Key.of(seed)
    programs = [Importance(8)(sloppy.solve(lm, reward, problem.problem)) for problem in problems]
    populations = [t.value for t in run_many(programs, [root.fold(problem.id) for problem in problems])]
    answers = [[None if v is None else sloppy.answer_of(v) for v in p.values] for p in populations if p is not None]
    right = np.array([[a == p.answer for a in given] for given, p in zip(answers, problems, strict=True)])
    malformed = sum(a is None for given in answers for a in given)
    return {
        "pass@1": float(right.mean()),
        "pass@8": float(right.any(1).mean()),
        "malformed_lines": malformed / (8 * len(problems) * preset.steps),
    }
