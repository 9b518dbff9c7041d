"""`ppl compare`: what is written, counted, gone on with and shown."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ppl import MCMC, Suffix, factor, infer, program, sample, trace, uniform
from ppl.compare import Line, compare, read
from ppl.compare_report import markdown, ratios, run, summaries
from ppl.models.checkpoint import CheckpointError
from ppl.scaling import fit_coverage, majority_at, pass_at
from ppl.solve_file import FileError
from ppl.strategies import STRATEGIES, TABLE, Strategy, Task, _Archon, _blame, document, strategies
from ppl.tasks import chain_arithmetic, from_file, log_prob

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def task() -> Task[Any]:
    return chain_arithmetic("default", 4)


def compared(task: Task[Any], names: str, path: Path, budgets: tuple[int, ...] = (2, 4), seeds: int = 1) -> list[Line]:
    return compare(task, strategies(names), budgets, range(seeds), path, QUIET)


def same(lines: list[Line]) -> list[dict[str, Any]]:
    """But for the clock, in one order."""
    rows = [asdict(replace(line, seconds=0.0)) for line in lines]
    return sorted(rows, key=lambda row: (row["strategy"], row["n"], row["seed"], row["problem"]))


@pytest.mark.parametrize("name", [one.name for one in TABLE])
def test_every_strategy_runs_by_name(task: Task[Any], tmp_path: Path, name: str) -> None:
    """At its least budget and at 8; what it spends is counted, and nothing is right by chance of the bookkeeping."""
    least = STRATEGIES[name].least
    lines = compared(task, name, tmp_path / "out.jsonl", tuple(sorted({least, 8})))
    assert len(lines) == (8 if least < 8 else 4)
    for line in lines:
        problem = next(one for one in task.problems if one.id == line.problem)
        assert line.right == (line.answer == problem.answer)
        assert 0 < line.tokens <= 3 * line.n * 3 * 10 * 2 and line.seconds > 0
        assert (line.scores > 0) == STRATEGIES[name].reward
        assert sum(p for _, p, _ in line.found.values()) == pytest.approx(1) or not line.found
        assert line.answer is None or line.answer in line.found


def test_costs_are_what_was_spent(task: Task[Any], tmp_path: Path) -> None:
    """Ten lines of three tokens a solution: look-ahead and what is pruned count, and a shared run counts for each."""
    lines = compared(task, "best-of-n,majority,beam,beam-lookahead,pruned,steering", tmp_path / "out.jsonl", (8,))
    cost = {line.strategy: (line.tokens, line.scores) for line in lines if line.problem == lines[0].problem}
    assert cost["best-of-n"] == (240, 80) and cost["majority"] == (240, 0) and cost["beam"] == (240, 80)
    assert cost["beam-lookahead"] == (240 + 9 * 24, 80 + 9 * 8)  # a step ahead at each step but the last
    assert cost["pruned"] == (3 * (2 * 16 + 3 * 8 + 5 * 4), 2 * 16 + 3 * 8 + 5 * 4)
    assert cost["steering"] == (240, 80)


def test_votes_on_one_run(task: Task[Any], tmp_path: Path) -> None:
    lines = compared(task, "majority,best-of-n,weighted-best-of-n", tmp_path / "out.jsonl", (8,))
    by_problem: dict[str, list[Line]] = {}
    for line in lines:
        by_problem.setdefault(line.problem, []).append(line)
    for some in by_problem.values():
        assert len({json.dumps(line.found) for line in some}) == 1
        counts = {answer: count for answer, (count, *_) in some[0].found.items()}
        assert counts[some[0].answer] == max(counts.values())
        assert some[2].answer == max(some[0].found, key=lambda answer: some[0].found[answer][1])


def test_thinking_on_costs_its_tokens(task: Task[Any], tmp_path: Path) -> None:
    """A budget of N is one answer behind N thoughts: here of one line each, of three tokens."""

    @program
    async def think(lm: Any, problem: Any, waits: int) -> Any:
        text = lm.text(f">{problem.problem}:")
        for _ in range(waits + 1):
            text = await sample("thought", lm.extend(text, until="\n", max_tokens=3))
        return text

    thinker = replace(task, think=lambda lm, reward, problem, waits: think(lm, problem, waits))
    lines = compared(thinker, "budget-forcing", tmp_path / "out.jsonl", (2, 5))
    assert {(line.n, line.tokens, line.scores) for line in lines} == {(2, 6, 0), (5, 15, 0)}


def test_refinement_goes_back_to_the_worst_step(task: Task[Any]) -> None:
    """Of a solution with one line that the judge finds wrong, it is that line that is most often written again."""
    problem = task.problems[0]
    reward = STRATEGIES["refinement"].weigh(task)
    for seed in range(50):
        one = trace(task.program(task.lm, reward, problem), seed)
        factors = list(one.factors.values())
        bad = [i for i, log_right in enumerate(factors) if log_right < math.log(0.1)]
        if len(bad) == 1 and sum(factors) - factors[bad[0]] > math.log(0.9):
            assert Suffix(_blame).start(one).probabilities[bad[0]] > 0.8
            return
    raise AssertionError("no solution with one wrong line")


@program
async def graded() -> int:
    grade = await sample("grade", uniform(range(10)))
    await factor("score", math.log(0.05 + 0.1 * grade))
    return grade


def test_archon_keeps_the_best_quarter_of_what_passes() -> None:
    """Of 8 draws the two best, if they pass (0.5 or more: from grade 5 on), or else of all: over 200 seeds."""
    seen = set[Any]()
    for seed in range(200):
        found: Any = infer(graded(), _Archon(8), seed).population
        drawn: Any = infer(graded(), _Archon(32), seed).population
        assert 1 <= len(found.values) <= 2 and 1 <= len(drawn.values) <= 8
        assert list(found.log_weights) == sorted(found.log_weights, reverse=True)
        assert min(found.values) >= 5 or max(found.values) < 5
        assert min(drawn.values) >= 5 and found.normalised  # of 32 never all fail: (1/2)^32
        seen.add(found.values[0])
    assert max(seen) == 9 and min(seen) >= 5


def test_archon_keeps_all_where_none_passes() -> None:
    @program
    async def poor() -> int:
        grade = await sample("grade", uniform(range(4)))
        await factor("score", math.log(0.05 + 0.1 * grade))
        return grade

    kept: Any = infer(poor(), _Archon(40), 0).population.values
    assert len(kept) == 10 and list(kept) == sorted(kept, reverse=True) and min(kept) >= 2


@pytest.mark.parametrize("cut", [0, 1, 7, -1])
def test_it_goes_on_where_it_was_stopped(task: Task[Any], tmp_path: Path, cut: int) -> None:
    """Cut anywhere, also inside a line: the same lines in the end, none twice."""
    names = "majority,beam,particle-filter"
    whole = compared(task, names, tmp_path / "whole.jsonl", seeds=2)
    data = (tmp_path / "whole.jsonl").read_bytes()
    split = data.splitlines(keepends=True)
    some = data[:-20] if cut == -1 else b"".join(split[: 1 + cut]) + split[1 + cut][:11]
    (tmp_path / "cut.jsonl").write_bytes(some)
    assert same(compared(task, names, tmp_path / "cut.jsonl", seeds=2)) == same(whole)
    assert same(read(tmp_path / "cut.jsonl")) == same(whole)


def test_more_can_be_added_to_a_file(task: Task[Any], tmp_path: Path) -> None:
    """Other budgets, seeds, strategies and problems: what is there is not done again, and gives the same."""
    path = tmp_path / "out.jsonl"
    few = compare(replace(task, problems=task.problems[:2]), strategies("beam"), [2], [0], path, QUIET)
    more = compared(task, "beam,dvts", path, seeds=2)
    assert len(few) == 2 and len(more) == 2 * 2 * 2 * 4 and len(read(path)) == len(more)
    fresh = compared(task, "beam,dvts", tmp_path / "fresh.jsonl", seeds=2)
    assert same(more) == same(fresh)


def test_processes_find_the_same(task: Task[Any], tmp_path: Path) -> None:
    """Two of them, and one; also where half of the lines are there already."""
    names = strategies("majority,beam,particle-filter")
    alone = compare(task, names, [2, 4], [0], tmp_path / "alone.jsonl", QUIET)
    lines = (tmp_path / "alone.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two.jsonl").write_text("".join(lines[:9]))
    assert same(compare(task, names, [2, 4], [0], tmp_path / "two.jsonl", QUIET, jobs=2)) == same(alone)
    assert same(read(tmp_path / "two.jsonl")) == same(alone)


def test_what_processes_cannot_do_is_told_before_anything_is_written(task: Task[Any], tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    mine = [replace(STRATEGIES["beam"], beta=2.0)]
    for one, chosen, message in (
        (replace(task, again=None), strategies("beam"), "again="),
        (replace(task, again=lambda: task), strategies("beam"), "cannot be pickled"),
        (task, mine, "beam is not the strategy that processes know"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(one, chosen, [2, 4], [0], path, QUIET, jobs=2)
        assert not path.exists()
    with pytest.raises(ValueError, match=r"again= of Task\('noisy', \.\.\.\) makes another task"):
        compare(replace(task, name="noisy"), strategies("beam,dvts"), [2, 4], [0], path, QUIET, jobs=2)
    other = replace(task, again=partial(chain_arithmetic, "default", 4, Path("/no/such/model")))
    with pytest.raises(CheckpointError, match="/no/such/model"):
        compare(other, strategies("beam,dvts"), [2, 4], [0], tmp_path / "other.jsonl", QUIET, jobs=2)


def test_lines_come_in_the_order_of_what_was_asked_for(task: Task[Any], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    compare(task, strategies("dvts"), [4], [1], path, QUIET)
    lines = compare(task, strategies("beam,dvts"), [2, 4], [0, 1], path, QUIET)
    found = [(line.strategy, line.n, line.seed, line.problem) for line in lines]
    problems = [one.id for one in task.problems]
    assert found == [(s, n, k, p) for s in ("beam", "dvts") for n in (2, 4) for k in (0, 1) for p in problems]


def test_strategies_of_unnamed_functions_do_not_share_a_run(task: Task[Any], tmp_path: Path) -> None:
    """Their addresses are in the repr of what they make, and one that is freed could be another's."""

    def chain(up: float) -> Any:
        return lambda n, _: MCMC(Suffix(lambda t: [up * i for i in range(len(t.choices))]), n, chains=1)

    mine = [Strategy(name, chain(up)) for name, up in (("flat", 0.0), ("end", 50.0))]
    lines = compare(task, mine, [4], [0], tmp_path / "out.jsonl", QUIET)
    assert lines[0].tokens != lines[4].tokens  # from anywhere, and the last line alone


def dying(preset: str) -> Task[Any]:
    import os

    if preset == "hard":
        os._exit(9)
    return chain_arithmetic(preset, 4)


def test_a_process_that_dies_is_told_of(task: Task[Any], tmp_path: Path) -> None:
    mortal = replace(task, again=partial(dying, "hard"))
    with pytest.raises(FileError, match=r"a process died .* holds 0 lines"):
        compare(mortal, strategies("majority,beam"), [2, 4], [0], tmp_path / "out.jsonl", QUIET, jobs=2)


def test_a_vote_can_join_a_run_that_is_there(task: Task[Any], tmp_path: Path) -> None:
    """The run is made again for it, but the lines of the others are not written again."""
    path = tmp_path / "out.jsonl"
    compared(task, "majority,best-of-n", path)
    lines = compared(task, "majority,best-of-n,weighted-best-of-n", path)
    assert len(lines) == len(read(path)) == 3 * 2 * 4
    assert same(lines) == same(compared(task, "majority,best-of-n,weighted-best-of-n", tmp_path / "fresh.jsonl"))


def test_seeds_differ_and_runs_do_not_share_draws(task: Task[Any], tmp_path: Path) -> None:
    lines = compared(task, "weighted-best-of-n,particle-filter", tmp_path / "out.jsonl", (4,), 3)
    assert len({json.dumps([line.found for line in lines if line.seed == seed]) for seed in range(3)}) == 3


def test_a_stop_by_hand_loses_nothing(task: Task[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ppl.compare as module

    calls, right = 0, module.infer_many

    def stopped(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return right(*args, **options)

    monkeypatch.setattr(module, "infer_many", stopped)
    path = tmp_path / "out.jsonl"
    with pytest.raises(FileError, match=r"interrupted; .* holds 8 lines, and the same command goes on"):
        compared(task, "beam,dvts", path)
    monkeypatch.undo()
    assert len(read(path)) == 8 and same(compared(task, "beam,dvts", path)) == same(
        compared(task, "beam,dvts", tmp_path / "fresh.jsonl")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "task": "other"}\n', "of the task 'other', not 'chain arithmetic, default'"),
        ('{"version": 0, "task": "x"}\n', "another version"),
        ("hello\n", "line 1 is not of `ppl compare`"),
        ('{"version": 1, "task": "chain arithmetic, default"}\n{"strategy": 1}\n', "line 2 is not"),
    ],
)
def test_files_of_others_are_left_alone(task: Task[Any], tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        compared(task, "beam", path)
    assert path.read_text() == text
    with pytest.raises(FileError, match=r"folder .* does not exist"):
        compared(task, "beam", tmp_path / "none" / "out.jsonl")


def test_lines_of_another_definition_are_not_taken_for_ones_of_now(task: Task[Any], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = compared(task, "beam,adaptive-majority", path)
    assert {one.run for one in lines if one.strategy == "beam"} == {
        f"Beam(beams={n}, width=4, lookahead=0), step_likelihood, prod, 1" for n in (2, 4)}  # fmt: skip
    assert all(" at 0x" not in one.run for one in lines)
    path.write_text(path.read_text().replace("width=4", "width=3"))
    with pytest.raises(FileError, match=r"holds beam at N = 2 as Beam\(.*width=3.* now: give another --out"):
        compared(task, "beam", path)
    assert len(compared(task, "dvts", path)) == 8  # others can be added


def line(strategy: str, n: int, seed: int, problem: str, right: bool, tokens: int = 10) -> Line:
    return Line(strategy, n, seed, problem, "x", right, tokens, 3, 0.5, {"x": (n, 1.0, right)}, [], "")


def test_summaries_and_standard_errors() -> None:
    """Over problems, of the share of seeds: two problems solved in 1 and 1/2 of the seeds."""
    lines = [line("a", 4, s, p, p == "p" or s == 0, 10 * (s + 1)) for s in range(2) for p in "pq"]
    (cell,) = summaries(lines)
    assert cell.right.tolist() == [1.0, 0.5] and cell.accuracy == 0.75 and cell.seeds == 2
    assert cell.standard_error == pytest.approx(np.std([1.0, 0.5], ddof=1) / math.sqrt(2))
    assert cell.cost["tokens"] == 15 and cell.cost["generations"] == 4
    assert "| a | 75.0 ± 25.0 | 15 | 3 |" in markdown([cell])


def test_budget_ratios_by_what_was_spent() -> None:
    """One solves half at N = 4, the other at N = 16, of twice the tokens each."""

    def some(name: str, n: int, share: float, tokens: int) -> list[Line]:
        return [line(name, n, 0, f"p{i:02}", i < 40 * share, tokens) for i in range(40)]

    lines = [*some("good", 4, 0.5, 40), *some("bad", 4, 0.25, 80), *some("bad", 16, 0.5, 320)]
    by = {cost: ratios(summaries(lines), "good", 4, ["bad"], cost)["bad"].ratio for cost in ("generations", "tokens")}
    assert by == {"generations": pytest.approx(4), "tokens": pytest.approx(8)}
    assert ratios(summaries(lines), "none", 4, ["bad"]) == {}


def test_pass_at_k_is_the_mean_over_subsets() -> None:
    for n, right in ((5, 2), (6, 0), (6, 6), (4, 1)):
        pool = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            assert pass_at(k, n, right) == pytest.approx(np.mean([any(some) for some in combinations(pool, k)]))
    with pytest.raises(ValueError, match="k is 1 to n"):
        pass_at(5, 4, 1)


def test_majority_at_k() -> None:
    """Against all subsets; 400 draws of them are 0.02 off at most, 4 standard errors 0.1."""
    counts, right, n = [3, 2, 1], [False, True, False], 7  # one gave no answer
    pool = [i for i, count in enumerate([*counts, 1]) for _ in range(count)]
    for k in range(1, n + 1):
        shares = []
        for some in combinations(pool, k):
            tally = np.bincount(some, minlength=4)[:3]
            best = [i for i in range(3) if tally[i] == tally.max() and tally[i] > 0]
            shares.append(np.mean([right[i] for i in best]) if best else 0.0)
        assert majority_at(k, n, counts, right) == pytest.approx(np.mean(shares), abs=1e-9 if k in (1, n) else 0.1)
    assert majority_at(2, 4, [], []) == 0.0


def test_the_law_of_coverage_is_found_again() -> None:
    ks = [1, 2, 4, 8, 16]
    a, b = fit_coverage(ks, [math.exp(-1.7 * k**-0.6) for k in ks])
    assert (a, b) == (pytest.approx(-1.7), pytest.approx(-0.6))
    with pytest.raises(ValueError, match="two coverages between 0 and 1"):
        fit_coverage([1, 2], [0.0, 1.0])


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    """A file with a Task, in another world: a coin that is judged."""
    (tmp_path / "mine.py").write_text(
        """
import ppl
from dataclasses import dataclass
from ppl.models import TableLM
from ppl.strategies import Task

class Coin(TableLM):
    tokens = 0
    def handle(self):
        return self

@dataclass(frozen=True)
class Side:
    id: str

@ppl.program
async def toss(lm, reward, problem):
    text, judged = lm.text(""), reward.begin()
    for _ in range(3):
        text = await ppl.sample("toss", lm.extend(text, max_tokens=1))
        judged = await judged.step(text)
    await judged.end(text)
    return str(text)

def judge(text):
    return ppl.call(lambda one: -0.1 if one[-1] == "h" else -2.0, str(text))

def task():
    return Task("coins", Coin("ht", lambda text: {"h": 0.5, "t": 0.5}), judge, [Side("hhh")], toss,
                lambda text: text, lambda answer, problem: answer == problem.id, steps=3)
"""
    )
    mine = from_file(f"{tmp_path}/mine.py:task")
    lines = compare(mine, strategies("beam,particle-filter,mcts"), [32], [0], tmp_path / "out.jsonl", QUIET)
    assert {one.strategy for one in lines if one.right} == {one.strategy for one in lines}
    assert all(one.scores > 0 for one in lines)
    for name, field in (("rpc", "log_prob"), ("drafted", "draft"), ("speculative", "draft"),
                        ("budget-forcing", "think")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} needs .*: give Task\('coins', ..., {field}=...\)"):
            compare(mine, strategies(f"beam,{name}"), [4], [0], tmp_path / "none.jsonl", QUIET)
    assert not (tmp_path / "none.jsonl").exists()
    for where, message in (("none.py:task", "is no task: write path.py:name"), ("mine.py", "is no task"),
                           (f"{tmp_path}/mine.py:judged", "has no Task under the name 'judged'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            from_file(where)


def test_names() -> None:
    assert len(TABLE) == len(STRATEGIES) and all(
        isinstance(one, Strategy) and one.source and one.about for one in TABLE
    )
    assert [one.name for one in strategies("beam, dvts,beam")] == ["beam", "dvts"] and strategies("all") == list(TABLE)
    with pytest.raises(ValueError, match="unknown strategy 'magic': choose all, or some of majority, best-of-n"):
        strategies("magic")


def test_log_prob_of_a_solution_is_that_of_its_tokens(task: Task[Any]) -> None:
    import ppl
    from ppl.rewards import Reward

    one = task.program(task.lm, Reward(task.model), task.problems[0])
    for text, _ in ppl.infer(one, ppl.Importance(3), seed=0).items():
        prompt, whole = f">{task.problems[0].problem}:", str(text)
        assert whole.startswith(prompt)

        @ppl.program
        async def scored(begin: str = prompt, rest: str = whole[len(prompt) :]) -> float:
            return await task.lm.log_prob(task.lm.text(begin), rest)

        assert log_prob(text) == pytest.approx(ppl.run(scored(), 0).value, abs=1e-3)


def test_the_report(task: Task[Any], tmp_path: Path) -> None:
    console = Console(record=True, width=140, file=StringIO())
    names = strategies("majority,best-of-n,particle-filter")
    run(task, names, [1, 2, 4], range(2), "particle-filter", tmp_path, console)
    said = " ".join(console.export_text().split())
    assert "4 problems, 2 seeds" in said and "times the tokens of particle-filter at N = 2" in said
    for name in ("accuracy.png", "coverage.png", "ess.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG") and (tmp_path / name).stat().st_size > 10_000
    assert (tmp_path / "table.md").read_text().count("\n") == 5


def test_the_documented_table_is_the_one_in_the_code() -> None:
    text = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text()
    assert document() in text, "docs/strategies.md: write the table again, from ppl.strategies.document()"
