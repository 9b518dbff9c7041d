"""numpyro's distributions under their own names, as recipes that cost microseconds and not 0.4 ms.

    from ppl import dist
    x = await sample("x", dist.Normal(0.0, 1.0))

A recipe is built when it is drawn from or scored, together with all others of its kind. Everything that is no
distribution (`constraints`, `transforms`, ...) is numpyro's own.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import numpyro.distributions as _numpyro

from ppl.numpyro_dist import Numpyro
from ppl.numpyro_recipe import Maker


class Family(Maker):
    """A distribution to be: calling it notes the arguments."""

    def __call__(self, *args: Any, **kwargs: Any) -> Numpyro:
        return Numpyro(self, self.bind(args, kwargs))


_NAMES = [name for name in dir(_numpyro) if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, 3, 0.5) or _NAMES
        raise AttributeError(f"numpyro has no distribution {name!r}; did you mean {', '.join(close)}?")
    value = getattr(_numpyro, name)
    is_class = inspect.isclass(value) and issubclass(value, _numpyro.Distribution)
    if is_class or (inspect.isfunction(value) and name[0].isupper()):
        maker = Family.of(name, value)  # pyright: ignore[reportArgumentType]
        object.__setattr__(maker, "__doc__", value.__doc__)
        value = maker
    globals()[name] = value  # found without this function the next time
    return value


def __dir__() -> list[str]:
    return _NAMES
