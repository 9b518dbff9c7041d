"""What a model computes is a function of the text, to the last bit: whatever is cached, and in every engine.

All comparisons are exact. A killed run that goes on has lost the rows of every text it had written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ppl import SMC, factor, infer_many, program, sample
from ppl.models import decode, sloppy
from ppl.models.engine import Engine
from ppl.models.language_model import Extension, LanguageModel, StepReward
from ppl.models.text import Text
from ppl.source import Key

MakeModel = Callable[..., LanguageModel]
Seen = list[tuple[bytes, float | None, float]]

PROMPTS = [">37+5*7-4:", ">10*9*9+2:", ">55-2+3*8*7+2:", ">96+2:"]
BLOCKS: list[tuple[dict[str, Any], str]] = [  # options, and what is given behind the block
    ({"until": "\n", "max_tokens": 3}, ""),
    ({"max_tokens": 20, "temperature": 0.7}, "12\n"),  # as long a block, if it is fed, has other last bits on XLA:CPU
    ({"until": "\n", "max_tokens": 1, "temperature": 2}, ">"),
    ({"until": "3\n", "max_tokens": 7, "temperature": 1.5}, ""),
    ({"until": "0123456789", "max_tokens": 5, "temperature": 3.0}, ":"),  # a stop table of another size
    ({"until": "\n", "max_tokens": 9, "temperature": 0.1}, ""),  # meets the end of the context
]


def fresh(lm: LanguageModel) -> LanguageModel:
    """The same model in an engine that has seen nothing."""
    return LanguageModel(Engine(lm.engine.params, lm.engine.config), lm.tokenizer, lm.name)


def draw(dists: Sequence[Extension], name: str) -> list[Text]:
    root = Key.of(5).fold(name)
    return Extension.begin_many([root.fold(str(i)) for i in range(len(dists))], dists)()


def see(lm: LanguageModel, texts: Sequence[Text]) -> Seen:
    """All that a draw gives."""
    scores = lm.engine.log_right([(text,) for text in texts])
    return [(text.data, text.log_prob, score) for text, score in zip(texts, scores, strict=True)]


def write(lm: LanguageModel, between: Callable[[], None], copies: int = 50) -> Iterator[Seen]:
    """Blocks, one behind another, behind several copies of each prompt, with the scores of each."""
    texts = [lm.text(prompt) for prompt in PROMPTS] * copies
    for number, (options, given) in enumerate(BLOCKS):
        between()
        texts = [text for text in texts if not text.full]
        texts = draw([lm.extend(text, **options) for text in texts], str(number))
        between()
        yield see(lm, texts)
        if given:
            texts = [text + given for text in texts if len(text) + len(given) < lm.engine.capacity]
            between()
            yield see(lm, texts)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return sloppy.load_model()


def test_a_forgotten_cache_changes_no_bit(model: LanguageModel) -> None:
    cached, forgetful = fresh(model), fresh(model)
    runs = list(write(cached, lambda: None)), list(write(forgetful, forgetful.engine.forget))
    assert runs[0] == runs[1]
    assert forgetful.engine.usage.tokens == cached.engine.usage.tokens
    assert forgetful.engine.usage.fed > 10 * cached.engine.usage.fed
    assert any(len(data) == cached.engine.full for data, _, _ in runs[0][-1])


def test_partly_forgotten_caches_change_no_bit(model: LanguageModel) -> None:
    expected = list(write(fresh(model), lambda: None, copies=40))
    for seed in range(3):
        lm, rng = fresh(model), np.random.default_rng(seed)
        assert list(write(lm, lambda lm=lm, rng=rng: lm.engine.forget(int(rng.integers(5))), copies=40)) == expected


def test_feeding_what_was_sampled_would_show(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above is sharp: rows that agree to rounding only are told apart."""
    lm, exact = fresh(model), list(write(fresh(model), lambda: None))
    monkeypatch.setattr(Text, "sampled", False)
    rounded = list(write(lm, lm.engine.forget))
    assert exact != rounded
    np.testing.assert_allclose([x[2] for x in rounded[0]], [x[2] for x in exact[0]], atol=1e-3)


@program
async def judged(lm: LanguageModel, reward: StepReward, problem: str) -> Text:
    text = lm.text(f">{problem}:")
    for i in range(3):
        text = await sample("step", lm.extend(text, until="\n", max_tokens=3 + i))
        await factor("right", await reward(text + "" if i else text + "1"))
    return text


def test_a_filter_that_forgets_between_calls_gives_the_same_posterior(model: LanguageModel) -> None:
    posteriors: list[Any] = []
    for forget in (False, True):
        lm = fresh(model)
        if forget:
            for name in ("decode", "log_right"):
                setattr(lm.engine, name, forgetting(lm.engine, getattr(lm.engine, name)))
        reward = StepReward(lm)
        some = infer_many([judged(lm, reward, p) for p in ("37+5*7-4", "10*9*9")], SMC(40), range(2))
        assert any(step.resampled for p in some for step in p.steps)
        posteriors.append([(p.log_evidence, [(v.data, v.log_prob, w) for v, w in p.items()]) for p in some])
    assert posteriors[0] == posteriors[1]


def forgetting(engine: Engine, call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any) -> Any:
        engine.forget()
        return call(*args)

    return wrapped


def test_another_engine_goes_on_from_texts_that_were_written_down(model: LanguageModel) -> None:
    old, new = fresh(model), fresh(model)
    texts = [old.text(prompt) for prompt in PROMPTS] * 40
    restored = [new.text(prompt) for prompt in PROMPTS] * 40
    for name in "ab":
        dists = [old.extend(text, until="\n", max_tokens=3) for text in texts]
        texts = draw(dists, name)
        lines = [json.dumps(dist.encode(text)) for dist, text in zip(dists, texts, strict=True)]
        restored = [
            new.extend(text, until="\n", max_tokens=3).decode(json.loads(line))
            for text, line in zip(restored, lines, strict=True)
        ]
        texts, restored = [text + "4" for text in texts], [text + "4" for text in restored]
    assert not new.engine.usage.calls
    assert see(new, restored) == see(old, texts)
    following = [
        draw([lm.extend(text, max_tokens=8, temperature=1.7) for text in some], "c")
        for lm, some in ((old, texts), (fresh(model), restored))
    ]
    assert see(old, following[0]) == see(new, following[1])


def chains(lm: LanguageModel) -> list[Text]:
    """Equal tokens in different links; the longest are fed in a shape of other last bits than short ones."""
    whole = ">37+5*7-4+2*3:42\n03\n96"
    half = lm.text(whole[:4])
    block = [np.frombuffer(lm.tokenizer.encode(whole[4:end]), "<i4").tolist() for end in (7, None)]
    return [
        lm.text(whole),
        half + whole[4:],
        lm.text(whole[:2]) + whole[2:],
        lm.extend(half, max_tokens=20).decode([block[1], -1.0, False, None]),
        lm.extend(half, max_tokens=3).decode([block[0], -1.0, False, None]) + whole[7:],
    ]


def test_equal_tokens_of_other_links_do_not_share_a_row(model: LanguageModel) -> None:
    """Else the last bits of one program would depend on what another in the batch had done before."""

    def outcome(lm: LanguageModel, texts: Sequence[Text]) -> list[Any]:
        dists = [lm.extend(text, max_tokens=4) for text in texts]
        drawn = Extension.begin_many([Key.of(0)] * len(texts), dists)()
        return list(zip(see(lm, texts), see(lm, drawn), strict=True))

    count = len(chains(model))
    alone = [outcome(lm := fresh(model), [chains(lm)[i]])[0] for i in range(count)]
    for order in (range(count), reversed(range(count))):
        lm = fresh(model)
        texts = chains(lm)
        for i in order:  # one after another, all in one cache
            lm.engine.last([texts[i]])
        assert outcome(lm, texts) == alone
        assert len({(id(row.slab), row.index, row.length) for row in lm.engine.last(texts)}) == count


def test_a_link_without_tokens_is_none(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    plain, odd = lm.text("ab") + "cd", (Text.of(lm.tokenizer, "") + "ab") + "" + "cd" + ""
    assert odd.key == plain.key and odd.parent is not None
    assert see(lm, [odd]) == see(new_model("abcd"), [plain])
    assert (lm.engine.usage.fed, lm.engine.usage.calls) == (4, 2)


def test_a_link_is_read_alone_whatever_is_cached(new_model: MakeModel) -> None:
    lm = new_model("abcd")
    text = lm.text("abc") + "da" + "bcdab"
    assert lm.engine.last([text])[0].score == new_model("abcd").engine.last([text])[0].score
    assert (lm.engine.usage.fed, lm.engine.usage.calls) == (10, 3)
    lm.engine.last([lm.text("abc"), lm.text("abc") + "da"])
    assert lm.engine.usage.calls == 3


def test_all_blocks_share_one_compiled_program(new_model: MakeModel) -> None:
    lm = new_model("abcd", context=23)
    lm.extend(lm.text("ab"), max_tokens=2).sample(Key.of(0))
    size: Callable[[], int] = getattr(decode.decode, "_cache_size")  # noqa: B009 (jax does not declare it)
    before = size()
    some: list[dict[str, Any]] = [{"max_tokens": 9}, {"until": "d"}, {"until": "abcdabc"}, {"temperature": 2}]
    for options in some:
        text = lm.extend(lm.text("ab"), **options).sample(Key.of(1))
        lm.engine.forget()
        lm.engine.last([text])
    assert size() == before
