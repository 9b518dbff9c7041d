"""Traces: everything one run of a program did, address by address.

>>> from ppl import Bernoulli, factor, program, sample
>>> @program
... async def coin():
...     heads = await sample("heads", Bernoulli(1.0))
...     await factor("likelihood", -0.5)
...     return heads
>>> t = trace(coin(), seed=0)
>>> t["coin/heads"], t.factors, t.log_joint
(True, {'coin/likelihood': -0.5}, -0.5)
>>> replay(coin(), t) == t
True
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ppl import codec
from ppl.choice import Choice, draw_for, scored
from ppl.distributions import Distribution
from ppl.effects import Call, Effect, Factor, Sample, Twist, Weight
from ppl.host import play
from ppl.program import Program
from ppl.request import Request
from ppl.rerun import ReplayError
from ppl.run import Run
from ppl.source import Key
from ppl.twists import Twists
from ppl.walk import Given, Walk

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
FORMAT = 1
HEAD = ("address", "value", "log prob or weight", "distribution")
Recorded = Callable[[str, Effect[Any]], Any]  # the logged answer to a draw or call at an address


@dataclass(frozen=True)
class Move:
    """What a Markov kernel tried."""

    site: str
    """The address that was drawn again, or what else the kernel calls the move."""
    accepted: bool


@dataclass(frozen=True, eq=False)
class Trace(Mapping[str, Any], Generic[T]):
    """What one run did; as a mapping: address -> value drawn there.

    A trace may be of a run that goes on: suspended behind a number of factors and twists, as the particles of SMC are
    between two of its steps. Its target is then that of SMC at this moment, among the runs that go on.

    Two traces are equal when all but the program, the distribution objects and the moves are.
    """

    program: Program[T]
    choices: dict[str, Choice]
    factors: dict[str, float]
    """Log weights by address, those of `observe` and `condition` too."""
    twists: dict[str, float]
    """Log values by address; they leave the target alone."""
    calls: dict[str, Any]
    """Answers by address."""
    value: T | None
    """What the program returned; None if it was killed."""
    killed: str | None = None
    """The address of the factor or draw of weight zero."""
    steps: int | None = None
    """Behind how many factors and twists the run is suspended; None: it has returned, or was killed."""
    moves: tuple[Move, ...] = ()
    """What the kernels that made this trace tried, oldest first."""
    end: Walk[T] | None = field(default=None, repr=False)
    """Where the run stands at the end of the trace: copy it to go on from there. None if it was killed."""

    def __getitem__(self, address: str) -> Any:
        return self.choices[address].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and _same(_content(self), _content(other))

    __hash__ = None

    @cached_property
    def log_prior(self) -> float:
        """Sum of the log probabilities of the choices."""
        return math.fsum(choice.log_prob for choice in self.choices.values())

    @cached_property
    def log_twist(self) -> float:
        """The twists that stand at the end (natural log); once the program has returned, none do."""
        return 0.0 if self.end is None or self.end.run.done else self.end.twists.total()

    @cached_property
    def log_likelihood(self) -> float:
        """Sum of the factors; `-inf` for a run that was killed."""
        return -math.inf if self.killed is not None else math.fsum(self.factors.values())

    @property
    def log_joint(self) -> float:
        """log prior + log likelihood: the log density of this trace in the program's measure.

        Of a trace that ends early: with the twists that stand there.
        """
        return self.log_prior + self.log_likelihood + self.log_twist

    @cached_property
    def log_weight(self) -> float:
        """What the run weighs as a sample: log likelihood, and target over proposal of its draws."""
        return self.log_likelihood + math.fsum(choice.log_weight for choice in self.choices.values())

    def to_json(self) -> str:
        """As JSON, without loss; `Trace.from_json` reads it.

        Raises:
            TypeError: a value has no JSON form; names its address.
            ValueError: the trace ends early.
        """
        if self.steps is not None:
            raise ValueError(f"{self!r} ends after {self.steps} factors and twists: only whole traces have a JSON form")
        return json.dumps(
            {
                "ppl trace": FORMAT,
                "program": self.program.name,
                "choices": {a: [*_stored(a, c.dist, c.draw), c.log_prob] for a, c in self.choices.items()},
                "factors": {a: codec.encode(w) for a, w in self.factors.items()},
                "twists": {a: codec.encode(w) for a, w in self.twists.items()},
                "calls": {a: _stored(a, None, answer)[1] for a, answer in self.calls.items()},
                "killed": self.killed,
            },
            allow_nan=False,
        )

    @staticmethod
    def from_json(text: str, program: Program[T]) -> Trace[T]:
        """The trace of `program` that `to_json` wrote: its choices are replayed, its calls not repeated.

        Raises:
            ValueError: no trace.
            ReplayError: of another program, or one that has changed; names the first difference.
        """
        try:
            data = json.loads(text)
            choices, calls = data["choices"], data["calls"]
        except (ValueError, KeyError, TypeError):
            raise ValueError("this is not the JSON of a trace") from None
        if data["program"] != program.name:
            raise ReplayError(f"the trace is of the program {data['program']!r}, not of {program.name!r}")

        def given(address: str, effect: Effect[Any]) -> Any:
            if isinstance(effect, Call):
                return codec.decode(calls[address])
            kind, draw, _ = choices[address]
            now = type(effect.dist).__name__  # pyright: ignore[reportAttributeAccessIssue]
            if kind != now:
                raise ReplayError(f"{address}: the program draws from {now} where {kind} was recorded")
            return getattr(effect.dist, "decode", codec.decode)(draw)  # pyright: ignore[reportAttributeAccessIssue]

        out = _replayed(program, given, {*choices}, {*calls}, data["killed"])
        again = json.loads(out.to_json())
        for part in ("choices", "factors", "twists"):
            for address, recorded in data[part].items():
                if again[part].get(address) != recorded:
                    raise ReplayError(
                        f"{address}: the program now gives {again[part].get(address)} where {recorded} was recorded"
                    )
        return out

    def rows(self) -> list[tuple[str, str, str, str]]:
        """One line a site: address, value, log probability or weight, and what it is."""
        out = [(c.address, _short(c.value), f"{c.log_prob:.4f}", _short(c.dist)) for c in self.choices.values()]
        for kind, weights in (("factor", self.factors), ("twist", self.twists)):
            out += [(address, "", f"{log_weight:+.4f}", kind) for address, log_weight in weights.items()]
        return out + [(address, _short(answer), "", "call") for address, answer in self.calls.items()]

    def __rich__(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        out = Table(*HEAD, title=escape(str(self)))
        for row in self.rows():
            out.add_row(*map(escape, row))
        return out

    def _repr_html_(self) -> str:
        from html import escape

        lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows()]
        head = "".join(f"<th>{title}</th>" for title in HEAD)
        return f"<table><caption>{escape(str(self))}</caption><tr>{head}</tr>{''.join(lines)}</table>"

    def __repr__(self) -> str:
        end = f"value={_short(self.value)}"
        if self.killed is not None:
            end = f"killed at {self.killed}"
        elif self.end is not None and not self.end.run.done:
            end = f"suspended after {self.steps} factors and twists"
        return f"Trace({self.program.name}: {len(self)} choices, log_joint={self.log_joint:.4f}, {end})"


def trace(program: Program[T], seed: int | Key = 0) -> Trace[T]:
    """Run a program once and keep everything it did; a run of weight zero ends where it was killed."""
    (root,) = play([program], [seed], None, ())
    return trace_of(root.run, root.killed)


def replay(program: Program[T], trace: Trace[Any]) -> Trace[T]:
    """The trace of `program` with the choices and answers of another one. Law: `replay(t.program, t) == t`.

    Raises:
        ReplayError: the program asks for a draw or a call that the trace does not hold, or not for one that it holds.
    """

    if trace.steps is not None:
        walk, known = Walk(Run(program)), answers_of(trace)
        while walk.active and walk.steps < trace.steps:
            walk.follow(known)
        return trace_of(walk.run, walk.killed, trace.steps)
    return _replayed(program, partial(_answer, trace), {*trace.choices}, {*trace.calls}, trace.killed)


def answers_of(trace: Trace[Any]) -> Given:
    """What a trace answers to the requests of a walk.

    Raises:
        ReplayError: when asked for a site that the trace does not hold.
    """

    def given(request: Request) -> Any:
        effect, address = request.effect, request.address
        if not isinstance(effect, Sample | Call):
            return None
        if address not in (trace.calls if isinstance(effect, Call) else trace.choices):
            raise ReplayError(f"{address}: the program asks for {effect!r}, which the trace does not hold")
        return _answer(trace, address, effect)

    return given


def _answer(trace: Trace[Any], address: str, effect: Effect[Any]) -> Any:
    return trace.calls[address] if isinstance(effect, Call) else draw_for(trace.choices[address], effect)


def trace_of(run: Run[T], killed: str | None = None, steps: int | None = None) -> Trace[T]:
    """The trace of a run of any driver, from its log.

    `killed` names the site that gave it weight zero, if one did; `steps` says behind how many it is suspended.
    """
    draws: list[tuple[str, Distribution[Any], Any]] = []
    factors, twists, calls = dict[str, float](), dict[str, float](), dict[str, Any]()
    standing = Twists()

    def visit(address: str, effect: Effect[Any], answer: Any, asker: Run[Any]) -> None:
        if isinstance(effect, Sample):
            draws.append((address, effect.dist, answer))
        elif isinstance(effect, Call):
            calls[address] = answer
        elif isinstance(effect, Factor):
            factors[address] = effect.log_weight
        elif isinstance(effect, Twist):
            twists[address] = effect.log_weight
            standing.change(effect, asker)

    again = Run(run.program, run.log, visit)
    if killed is not None:
        for request in again.requests():
            if request.address == killed and isinstance(request.effect, Weight):
                visit(killed, request.effect, None, again)
    choices = {c.address: c for c in scored(draws)}
    if killed is not None:
        return Trace(run.program, choices, factors, twists, calls, None, killed, steps)
    end = Walk(again, standing)
    return Trace(run.program, choices, factors, twists, calls, again.value, None, steps, end=end)


def _replayed(program: Program[T], given: Recorded, choices: set[str], calls: set[str], killed: str | None) -> Trace[T]:
    """Run a program with given answers, in the order of the host driver: draws and calls when nothing else is open."""
    run, left, end = Run(program), choices | calls, None
    while not run.done and end is None:
        requests = run.requests()
        for request in [r for r in requests if not isinstance(r.effect, Sample | Call)] or requests:
            effect, address, answer = request.effect, request.address, None
            log_weight = effect.log_weight if isinstance(effect, Weight) else 0.0
            if isinstance(effect, Sample | Call):
                if address not in (calls if isinstance(effect, Call) else choices):
                    if address != killed:
                        raise ReplayError(f"{address}: the program asks for {effect!r}, which the trace does not hold")
                    log_weight = -math.inf  # a draw of weight zero
                else:
                    answer = given(address, effect)
                    left.discard(address)
                    log_weight = answer[1] if effect.weighted else 0.0
            if log_weight == -math.inf:  # the program must not see an impossible world
                end = address
                break
            request.answer(answer)
    if left:
        raise ReplayError(f"{min(left)}: the trace holds this site, but {program.name} did not come there")
    return trace_of(run, end)


def _stored(address: str, dist: Any, value: Any) -> list[Any]:
    try:
        return [type(dist).__name__, getattr(dist, "encode", codec.encode)(value)]
    except TypeError as error:
        raise TypeError(f"{address}: {error}") from None


def _content(trace: Trace[Any]) -> tuple[Any, ...]:
    choices = {a: (c.value, c.log_prob, c.log_weight) for a, c in trace.choices.items()}
    return choices, trace.factors, trace.twists, trace.calls, trace.value, trace.killed, trace.steps


def _same(a: Any, b: Any) -> bool:
    """Equality that looks into arrays."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "shape"):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return bool(a == b)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
