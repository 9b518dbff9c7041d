"""Programs: descriptions that can be started any number of times."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class Program(Generic[T]):
    """An async function with its arguments: starts as often as one likes, `await`s inside other programs."""

    __slots__ = ("args", "fn", "kwargs", "name")

    def __init__(
        self, name: str, fn: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.name = name
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def start(self) -> Coroutine[Any, Any, T]:
        """A fresh coroutine of the program's body."""
        return self.fn(*self.args, **self.kwargs)

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

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} was used as a condition: did you forget `await`?")

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
