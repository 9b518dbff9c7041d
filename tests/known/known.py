"""What is known of a model: its program, its evidence, and exact posterior expectations of test functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from ppl import Program

Function = Callable[[Any], float]


@dataclass(frozen=True)
class Known:
    """A program with exact answers. A row of the matrix looks at the flags to see whether it applies."""

    name: str
    program: Program[Any]
    log_evidence: float | None
    """Natural log; None if unknown (then only algorithms without evidence can be compared)."""
    expectations: Mapping[str, tuple[Function, float]]
    """Test functions by name, with their exact posterior expectations."""
    finite: bool = False
    """Whether it can be enumerated."""
    smooth: bool = False
    """Whether its draws are continuous and it does not branch on them, so that NUTS can run it."""


def from_posterior(
    name: str,
    program: Program[Any],
    posterior: Mapping[Any, float],
    log_evidence: float,
    values: int = 2,
    functions: Mapping[str, Function] | None = None,
) -> Known:
    """Of a finite posterior: the probabilities of its `values` most probable values, its entropy, and `functions`.

    The entropy, the expectation of -log p(value), hears of all values at once; a value that cannot be is an error.
    """

    def surprise(value: Any) -> float:
        assert value in posterior, f"{name}: the value {value!r} has posterior probability zero"
        return -math.log(posterior[value])

    top = sorted(posterior, key=lambda value: -posterior[value])[:values]
    expectations = {f"P({value!r})": (_indicator(value), posterior[value]) for value in top}
    expectations["entropy"] = surprise, math.fsum(-p * math.log(p) for p in posterior.values())
    for label, f in (functions or {}).items():
        expectations[label] = f, math.fsum(p * f(value) for value, p in posterior.items())
    return Known(name, program, log_evidence, expectations, finite=True)


def _indicator(value: Hashable) -> Function:
    return lambda x: float(x == value)
