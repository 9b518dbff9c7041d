"""Stems: what texts have in common is kept and attended once for a group of rows, and no bit shows it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rows import consistent, extended, uncached

from ppl.models import places
from ppl.models.draw import Options
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel
from ppl.models.places import Want
from ppl.models.text import Text
from ppl.models.tokenizer import Tokenizer
from ppl.models.transformer import CHUNK, GROUP, Cache, Config, Stems, advance, init_params

LETTERS = "".join(map(chr, range(0x4E00, 0x4E00 + 512)))


def model(**options: int | None) -> LanguageModel:
    config = Config(512, 64, 96, 2, 2, 2, 32, 320)
    return LanguageModel(
        Engine(init_params(config, jax.random.key(0)), config, **options), Tokenizer.of_characters(LETTERS)
    )


def some(rng: np.random.Generator, count: int) -> str:
    return "".join(rng.choice(list(LETTERS), size=count))


def stemmed(lm: LanguageModel) -> list[int]:
    """Of every group of rows that holds texts, the chunks of its stem."""
    return [
        int(slab.stemmed[group])
        for slab in lm.engine.rows.slabs
        for group in range(len(slab.stemmed))
        if any(slab.held[group * GROUP : (group + 1) * GROUP])
    ]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(5, 5, 32), (8, 4, 64), (14, 2, 64), (4, 2, 16), (16, 2, 32)]
)
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_attention_of_stems_is_the_same_to_the_last_bit(heads: int, kv_heads: int, head_dim: int, steps: int) -> None:
    """Two groups, of two and one chunk in common; one row idle. Fails if XLA:CPU comes to multiply in another way."""
    config = Config(512, 64, 96, 1, heads, kv_heads, head_dim, 400)
    params, rng, count = init_params(config, jax.random.key(0)), np.random.default_rng(0), 2 * GROUP
    chunks = np.array([2, 1], np.int32)
    lengths = np.repeat(chunks, GROUP) * CHUNK + rng.integers(0, 90, count).astype(np.int32)
    lengths[3] = 0
    tokens = rng.integers(512, size=(count, steps)).astype(np.int32)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    stems = normal(2, 2, kv_heads, head_dim, CHUNK), normal(2, 2, kv_heads, CHUNK, head_dim)
    whole = normal(4, count, kv_heads, head_dim, CHUNK), normal(4, count, kv_heads, CHUNK, head_dim)
    own = [np.zeros_like(x) for x in whole]
    for row in range(count):
        first = chunks[row // GROUP]
        for stem, mine, all_of_it in zip(stems, own, whole, strict=True):
            all_of_it[:first, row] = stem[:first, row // GROUP]
            mine[: 4 - first, row] = all_of_it[first:, row]
    step = jax.jit(advance, static_argnums=1)
    live = lengths > 0

    def cache(pair: object) -> Cache:
        return Cache(*((jnp.asarray(x),) for x in pair))  # pyright: ignore[reportGeneralTypeIssues]

    expected, _ = step(params, config, tokens, cache(whole), lengths, live)
    found, new = step(params, config, tokens, cache(own), lengths, live, Stems(cache(stems), jnp.asarray(chunks)))
    np.testing.assert_array_equal(np.asarray(found)[live], np.asarray(expected)[live])
    assert new is not None and np.array_equal(np.asarray(new.keys[0])[:, 3], own[0][:, 3])  # the idle row's


actions = st.lists(
    st.tuples(
        st.sampled_from(("extend", "extend", "give", "back", "score", "forget")),
        st.integers(0, 10**6),
        st.integers(1, 60),
    ),
    min_size=3,
    max_size=8,
)


@settings(max_examples=12, deadline=None, database=None)
@given(actions, st.sampled_from((10**5, 10**7, 10**9)), st.sampled_from((16, 32)), st.booleans())
def test_random_trees_with_and_without_stems(
    steps: list[tuple[str, int, int]], memory: int, size: int, crowded: bool
) -> None:
    """Prompts that fill no, one and two chunks, groups that they fill and groups that they share: the same bits."""
    found = run(model(memory=memory, rows=size), steps, crowded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places.Want, "of", lambda source, text, end: Want(source, None, 0, end))
        plain = model(memory=10**9, rows=size)
        expected = run(plain, steps, crowded)
        assert set(stemmed(plain)) <= {0}
    assert [text.key for text in found[0]] == [text.key for text in expected[0]]
    assert [text.log_prob for text in found[0]] == [text.log_prob for text in expected[0]]
    np.testing.assert_array_equal(found[1], expected[1])


def run(lm: LanguageModel, steps: list[tuple[str, int, int]], crowded: bool) -> tuple[list[Text], np.ndarray]:
    rng = np.random.default_rng(0)
    prompts = [lm.text(some(rng, n)) for n in ((5, 64, 70, 130, 140) if crowded else (64, 130))]
    texts, known = [prompts[i % len(prompts)] for i in range(15)], list(prompts)
    for action, seed, count in steps:
        rng = np.random.default_rng(seed)
        if action == "forget":
            lm.engine.forget(seed % 3)
        elif action == "back":
            texts = [known[i] for i in rng.integers(len(known), size=len(texts))]
        elif action == "give":
            texts = [text + some(rng, 1 + count % 7) for text in texts]
        elif action == "score":
            drawn = [known[i] for i in rng.integers(len(known), size=4) if known[i].sampled]
            scores = lm.engine.log_probs([t.parent for t in drawn if t.parent], drawn, Options())
            np.testing.assert_allclose(scores, [uncached(lm, text) for text in drawn], atol=5e-4)
        else:  # some of them twice: siblings
            texts = [text for text in texts if len(text) < 240] or prompts
            texts = [texts[i] for i in rng.integers(len(texts), size=len(texts))]
            texts = extended(lm, texts, seed, max_tokens=count)
            np.testing.assert_allclose(texts[0].log_prob or 0.0, uncached(lm, texts[0]), atol=5e-4)
        consistent(lm)
        known += texts
    return texts, lm.engine.hidden(texts)


def test_a_prompt_is_kept_once_for_a_group() -> None:
    lm = model(rows=32)
    start = lm.text("一丁" * 65)
    texts = extended(lm, [start] * 32, 0, max_tokens=30)
    slab = lm.engine.last(texts)[0].slab
    assert slab.cache.capacity == CHUNK and slab.stemmed.tolist() == [2] * 4  # not the 192 tokens that a text has
    for seed in range(3):
        texts = extended(lm, [texts[i // 2] for i in range(32)], seed, max_tokens=5)
        assert {id(row.slab) for row in lm.engine.last(texts)} == {id(slab)}
    assert lm.engine.usage.fed == len(start)


def test_each_of_several_prompts_has_its_groups() -> None:
    lm = model(rows=32)
    prompts = [lm.text("一丁七万"[i] * (70 + 64 * (i % 2))) for i in range(3)]
    texts = extended(lm, [prompts[i % 3] for i in range(24)], 0, max_tokens=5)
    assert sorted(chunks for chunks in stemmed(lm) if chunks) == [1, 1, 2]
    mixed = extended(lm, [lm.text("一" * 3), *texts[:23]], 1, max_tokens=5)  # no stem for one of them
    consistent(lm)
    assert np.isfinite(lm.engine.hidden(mixed)).all()


def test_groups_that_are_free_get_another_stem() -> None:
    lm = model(rows=16, memory=10**5)  # one slab
    for letter in "一丁七":
        texts = extended(lm, [lm.text(letter * 70)] * 16, 0, max_tokens=5)
        np.testing.assert_allclose(
            [t.log_prob or 0.0 for t in texts[::5]], [uncached(lm, t) for t in texts[::5]], atol=3e-4
        )
        consistent(lm)


def test_what_does_not_fill_a_group_shares_it_where_there_is_no_room() -> None:
    """Twelve of one prompt and twelve of another in 24 rows: four of each have their whole text in their rows."""
    lm = model(rows=32)
    wants = [Want(None, (b"a", b""), 1, 70)] * 12 + [Want(None, (b"b", b""), 2, 140)] * 13
    lease = lm.engine.rows.place(wants, 32)
    assert len(set(lease.targets)) == 25
    assert lm.engine.rows.slabs[-1].stemmed.tolist() == [1, 1, 2, 2]
    lease.end()
    more = [*wants, *[Want(None, None, 0, 80)] * 7]
    lease = lm.engine.rows.place(more, 32)
    slab = lease.slab
    assert len(set(lease.targets)) == 32 and sorted(slab.stemmed.tolist()) == [0, 0, 1, 2]
    assert slab.cache.capacity >= 140


def test_the_prompt_of_a_text_is_what_was_given_first() -> None:
    lm = model()
    start = lm.text("一丁") + "七" + "万"
    assert start.prompt is start
    one = extended(lm, [start], 0, 3)[0]
    assert one.prompt is start and (one + "七").prompt is start and extended(lm, [one + "七"], 0, 3)[0].prompt is start
    assert Text(lm.tokenizer, b"").prompt == Text(lm.tokenizer, b"")
