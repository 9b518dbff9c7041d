"""Context-free languages from the text of a `lark` grammar: the texts that lark's LALR parser accepts, byte by byte.

>>> from ppl.grammar import cfg
>>> nested = cfg('''
...     start: "(" start ")" | "x"
... ''')
>>> "((x))" in nested, "((x)" in nested, nested.is_dead(nested.advance(nested.start(), "(x("))
(True, False, True)

A text is read by lexemes, as lark does: which terminals the lexer looks for depends on the state of the parser (its
contextual lexer), the first one that matches is taken, and where it ends is up to `re`. So `if` is a keyword wherever
the parser could go on with one. A state is what has been read of a lexeme, and the parser's stack before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ppl.grammar import language
from ppl.grammar.errors import EmptyLanguageError, GrammarError
from ppl.grammar.language import Meeting
from ppl.grammar.lexer import SKIP, Lexer, terminal
from ppl.grammar.regular import MAX_STATES

END = "$END"


class Stack:
    """The states of an LALR parser, the last and what is below it; equal ones are one object while they are kept."""

    __slots__ = ("above", "below", "fed", "needs", "state")

    def __init__(self, state: int, below: Stack | None) -> None:
        self.state = state
        self.below = below
        self.above: dict[int, Stack] = {}
        self.fed: dict[str, Stack | None] = {}
        """Behind each terminal."""
        self.needs: float | None = None

    def push(self, state: int) -> Stack:
        if state not in self.above:
            self.above[state] = Stack(state, self)
        return self.above[state]


class State:
    """Where a text stands: the stack before a lexeme, the lexer in it, and the last match with what is read behind it.

    Equal ones are one object, as long as they are kept.
    """

    __slots__ = ("accepted", "at", "following", "matched", "needs", "over", "stack", "tail")

    def __init__(self, stack: Stack, at: int, matched: str | None, tail: bytes) -> None:
        self.stack = stack
        self.at = at
        self.matched = matched
        self.tail = tail
        self.following: dict[int, State | None] = {}
        """Behind each byte; None where nothing can be read."""
        self.accepted: bool | None = None
        self.needs: float | None = None
        self.over: bool | None = None


class CFG(Meeting):
    """The language of a grammar: see `cfg`.

    `text in g` asks; `start`, `advance`, `accepts`, `is_dead` and `mask` read byte by byte, and None is the dead state.
    `g & other` is what is in another language too.
    A text may be thought to go on where only its lexemes say so: where terminals follow each other in the grammar, but
    no text is read as them one behind the other.
    """

    def __init__(self, text: str, start: str, max_states: int) -> None:
        self.about = " ".join(text.split())
        self.lark = _lark(text, start)
        table: Any = self.lark.parser.parser._parse_table
        number = {state: i for i, state in enumerate(table.states)}
        self._actions = [_row(row, number) for row in table.states.values()]
        self._final = number[table.end_states[start]]
        self._lexers = self._automata(number, max_states)
        self._items = [_kernel(state) for state in table.states]
        self._shortest = self._lengths()
        self._bottom = Stack(number[table.start_states[start]], None)
        self._states: dict[tuple[Stack, int, str | None, bytes], State] = {}
        self._start = self._fresh(self._bottom)
        if self.needs(self._start) == float("inf"):
            raise EmptyLanguageError(f"{self!r} has no text")

    def start(self) -> State | None:
        """The state before the first byte."""
        return self._start

    def advance(self, state: State | None, text: str | bytes) -> State | None:
        """The state behind some more of a text."""
        for byte in text.encode() if isinstance(text, str) else text:
            if state is None:
                return None
            if byte not in state.following:
                state.following[byte] = self._read(state, byte)
            state = state.following[byte]
        return state

    def accepts(self, state: State | None) -> bool:
        """Whether a text may end in this state."""
        if state is None:
            return False
        if state.accepted is None:
            state.accepted = self._ends(state)
        return state.accepted

    def is_dead(self, state: State | None) -> bool:
        """Whether no text goes on from this state."""
        return state is None

    def complete(self, state: State | None) -> bool:
        """Whether a text may end here, and no longer one begins with it."""
        if state is None or not self.accepts(state):
            return False
        if state.over is None:
            state.over = all(self.advance(state, bytes([byte])) is None for byte in range(256))
        return state.over

    def needs(self, state: State | None) -> float:
        """How many bytes it takes at least from here to the end of a text; infinitely many behind the dead state."""
        if state is None:
            return float("inf")
        if state.needs is None:
            state.needs = self._bytes(state)
        return state.needs

    def mask(self, state: State | None) -> list[bool]:
        """Which bytes can follow, 256 of them."""
        return [self.advance(state, bytes([byte])) is not None for byte in range(256)]

    def __contains__(self, text: str | bytes) -> bool:
        return self.accepts(self.advance(self._start, text))

    def __repr__(self) -> str:
        return f"<language {self.about if len(self.about) <= 80 else self.about[:77] + '...'}>"

    # ---- how a text is read ----

    def _fresh(self, stack: Stack) -> State:
        return self._state(stack, 0, None, b"")

    def _state(self, stack: Stack, at: int, matched: str | None, tail: bytes) -> State:
        key = stack, at, matched, tail
        if len(self._states) >= language.KEPT:  # who stands somewhere goes on from there, but meets nobody any more
            self._states.clear()
            for known in (self._start.following, self._bottom.above, self._bottom.fed):
                known.clear()
        if key not in self._states:
            self._states[key] = State(*key)
        return self._states[key]

    def _read(self, state: State, byte: int) -> State | None:
        """What one more byte leads to: on in the lexeme, or into the next one behind its last match."""
        lexer = self._lexers[state.stack.state]
        at = lexer.next[state.at][byte]
        if at == lexer.dead:
            if state.matched is None or (stack := self._feed(state.stack, state.matched)) is None:
                return None
            return self.advance(self._fresh(stack), state.tail + bytes([byte]))
        if lexer.match[at] is not None:
            out = self._state(state.stack, at, lexer.match[at], b"")
        else:
            out = self._state(state.stack, at, state.matched, state.tail + bytes([byte]) if state.matched else b"")
        return out if self.needs(out) < float("inf") else None

    def _behind(self, state: State) -> State | None:
        """The state where the last match is the whole lexeme."""
        if state.matched is None or (stack := self._feed(state.stack, state.matched)) is None:
            return None
        return self.advance(self._fresh(stack), state.tail)

    def _ends(self, state: State) -> bool:
        if state.at == 0:
            return self._feed(state.stack, END) is not None
        behind = self._behind(state)
        return behind is not None and self.accepts(behind)

    def _feed(self, stack: Stack, name: str) -> Stack | None:
        """The stack behind a terminal; None where the parser does not take it."""
        if name not in stack.fed:
            stack.fed[name] = stack if name == SKIP else self._shifted(stack, name)
        return stack.fed[name]

    def _shifted(self, stack: Stack, name: str) -> Stack | None:
        at = stack
        while True:
            if name == END and at.state == self._final:
                return at
            action = self._actions[at.state].get(name)
            if action is None:
                return None
            if isinstance(action, int):
                return at.push(action)
            origin, size = action
            for _ in range(size):
                at = at.below
                assert at is not None
            at = at.push(self._actions[at.state][origin])

    def _automata(self, number: dict[Any, int], most: int) -> list[Lexer]:
        """Of each state of the parser, what it reads."""
        known: dict[Any, Lexer] = {}
        out: list[Any] = [None] * len(number)
        lexers = self.lark.parser.lexer.lexers
        ignored = frozenset(self.lark.ignore_tokens)
        for state, lexer in lexers.items():
            patterns = tuple(map(terminal, lexer.scanner.terminals))
            words = {name: tuple(map(terminal, unless.scanner.terminals)) for name, unless in lexer.callback.items()}
            key = patterns, tuple(words.items())
            if key not in known:
                known[key] = Lexer(patterns, words, ignored, most)
            out[number[state]] = known[key]
        return out

    # ---- how much is still to be read ----

    def _lengths(self) -> dict[str, float]:
        """The fewest bytes of each symbol."""
        out: dict[str, float] = {}
        for lexer in self._lexers:
            for name, least in lexer.ahead[0].items():
                out[name] = min(least, out.get(name, float("inf")))
        rules = [(rule.origin.name, [symbol.name for symbol in rule.expansion]) for rule in self.lark.rules]
        changed = True
        while changed:
            changed = False
            for origin, symbols in rules:
                total = sum(out.get(one, float("inf")) for one in symbols)
                if total < out.get(origin, float("inf")):
                    out[origin], changed = total, True
        return out

    def _bytes(self, state: State) -> float:
        """The lexeme becomes one that the parser takes; or it is what it is already, and something is behind it."""
        ahead = self._lexers[state.stack.state].ahead[state.at]
        ways = [0.0] if self.accepts(state) else []
        ways += [least + self._left(to) for name, least in ahead.items() if (to := self._feed(state.stack, name))]
        if (behind := self._behind(state)) is not None:
            ways.append(self.needs(behind))
        return min(ways, default=float("inf"))

    def _left(self, stack: Stack) -> float:
        """The fewest bytes that finish what a stack has begun.

        A rule of which a part is on the stack is finished by the rest of it; then the stack is that of its origin.
        Those of which one symbol is there lead to other states on the same stack below: all of these are solved
        together.
        """
        if stack.needs is None:
            if stack.below is None:
                stack.needs = self._rest(self._items[stack.state][0])
                return stack.needs
            level, sideways = [stack], dict[Stack, list[tuple[float, Stack]]]()
            for one in level:
                one.needs, sideways[one] = 0.0 if one.state == self._final else float("inf"), []
                for item in self._items[one.state] if one.needs else ():
                    origin, _, size = item
                    under: Any = one
                    for _ in range(size):
                        under = under.below
                    to = under.push(self._actions[under.state][origin])
                    if size == 1:
                        sideways[one].append((self._rest(item), to))
                        if to not in level and to.needs is None:
                            level.append(to)
                    else:
                        one.needs = min(one.needs, self._rest(item) + self._left(to))
            for _ in level:
                for one, moves in sideways.items():
                    one.needs = min([one.needs or 0.0, *(least + (to.needs or 0.0) for least, to in moves)])
        return stack.needs  # pyright: ignore[reportReturnType]

    def _rest(self, item: tuple[str, tuple[str, ...], int]) -> float:
        return sum(self._shortest.get(symbol, float("inf")) for symbol in item[1][item[2] :])


def cfg(text: str, *, start: str = "start", max_states: int = MAX_STATES) -> CFG:
    """The texts that `lark.Lark(text, parser="lalr", lexer="contextual", strict=True)` accepts.

    Terminals are taken as lark takes them: see the head of this module. `max_states` limits the automata that read
    them.

    Raises:
        GrammarError: lark does not take the grammar: a mistake in it, or conflicts, of rules or of terminals, which are
            never resolved in silence. Or `start` is no rule, or a terminal is declared and not defined.
        RegexError: a terminal with look-around, back-references and so on. (`common.ESCAPED_STRING` is understood.)
        EmptyLanguageError: there are no texts.
        TooLargeError: a lexer with too many states.
    """
    return CFG(text, start, max_states)


def _lark(text: str, start: str) -> Any:
    import lark

    try:
        # `debug` keeps the items of each state of the parser.
        out = lark.Lark(text, start=start, parser="lalr", lexer="contextual", strict=True, debug=True)
        for lexer in out.parser.lexer.lexers.values():  # pyright: ignore[reportAttributeAccessIssue]
            assert lexer.scanner  # made now, so that what is wrong with a pattern is told here
    except lark.exceptions.UnexpectedInput as error:
        raise GrammarError(f"line {error.line}, column {error.column} of the grammar: {error}") from None
    except (lark.exceptions.LarkError, re.error) as error:
        raise GrammarError(f"lark does not take the grammar: {error}") from None
    undefined = sorted(set(_terminals(out)) - {one.name for one in out.terminals} - {END})
    if undefined:
        raise GrammarError(f"no pattern says what these terminals are: {', '.join(undefined)}")
    return out


def _terminals(parser: Any) -> Iterator[str]:
    for rule in parser.rules:
        yield from (symbol.name for symbol in rule.expansion if symbol.is_term)


def _row(row: dict[str, tuple[Any, Any]], number: dict[Any, int]) -> dict[str, Any]:
    """Of each symbol: the state it leads to, or what is reduced before it: (rule's origin, number of symbols)."""
    return {
        name: number[what] if str(action) == "Shift" else (what.origin.name, len(what.expansion))
        for name, (action, what) in row.items()
    }


def _kernel(state: Any) -> list[tuple[str, tuple[str, ...], int]]:
    """Rules that are under way in a state: origin, symbols, and how many of these are read."""
    items = [(one.rule.origin.name, tuple(s.name for s in one.rule.expansion), one.index) for one in state]
    return sorted({item for item in items if item[2] or item[0].startswith("$root_")})
