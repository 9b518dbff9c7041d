"""Questions to a posterior, with answers worked out by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from ppl import SMC, Importance, Posterior, ZeroEvidence, condition, factor, infer, program, sample, uniform
from ppl.inference.population import Population


def _posterior(pairs: Sequence[tuple[Any, float]], killed: Counter[str] | None = None) -> Posterior[Any]:
    """From (value, weight) pairs, weights not logs."""
    log_weights = tuple(math.log(w) if w else -math.inf for _, w in pairs)
    return Posterior(Population(tuple(v if w else None for v, w in pairs), log_weights, killed=killed))


# Weights sum to 10: a has 4, b has 5, c has 1; most particles are a; the heaviest single particle is b.
ABC = _posterior([("a", 1), ("b", 5), ("a", 1), ("dead", 0), ("a", 2), ("c", 1)])


def test_table_adds_up_equal_values_most_probable_first() -> None:
    assert list(ABC.table()) == ["b", "a", "c"]
    assert ABC.table() == pytest.approx({"a": 0.4, "b": 0.5, "c": 0.1}, rel=1e-12)


def test_items_are_the_living_particles_in_order() -> None:
    assert [value for value, _ in ABC.items()] == ["a", "b", "a", "a", "c"]
    assert math.fsum(p for _, p in ABC.items()) == pytest.approx(1.0, abs=1e-12)


def test_mode_prob_and_expect() -> None:
    assert ABC.mode() == "b"
    assert ABC.prob(lambda v: v != "b") == pytest.approx(0.5, rel=1e-12)
    assert ABC.expect(ord) == pytest.approx(0.4 * 97 + 0.5 * 98 + 0.1 * 99, rel=1e-12)


def test_evidence_and_ess_count_the_dead() -> None:
    assert ABC.log_evidence == pytest.approx(math.log(10 / 6), rel=1e-12)
    assert ABC.ess == pytest.approx(10**2 / (1 + 25 + 1 + 4 + 1), rel=1e-12)


def test_three_votes_can_give_three_answers() -> None:
    split = _posterior([("many", 1), ("many", 1), ("many", 1), ("heavy", 5), ("sum", 3.5), ("sum", 3.5)])
    assert (split.vote("majority"), split.vote("argmax"), split.vote("weighted")) == ("many", "heavy", "sum")
    assert split.vote() == "sum"
    with pytest.raises(ValueError, match="choose weighted, majority or argmax"):
        split.vote("median")  # pyright: ignore[reportArgumentType]


def test_first_seen_wins_ties() -> None:
    for pairs in ([("a", 1), ("b", 1)], [("b", 1), ("a", 1)]):
        tied = _posterior(pairs)
        first = pairs[0][0]
        assert (tied.mode(), tied.vote("majority"), tied.vote("argmax")) == (first, first, first)


def test_the_dead_do_not_vote() -> None:
    assert _posterior([("a", 0), ("a", 0), ("b", 1)]).vote("majority") == "b"


def test_map_keeps_weights_and_skips_the_dead() -> None:
    vowels = ABC.map(lambda v: v in "aeiou")  # would raise on the dead particle's None
    assert vowels.table() == pytest.approx({True: 0.4, False: 0.6}, rel=1e-12)
    assert vowels.log_evidence == ABC.log_evidence
    assert len(vowels.population.values) == 6


def test_head_is_the_posterior_of_the_first_particles() -> None:
    assert ABC.head(3).table() == pytest.approx({"a": 2 / 7, "b": 5 / 7}, rel=1e-12)
    assert ABC.head(6).table() == ABC.table()
    assert ABC.head(4).log_evidence == pytest.approx(math.log(7 / 4), rel=1e-12)
    for count in (0, 7):
        with pytest.raises(ValueError, match="there are 6 particles"):
            ABC.head(count)


def test_zero_evidence_names_the_sites_that_killed_most_first() -> None:
    dead = _posterior([("a", 0), ("b", 0), ("c", 0)], Counter({"p/parse": 1, "p/grammar": 2}))
    assert dead.log_evidence == -math.inf
    assert dead.ess == 0.0
    assert "all of weight zero" in repr(dead)
    for ask in (dead.items, dead.table, dead.mode, dead.vote, lambda: dead.prob(bool), lambda: dead.expect(float)):
        with pytest.raises(
            ZeroEvidence, match=r"all 3 particles have weight zero; killed at: p/grammar \(2\), p/parse \(1\)"
        ):
            ask()


@pytest.mark.parametrize("algorithm", [Importance(5), SMC(5)])
def test_sites_that_kill_are_named_by_inference(algorithm: Any) -> None:
    @program
    async def doomed() -> int:
        x = await sample("x", uniform([0, 1]))
        await factor("score", -1.0)
        await condition("wall", x > 1)
        return x

    with pytest.raises(ZeroEvidence, match=r"killed at: doomed/wall \(5\)"):
        infer(doomed(), algorithm, seed=0).mode()


def test_repr_shows_count_evidence_and_ess() -> None:
    assert repr(_posterior([("a", 1), ("b", 1)])) == "Posterior(2 particles, log_evidence=0.0000, ess=2.0)"
