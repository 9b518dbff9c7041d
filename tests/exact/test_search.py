"""Searches on worlds whose optimum is known by brute force, and textbook versions of them on trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings

import ppl
from ppl import Program, factor, infer, infer_many, measure, program, sample, twist
from ppl.distributions import Categorical
from ppl.inference.population import NoEvidence, Population
from ppl.measure import TooManyPaths, paths
from ppl.testing import Tiny, programs

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


class Tree:
    """A game tree of random branching: at each node a draw, then a factor; some branches end early, some are dead."""

    def __init__(self, seed: int, depth: int = 4, width: int = 3, dead: float = 0.15, stop: float = 0.15) -> None:
        self.rng_seed, self.depth, self.width, self.dead, self.stop = seed, depth, width, dead, stop

    def row(self, path: tuple[int, ...]) -> tuple[list[float], float, bool]:
        """Of a node: probabilities of its children, the log factor behind it, whether it is a leaf."""
        rng = np.random.default_rng([self.rng_seed, *[x + 1 for x in path]])
        count = int(rng.integers(1, self.width + 1))
        factor_ = -math.inf if path and rng.random() < self.dead else float(np.log(rng.uniform(0.05, 1.0)))
        return (
            rng.dirichlet(np.ones(count)).tolist(),
            factor_,
            len(path) == self.depth or bool(path and rng.random() < self.stop),
        )

    def leaves(self, path: tuple[int, ...] = (), log_weight: float = 0.0) -> dict[tuple[int, ...], float]:
        """Every solution with the log of its weight."""
        probabilities, factor_, leaf = self.row(path)
        log_weight += factor_ if path else 0.0
        if log_weight == -math.inf:
            return {}
        if leaf:
            return {path: log_weight}
        return {k: v for i in range(len(probabilities)) for k, v in self.leaves((*path, i), log_weight).items()}

    def bound(self, path: tuple[int, ...]) -> float:
        """The most that the rest can bring, exactly: the best of all heuristics."""
        below = self.leaves(path)
        own = self.row(path)[1] if path else 0.0
        return max((value for value in below.values()), default=-math.inf) - own if below else -math.inf

    def program(self, heuristic: float | None = None) -> Program[tuple[int, ...]]:
        """With a twist of the bound, weaker by so many nats at most (a consistent heuristic), if wished; inf: of 0."""
        return walk(self, heuristic)


@program
async def walk(tree: Tree, heuristic: float | None) -> tuple[int, ...]:
    path: tuple[int, ...] = ()
    while not (row := tree.row(path))[2]:
        path = (*path, await sample("child", Categorical(range(len(row[0])), np.log(row[0]).tolist())))
        if heuristic is not None and not tree.row(path)[2]:  # before the factor, which the old one has foreseen
            slack = heuristic * (1 - len(path) / tree.depth)  # falls along a path
            await twist("bound", tree.bound(path) + slack if heuristic < math.inf else 0.0)
        await factor("step", tree.row(path)[1])
    return path


class Given:
    """Draws that are chosen beforehand."""

    family = "given"

    def __init__(self, values: Sequence[int]) -> None:
        self.drawn = iter(values)

    def sample(self, key: Any) -> int:
        return next(self.drawn)

    def log_prob(self, value: Any) -> float:
        return 0.0


def best_of(tree: Tree) -> float:
    return max(tree.leaves().values(), default=-math.inf)


def score(population: Population[Any]) -> float:
    return max(population.log_weights)


WIDE = [ppl.Beam(81 * 3, 3), ppl.AStar(3), ppl.AStar(3, batch=4), ppl.MCTS(200, 3), ppl.REBASE(400, temperature=1e6),
        ppl.Beam(81 * 3, 3, lookahead=1)]  # fmt: skip


@pytest.mark.parametrize("algorithm", WIDE, ids=repr)
def test_with_room_for_everything_the_best_is_found(algorithm: Any) -> None:
    """60 trees. Catches a prefix that is forgotten, a score that is not the weight, an end that is lost."""
    for seed in range(60):
        tree = Tree(seed)
        posterior = infer(tree.program(), algorithm, seed=seed)
        assert score(posterior.population) == pytest.approx(best_of(tree), abs=1e-9) or (
            posterior.is_empty and not tree.leaves()
        )


@pytest.mark.parametrize("slack", [0.0, 0.3])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_star_with_a_consistent_heuristic_finds_the_best_and_expands_less(slack: float, batch: int) -> None:
    """The exact bound expands only what is on the way; a weaker one more, no heuristic most. Always the best."""
    with_, without = 0, 0
    for seed in range(60):
        tree = Tree(seed, depth=5, stop=0.05)
        guided = infer(tree.program(slack), ppl.AStar(3, batch=batch), seed=0)
        blind = infer(tree.program(math.inf), ppl.AStar(3, batch=batch), seed=0)
        assert score(guided.population) == pytest.approx(best_of(tree), abs=1e-9) or not tree.leaves()
        with_, without = with_ + guided.diagnostics["expanded"], without + blind.diagnostics["expanded"]
        if slack == 0 and batch == 1 and tree.leaves():
            assert guided.diagnostics["expanded"] <= 1 + 4 * 5  # on each level a node, and the bounds of its children
    assert with_ < 0.7 * without


def test_a_star_with_a_wrong_heuristic_can_miss() -> None:
    """The test above could fail: a heuristic that promises too little hides the best."""

    @program
    async def trap() -> str:
        x = await sample("x", Categorical.of({"good": 0.5, "poor": 0.5}))
        await twist("bound", -5.0 if x == "good" else 0.0)
        await factor("x", -0.1)
        await factor("rest", 0.0 if x == "good" else -1.0)
        return x

    assert infer(trap(), ppl.AStar(2), seed=0).vote("argmax") == "poor"
    assert infer(trap(), ppl.Beam(8, 2), seed=0).vote("argmax") == "good"


def textbook(tree: Tree, beams: int, width: int) -> float:
    """Beam search as in a textbook, where all children of a node are made: the best score, by sorting."""
    layer, found = [((), 0.0)], list[float]()
    while layer:
        following = []
        for path, log_weight in layer:
            for i in range(len(tree.row(path)[0])):
                to = (*path, i)
                total = log_weight + tree.row(to)[1]
                if total > -math.inf and tree.row(to)[2]:
                    found.append(total)
                elif total > -math.inf:
                    following.append((to, total))
        room = beams - len(found)
        layer = sorted(following, key=lambda node: -node[1])[: max(0, -(-room // width))]
    return max(found, default=-math.inf)


def test_beam_search_is_the_textbook_one() -> None:
    """Where a prefix has all its children. `beams` is large, so that each kept prefix gets at least 3 of them."""
    different = 0
    for seed in range(100):
        tree = Tree(seed, depth=5, width=3, stop=0.0)
        for kept in (1, 2, 4):
            found = infer(tree.program(), ppl.Beam(3 * kept * 27, 3 * 27), seed=1)
            want = textbook(tree, 3 * kept * 27, 3 * 27)
            assert score(found.population) == pytest.approx(want, abs=1e-9) or found.is_empty
            assert found.is_empty == (want == -math.inf)
            different += want < best_of(tree) - 1e-9
            if kept == 1:  # trees apart from each other are so many searches for one
                apart = infer(tree.program(), ppl.DVTS(3 * 81, 81), seed=1).population
                assert sorted(apart.log_weights) == sorted(3 * found.population.log_weights)
    assert different > 20  # a narrow beam does miss


FEW = [ppl.Beam(2, 2), ppl.Beam(3, 2), ppl.Beam(2, 2, lookahead=1), ppl.DVTS(3, 2), ppl.REBASE(2), ppl.AStar(2),
       ppl.AStar(2, steps=3), ppl.MCTS(2, 2), ppl.Pruned(3, {1: 0.5}), ppl.Pruned(2, {1: 1.0})]  # fmt: skip


@pytest.mark.parametrize("algorithm", FEW, ids=repr)
def test_scores_are_the_weights_of_the_values(algorithm: Any) -> None:
    """Over random programs and every outcome of a search's own draws: each solution's score is its weight.

    Catches a twist that is not divided out, a weight shared by clones, a solution that is none.
    """
    checked = 0

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=SLOW)
    @given(programs(6))
    def run(tiny: Tiny) -> None:
        nonlocal checked
        one = tiny.program()
        try:
            weights = dict[Any, set[float]]()
            for path in paths(one, 2_000):
                weights.setdefault(path.value, set()).add(round(path.log_weight, 9))
            outcomes = list(paths(flat(algorithm, one), 4_000, guess=True))
        except TooManyPaths:
            reject()
        for outcome in outcomes:
            for value, found in outcome.value:
                if found > -math.inf:
                    assert any(abs(found - known) < 1e-8 for known in weights.get(value, ()))
        checked += 1

    run()
    assert checked >= 60


@program
async def flat(algorithm: Any, inner: Program[Any]) -> tuple[tuple[Any, float], ...]:
    """All that a search finds."""
    population = await algorithm(inner)
    return tuple(zip(population.values, population.log_weights, strict=True))


def test_a_solution_is_never_worse_for_more_room() -> None:
    """On trees where all children are tried: the best of a beam of twice the width."""
    gained = 0
    for seed in range(60):
        tree = Tree(seed, depth=5, stop=0.0)
        scores = [score(infer(tree.program(), ppl.AStar(3, steps=steps), seed=0).population) for steps in (6, 40, 400)]
        assert scores[0] <= scores[-1] + 1e-12 and scores[1] <= scores[-1] + 1e-12
        gained += scores[0] < scores[-1] - 1e-9
    assert gained > 5


def test_a_search_that_has_spent_its_steps_still_answers() -> None:
    """The best prefixes are brought to their ends, `batch` of them."""
    tree = Tree(3, depth=5, dead=0.0, stop=0.0)
    for steps, batch in ((1, 1), (2, 2), (4, 3)):
        posterior = infer(tree.program(), ppl.AStar(3, steps=steps, batch=batch), seed=0)
        assert 1 <= len(posterior.items()) <= batch and posterior.diagnostics["steps"] <= 3 * steps + 5 * batch
        assert all(value in tree.leaves() for value, _ in posterior.items())


def test_counts() -> None:
    """How many solutions come out, and what is shared."""

    @program
    async def many() -> int:
        for _ in range(3):
            x = await sample("x", Categorical.of(dict.fromkeys(range(50), 1.0)))
            await factor("x", -x / 100)
        return x  # pyright: ignore[reportPossiblyUnboundVariable]

    def size(algorithm: Any) -> int:
        return len(infer(many(), algorithm, seed=0).population.values)

    assert size(ppl.Beam(8, 4)) == size(ppl.DVTS(8, 4)) == size(ppl.REBASE(8)) == 8
    assert size(ppl.Beam(7, 4)) == size(ppl.DVTS(7, 4)) == size(ppl.REBASE(7)) == 7
    assert size(ppl.Pruned(16, {1: 0.5, 2: 0.25})) == 2 and size(ppl.Pruned(4, {1: 0.01})) == 1
    assert size(ppl.MCTS(5, 2)) >= 5
    share = ppl.REBASE(10, temperature=1.0)._share
    assert share([], [math.log(0.9), math.log(0.9), math.log(0.1)], 10) == {0: 4, 1: 4, 2: 2}  # 4.09, 4.09, 1.84
    assert share([], [0.0, -1e9], 3) == {0: 2, 1: 1} and sum(share([], [0.0] * 7, 5).values()) == 5


def test_the_worst_are_given_up() -> None:
    given = Given([5, 1, 7, 3])

    @program
    async def two() -> int:
        x = await sample("x", given)
        await factor("x", float(x))
        await factor("more", 0.0)
        return x

    assert [value for value, _ in infer(two(), ppl.Pruned(4, {1: 0.5}), seed=0).items()] == [5, 7]


def test_a_first_draw_of_few_values_does_not_make_few_runs() -> None:
    """A style of two, then many texts: as many solutions as asked for."""

    @program
    async def styled() -> tuple[int, int]:
        style = await sample("style", ppl.uniform([0, 1]))
        await factor("style", 0.0)
        x = await sample("x", Categorical.of(dict.fromkeys(range(50), 1.0)))
        await factor("x", -x / 100)
        return style, x

    for algorithm in (ppl.Pruned(8, {2: 1.0}), ppl.Beam(8, 4), ppl.REBASE(8), ppl.DVTS(8, 4)):
        assert len(infer(styled(), algorithm, seed=0).population.values) == 8


def test_twice_the_same_prefix_counts_once() -> None:
    """Two of three children are the same text: a beam of two keeps two different ones."""
    given = Given([7, 7, 3, 1, 1, 1, 1, 1])

    @program
    async def two() -> tuple[int, int]:
        x = await sample("x", given)
        await factor("x", float(x))
        y = await sample("y", given)
        await factor("y", float(y))
        return x, y

    found = infer(two(), ppl.Beam(3, 2), seed=0)
    assert {value[0] for value, _ in found.items()} == {7, 3}


ALL = [ppl.Beam(6, 3), ppl.Beam(6, 3, 1), ppl.DVTS(6, 3), ppl.REBASE(6), ppl.AStar(2, 20), ppl.MCTS(6, 2),
       ppl.Pruned(6)]  # fmt: skip


@pytest.mark.parametrize("algorithm", ALL, ids=repr)
def test_same_seed_same_result_in_any_batch(algorithm: Any) -> None:
    trees = [Tree(seed).program() for seed in range(8)]
    together = infer_many(trees, algorithm, range(8))
    assert [p.population for p in together] == [infer(t, algorithm, s).population for s, t in enumerate(trees)]


def test_a_search_has_no_evidence() -> None:
    posterior = infer(Tree(1).program(), ppl.Beam(4, 2), seed=0)
    with pytest.raises(NoEvidence, match="does not estimate the evidence"):
        _ = posterior.log_evidence
    assert posterior.warnings == [] and "log_evidence" not in repr(posterior)


def test_what_is_dead_is_told() -> None:
    @program
    async def dead() -> None:
        await sample("x", ppl.Bernoulli(0.5))
        await ppl.condition("never", False)

    for algorithm in ALL:
        posterior = infer(dead(), algorithm, seed=0)
        with pytest.raises(ppl.ZeroEvidence, match="dead/never"):
            posterior.mode()


@pytest.mark.parametrize("algorithm", [*ALL, ppl.AStar(1, 1), ppl.MCTS(1, 1)], ids=repr)
def test_programs_without_steps_or_draws(algorithm: Any) -> None:
    @program
    async def nothing() -> int:
        return 5

    @program
    async def one() -> bool:
        return await sample("x", ppl.Bernoulli(0.5))

    assert infer(nothing(), algorithm, seed=0).mode() == 5
    assert infer(one(), algorithm, seed=0).mode() in (True, False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppl.Beam(0), "Beam: beams must be an integer of at least 1, not 0"),
        (lambda: ppl.Beam(4, 0), "Beam: width must"),
        (lambda: ppl.DVTS(4, 2, -1), "DVTS: lookahead must be an integer of at least 0"),
        (lambda: ppl.REBASE(4, 0.0), "REBASE: the temperature must be positive"),
        (lambda: ppl.AStar(4, steps=0), "AStar: steps must"),
        (lambda: ppl.MCTS(4, explore=-1), "MCTS: explore must be a number that is not negative"),
        (lambda: ppl.Pruned(4, {0: 0.5}), "a step of keep must be an integer of at least 1"),
        (lambda: ppl.Pruned(4, {1: 0.0}), r"keep=\{1: 0.0\}: a share of particles is in \(0, 1\]"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_measures_can_be_asked_of_searches() -> None:
    """A search is a program: with two children of three it finds the best with probability 1 - (2/3)^2."""

    @program
    async def three() -> int:
        x = await sample("x", ppl.uniform([0, 1, 2]))
        await factor("x", float(x))
        return x

    def argmax(found: Sequence[tuple[int, float]]) -> int:
        return max(found, key=lambda pair: pair[1])[0]

    law = measure(flat(ppl.Beam(2, 2), three()))
    assert sum(p for found, p in law.items() if argmax(found) == 2) == pytest.approx(1 - 4 / 9)
