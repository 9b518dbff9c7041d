"""Checks of what algorithms are made from: before any work is done, and in the user's words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ppl.select import Selection


def check_count(owner: str, what: str, count: Any, least: int = 1) -> None:
    """Raise `ValueError` unless `count` is an integer of at least `least`."""
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < least:
        raise ValueError(f"{owner}: {what} must be an integer of at least {least}, not {count!r}")


def check_kernel(owner: str, kernel: Any) -> None:
    """Raise `TypeError` unless `kernel` can be called with a program and a trace."""
    if not _takes(kernel, 2):
        hint = _instance(kernel)
        raise TypeError(f"{owner} needs a kernel, like Suffix() or SingleSite(), not {kernel!r}{hint}")


def check_algorithm(owner: str, algorithm: Any) -> None:
    """Raise `TypeError` unless `algorithm` can be called with a program."""
    if not _takes(algorithm, 1):
        around = "; a kernel needs an algorithm around it, like MCMC(Suffix())"
        hint = around if _takes(algorithm, 2) else _instance(algorithm)
        raise TypeError(f"{owner} needs an algorithm, like SMC(16), not {algorithm!r}{hint}")


def check_resampler(owner: str, resample: Any) -> None:
    """Raise `TypeError` unless `resample` makes ancestors from log weights."""
    if not callable(resample) or (isinstance(resample, type) and not hasattr(resample, "child_log_weights")):
        hint = _instance(resample)
        raise TypeError(f"{owner}: resample must be a scheme like Systematic or Adaptive(...), not {resample!r}{hint}")


def check_sites(owner: str, sites: Any) -> None:
    """Raise `TypeError` unless the sites are a selection, or a glob of addresses."""
    if not isinstance(sites, str | Selection):
        raise TypeError(f"{owner}: sites must be a glob like 'solve/step:*', or select(...), not {sites!r}")


def check_proposals(owner: str, proposals: Any, count: int) -> None:
    """Raise `TypeError` unless proposals are functions of so many arguments, or distributions if of one, by glob."""
    takes = "(old value, distribution)" if count == 2 else "(distribution), or distributions"
    if not isinstance(proposals, Mapping):
        raise TypeError(
            f"{owner}: proposals must be a dict of functions of {takes} by glob of addresses, not {proposals!r}"
        )
    for pattern, make in proposals.items():
        if not _takes(make, count) and not (count == 1 and hasattr(make, "log_prob")):
            raise TypeError(f"{owner}: proposals[{pattern!r}] must be a function of {takes}, not {make!r}")


def check_numbers(owner: str, what: str, numbers: Any) -> tuple[float, ...]:
    """The numbers as a tuple; `TypeError` for what is none."""
    try:
        if isinstance(numbers, str):
            raise TypeError
        return tuple(float(number) for number in numbers)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {what} must be a row of numbers, not {numbers!r}") from None


def _instance(thing: Any) -> str:
    return f"; give an instance, {thing.__name__}(...)" if isinstance(thing, type) else ""


def _takes(function: Callable[..., Any] | Sequence[Any], count: int) -> bool:
    """Whether something can be called with so many arguments; a class is not, it makes what can."""
    if not callable(function) or isinstance(function, type):
        return False
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # no signature
        return True
    return True
