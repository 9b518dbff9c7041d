"""Probabilistic context-free grammars: priors over texts and over trees, and weights for what a model writes.

>>> sums = pcfg('''
...     sum  -> term [0.6] | sum "+" term [0.4]
...     term -> "x" [0.5] | "y" [0.5]
... ''')
>>> round(sums.prob("x+y"), 3), round(sums.prefix_prob("x+"), 3)
(0.06, 0.2)
"""

from __future__ import annotations

import ast
import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from ppl.distributions import NotFinite
from ppl.grammar.chart import State, advanced, started
from ppl.grammar.errors import GrammarError
from ppl.grammar.inside import Tables, log_inside
from ppl.grammar.language import Meeting
from ppl.grammar.normal_form import NormalForm
from ppl.grammar.trees import Rule, Symbol, Trees
from ppl.source import Key

T = TypeVar("T")
CRITICAL = 1e-9  # how far above 1 a growth may be, for rounding


def pcfg(text: str) -> PCFG:
    """A grammar in the notation of NLTK: `head -> "terminal" other [0.3] | ...`, whose first head is the start.

    A rule may go on in the next line. Terminals are Python strings, of any length; what a text is made of is put one
    behind the other, without spaces. `head -> [0.1]` derives the empty text. `#` begins a comment.

    Raises:
        GrammarError: what cannot be read, with its line; and as `PCFG`.
    """
    rules, head = list[Rule](), ""
    rest, line = text, 1
    while rest.strip():
        match = _PART.match(rest)
        if match is None or not (match["head"] or head):
            before = rest.lstrip()
            line += rest[: len(rest) - len(before)].count("\n")
            raise GrammarError(f"line {line}: {before.splitlines()[0]!r} is not of the form head -> "
                               '"terminal" other [0.5] | ...')  # fmt: skip
        head = match["head"] or head
        body = [ast.literal_eval(one).encode() if one[0] in "\"'" else one for one in _SYMBOL.findall(match["body"])]
        rules.append(Rule(head, tuple(body), float(match["p"])))
        line += match[0].count("\n")
        rest = rest[match.end() :]
    return PCFG(rules)


_STRING = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
_GAP = r"(?:\s|\#[^\n]*(?:\n|$))*"
_NAME = r"[A-Za-z_][\w'-]*"
_SYMBOL = re.compile(rf"{_STRING}|{_NAME}")
_PART = re.compile(
    rf"""{_GAP}(?:(?P<head>{_NAME}){_GAP}->|\|)(?P<body>(?:{_GAP}(?:{_STRING}|{_NAME}))*){_GAP}
    \[{_GAP}(?P<p>[-+.\deE]+){_GAP}\]{_GAP}""", re.VERBOSE
)  # fmt: skip


class PCFG(Meeting):
    """A distribution over texts: all derivations of a text together. `trees` is the one over derivations.

    It is a distribution like any other, `sample("expression", grammar)`; and as a grammar, `lm.extend(text, grammar=g)`
    denotes p(block) times its probability under g. `g ** beta` tempers that, `g & other` restricts it.

    Raises:
        GrammarError: rules whose probabilities do not sum to 1 (the nonterminal is named), a nonterminal without rules
            or without end, or a grammar that is not consistent: some derivations go on for ever.
    """

    weighted = False

    def __init__(self, rules: Sequence[Rule]) -> None:
        if not rules:
            raise GrammarError("a grammar needs a rule: head -> body [p]")
        self.rules = _checked(rules)
        self.start_symbol = rules[0].head
        self.by_head: dict[str, list[Rule]] = defaultdict(list)
        for rule in self.rules:
            self.by_head[rule.head].append(rule)
        self.name = blake2b(repr(self.rules).encode(), digest_size=6).hexdigest()
        self.growth = float(np.abs(np.linalg.eigvals(self._means)).max())
        """The spectral radius of how many of each nonterminal one becomes on average."""
        if self.growth > 1 + CRITICAL:
            raise GrammarError(
                f"{self!r} is not consistent: a nonterminal is replaced by {self.growth:.3g} others on average (the "
                "spectral radius; 1 is the limit), so that some derivations go on for ever: make the rules that end "
                "more probable"
            )

    @cached_property
    def choices(self) -> dict[str, tuple[list[Rule], list[float]]]:
        """The rules of each head, and the sums of their probabilities."""
        return {head: (rules, list(accumulate(rule.p for rule in rules))) for head, rules in self.by_head.items()}

    @cached_property
    def numbers(self) -> dict[tuple[str, tuple[Symbol, ...]], int]:
        """Of each rule, by head and body."""
        return {(rule.head, rule.body): i for i, rule in enumerate(self.rules)}

    @cached_property
    def _means(self) -> np.ndarray:
        """How many of each nonterminal one becomes on average, in the order of `by_head`."""
        index = {head: i for i, head in enumerate(self.by_head)}
        means = np.zeros((len(index), len(index)))
        for rule in self.rules:
            for one in rule.body:
                if isinstance(one, str):
                    means[index[rule.head], index[one]] += rule.p
        return means

    @cached_property
    def expected_bytes(self) -> float:
        """Of a text; infinite where the growth is 1."""
        if self.growth >= 1 - CRITICAL:
            return math.inf
        own = [sum(rule.p * sum(len(one) for one in rule.body if isinstance(one, bytes)) for rule in rules)
               for rules in self.by_head.values()]  # fmt: skip
        return float(np.linalg.solve(np.eye(len(own)) - self._means, own)[list(self.by_head).index(self.start_symbol)])

    @cached_property
    def normal_form(self) -> NormalForm:
        """The same distribution by rules with two nonterminals or one terminal: what charts are made by."""
        return NormalForm.of([(rule.head, rule.body, rule.p) for rule in self.rules], self.start_symbol)

    # A distribution over texts.

    @property
    def family(self) -> Hashable:
        return PCFG, self.name

    def sample(self, key: Key) -> str:
        return self.trees.sample(key).data().decode()

    def log_prob(self, value: Any) -> float:
        """Of a text, nats: the sum over its derivations."""
        return self.log_weight(self.advance(self.start(), value)) if isinstance(value, str) else -math.inf

    def prob(self, text: str) -> float:
        """Of a text."""
        return math.exp(self.log_prob(text))

    def log_prefix_prob(self, text: str | bytes) -> float:
        """Of all texts together that begin with this one, nats (Jelinek and Lafferty 1991, Stolcke 1995)."""
        return self.log_value(self.advance(self.start(), text))

    def prefix_prob(self, text: str | bytes) -> float:
        """Of all texts together that begin with this one."""
        return math.exp(self.log_prefix_prob(text))

    def log_probs(self, texts: Sequence[str]) -> np.ndarray:
        """Of many texts, on the device, float32: the inside algorithm (Baker 1979), texts of like size at once."""
        return log_inside(self.normal_form, self._tables, [text.encode() for text in texts])

    @cached_property
    def _tables(self) -> Tables:
        return Tables.of(self.normal_form)

    def table(self) -> list[tuple[str, float]]:
        """Every text with its probability.

        Raises:
            NotFinite: a nonterminal derives itself.
        """
        texts = self._finite(self.start_symbol, lambda head, parts: b"".join(parts), {}, ())
        return [(text.decode(), p) for text, p in texts.items()]

    @property
    def trees(self) -> Trees:
        """The distribution over derivations."""
        return Trees(self)

    def _finite(
        self, head: str, make: Callable[[str, tuple[Any, ...]], T], known: dict[str, dict[T, float]],
        above: tuple[str, ...],
    ) -> dict[T, float]:  # fmt: skip
        if head in above:
            raise NotFinite(f"{self!r} has no finite table: {' -> '.join([*above[above.index(head) :], head])}")
        if head not in known:
            out: dict[T, float] = defaultdict(float)
            for rule in self.by_head[head]:
                ways: list[tuple[tuple[Any, ...], float]] = [((), rule.p)]
                for one in rule.body:
                    options: Mapping[Any, float] = (
                        {one: 1.0} if isinstance(one, bytes) else self._finite(one, make, known, (*above, head))
                    )
                    ways = [((*parts, value), p * q) for parts, p in ways for value, q in options.items()]
                for parts, p in ways:
                    out[make(head, parts)] += p
            known[head] = dict(out)
        return known[head]

    # A weighted language: see `ppl.grammar.language`.

    @property
    def about(self) -> str:
        return f"pcfg {self.name}"

    def start(self) -> State:
        return self._start

    @cached_property
    def _start(self) -> State:
        return started(self.normal_form)

    def advance(self, state: State, data: bytes | str) -> State:
        return advanced(self.normal_form, state, data.encode() if isinstance(data, str) else data)

    def accepts(self, state: State) -> bool:
        return state.log_weight > -math.inf

    def is_dead(self, state: State) -> bool:
        return state.log_value == -math.inf

    def complete(self, state: State) -> bool:
        return self.accepts(state) and state.ends

    def needs(self, state: State) -> float:
        return 0 if self.accepts(state) else state.needs()

    def log_weight(self, state: State) -> float:
        """log P of the text that ends here, nats."""
        return state.log_weight

    def log_value(self, state: State) -> float:
        """log P that a text begins like this, nats."""
        return state.log_value

    def __contains__(self, text: str) -> bool:
        return self.log_prob(text) > -math.inf

    def sketch(self) -> str:
        """What identifies the distribution to a journal."""
        return self.about

    def __repr__(self) -> str:
        return f"<PCFG of {len(self.rules)} rules from {self.start_symbol}>"


def _checked(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that can be used, each once.

    Raises:
        GrammarError: as for `PCFG`.
    """
    merged: dict[tuple[str, tuple[Symbol, ...]], float] = defaultdict(float)
    for rule in rules:
        if not 0 <= rule.p <= 1:
            raise GrammarError(f"{rule!r}: a probability is from 0 to 1")
        for one in rule.body:
            if isinstance(one, bytes) and one.decode(errors="ignore").encode() != one:
                raise GrammarError(f"{rule!r}: the terminal {one!r} is not whole characters in UTF-8")
        merged[rule.head, tuple(one for one in rule.body if one != b"")] += rule.p
    sums: dict[str, list[float]] = defaultdict(list)
    for (head, _), p in merged.items():
        sums[head].append(p)
    for head, some in sums.items():
        if abs(math.fsum(some) - 1) > 1e-6:
            raise GrammarError(f"the rules of {head} have probabilities that sum to {math.fsum(some):.6g}, not to 1")
    known = [Rule(head, body, p / math.fsum(sums[head])) for (head, body), p in merged.items() if p > 0]
    for rule in known:
        for one in rule.body:
            if isinstance(one, str) and one not in sums:
                raise GrammarError(f"{rule!r}: {one} has no rules; a terminal is quoted, and bytes in a `Rule`")
    ends = set[str]()
    while (
        more := {rule.head for rule in known if all(isinstance(one, bytes) or one in ends for one in rule.body)} - ends
    ):
        ends |= more
    reached, todo = {rules[0].head}, [rules[0].head]
    while todo:
        head = todo.pop()
        if head not in ends:
            raise GrammarError(f"{head} derives no text: each of its rules goes on with itself or such another")
        fresh = {one for rule in known if rule.head == head for one in rule.body if isinstance(one, str)} - reached
        reached |= fresh
        todo += sorted(fresh)
    return tuple(rule for rule in known if rule.head in reached)
