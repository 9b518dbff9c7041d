"""Keys: deterministic, distinct by path, uniform, and strictly inside (0, 1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ppl import Categorical, Key, uniform
from ppl.source import Keys, Tape, begin_draws, source_of


def test_the_same_path_gives_the_same_key() -> None:
    assert Key.of(7).fold("a").fold("b") == Key.of(7).fold("a").fold("b")
    assert Key.of(7).fold("a").uniform() == Key.of(7).fold("a").uniform()
    assert Key.of(Key.of(7)) == Key.of(7) == Key.of(np.int64(7))  # pyright: ignore[reportArgumentType]


def test_different_seeds_and_paths_give_different_keys() -> None:
    roots = [Key.of(seed) for seed in (0, 1, -1, 10, 2**70)]
    keys = [key for root in roots for key in (root, root.fold("a"), root.fold("b"), root.fold("a").fold("b"))]
    keys += [Key.of(0).fold("b").fold("a"), Key.of(0).fold("ab"), Key.of(0).fold("")]
    assert len({*keys}) == len({key.uniform() for key in keys}) == len(keys)


@pytest.mark.parametrize("seed", ["1", 1.0, None])
def test_a_seed_is_an_int_or_a_key(seed: Any) -> None:
    with pytest.raises(TypeError, match="a seed is an int or a Key"):
        Key.of(seed)


@pytest.mark.parametrize("digest", [b"\x00" * 16, b"\xff" * 16, b"\xff" * 8 + b"\x00" * 8])
def test_uniforms_of_extreme_keys_lie_strictly_inside(digest: bytes) -> None:
    """The all-ones key: (2^53 - 1 + 1/2) 2^-53 rounds to 1, and Categorical.sample would fall off its end."""
    assert 0.0 < Key(digest).uniform() < 1.0
    assert uniform("ab").sample(Key(digest)) in "ab"


def test_a_key_spent_in_different_ways_gives_unrelated_numbers() -> None:
    key = Key.of(0)
    spent = [key.uniform(), *key.uniforms(20), key.fold("0").uniform(), *key.fold("0").uniforms(20)]
    assert len({*spent}) == len(spent)


def test_uniforms_are_uniform() -> None:
    """Catches wrong shifts or byte orders, and blocks of eight that repeat.

    Kolmogorov-Smirnov: D > 1.95 / sqrt(n) happens by chance with probability 1e-3 (once, the seeds are fixed);
    n = 20 000 shows a cdf off by 0.014.
    """
    n = 20_000
    for us in (np.array(Key.of(1).uniforms(n)), np.array([Key.of(2).fold(str(i)).uniform() for i in range(n)])):
        assert len(np.unique(us)) == n
        gap = np.abs(np.sort(us) - (np.arange(n) + 0.5) / n).max() + 0.5 / n
        assert gap < 1.95 / math.sqrt(n)
        assert abs(np.corrcoef(us[:-1], us[1:])[0, 1]) < 4 / math.sqrt(n)  # four standard deviations


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_uniforms_are_as_many_as_asked_and_extend_each_other(count: int) -> None:
    assert Key.of(3).uniforms(count) == Key.of(3).uniforms(128)[:count]


def test_jax_key_data_has_the_entropy_of_the_seed() -> None:
    data = {tuple(Key.of(seed).data.tolist()) for seed in range(1000)}
    assert len(data) == 1000
    assert Key.of(0).data.dtype == np.uint32


def test_tape_gives_its_choices_and_sums_their_log_probs() -> None:
    tape = Tape({"p/x": 1, "p/y": 0})
    dist = Categorical.of({0: 0.25, 1: 0.75})
    assert (tape.draw("p/x", dist), tape.draw("p/y", dist)) == (1, 0)
    assert tape.log_prob == pytest.approx(math.log(0.75 * 0.25), rel=1e-14)
    with pytest.raises(KeyError, match=r"no choice for p/z; it has p/x, p/y"):
        tape.draw("p/z", dist)


def test_source_of_a_seed_is_keys_and_of_a_source_itself() -> None:
    tape = Tape({})
    assert source_of(tape) is tape
    assert source_of(4) == Keys(Key.of(4)) == source_of(Key.of(4))
    assert Keys(Key.of(4)).key("p/x") == Key.of(4).fold("p/x")


def test_draws_use_the_batch_form_where_there_is_one() -> None:
    class Batched:
        family = "batched"

        @staticmethod
        def draw_many(keys: list[Key], dists: list[Any]) -> list[str]:
            return [f"{len(keys)} of {len(dists)}"] * len(keys)

        def sample(self, key: Key) -> str:
            raise AssertionError("drawn one by one")

        def log_prob(self, value: Any) -> float:
            return 0.0

    class Started(Batched):
        @staticmethod
        def begin_many(keys: list[Key], dists: list[Any]) -> Any:
            return lambda: [f"started {len(keys)}"] * len(dists)

    keys = [Key.of(i) for i in range(3)]
    die = uniform(range(6))
    for dist, expected, waits in (
        (Batched(), ["3 of 3"] * 3, False),
        (Started(), ["started 3"] * 3, True),
        (die, [die.sample(key) for key in keys], False),
    ):
        finish, waiting = begin_draws(keys, [dist] * 3)
        assert (finish(), waiting) == (expected, waits)
