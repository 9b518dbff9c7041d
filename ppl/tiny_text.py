"""Statements of small finite programs that need a language model or an algorithm: texts, and inference inside.

>>> from ppl.measure import measure
>>> from ppl.tiny import Tiny
>>> measure(Tiny((Spell(((1, 3),), ((0, 0, 0),), (1,)),)).program())  # "a" is 3, "." is 4
Measure({(3,): 0.25, (4,): 0.75})
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import lru_cache

from ppl.inference.importance import Importance
from ppl.inference.population import collapse
from ppl.language import condition, sample, twist
from ppl.models.table_lm import TableLM
from ppl.program import Program
from ppl.tiny import Body, Node, Row, log, of_body, pick

TOKENS = "a.b"  # columns of a row: one of two weights never writes b
_PLAIN = TableLM(TOKENS, lambda text: {".": 1.0}, eos=".")  # its tokenizer takes longer to make than a program to run


@dataclass(frozen=True)
class Spell(Node):
    """A `TableLM` writes a text behind "a" or "b", checked by a finite automaton; appends the text as a number.

    `rows` holds the weights of the next token, the row chosen by the last one; `.` ends the text. `moves` are the
    automaton: `moves[state][token]` is its next state, from 0 on; where there is no such state the token is not
    allowed. `blocks` are the most tokens of each block. With `twisted` the automaton guides by twists after each block
    and decides at the end only; without it decides after each block.
    """

    rows: tuple[Row, ...]
    moves: tuple[Row, ...]
    blocks: tuple[int, ...]
    twisted: bool = False

    async def perform(self, seen: list[int]) -> bool:
        text = start = _model(self.rows).text(pick("ab", seen))
        for tokens in self.blocks:
            text = await sample("block", _model(self.rows).extend(text, max_tokens=tokens))
            allowed = self._allows(str(text)[len(start) :])
            if self.twisted:
                await twist("grammar", log(2 if allowed else 0.5))
            else:
                await condition("grammar", allowed)
            if text.finished:
                break
        if self.twisted:
            await condition("grammar", self._allows(str(text)[len(start) :]))
        code = 1
        for token in str(text)[len(start) :]:
            code = len(TOKENS) * code + TOKENS.index(token)
        seen.append(code)
        return False

    def _allows(self, written: str) -> bool:
        state = 0
        for token in written:
            state = self.moves[state][TOKENS.index(token)]
            if state >= len(self.moves):
                return False
        return True


@dataclass(frozen=True)
class Inner(Node):
    """As `Sub`, but inferred: one of so many particles of the body, by weight, and their evidence."""

    particles: int
    body: Body

    async def perform(self, seen: list[int]) -> bool:
        seen += await collapse(Importance(self.particles)(Program("inner", of_body, (self.body, tuple(seen)), {})))
        return False


@lru_cache(1024)
def _model(rows: tuple[Row, ...]) -> TableLM:
    def next_tokens(text: str) -> dict[str, float]:
        row = rows["ab".index(text[-1]) % len(rows)]
        return {token: weight / sum(row) for token, weight in zip(TOKENS, row, strict=False)}

    lm = copy(_PLAIN)
    lm.next_tokens = next_tokens
    return lm
