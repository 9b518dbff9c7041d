"""The vocabulary: everything a program, or an inference algorithm, can ask of the world.

An effect is a request. Awaiting it suspends the program; whoever drives the program answers. Programs and
algorithms use the same effects, so an algorithm can forward what it does not interpret, and one
driver (`measure`, `run`) interprets both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from ppl.distributions import Categorical, Distribution, as_distribution
from ppl.program import MustAwait, Program, dropped
from ppl.weighted import Pairs

T = TypeVar("T")
C = TypeVar("C")
X = TypeVar("X")
Y = TypeVar("Y")


class Effect(MustAwait, Generic[T]):
    """A request to whoever drives the program; `await` it for the answer."""

    __slots__ = ("_awaited", "name")
    weighted = False
    """Whether the answer is a pair (value, log weight), of which the program sees the value."""

    def __init__(self, name: str) -> None:
        self._awaited = False
        self.name = name

    @property
    def family(self) -> Hashable:
        """Effects of equal family can be answered together by one batched call."""
        return type(self)

    @property
    def kind(self) -> Any:
        """What replay compares beside the name: class of the distribution, log weight, or kind of effect."""
        return type(self)

    def __await__(self) -> Generator[Effect[Any], Any, T]:
        self._awaited = True
        return (yield self)

    def __del__(self) -> None:
        if not self._awaited:
            dropped.append(str(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.name!r})"

    def _excuse(self) -> None:
        self._awaited = True


class Sample(Effect[T]):
    """Draw a value from `dist`. From a properly weighted distribution a driver draws a pair (value, log weight)."""

    __slots__ = ("dist", "kind", "weighted")

    def __init__(self, name: str, dist: Distribution[T]) -> None:
        self._awaited = True  # not forgotten should a check below raise
        self.name = name
        self.dist = dist
        if type(dist) is not Categorical:  # the distribution of tight loops
            self.dist = dist = as_distribution(dist, f"sample({name!r}, ...)")
        self.kind: Any = type(dist)
        self.weighted: bool = getattr(dist, "weighted", False)
        self._awaited = False

    @property
    def family(self) -> Hashable:
        return self.dist.family

    @property
    def raw(self) -> Sample[Any]:
        """The same draw for an algorithm that takes the weight on itself: its answer is the pair."""
        return Sample(self.name, Pairs(self.dist)) if self.weighted else self


class Weight(Effect[None]):
    """What multiplies the weight of a run: a suspension point of SMC. `log_weight` is a natural log."""

    __slots__ = ("log_weight",)

    def __init__(self, name: str, log_weight: float) -> None:
        self._awaited = True
        self.name = name
        if type(log_weight) is not float:
            log_weight = _number(self, log_weight)
        self.log_weight = log_weight
        if type(log_weight) is float and not log_weight < math.inf:  # nan is not, either
            raise ValueError(
                f"{self!r}: a log weight must be finite or -inf, not {log_weight}; nan usually comes from -inf minus "
                "-inf, +inf from the log odds of a probability of exactly 1"
            )
        self._awaited = False


class Factor(Weight):
    """Multiply the weight of this run by exp(log_weight)."""

    __slots__ = ()
    kind: Any = Weight.log_weight  # the slot itself: what replay compares is the number


class Twist(Weight):
    """Multiply by exp(new - previous log weight under this name).

    What stands at return is divided out again, so the target does not change. A twist of `-inf` is a promise
    that this path ends with weight zero, and kills it like `factor(-inf)`.
    """

    __slots__ = ()

    @property
    def kind(self) -> Any:
        return Twist, self.log_weight


class Call(Effect[T]):
    """Host or device work whose answer is recorded: a clone of the run never repeats it.

    `batch`, when given, answers several calls of one `family` at once: it takes a list of argument tuples and returns
    a list. Other calls of a round run concurrently, in threads, when they take long.
    """

    __slots__ = ("_family", "args", "batch", "fn")

    def __init__(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        batch: Callable[[list[tuple[Any, ...]]], Sequence[T]] | None = None,
        name: str | None = None,
        family: Hashable = None,
    ) -> None:
        self._awaited = False
        self.name = name or getattr(fn, "__name__", "call").strip("<>")
        self.fn = fn
        self.args = args
        self.batch = batch
        self._family = family

    @property
    def family(self) -> Hashable:
        return self._family or self.batch

    def mapped(self, f: Callable[[T], Any], family: Hashable) -> Call[Any]:
        """This call, in its place, with `f` of its answer. `family` tells one `f` from others."""
        self._awaited = True  # it is the other one that is
        fn, many = self.fn, self.batch
        batch = None if many is None else lambda questions: [f(answer) for answer in many(questions)]
        return Call(lambda *args: f(fn(*args)), self.args, batch, self.name, (family, self.family))


class Observe(Effect[None]):
    """A factor of the log probability of `value`, for a distribution that scores in batches."""

    __slots__ = ("dist", "value")

    def __init__(self, name: str, dist: Distribution[T], value: T) -> None:
        self._awaited = False
        self.name = name
        self.dist = dist
        self.value = value

    def __await__(self) -> Generator[Effect[Any], Any, None]:
        self._awaited = True
        dist = self.dist
        many = type(dist).log_prob_many  # pyright: ignore[reportAttributeAccessIssue]

        def batch(questions: list[tuple[Any, Any]]) -> Sequence[float]:
            dists, values = zip(*questions, strict=True)
            return many(dists, values)

        score = Call(_log_prob, (dist, self.value), batch, f"{self.name}.log_prob", (_log_prob, dist.family))
        return (yield from Factor(self.name, (yield from score.__await__())).__await__())

    def as_program(self) -> Program[None]:
        """The same as a branch of a `parallel`."""
        self._awaited = True
        return Program(self.name, Observe.then, (self,), {})

    async def then(self) -> None:
        await self


class Parallel(Effect[list[Any]]):
    """Independent effects or programs performed as one batch; the answer lists theirs in order."""

    __slots__ = ("branches", "programs", "simple")

    def __init__(self, branches: tuple[Effect[Any] | Program[Any], ...]) -> None:
        self._awaited = True
        self.name = "parallel"
        self.programs = False  # whether a branch is a program
        self.simple = True  # whether all branches are draws and calls without weights
        for branch in branches:
            kind = type(branch)
            if kind is Sample or kind is Call:
                branch._awaited = True  # pyright: ignore[reportAttributeAccessIssue]
                if branch.weighted:  # pyright: ignore[reportAttributeAccessIssue]
                    self.simple = False
                continue
            self.simple = False
            if isinstance(branch, Effect) and kind not in (Parallel, Scan):
                branch._awaited = True
            elif not hasattr(branch, "start"):
                raise TypeError(f"parallel(...) takes effects and programs, not {branch!r}")
        if not self.simple:
            branches = tuple(branch.as_program() if isinstance(branch, Observe) else branch for branch in branches)
            self.programs = any(isinstance(branch, Program) for branch in branches)
        self.branches = branches
        self._awaited = False


class Last(NamedTuple, Generic[C, Y]):
    """What a step of `scan` returns to be the last one."""

    carry: C
    output: Y


class Scan(Effect[tuple[C, list[Y]]]):
    """A loop over `xs` whose steps are programs; between two steps its whole state is the carry."""

    __slots__ = ("carry", "step", "xs")

    def __init__(self, step: Callable[[C, Any], Program[tuple[C, Y]]], carry: C, xs: Sequence[Any]) -> None:
        self._awaited = True
        self.name = "scan"
        if not (hasattr(xs, "__len__") and hasattr(xs, "__getitem__")):
            raise TypeError(f"scan(step, carry, xs): xs must be a sequence like range(10), not {xs!r}")
        self.step = step
        self.carry = carry
        self.xs = xs
        self._awaited = False

    def program(self, carry: C, index: int) -> Program[Any]:
        """The program of one step."""
        made = self.step(carry, self.xs[index])
        if not isinstance(made, Program):
            raise TypeError(
                f"scan(step, ...): step must be a @program of (carry, x), not a function that gives {made!r}"
            )
        return made


class Note(Effect[None]):
    """Observability: tells observers what happened, and never changes the meaning."""

    __slots__ = ("data",)

    def __init__(self, kind: str, data: dict[str, Any]) -> None:
        self._awaited = False
        self.name = kind
        self.data = data


def _number(effect: Effect[Any], value: Any) -> float:
    if is_traced(value):  # a program in a numpyro model
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{effect!r}: a log weight must be a number, not {value!r}") from None


def is_traced(value: Any) -> bool:
    """Whether JAX is tracing the program and has put this in the place of a number."""
    jax = sys.modules.get("jax.core")  # nothing is traced before somebody has imported it
    return jax is not None and isinstance(value, jax.Tracer)


def _log_prob(dist: Distribution[Any], value: Any) -> float:
    return dist.log_prob(value)
