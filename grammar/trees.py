"""Derivations of a probabilistic grammar, and the distribution over them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ppl.grammar.errors import TooLargeError
from ppl.source import Key

if TYPE_CHECKING:
    from ppl.grammar.pcfg import PCFG

Symbol = str | bytes
"""The name of a nonterminal, or the bytes of a terminal."""

LARGEST = 10_000_000  # symbols of a derivation


class Rule(NamedTuple):
    """head -> body, with its probability among the rules of its head."""

    head: str
    body: tuple[Symbol, ...]
    p: float

    def __repr__(self) -> str:
        body = [repr(one.decode(errors="backslashreplace")) if isinstance(one, bytes) else one for one in self.body]
        return f"{self.head} -> {' '.join(body)} [{self.p:g}]"


class Tree(NamedTuple):
    """A derivation: what a nonterminal has become. `str` of it is its text."""

    head: str
    children: tuple[Any, ...]
    """Trees, and bytes for terminals."""

    def data(self) -> bytes:
        """The bytes of the text."""
        out, todo = bytearray(), [self]
        while todo:
            one: Any = todo.pop()
            if isinstance(one, Tree):
                todo += reversed(one.children)
            else:
                out += one
        return bytes(out)

    def rules(self) -> Iterator[tuple[str, tuple[Symbol, ...]]]:
        """Head and body of the rule at each place, from left to right."""
        todo = [self]
        while todo:
            one = todo.pop()
            yield one.head, tuple(child.head if isinstance(child, Tree) else child for child in one.children)
            todo += reversed([child for child in one.children if isinstance(child, Tree)])

    def __str__(self) -> str:
        return self.data().decode()


class Trees:
    """The distribution over the derivations of a grammar."""

    weighted = False

    def __init__(self, grammar: PCFG) -> None:
        self.grammar = grammar

    @property
    def family(self) -> Hashable:
        return Trees, self.grammar.name

    def sample(self, key: Key) -> Tree:
        """Raises `TooLargeError` beyond `LARGEST` symbols, which only grammars of growth 1 come near."""
        chosen, sizes, todo, uniforms = list[Rule](), 0, [self.grammar.start_symbol], key.stream()
        while todo:
            rules, sums = self.grammar.choices[todo.pop()]
            chosen.append(rule := rules[bisect_right(sums, next(uniforms) * sums[-1])])
            todo += reversed([one for one in rule.body if isinstance(one, str)])
            sizes += 1 + len(rule.body)
            if sizes > LARGEST:
                raise TooLargeError(f"{self.grammar!r} has drawn a derivation of more than {LARGEST:,} symbols; a "
                                    f"nonterminal becomes {self.grammar.growth:.6g} others on average")  # fmt: skip
        return _built(chosen)

    def log_prob(self, value: Any) -> float:
        """Of a derivation, nats."""
        if not isinstance(value, Tree) or value.head != self.grammar.start_symbol:
            return -math.inf
        rules, numbers = self.grammar.rules, self.grammar.numbers
        return sum(math.log(rules[numbers[rule]].p) if rule in numbers else -math.inf for rule in value.rules())

    def table(self) -> list[tuple[Tree, float]]:
        """As `PCFG.table`."""
        return list(self.grammar._finite(self.grammar.start_symbol, Tree, {}, ()).items())

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return f"trees of {self.grammar.about}"

    def encode(self, tree: Tree) -> Any:
        """A draw as JSON: the number of the rule at each place, from left to right."""
        return [self.grammar.numbers[rule] for rule in tree.rules()]

    def decode(self, data: Any) -> Tree:
        """The draw that `encode` wrote."""
        return _built([self.grammar.rules[i] for i in data])

    def __repr__(self) -> str:
        return f"<trees of {self.grammar!r}>"


def _built(rules: Sequence[Rule]) -> Tree:
    """The tree of a derivation from the left, by its rules."""
    done: list[Tree] = []
    for rule in reversed(rules):  # what is built last stands first
        done.append(Tree(rule.head, tuple(done.pop() if isinstance(one, str) else one for one in rule.body)))
    return done[0]
