"""Rows: a text's place on the device never shows in what is computed, whatever is extended, gone back to or dropped."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from ppl.models.decode import Stop
from ppl.models.draw import Options
from ppl.models.engine import Engine
from ppl.models.language_model import Extension, LanguageModel
from ppl.models.rows import Rows
from ppl.models.slab import Lease
from ppl.models.text import Text, Tokenizer
from ppl.models.transformer import GROUP, Config, Params, advance, init_params, logits
from ppl.source import Key

MakeModel = Callable[..., LanguageModel]


def small(**options: int) -> LanguageModel:
    """A model whose calls may have 8 rows or more, with a context of several chunks."""
    config = Config(512, 64, 96, 2, 4, 2, 16, 200)
    tokenizer = Tokenizer.of_characters("".join(map(chr, range(0x4E00, 0x4E00 + 512))))
    return LanguageModel(Engine(init_params(config, jax.random.key(0)), config, **options), tokenizer)


def extended(lm: LanguageModel, texts: list[Text], seed: int, max_tokens: int) -> list[Text]:
    root = Key.of(seed)
    return Extension.begin_many(
        [root.fold(str(i)) for i in range(len(texts))], [lm.extend(text, max_tokens=max_tokens) for text in texts]
    )()


@partial(jax.jit, static_argnums=1)
def next_tokens(params: Params, config: Config, tokens: Array) -> Array:
    """log p of each token of the vocabulary behind each of the tokens, by one pass without a cache."""
    return jax.nn.log_softmax(logits(params, advance(params, config, tokens[None])[0][0]))


def uncached(lm: LanguageModel, text: Text) -> float:
    """log p of the last link."""
    tokens = np.pad(text.tokens, (0, lm.engine.capacity - len(text)))
    log_p = np.asarray(next_tokens(lm.engine.params, lm.engine.config, tokens))
    return float(sum(log_p[i - 1, text.tokens[i]] for i in range(text.start, len(text))))


def consistent(lm: LanguageModel) -> None:
    """What the bookkeeping must always satisfy."""
    rows = lm.engine.rows
    for slab in rows.slabs:
        assert slab.pins == [0] * slab.rows
        for index, held in enumerate(slab.held):
            stem, chunks = slab.stem_of[index // GROUP], int(slab.stemmed[index // GROUP])
            assert (stem is None) == (chunks == 0) and chunks <= slab.most
            assert all(64 * chunks <= row.length <= slab.room(index) for row in held)
            for row in held:
                assert stem is None or (row.key is not None and row.key[0].startswith(stem[0]))
            assert all(a.length < b.length for a, b in itertools.pairwise(held))
            keys = [row.key[0] for row in held if row.key is not None]
            assert all(b.startswith(a) for a, b in itertools.pairwise(keys))
    known = {row for key, some in rows.known.items() for row in some if row.key == key}
    assert known == {row for slab in rows.slabs for held in slab.held for row in held if row.key is not None}
    assert all(rows.known.values())


actions = st.lists(
    st.tuples(
        st.sampled_from(("extend", "extend", "give", "back", "score", "forget")),
        st.integers(0, 10**6),
        st.integers(1, 90),
    ),
    min_size=3,
    max_size=9,
)


@settings(max_examples=15, deadline=None, database=None)
@given(actions, st.sampled_from((10**4, 10**6, 10**9)))
def test_random_trees_of_texts(steps: list[tuple[str, int, int]], memory: int) -> None:
    """Extend, branch, go back, evict, under much and little memory, prompts of several lengths: always as uncached."""
    lm = small(memory=memory, rows=8)
    rng = np.random.default_rng(0)
    letters = [chr(0x4E00 + i) for i in range(512)]

    def some(count: int) -> str:
        return "".join(rng.choice(letters, size=count))

    texts = [lm.text(some(n)) for n in (1, 3, 70)]
    known = list(texts)
    for action, seed, count in steps:
        rng = np.random.default_rng(seed)
        if action == "forget":
            lm.engine.forget(int(seed % 3))
        elif action == "back":
            texts = [known[i] for i in rng.integers(len(known), size=len(texts))]
        elif action == "give":
            texts = [text + some(1 + count % 7) if len(text) < 150 else text for text in texts]
        elif action == "score":
            texts = [known[i] for i in rng.integers(len(known), size=2)]
            drawn = [text for text in texts if text.sampled]
            found = lm.engine.log_probs([t.parent for t in drawn], drawn, Options())
            np.testing.assert_allclose(found, [uncached(lm, text) for text in drawn], atol=2e-4)
        else:  # each twice: siblings
            texts = [text for text in texts if len(text) < 200][:5] or [known[0]]
            texts = extended(lm, [*texts, *texts], seed, max_tokens=count)
            np.testing.assert_allclose(
                [text.log_prob or 0.0 for text in texts[:3]], [uncached(lm, text) for text in texts[:3]], atol=3e-4
            )
        consistent(lm)
        known += texts
    hidden = lm.engine.hidden(texts)
    fresh = LanguageModel(Engine(lm.engine.params, lm.engine.config, rows=8), lm.tokenizer)
    np.testing.assert_array_equal(hidden, fresh.engine.hidden(texts))


def test_particles_that_stay_are_not_moved_and_children_are_copied_once() -> None:
    lm = small(rows=8)
    texts = extended(lm, [lm.text("一")] * 6, 0, max_tokens=5)
    places = [row.index for row in lm.engine.last(texts)]
    again = extended(lm, texts, 1, max_tokens=5)
    assert [row.index for row in lm.engine.last(again)] == places
    children = extended(lm, [again[0], again[0], again[0], *again[3:]], 2, max_tokens=5)
    rows = lm.engine.last(children)
    assert next(row.index for row in rows) == places[0] and [row.index for row in rows][3:] == places[3:]
    assert len({id(row.slab) for row in rows}) == 1 and len({row.index for row in rows}) == 6
    assert len(lm.engine.rows.slabs) <= 2  # the prompt's, and this one


def test_particles_that_write_the_same_stay_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a row of its own already: nothing is copied, whoever of them takes which."""
    lm = small(rows=8)
    ban = dict.fromkeys(range(1, 512), -math.inf)  # all draw token 0
    block = partial(lm.extend, max_tokens=2, bias=ban)

    def written(texts: list[Text]) -> list[Text]:
        keys = [Key.of(i) for i in range(len(texts))]
        return Extension.begin_many(keys, [block(text) for text in texts])()

    texts = written([lm.text("一")] * 6)
    assert len({text.key for text in texts}) == 1
    copied = list[int]()
    monkeypatch.setattr(Rows, "_copy", lambda self, slab, copies, stems: copied.append(len(copies)))
    again = written(written(texts))
    consistent(lm)
    assert not copied and len({row.index for row in lm.engine.last(again)}) == 6


def test_rows_that_change_places_are_read_before_they_are_written() -> None:
    """All eight go back behind a longer text, in another order: each is copied to where another one is."""
    lm = small(rows=8)
    first = extended(lm, [lm.text("一")] * 8, 0, max_tokens=70)
    extended(lm, first, 1, max_tokens=5)
    order = [3, 0, 7, 1, 2, 6, 4, 5]
    found = extended(lm, [first[i] for i in order], 2, max_tokens=5)
    assert lm.engine.usage.fed == 1 and len(lm.engine.rows.slabs) == 1 + 1  # the prompt's, and one for all
    fresh = small(rows=8)
    expected = extended(fresh, [first[i] for i in order], 2, max_tokens=5)
    assert [text.data for text in found] == [text.data for text in expected]
    np.testing.assert_array_equal(lm.engine.hidden(found), fresh.engine.hidden(expected))


def test_going_back_feeds_nothing() -> None:
    lm = small(rows=8)
    first = extended(lm, [lm.text("一丁")] * 3, 0, max_tokens=5)
    then = extended(lm, first, 1, max_tokens=5)
    other = extended(lm, first, 2, max_tokens=5)  # `then` is kept: there is room
    assert lm.engine.usage.fed == 2
    lm.engine.last(then + other + first)
    assert lm.engine.usage.fed == 2
    consistent(lm)
    again, expected = extended(lm, then, 3, max_tokens=5), extended(small(rows=8), then, 3, max_tokens=5)
    assert [text.log_prob for text in again] == [text.log_prob for text in expected]


def test_what_a_call_writes_into_a_slab_that_is_dropped_is_not_known() -> None:
    """As when another call in it fails while this one is under way."""
    lm = small(rows=8)
    texts = extended(lm, [lm.text("一丁")] * 4, 0, max_tokens=5)
    finish = lm.engine.decode(texts, np.zeros((4, 2), np.uint32), lm.stop(())[0], 5, Options())
    for slab in list(lm.engine.rows.slabs):
        lm.engine.rows.drop(slab)
    written = finish()
    consistent(lm)
    np.testing.assert_array_equal(lm.engine.hidden(written), small(rows=8).engine.hidden(written))


SHAPES = {
    "tiny": Config(5, 16, 24, 2, 4, 2, 4, 200, tie_word_embeddings=True),
    "sloppy": Config(32, 128, 352, 3, 4, 4, 32, 200, tie_word_embeddings=True),
    "1M": Config(512, 160, 432, 2, 5, 5, 32, 200),
    "grouped": Config(512, 256, 512, 2, 8, 2, 64, 200),
}


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_p": 0.9, "temperature": 1.2}], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_number_of_rows_does_not_show(shape: str, options: dict[str, float]) -> None:
    """Nor whether texts are scored and judged alone or with others. Fails if XLA:CPU comes to sum in another order."""
    config = SHAPES[shape]
    params = init_params(config, jax.random.key(0))
    params |= {"score.weight": params["model.norm.weight"][None] * 0.1, "score.bias": params["model.norm.weight"][:1]}
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + config.vocab_size)))
    tokenizer = Tokenizer.of_characters(letters)

    def seen(count: int, rows: int | None) -> list[list[object]]:
        lm = LanguageModel(Engine(params, config, rows=rows), tokenizer)
        texts = [lm.text(letters[:2][: 1 + i % 2]) for i in range(count)]
        for seed, tokens in ((0, 80), (1, 4)):
            root = Key.of(seed)
            keys = [root.fold(str(i)) for i in range(count)]
            drawn = [lm.extend(text, max_tokens=tokens, **options) for text in texts]  # pyright: ignore[reportArgumentType]
            texts = [text + letters[:3] for text in Extension.begin_many(keys, drawn)()]
        blocks = [text.parent for text in texts if text.parent]
        scores = lm.engine.log_probs([t.parent for t in blocks if t.parent], blocks, Options(top_k=3))
        again = [lm.engine.log_probs([text.prompt], [text], Options())[0] for text in texts[:3]]
        at_once = lm.engine.log_probs([text.prompt for text in texts], texts, Options())
        assert at_once[:3] == again
        found = zip(
            blocks, scores, at_once, lm.engine.hidden(texts).tolist(), [row.score for row in lm.engine.last(texts)],
            np.asarray(lm.engine.next_log_probs(texts)).tolist(), strict=False,
        )  # fmt: skip
        return [[block.data, block.log_prob, block.log_model, *rest] for block, *rest in found]

    expected = seen(20, 128)
    for count in (1, 3, 8, 20):
        assert seen(count, None) == expected[:count]


def test_stragglers_go_on_in_a_smaller_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing shows it."""
    sizes = list[int]()
    place = type(small().engine.rows).place

    def spy(self: object, wants: object, size: int) -> Lease:
        sizes.append(size)
        return place(self, wants, size)  # pyright: ignore[reportArgumentType]

    lm = small()
    texts = [lm.text("一" * (3 + 190 * (i % 16 > 0))) for i in range(64)]  # most have room for 7 tokens
    expected = extended(whole := small(), [whole.text(str(text)) for text in texts], 0, max_tokens=60)
    monkeypatch.setattr(type(lm.engine.rows), "place", spy)
    found = extended(lm, texts, 0, max_tokens=60)
    assert sizes[-2:] == [64, 8]
    assert [text.data for text in found] == [text.data for text in expected]
    assert [text.log_prob for text in found] == [text.log_prob for text in expected]
    assert {len(text) for text in found} == {63, 200}
    consistent(lm)
    assert np.isfinite(lm.engine.hidden(extended(lm, [t for t in found if len(t) < 200], 1, max_tokens=3))).all()


def test_stragglers_remember_what_they_have_matched() -> None:
    """The stop counts thirty tokens; the others have room for seven."""
    lm = small()
    texts = [lm.text("一" * (3 + 190 * (i % 16 > 0))) for i in range(64)]
    table = np.minimum(np.arange(1, 32), 30).astype(np.int32)[:, None].repeat(512, 1)
    keys = np.zeros((64, 2), np.uint32)
    found = lm.engine.decode(texts, keys, Stop.at(table), 100, Options())()
    assert {len(text) - len(parent) for text, parent in zip(found, texts, strict=True)} == {7, 30}


def test_two_large_families_in_a_round_do_not_evict_each_other() -> None:
    """Of several calls each, from prompts, so that nothing says where they should go."""
    lm = small(rows=8)
    lm.engine.most = 8
    families = [[lm.text("一" * n)] * 80 for n in (1, 2)]
    for _ in range(3):
        families = [extended(lm, texts, 0, max_tokens=2) for texts in families]
    assert lm.engine.usage.fed == 1 + 2


def test_memory_is_kept_to() -> None:
    lm = small(rows=8, memory=3 * 8 * 256 * 2 * 2 * 2 * 16 * 4)  # three slabs of 8 rows and 256 tokens
    start = lm.text("一")
    for i in range(12):
        extended(lm, [start + chr(0x4E00 + i) * 70] * 5, i, max_tokens=100)
        assert sum(map(lm.engine.rows._bytes, lm.engine.rows.slabs)) <= lm.engine.rows.memory
        consistent(lm)


def test_a_failed_call_leaves_no_row_taken() -> None:
    lm = small(rows=8)
    texts = [lm.text("一"), Text.of(lm.tokenizer, "一" * 201)]
    with pytest.raises(ValueError, match="201 tokens does not fit"):
        lm.engine.hidden(texts)
    consistent(lm)


def test_a_call_that_nobody_waits_for_leaves_no_row_taken() -> None:
    lm = small(rows=8)
    texts = extended(lm, [lm.text("一丁")] * 4, 0, max_tokens=5)
    finish = lm.engine.decode(texts, np.zeros((4, 2), np.uint32), lm.stop(())[0], 5, Options())
    del finish
    consistent(lm)
    np.testing.assert_array_equal(lm.engine.hidden(texts), small(rows=8).engine.hidden(texts))


def _fail_at_once(error: type[BaseException], *_: object) -> None:
    raise error


def test_a_call_that_is_interrupted_leaves_no_row_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C while the device is at work, or by an error of the device: both come out where one waits for it."""
    lm = small(rows=8)
    texts = extended(lm, [lm.text("一丁")] * 12, 0, max_tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(lm.engine.usage.clock, "wait", partial(_fail_at_once, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extended(lm, texts, 1, max_tokens=5)
        with pytest.raises(KeyboardInterrupt):
            lm.engine.log_probs([lm.text("一丁")] * 12, texts, Options())
        with pytest.raises(KeyboardInterrupt):
            lm.engine.hidden([text + "七" for text in texts])
    monkeypatch.setattr("ppl.models.decode.decode", partial(_fail_at_once, MemoryError))
    with pytest.raises(MemoryError):
        extended(lm, texts, 1, max_tokens=5)
    monkeypatch.undo()
    consistent(lm)
    found, expected = extended(lm, texts, 1, max_tokens=5), extended(small(rows=8), texts, 1, max_tokens=5)
    assert [text.log_prob for text in found] == [text.log_prob for text in expected]
