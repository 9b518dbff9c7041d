"""The vocabulary: everything a program, or an inference algorithm, can ask of the world.

An effect is a request. Awaiting it suspends the program; whoever drives the program answers. Programs and
algorithms use the same six effects, so an algorithm can forward what it does not interpret, and one
driver (`measure`, `run`) interprets both.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Hashable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from ppl.distributions import Distribution
    from ppl.program import Program

T = TypeVar("T")

# Effects that were dropped without being awaited, newest last; a `Run` looks at what a step of its program added, and
# raises. A list and not a direct raise, since Python swallows exceptions raised by a finaliser.
dropped: list[str] = []


class Effect(Generic[T]):
    """A request to whoever drives the program; `await` it for the answer."""

    __slots__ = ("_awaited", "name")

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

    def _forgotten(self, *_: object) -> NoReturn:
        self._awaited = True
        raise TypeError(f"{self} was used as a value: did you forget `await`?")

    __bool__ = __iter__ = __len__ = __getitem__ = __float__ = __int__ = _forgotten
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _forgotten
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __index__ = _forgotten
    __neg__ = __abs__ = __round__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _forgotten


class Sample(Effect[T]):
    """Draw a value from `dist`."""

    __slots__ = ("dist",)

    def __init__(self, name: str, dist: Distribution[T]) -> None:
        self._awaited = True  # not forgotten should a check below raise
        self.name = name
        self.dist = dist
        if not (hasattr(dist, "log_prob") and hasattr(dist, "family")):
            raise TypeError(
                f"sample({name!r}, ...): {dist!r} is not a distribution: it needs `family`, `sample(key)` and "
                "`log_prob(value)`"
            )
        self._awaited = False

    @property
    def family(self) -> Hashable:
        return self.dist.family

    @property
    def kind(self) -> Any:
        return type(self.dist)


class Weight(Effect[None]):
    """What multiplies the weight of a run: a suspension point of SMC. `log_weight` is a natural log."""

    __slots__ = ("log_weight",)

    def __init__(self, name: str, log_weight: float) -> None:
        self._awaited = True
        self.name = name
        self.log_weight = log_weight = _number(self, log_weight)
        if log_weight != log_weight or log_weight == math.inf:
            raise ValueError(
                f"{self!r}: a log weight must be finite or -inf, not {log_weight}; nan usually comes from -inf minus "
                "-inf, +inf from the log odds of a probability of exactly 1"
            )
        self._awaited = False


class Factor(Weight):
    """Multiply the weight of this run by exp(log_weight)."""

    __slots__ = ()

    @property
    def kind(self) -> Any:
        return self.log_weight


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

    `batch`, when given, answers several calls at once: it takes a list of argument tuples and returns a list.
    """

    __slots__ = ("args", "batch", "fn")

    def __init__(
        self, fn: Callable[..., T], args: tuple[Any, ...], batch: Callable[[list[tuple[Any, ...]]], list[T]] | None
    ) -> None:
        self._awaited = False
        self.name = getattr(fn, "__name__", "call")
        self.fn = fn
        self.args = args
        self.batch = batch

    @property
    def family(self) -> Hashable:
        return self.batch or self.fn


class Parallel(Effect[list[Any]]):
    """Independent effects or programs performed as one batch; the answer lists theirs in order."""

    __slots__ = ("branches", "programs")

    def __init__(self, branches: tuple[Effect[Any] | Program[Any], ...]) -> None:
        self._awaited = True
        self.name = "parallel"
        self.branches = branches
        self.programs = False  # whether a branch is a program
        for branch in branches:
            if isinstance(branch, Effect) and type(branch) is not Parallel:
                branch._awaited = True
            elif hasattr(branch, "start"):
                self.programs = True
            else:
                raise TypeError(f"parallel(...) takes effects and programs, not {branch!r}")
        self._awaited = False


class Note(Effect[None]):
    """Observability: tells observers what happened, and never changes the meaning."""

    __slots__ = ("data",)

    def __init__(self, kind: str, data: dict[str, Any]) -> None:
        self._awaited = False
        self.name = kind
        self.data = data


def sample(name: str, dist: Distribution[T]) -> Sample[T]:
    """Draw from `dist`; `await` it for the value.

    Raises:
        TypeError: `dist` has no `sample` and `log_prob`.
    """
    return Sample(name, dist)


def factor(name: str, log_weight: float) -> Factor:
    """Multiply the weight by exp(log_weight): a likelihood, a reward, a penalty (natural log).

    Raises:
        ValueError: the log weight is `nan` or `+inf`.
    """
    return Factor(name, log_weight)


def observe(name: str, dist: Distribution[T], value: T) -> Factor:
    """Condition on having seen `value` from `dist`: a factor of its log probability."""
    return Factor(name, dist.log_prob(value))


def condition(name: str, holds: bool) -> Factor:
    """Keep only the paths on which `holds` is true."""
    return Factor(name, 0.0 if holds else -math.inf)


def twist(name: str, log_value: float) -> Twist:
    """Guide the search by a log value without changing the target (see `Twist`).

    Raises:
        ValueError: the log value is `nan` or `+inf`.
    """
    return Twist(name, log_value)


def call(fn: Callable[..., T], *args: Any) -> Call[T]:
    """Do impure or expensive work: `fn(*args)`, recorded. `fn.batch`, if it exists, answers many at once."""
    if inspect.iscoroutinefunction(fn):
        raise TypeError(f"call({fn!r}, ...): an async function cannot be called here; give a plain function")
    return Call(fn, args, getattr(fn, "batch", None))


def parallel(*branches: Effect[Any] | Program[Any]) -> Parallel:
    """Perform independent effects or whole programs as one batch; the answer is their list.

    Raises:
        TypeError: a branch is neither an effect nor a program, or is itself `parallel`.
    """
    return Parallel(branches)


def note(kind: str, **data: Any) -> Note:
    """Tell observers something (progress, resampling); the meaning of the program is unchanged."""
    return Note(kind, data)


def _number(effect: Effect[Any], value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{effect!r}: a log weight must be a number, not {value!r}") from None
