"""Blocks under a grammar denote p(block) * 1[block in L], exactly: against brute force on table models."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ppl import SMC, Importance, Systematic, collapse, factor, measure, program, sample
from ppl.grammar import GrammarError, Regular, choice, regex
from ppl.models import TableLM
from ppl.models.text import Text

VOCABULARIES = [("ab.", "."), (["a", "b", "ab", "."], "."), (["a", "aa", "ba", "b", "é", "."], "."), ("abé", "")]
LANGUAGES = [
    regex("a|ab"), regex("(a|b)*b"), regex("(ab)+"), choice(["a", "ab", "abb", "ba"]), regex("[^b]{1,3}"),
    regex("a*é?b?"), regex("(a|ba)(a|b)?") - "ab", ~regex("a*"),
]  # fmt: skip


def table_lm(alphabet: Any, eos: str, seed: int, zeros: float = 0.0) -> TableLM:
    """Random next-token probabilities, some of them 0."""

    def next_tokens(text: str) -> dict[str, float]:
        rng = random.Random(f"{seed} {text}")
        weights = {token: 0.0 if rng.random() < zeros else rng.random() ** 3 for token in alphabet}
        weights[rng.choice(list(alphabet))] += 0.1
        return {token: weight / sum(weights.values()) for token, weight in weights.items()}

    return TableLM(alphabet, next_tokens, eos)


class Brute:
    """The definition, by listing what a model can write."""

    def __init__(self, lm: TableLM, language: Regular, until: str | None, max_tokens: int, finish: bool) -> None:
        self.lm, self.language, self.until, self.max_tokens, self.finish = lm, language, until, max_tokens, finish
        eos = [lm.alphabet[i] for i in lm.tokenizer.eos]
        self.words, self.eos = [token for token in lm.alphabet if token not in eos], set(eos)

    def goes_on(self, written: str) -> bool:
        """Whether more tokens, one or several, give a text of the language."""
        seen, frontier = set[int](), [self.language.advance(0, written)]
        while frontier:
            state = frontier.pop()
            for word in self.words:
                to = self.language.advance(state, word)
                if self.language.accepts(to):
                    return True
                if to not in seen:
                    seen.add(to)
                    frontier.append(to)
        return False

    def blocks(self, prompt: str) -> dict[tuple[str, ...], float]:
        return dict(self._from(prompt, (), 1.0))

    def _from(self, prompt: str, block: tuple[str, ...], p: float) -> Iterator[tuple[tuple[str, ...], float]]:
        written = "".join(token for token in block if token not in self.eos)
        ended = bool(block) and (block[-1] in self.eos or (self.until is not None and self.until in written))
        complete = bool(block) and written in self.language and not self.finish and not self.goes_on(written)
        if ended or complete or len(block) == self.max_tokens:
            if written in self.language:
                yield block, p
            return
        for token, q in self.lm.next_tokens(prompt + written).items():
            if q > 0:
                yield from self._from(prompt, (*block, token), p * q)


def tokens_of(lm: TableLM, text: Text, prompt: str) -> tuple[str, ...]:
    return tuple(lm.alphabet[token] for token in text.tokens[len(lm.text(prompt)) :])


def cases() -> Iterator[Any]:
    rng = random.Random(0)
    for number in range(60):
        alphabet, eos = rng.choice(VOCABULARIES)
        language = rng.choice(LANGUAGES)
        until = rng.choice([None, None, "b", "ba"])
        yield pytest.param(
            alphabet, eos, language, until, rng.randint(1, 4), rng.random() < 0.3, number, id=str(number)
        )


def block(lm: TableLM, prompt: str, pieces: int | None = None, **how: Any) -> Any:
    @program
    async def write() -> tuple[str, ...]:
        dist = lm.extend(lm.text(prompt), **how)
        text = await sample("block", dist if pieces is None else dist.resample_every(pieces))
        return tokens_of(lm, text, prompt)

    return write()


def built(make: Callable[[], Any]) -> Any:
    """None where the grammar is refused."""
    try:
        return make()
    except GrammarError:
        return None


@pytest.mark.parametrize(("alphabet", "eos", "language", "until", "most", "finish", "seed"), list(cases()))
def test_the_measure_is_the_restriction(
    alphabet: Any, eos: str, language: Regular, until: str | None, most: int, finish: bool, seed: int
) -> None:
    lm = table_lm(alphabet, eos, seed, zeros=0.3)
    how: dict[str, Any] = {"grammar": language, "until": until, "max_tokens": most, "finish": finish}
    right = Brute(lm, language, until, most, finish).blocks("a")
    program = built(lambda: block(lm, "a", **how))
    if program is None or built(lambda: lm.extend(lm.text("a"), **how)) is None:
        assert not right  # nothing can be written, whatever the model
        return
    for pieces in (None, 1, 2):
        found = measure(block(lm, "a", pieces, **how))
        assert dict(found) == pytest.approx(right, abs=1e-12)
    for algorithm in (Importance(2), SMC(2, Systematic)):
        if most <= 2:
            assert dict(measure(collapse(algorithm(block(lm, "a", 1, **how))))) == pytest.approx(right, abs=1e-12)
    dist: Any = lm.extend(lm.text("a"), **how)
    for text, p in dist.target.table():
        assert dist.log_prob(text) == pytest.approx(math.log(p)) and dist.can_write(text)


@pytest.mark.parametrize("seed", range(10))
def test_local_is_normalised_and_another_distribution(seed: int) -> None:
    lm = table_lm("ab.", ".", seed)
    language, how = regex("a*b|b"), dict[str, Any](max_tokens=4)
    local = measure(block(lm, "a", grammar=language, mode="local", **how))
    exact = measure(block(lm, "a", grammar=language, **how))
    assert local.evidence == pytest.approx(1) and exact.evidence < 1
    gap = max(abs(local[v] - exact[v] / exact.evidence) for v in exact)
    assert gap > 1e-3
    dist: Any = lm.extend(lm.text("a"), grammar=language, mode="local", **how)
    assert all(dist.log_prob(text) == pytest.approx(math.log(p)) for text, p in dist.table())


def test_proposals_have_the_same_meaning() -> None:
    lm = table_lm("ab.", ".", 3)
    start, language = lm.text("b"), regex("a*b")

    @program
    async def write(proposal: dict[str, Any] | None) -> str:
        q = None if proposal is None else lm.extend(start, max_tokens=3, **proposal)
        text = await sample("block", lm.extend(start, max_tokens=3, grammar=language), proposal=q)
        await factor("liked", float(len(text)))
        return str(text)

    plain = measure(write(None))
    for proposal in ({"temperature": 0.5}, {"mode": "local"}, {"mode": "local", "temperature": 2.0}):
        found = measure(write({"grammar": language, **proposal}))
        assert dict(found) == pytest.approx(dict(plain), abs=1e-12)
    for wrong in ({}, {"grammar": regex("a+b")}, {"grammar": language, "finish": True}):
        with pytest.raises(ValueError, match="its blocks end elsewhere"):
            measure(write(wrong))
