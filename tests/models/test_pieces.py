"""Blocks in pieces: what they denote, where they end, what algorithms can do between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ppl
from ppl import SMC, collapse, measure, sample
from ppl.models import TableLM
from ppl.models.language_model import LanguageModel
from ppl.models.text import Text

MakeModel = Callable[..., LanguageModel]


def tiny() -> TableLM:
    """Writes a or b, b more often behind a; a dot ends the text."""
    return TableLM("ab.", lambda text: {"a": 0.25, "b": 0.5, ".": 0.25} if text[-1:] == "a" else
                   {"a": 0.5, "b": 0.375, ".": 0.125}, eos=".")  # fmt: skip


@ppl.program
async def whole(lm: TableLM, until: str | None, max_tokens: int) -> str:
    text = await sample("block", lm.extend(lm.text("a"), until=until, max_tokens=max_tokens))
    return str(text)


@ppl.program
async def in_pieces(lm: TableLM, until: str | None, max_tokens: int, every: int, hot: bool = False) -> str:
    block = lm.extend(lm.text("a"), until=until, max_tokens=max_tokens)
    proposal = lm.extend(lm.text("a"), until=until, max_tokens=max_tokens, temperature=2.0) if hot else None
    text = await sample("block", block.resample_every(every), proposal)
    return str(text)


@pytest.mark.parametrize(
    ("until", "max_tokens", "every"), [(None, 3, 1), ("ba", 4, 1), ("ba", 4, 2), ("bab", 5, 2), (None, 3, 9)]
)
@pytest.mark.parametrize("hot", [False, True])
def test_pieces_mean_what_the_block_means(until: str | None, max_tokens: int, every: int, hot: bool) -> None:
    """Also where a stop straddles two of them."""
    expected = measure(whole(tiny(), until, max_tokens))
    found = measure(in_pieces(tiny(), until, max_tokens, every, hot))
    assert found == expected


def test_algorithms_resample_between_pieces() -> None:
    """With two particles, weighed by the model over a hot proposal, exactly."""
    program = in_pieces(tiny(), "ba", 2, 1, True)
    assert measure(collapse(SMC(2, ppl.Multinomial)(program))) == measure(program)
    steps = ppl.infer(in_pieces(tiny(), None, 6, 2, True), SMC(50, ppl.Systematic), seed=0).steps
    assert len(steps) == 3  # two pauses, and the end


def test_the_value_is_one_block(new_model: MakeModel) -> None:
    lm = new_model()
    start = lm.text("ab")

    @ppl.program
    async def write(every: int) -> Text:
        block = lm.extend(start, until="dd", max_tokens=20)
        proposal = lm.extend(start, until="dd", max_tokens=20, temperature=1.5)
        return await sample("step", block.resample_every(every), proposal)

    posterior = ppl.infer(write(3), ppl.Importance(16), seed=0)
    texts = [text for text in posterior.population.values if text is not None]
    log_weights = np.array(posterior.population.log_weights)
    assert len({len(text) for text in texts}) > 2
    fed, first = lm.engine.usage.fed, 0.0
    for text, log_weight in zip(texts, log_weights - log_weights[0], strict=True):
        assert text.parent is start and str(start) + text.last == str(text)
        assert text.log_prob is not None and text.log_model is not None
        whole = lm.extend(start, until="dd", max_tokens=20)
        assert whole.can_write(text) and whole.log_prob(text) == text.log_model
        first = first or text.log_model - text.log_prob
        assert log_weight == pytest.approx(text.log_model - text.log_prob - first, abs=1e-5)
    lm.engine.hidden(texts)
    assert lm.engine.usage.fed == fed  # the rows that the pieces left are those of the block
    hidden = lm.engine.hidden(texts)
    lm.engine.forget()
    np.testing.assert_array_equal(lm.engine.hidden(texts), hidden)


def test_addresses_say_which_piece() -> None:
    trace = ppl.trace(in_pieces(tiny(), None, 4, 2), seed=1)
    assert list(trace) == ["in_pieces/block/piece", "in_pieces/block/piece:1"]


def test_what_cannot_be_written_in_pieces_is_said() -> None:
    lm = tiny()
    block = lm.extend(lm.text("a"), max_tokens=3)
    with pytest.raises(ValueError, match=r"resample_every\(0\): a piece has one token or more"):
        block.resample_every(0)
    with pytest.raises(TypeError, match=r"sample\('x', ...\): a block in pieces cannot be proposed by 3"):
        sample("x", block.resample_every(1), 3)
    with pytest.raises(ValueError, match="must have the same text, until and max_tokens"):
        sample("x", block.resample_every(1), lm.extend(lm.text("a"), max_tokens=4))
