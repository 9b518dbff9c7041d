"""The programs that mutants are tried on: small enough to take milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl import Program
from ppl.measure import TooManyPaths
from ppl.testing import Branch, Draw, Guide, Loop, Score, Steer, Steps, Stop, Tiny

COIN = Draw(((1, 2),))
FAIR = Draw(((1, 1), (3, 1)))
POOL = [
    Tiny((COIN, Score((1, 3)), FAIR, Score((2, 1)))),
    Tiny((COIN, Score((0, 2)), FAIR, Score((1, 0.5)))),
    Tiny((COIN, Stop(), Score((3,)), FAIR, Score((1, 2)))),
    Tiny((COIN, Score((2, 1)), Stop(), FAIR)),
    Tiny((COIN, Guide("a", (1, 3)), FAIR, Guide("a", (2, 0.5)), Score((1, 2)))),
    Tiny((FAIR, Guide("a", (2, 3)), Branch((Score((2,)), Score((3,))), (Guide("b", (3,)),)), COIN, Guide("a", (1, 2)))),
    Tiny((Loop(((1, 1, 1),), (Score((2, 0.5)),)),)),
    Tiny((Steer(((1, 3),)), Score((1, 2)), Steps(2, (Steer(((2, 1), (1, 1))), Score((1, 0.5)))))),
    Tiny((COIN, Draw(((1, 1), (0, 1))), Score((1, 2)))),  # the second value loses its support when the first changes
]
Check = Callable[[Program[Any]], None]


def rejected(check: Check) -> bool:
    """Whether the check fails on a program of the pool."""
    for tiny in POOL:
        try:
            check(tiny.program())
        except AssertionError:
            return True
        except TooManyPaths:
            continue
    return False
