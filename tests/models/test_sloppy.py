"""The shipped task and models: arithmetic by hand, error rates, data, and quality."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppl
from ppl.models import sloppy
from ppl.models.language_model import StepReward
from ppl.models.sloppy import Problem, task
from ppl.models.sloppy.evaluate import auc, evaluate
from ppl.models.sloppy.task import PRESETS
from ppl.models.sloppy.train import batch
from ppl.rewards import Reward
from ppl.solving import method, solve_all
from ppl.source import Key

presets = pytest.mark.parametrize("name", PRESETS)


def test_arithmetic_by_hand() -> None:
    # 37+5 = 42; 42*7 = 294 = 3*97 + 3; 3-4 = -1 = 96
    assert task.values("37+5*7-4") == [42, 3, 96] and task.answer("37+5*7-4") == "96"
    assert task.answer("96+2") == "01" and task.answer("03-9") == "91" and task.answer("00*9") == "00"
    assert task.parse("37+5*7-4") == (37, (("+", 5), ("*", 7), ("-", 4)))
    assert task.prompt("37+5") == ">37+5:"


@pytest.mark.parametrize(
    ("value", "digit", "hard", "wrong"),
    [
        (42, 7, True, 90),  # 4*7 tens and the units of 14: 284 = 2*97 + 90; the carry of 1 is lost
        (25, 4, True, 80),  # 8 tens, 20 leaves 0
        (19, 2, True, 28),  # 2 tens, 18 leaves 8
        (12, 4, False, 48),  # 8 is no carry: right
        (30, 9, False, 76),  # 270 = 2*97 + 76: right
        (5, 2, True, 0),  # ten exactly is a carry
    ],
)
def test_forgotten_carries_by_hand(value: int, digit: int, hard: bool, wrong: int) -> None:
    assert task.is_hard(value, "*", digit) == hard
    assert task.forgot_carry(value, digit) == wrong
    assert (task.forgot_carry(value, digit) == task.apply(value, "*", digit)) == (not hard)
    assert not task.is_hard(value, "+", 9) and not task.is_hard(value, "-", 9)


@presets
def test_student_steps_are_distributions_at_the_rates_of_the_preset(name: str) -> None:
    preset = PRESETS[name]
    for value in range(task.MODULUS):
        for operator in task.OPERATORS:
            for digit in range(2, 10):
                step = task.student_step(preset, value, operator, digit)
                assert math.isclose(math.fsum(step.values()), 1, abs_tol=1e-12) and min(step.values()) > 0
                assert set(step) <= set(range(97))
                right = task.apply(value, operator, digit)
                slips = {(right + slip) % 97 for slip in (1, -1, 10, -10)}
                if not task.is_hard(value, operator, digit):
                    assert set(step) == {right} | slips and math.isclose(step[right], preset.easy_right)
                    continue
                wrong = task.forgot_carry(value, digit)
                rest = 1 - preset.hard_right - preset.hard_misconception
                assert math.isclose(step[right], preset.hard_right)
                assert math.isclose(step[wrong], preset.hard_misconception + (rest / 4 if wrong in slips else 0))
                assert step[wrong] > step[right] and set(step) == {right, wrong} | slips


def test_step_entropy_by_hand() -> None:
    easy = -(0.98 * math.log(0.98) + 0.02 * math.log(0.005))
    assert math.isclose(task.step_entropy(PRESETS["default"], 37, "+", 5), easy)
    # 42*7 = 03; without the carry 90, which a slip of -10 writes too: 0.6 + 0.025
    hard = -(0.3 * math.log(0.3) + 0.625 * math.log(0.625) + 0.075 * math.log(0.025))
    assert math.isclose(task.step_entropy(PRESETS["default"], 42, "*", 7), hard)


@presets
def test_attempts_have_the_rates_of_the_preset(name: str) -> None:
    """Each rate within 4.9 standard errors: a false alarm has probability 1e-6, three rates a preset."""
    preset, rng = PRESETS[name], np.random.default_rng(0)
    attempts = [task.attempt(preset, task.random_problem(preset, rng), rng) for _ in range(3000)]
    counts: Counter[str] = Counter()
    for attempt in attempts:
        start, operations = task.parse(attempt.problem)
        assert attempt.text == "".join(f"{value:02d}\n" for value in attempt.values)
        before = (start, *attempt.values)
        for old, new, (operator, digit), right, hard in zip(
            before, attempt.values, operations, attempt.right, attempt.hard, strict=False
        ):
            assert right == (new == task.apply(old, operator, digit)) and hard == task.is_hard(old, operator, digit)
            counts["hard" if hard else "easy"] += 1
            counts["hard right" if hard else "easy right"] += right
            # A slip can look like the misconception; there it is left out.
            if hard and task.forgot_carry(old, digit) not in {
                (task.apply(old, operator, digit) + s) % 97 for s in task.SLIPS
            }:
                counts["plain"] += 1
                counts["misconception"] += new == task.forgot_carry(old, digit)
    for part, whole, rate in (
        ("easy right", "easy", preset.easy_right),
        ("hard right", "hard", preset.hard_right),
        ("misconception", "plain", preset.hard_misconception),
    ):
        n = counts[whole]
        assert n > 2000 and abs(counts[part] / n - rate) < 4.9 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize(
    "problem",
    ["", "37", "7+5", "137+5", "97+5", "37+1", "37+0", "37/5", "37+55", "37 +5", "37+5\n", "37+", "+5", "37+5*",
     "\uff137+5", "37+\uff15"],
)  # fmt: skip
def test_what_is_no_problem_is_named(problem: str) -> None:
    with pytest.raises(ValueError, match="is not a chain-arithmetic problem") as caught:
        task.parse(problem)
    assert repr(problem) in str(caught.value) and "37+5*7-4" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "good"), [("42\n", True), ("00\n", True), ("4\n", False), ("4+\n", False), ("423", False), ("\n", False)]
)
def test_a_line_is_two_digits_and_a_newline(text: str, good: bool) -> None:
    assert task.is_line(text) == good


@presets
def test_the_shipped_problems_are_the_held_out_ones_with_right_answers(name: str) -> None:
    shipped = sloppy.held_out(name)
    assert [p.problem for p in shipped] == task.held_out(PRESETS[name])
    assert len({p.problem for p in shipped}) == len({p.id for p in shipped}) == 500
    for p in shipped:
        value = start = int(p.problem[:2])
        for operator, digit in zip(p.problem[2::2], p.problem[3::2], strict=True):
            value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator] % 97
        assert p.answer == f"{value:02d}" and start < 97
        assert len(p.problem) == 2 + 2 * PRESETS[name].steps


def problem_in(tokens: np.ndarray) -> str:
    return "".join(task.ALPHABET[t] for t in tokens).split(":")[0].removeprefix(">")


@presets
def test_training_never_sees_a_held_out_problem(name: str) -> None:
    preset = PRESETS[name]
    free = [problem_in(row) for row in batch(preset, 64, 0.3, np.random.default_rng(5), frozenset())[0]]
    held_out = frozenset(free[::2])
    seen = {problem_in(row) for row in batch(preset, 64, 0.3, np.random.default_rng(5), held_out)[0]}
    assert not seen & held_out and len(seen) > 32


def test_a_batch_masks_the_solution_and_labels_its_steps() -> None:
    preset = PRESETS["default"]
    tokens, mask, labels = batch(preset, 64, 0.3, np.random.default_rng(6), frozenset())
    assert tokens.shape == mask.shape == labels.shape == (64, 54)
    lengths, wrong = set(), 0
    for row in range(64):
        text = "".join(task.ALPHABET[t] for t in tokens[row])
        problem = problem_in(tokens[row])
        value, operations = task.parse(problem)
        start, steps = len(problem) + 2, len(operations)
        lengths.add(steps)
        assert set(text[start + 3 * steps :]) <= {"\n"}
        assert np.flatnonzero(mask[row]).tolist() == list(range(start, start + 3 * steps))
        assert np.flatnonzero(labels[row] >= 0).tolist() == list(range(start + 2, start + 3 * steps, 3))
        for i, operation in enumerate(operations):
            line = text[start + 3 * i : start + 3 * i + 3]
            assert task.is_line(line) and labels[row, start + 3 * i + 2] == (int(line) == task.apply(value, *operation))
            wrong += labels[row, start + 3 * i + 2] == 0
            value = int(line)
    assert len(lengths) > 4 and wrong > 20


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", 'no string under "problem"'),
        ("{}", 'no string under "problem"'),
        ('{"problem": 37}', 'no string under "problem"'),
        ('{"problem": "37/5"}', "'37/5' is not a chain-arithmetic problem"),
    ],
)
def test_a_bad_line_of_a_problem_file_says_what_is_wrong(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Problem.from_json(line, 3)


def test_a_line_of_a_problem_file() -> None:
    assert Problem.from_json('{"problem": "37+5"}', 3) == Problem("3", "37+5", None)
    assert Problem.from_json('{"id": 8, "problem": "37+5", "answer": "42"}', 3) == Problem("8", "37+5", "42")


def test_auc_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        right, wrong = (rng.integers(6, size=rng.integers(1, 12)).astype(float) for _ in range(2))
        pairs = [1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong]
        assert math.isclose(auc(right, wrong), np.mean(pairs))
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1 and auc(np.array([0.0]), np.array([1.0])) == 0
    assert math.isnan(auc(np.array([]), np.array([1.0]))) and math.isnan(auc(np.array([1.0]), np.array([])))


@presets
def test_a_shipped_checkpoint_is_small(name: str) -> None:
    folder = Path(sloppy.HERE) / name
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "problems.jsonl"} <= set(sizes)
    assert sum(sizes.values()) < 2_000_000


@presets
def test_a_shipped_model_is_good(name: str) -> None:
    figures: dict[str, Any] = evaluate(sloppy.load_model(name), PRESETS[name], sloppy.held_out(name)[:40])
    assert figures["auc_hard_steps_within_problem"] >= 0.9
    assert abs(figures["nats_per_token"] - figures["entropy_floor"]) < 0.03
    assert figures["malformed_lines"] < 0.01
    assert 0 < figures["pass@1"] < figures["pass@8"] < 1


@pytest.mark.parametrize("weighting", ["step", "published"])
def test_the_filter_takes_one_step_a_line(weighting: sloppy.Weighting) -> None:
    """The published filter resamples at every line but the last, and at nothing else."""
    problem, how = sloppy.held_out()[0], method("particle-filter", weighting)
    (solved,) = solve_all(sloppy.load_model(), [(problem, Key.of(0))], how.algorithm(16), weighting)
    steps = solved.posterior.steps
    assert len(steps) == PRESETS["default"].steps and not steps[-1].resampled
    if weighting == "published":
        assert all(step.resampled for step in steps[:-1])


def test_thinking_on_goes_back_to_the_least_sure_line() -> None:
    """Each time: what stands before that line is kept, and all behind it is written again."""
    lm, rewritten = sloppy.load_model(), set[int]()
    for problem in sloppy.held_out()[:10]:
        found = ppl.trace(sloppy.rethink(lm, problem.problem, 3), 0)
        texts: list[Any] = list(found.values())
        if not task.is_line(texts[-1].last):  # the run has ended there
            continue
        lines, at = texts[:10], 10
        for _ in range(3):
            doubtful = min(range(10), key=lambda i: lines[i].log_prob)
            assert texts[at].parent is lines[doubtful].parent
            lines, at = [*lines[:doubtful], *texts[at : at + 10 - doubtful]], at + 10 - doubtful
            rewritten.add(doubtful)
        assert at == len(texts) and found.value is lines[-1]
    assert len(rewritten) > 2


def test_without_thinking_on_it_is_the_model() -> None:
    lm, problem = sloppy.load_model(), sloppy.held_out()[0].problem
    thought, solved = (ppl.infer(one, ppl.Importance(64), 0).map(str).table() for one in (
        sloppy.rethink(lm, problem, 0), sloppy.solve(lm, Reward(StepReward(lm), use="none"), problem)))  # fmt: skip
    assert {len(text) for text in thought} == {len(text) for text in solved} and len(thought) > 3
    one = ppl.trace(sloppy.rethink(lm, problem, 0), 0)
    lines: list[Any] = list(one.values())
    assert len(lines) == 10 and one.value is lines[-1] and all(b.parent is a for a, b in itertools.pairwise(lines))
