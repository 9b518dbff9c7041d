"""Programs: descriptions that can be started any number of times."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

# Effects and sub-programs that were dropped without being awaited, newest last; a `Run` looks at what a step of its
# program added. A list and not a direct raise, since Python swallows exceptions raised by a finaliser.
dropped: list[str] = []


class ForgottenAwait(UserWarning):
    """A program made a sub-program and let go of it without awaiting it."""


class MustAwait:
    """What stands for an answer until it is awaited: using it as one raises."""

    __slots__ = ()

    def _forgotten(self, *_: object) -> NoReturn:
        self._excuse()
        raise TypeError(f"{self} was used as a value: did you forget `await`?")

    def _excuse(self) -> None:
        """Nobody needs to be told a second time."""

    __bool__ = __iter__ = __len__ = __getitem__ = __float__ = __int__ = _forgotten
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _forgotten
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __index__ = _forgotten
    __neg__ = __abs__ = __round__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _forgotten


class Program(MustAwait, Generic[T]):
    """An async function with its arguments: starts as often as one likes, `await`s inside other programs."""

    __slots__ = ("_idle", "args", "fn", "kwargs", "name", "shared")

    def __init__(
        self, name: str, fn: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.name = name
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self._idle = True
        self.shared = prints(args, kwargs.values()) if args or kwargs else ()

    def start(self) -> Coroutine[Any, Any, T]:
        """A fresh coroutine of the program's body."""
        self._idle = False
        return self.fn(*self.args, **self.kwargs)

    def check_arguments(self) -> None:
        """Raise `TypeError` if a list, dict or set among the arguments has changed since the program was made."""
        for value, before in self.shared:
            check_print(f"{self.name}: an argument", value, before)

    def sketch(self) -> str:
        """Name, function and arguments, for comparing a recorded run with this one."""
        from ppl.codec import sketch

        args = [sketch(arg) for arg in self.args] + [f"{k}={sketch(v)}" for k, v in self.kwargs.items()]
        return f"{self.name}({', '.join(args)})"

    def __await__(self) -> Generator[Any, Any, T]:
        yield Enter(self.name)
        try:
            value = yield from self.start().__await__()
        except GeneratorExit:
            raise
        except BaseException:
            yield EXIT
            raise
        yield EXIT
        return value

    def _excuse(self) -> None:
        self._idle = False

    def __del__(self) -> None:
        if getattr(self, "_idle", False):
            dropped.append(repr(self))

    def __repr__(self) -> str:
        return f"<program {self.name}>"


class Enter:
    """What awaiting a sub-program tells its run before it starts."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


EXIT = object()
"""What awaiting a sub-program tells its run when it has ended."""


def program(fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Program[T]]:
    """Make an `async def` a generation program: calling it gives a `Program`, which does not run yet.

    Raises:
        TypeError: `fn` is not an `async def` function.
    """
    if not inspect.iscoroutinefunction(fn):
        raise TypeError(f"@program needs an `async def` function, not {fn!r}")

    @functools.wraps(fn)
    def make(*args: P.args, **kwargs: P.kwargs) -> Program[T]:
        return Program(fn.__name__, fn, args, kwargs)

    return make


# Values that a program holds are shared by its clones, so they must not change. Looking at every element of every
# list each time would cost more than the programs; most mistakes (append, pop, an item of a short list) show here.

_MUTABLE = (list, dict, set, bytearray)
_LOOKED_AT = 64
Print = tuple[Any, tuple[int, ...]]


def prints(*values: Any) -> tuple[Print, ...]:
    """The lists, dicts and sets among the elements of some collections, each with a mark of its present content."""
    return tuple([(v, _print(v)) for group in values for v in group if isinstance(v, _MUTABLE)])


def check_print(owner: str, value: Any, before: tuple[int, ...]) -> None:
    """Raise `TypeError` if the value's content is not the marked one."""
    if _print(value) != before:
        raise TypeError(
            f"{owner} was changed by the program: {str(value)[:80]}. All particles of a program share its values, so "
            "they must stay as they are: make a copy first, like `mine = [*theirs]`"
        )


def _print(value: Any) -> tuple[int, ...]:
    if len(value) > _LOOKED_AT or isinstance(value, set | bytearray):
        return (len(value),)
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return (len(value), *map(id, items))
