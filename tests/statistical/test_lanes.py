"""Draws of different lanes are independent, and what a lane draws does not depend on the batch it is in.

A lane is a particle, a program of `infer_many`, a branch of `parallel`, a step of `scan`. Lanes 2i and 2i + 1 make a
pair, so do i and i + n/2, and the pairs of one kind are independent: their values must have the product law (numbers by
the quarter of their law that they lie in). `assert_draws` at a false-alarm rate of 1e-6 for each kind of pair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ppl import (
    SMC,
    Categorical,
    Importance,
    Key,
    Multinomial,
    Program,
    dist,
    factor,
    infer,
    infer_many,
    observe,
    parallel,
    program,
    run,
    run_many,
    sample,
    scan,
    uniform,
)  # fmt: skip
from ppl.models import sloppy
from ppl.models.language_model import LanguageModel
from ppl.models.table_lm import TableLM
from ppl.models.text import Text
from ppl.testing import assert_draws, detectable

DIE = uniform(range(4))
N = 4000
ALL = Importance(N)
Law = Mapping[Any, float]
QUARTERS: Law = dict.fromkeys(range(4), 0.25)


def assert_independent(lanes: Sequence[Any], law: Law) -> None:
    """Both kinds of pairs have the product law."""
    assert len(lanes) % 2 == 0
    product = {(a, b): p * q for (a, p), (b, q) in itertools.product(law.items(), repeat=2)}
    half = len(lanes) // 2
    for name, pairs in (
        ("next lanes", zip(lanes[::2], lanes[1::2], strict=True)),
        ("lanes of both halves", zip(lanes[:half], lanes[half:], strict=True)),
    ):
        try:
            assert_draws(list(pairs), product)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def values(program: Program[Any], algorithm: Any = ALL, seed: int = 0) -> tuple[Any, ...]:
    return infer(program, algorithm, seed).population.values


@program
async def one(die: Any = DIE) -> Any:
    return await sample("x", die)


@program
async def two() -> tuple[int, int]:
    first = await sample("x", DIE)
    return first, await sample("x", DIE)


@program
async def branches(die: Any = DIE) -> list[Any]:
    return await parallel(*[sample("x", die) for _ in range(N)])


@program
async def nested() -> list[Any]:
    return [x for pair in await parallel(*[two() for _ in range(N // 2)]) for x in pair]


@program
async def nested_batches() -> list[Any]:
    return [x for row in await parallel(*[few() for _ in range(N // 4)]) for x in row]


@program
async def few() -> list[Any]:
    return await parallel(*[sample("x", DIE) for _ in range(4)])


@program
async def turn(carry: int, _: int) -> tuple[int, int]:
    return carry, await sample("x", DIE)


@program
async def steps() -> list[Any]:
    return (await scan(turn, 0, range(N)))[1]


@program
async def after_resampling() -> int:
    """The draw behind a factor that leaves one ancestor in 20: lanes are siblings, with draws of their own."""
    await factor("f", 0.0 if await sample("rare", Categorical.of({True: 0.05, False: 0.95})) else -math.inf)
    return await sample("x", DIE)


HOST: dict[str, Callable[[int], Sequence[Any]]] = {
    "particles": lambda seed: values(one(), seed=seed),
    "particles of SMC": lambda seed: values(one(), SMC(N), seed),
    "siblings": lambda seed: values(after_resampling(), SMC(N, Multinomial), seed),
    "programs, int seeds": lambda seed: [r.value for r in run_many([one()] * N, range(seed * N, seed * N + N))],
    "programs, inferred": lambda seed: [
        p.population.values[0]
        for p in infer_many([one()] * N, Importance(1), [Key.of(seed).fold(str(i)) for i in range(N)])
    ],
    "draws of a run": lambda seed: [x for pair in values(two(), Importance(N // 2), seed) for x in pair],
    "branches": lambda seed: run(branches(), seed).value or (),
    "branches of branches": lambda seed: run(nested(), seed).value or (),
    "batches of branches": lambda seed: run(nested_batches(), seed).value or (),
    "steps": lambda seed: run(steps(), seed).value or (),
    "uniforms of a key": lambda seed: [math.floor(4 * u) for u in Key.of(seed).uniforms(N)],
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", HOST)
def test_lanes_of_the_host_are_independent(name: str, seed: int) -> None:
    """2,000 pairs of 16 outcomes: one whose probability is off by 0.06 is found with probability 0.999."""
    assert_independent(HOST[name](seed), QUARTERS)
    assert detectable(N // 2, law=dict.fromkeys(range(16), 1 / 16)) < 0.06


def test_ancestors_of_a_population_are_independent() -> None:
    """Of multinomial resampling, given equal weights."""
    ancestors = [a // (N // 4) for a in Multinomial([0.0] * N).sample(Key.of(0))]
    assert_independent(ancestors, QUARTERS)


def quarters(xs: Sequence[Any] | np.ndarray, cdf: Callable[[Any], Any]) -> list[int]:
    return [min(int(4 * u), 3) for u in cdf(np.asarray(xs, float))]


@pytest.mark.parametrize("width", [N, 3])
def test_lanes_of_numpyro_batches_are_independent(width: int) -> None:
    """One batch of all lanes, or many small ones."""
    normal = dist.Normal(1.0, 2.0)
    if width == N:
        xs = values(one(normal))
    else:
        runs = infer_many([one(normal)] * (N // 4), Importance(4), range(N // 4))
        xs = [x for posterior in runs for x in posterior.population.values]
    assert_independent(quarters(xs, stats.norm(1, 2).cdf), QUARTERS)
    assert_draws(np.asarray(xs, float), stats.norm(1, 2).cdf)


def test_numbers_of_one_numpyro_draw_are_independent() -> None:
    xs = np.asarray(run(one(dist.Normal(np.zeros(N), 1.0)), 0).value)
    assert_independent(quarters(xs, stats.norm.cdf), QUARTERS)


LETTERS = {"a": 0.5, "b": 0.25, "c": 0.25}
TABLE = TableLM("abc", lambda text: LETTERS)


def test_texts_of_a_table_are_independent() -> None:
    """From text to text, and from character to character."""
    extension = TABLE.extend(TABLE.text("a"), max_tokens=2)
    texts = [str(text)[1:] for text in values(one(extension))]
    assert_independent(texts, {a + b: LETTERS[a] * LETTERS[b] for a in LETTERS for b in LETTERS})


@cache
def model() -> LanguageModel:
    return sloppy.load_model()


def test_texts_of_a_transformer_are_independent() -> None:
    """First tokens, by the model's own probabilities, in float32; rare tokens are one outcome."""
    lm = model()
    prompt = lm.text(">")
    pieces = lm.tokenizer.pieces()
    texts = [Text(lm.tokenizer, prompt.data + lm.tokenizer.encode(piece), prompt, 0.0) for piece in pieces]
    extension = lm.extend(prompt, max_tokens=1)
    p = np.exp(extension.log_prob_many([extension] * len(texts), texts))
    assert abs(p.sum() - 1) < 1e-5
    kinds = {piece: piece if q > 0.04 else "rare" for piece, q in zip(pieces, p, strict=True)}
    law: dict[str, float] = {}
    for piece, q in zip(pieces, p / p.sum(), strict=True):
        law[kinds[piece]] = law.get(kinds[piece], 0.0) + float(q)
    lanes = [kinds[str(text)[1:]] for text in values(one(extension), Importance(2000))]
    assert_independent(lanes, law)


# Mutants: lanes that share what they must not.


class Mutant(Categorical[Any]):
    @property
    def family(self) -> Any:
        return type(self)


class Shared(Mutant):
    """One draw for all lanes."""

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Categorical[Any]]) -> list[Any]:
        return [dists[0].sample(keys[0])] * len(dists)


class Paired(Mutant):
    """Lanes 2i and 2i + 1 share a key."""

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Categorical[Any]]) -> list[Any]:
        return [dist.sample(keys[i - i % 2]) for i, dist in enumerate(dists)]


class Halved(Mutant):
    """The second half of a batch repeats the first."""

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Categorical[Any]]) -> list[Any]:
        half = max(len(dists) // 2, 1)
        return [dist.sample(keys[i % half]) for i, dist in enumerate(dists)]


class Sometimes(Mutant):
    """One pair of lanes in three shares a key."""

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Categorical[Any]]) -> list[Any]:
        return [dist.sample(keys[i - i % 2 if i // 2 % 3 == 0 else i]) for i, dist in enumerate(dists)]


class Stratified(Mutant):
    """Each lane has the right law, its neighbour the opposite uniform."""

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Categorical[Any]]) -> list[Any]:
        us = [keys[i - i % 2].uniform() for i in range(len(dists))]
        return [dist._at(1 - u if i % 2 else u) for i, (dist, u) in enumerate(zip(dists, us, strict=True))]


@pytest.mark.parametrize(
    ("mutant", "pairs"),
    [(Shared, "next lanes"), (Paired, "next lanes"), (Halved, "lanes of both halves"), (Sometimes, "next lanes"),
     (Stratified, "next lanes")],
)  # fmt: skip
def test_lanes_that_share_draws_are_rejected(mutant: type[Categorical[Any]], pairs: str) -> None:
    die = mutant(range(4), [0.0] * 4)
    for lanes in (values(one(die)), run(branches(die), 0).value, [r.value for r in run_many([one(die)] * N, range(N))]):
        with pytest.raises(AssertionError, match=f"^{pairs}: .* A right sampler fails with probability at most 1e-06"):
            assert_independent(lanes or (), QUARTERS)


def test_each_draw_of_the_mutants_alone_looks_right() -> None:
    """What rejects them is the pairs."""
    for mutant in (Paired, Halved, Sometimes, Stratified):
        assert_draws(values(one(mutant(range(4), [0.0] * 4)))[::2][: N // 4], QUARTERS)


# Any batching gives the same result.


@program
async def mixed(start: int) -> tuple[Any, ...]:
    """Families of the host and of the device, weights and branches; programs of different lengths."""
    xs = [await sample("x", dist.Normal(float(start), 1.0))]
    for _ in range(start % 3):
        y, z = await parallel(sample("y", dist.Normal(xs[-1], 0.5)), sample("z", uniform("abc")))
        await observe("seen", dist.Normal(y, 1.0), 0.3)
        xs += [y, z if z != "a" else await sample("w", dist.Gamma(2.0, 1.0))]
        xs[-2:] = [y] if start % 2 else [z, y]
    text = await sample("t", TABLE.extend(TABLE.text("a"), max_tokens=1 + start % 2))
    await factor("f", -1.0 if str(text).endswith("a") else 0.0)
    return (*[x if isinstance(x, str) else float(x) for x in xs], str(text))


@program
async def written(prompt: str) -> str:
    text = await sample("t", model().extend(model().text(prompt), until="\n", max_tokens=3))
    await factor("f", -0.5 * str(text).count("1"))
    return str(await sample("t", model().extend(text, until="\n", max_tokens=3)))


POOL = [mixed(i % 5) for i in range(12)]
TEXTS = [written(f">{i}7+5*7:") for i in range(4)]


@pytest.mark.parametrize(
    ("programs", "algorithm"),
    [(POOL, Importance(3)), (POOL, SMC(5, Multinomial)), (POOL, SMC(4)), (TEXTS, SMC(3, Multinomial))],
)
def test_results_do_not_depend_on_the_batch(programs: list[Program[Any]], algorithm: Any) -> None:
    """Alone, all together, in another order, and in parts: equal, to the last bit."""
    seeds = [Key.of(7).fold(str(i)) for i in range(len(programs))]
    alone = [infer(p, algorithm, seed) for p, seed in zip(programs, seeds, strict=True)]
    assert infer_many(programs, algorithm, seeds) == alone
    order = np.random.default_rng(0).permutation(len(programs)).tolist()
    shuffled = infer_many([programs[i] for i in order], algorithm, [seeds[i] for i in order])
    assert shuffled == [alone[i] for i in order]
    cut = len(programs) // 3
    parts = [infer_many(programs[part], algorithm, seeds[part]) for part in (slice(0, cut), slice(cut, None))]
    assert [posterior for part in parts for posterior in part] == alone
    assert infer_many(programs, algorithm, [Key.of(8).fold(str(i)) for i in range(len(programs))]) != alone
