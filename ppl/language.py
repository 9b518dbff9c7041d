"""What a program writes: the effects by their names."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ppl.distributions import Distribution, as_distribution
from ppl.effects import Call, Effect, Factor, Last, Note, Observe, Parallel, Sample, Scan, Twist, is_traced
from ppl.program import Program
from ppl.weighted import Proposed

if TYPE_CHECKING:
    from numpyro.distributions import Distribution as NumpyroDistribution

T = TypeVar("T")
C = TypeVar("C")
X = TypeVar("X")
Y = TypeVar("Y")


class Stepwise(Generic[T]):
    """What is drawn by a program of several draws; `sample` takes it where it takes a distribution."""

    def written(self, name: str, proposal: Any = None) -> Program[T]:
        """The program, of this name."""
        raise NotImplementedError


@overload
def sample(name: str, dist: Stepwise[T], proposal: Any = None) -> Program[T]: ...
@overload
def sample(name: str, dist: Distribution[T], proposal: Distribution[T] | None = None) -> Sample[T]: ...
@overload
def sample(
    name: str, dist: NumpyroDistribution, proposal: NumpyroDistribution | Distribution[Any] | None = None
) -> Sample[Any]: ...
def sample(name: str, dist: Any, proposal: Any = None) -> Sample[Any] | Program[Any]:
    """Draw from `dist`; `await` it for the value. Distributions of numpyro are welcome.

    With a `proposal` the value is drawn from that, and the weight multiplied by dist/proposal: the meaning stays.

    Raises:
        TypeError: `dist` has no `sample` and `log_prob`.
    """
    if isinstance(dist, Stepwise):
        return dist.written(name, proposal)
    if proposal is not None:
        where = f"sample({name!r}, ...)"
        dist = Proposed(as_distribution(dist, where), as_distribution(proposal, where))
    return Sample(name, dist)


def factor(name: str, log_weight: float) -> Factor:
    """Multiply the weight by exp(log_weight): a likelihood, a reward, a penalty (natural log).

    Raises:
        ValueError: the log weight is `nan` or `+inf`.
    """
    return Factor(name, log_weight)


def observe(name: str, dist: Distribution[T] | NumpyroDistribution, value: T) -> Effect[None]:
    """Condition on having seen `value` from `dist`: a factor of its log probability, scored in batches.

    Raises:
        TypeError: `dist` is not a distribution.
    """
    dist = as_distribution(dist, f"observe({name!r}, ...)")
    return Observe(name, dist, value) if hasattr(dist, "log_prob_many") else Factor(name, dist.log_prob(value))


@overload
def condition(name: str, holds: bool) -> Factor: ...
@overload
def condition(name: Program[T], holds: Mapping[str, Any]) -> Program[T]: ...
def condition(name: Any, holds: Any) -> Any:
    """As an effect, `condition(name, holds)`: keep only the paths on which `holds` is true.

    On a program, `condition(program, {address: value})`: the program in which these draws were observed, each a factor
    of its log probability (natural log). A path that never asks for one of the addresses has weight zero.
    """
    if isinstance(name, Program):
        from ppl.transforms import conditioned

        return conditioned(name, holds)
    if is_traced(holds):
        import jax.numpy as jnp

        return Factor(name, jnp.where(holds, 0.0, -jnp.inf))  # pyright: ignore[reportArgumentType]
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
        TypeError: a branch is neither an effect nor a program, or is itself `parallel` or `scan`.
    """
    return Parallel(branches)


def scan(step: Callable[[C, X], Program[tuple[C, Y]]], carry: C, xs: Sequence[X]) -> Scan[C, Y]:
    """`for x in xs: carry, y = await step(carry, x)`; the answer is the last carry and the list of the ys.

    Addresses and meaning are those of that loop. But a clone of a run starts at the last carry and not at the first
    step, so that long programs cost no more to clone than short ones; the carry must be an immutable value. A step
    that returns `Last(carry, y)` is the last one. A twist made in a step replaces the one that an earlier step made.

    Raises:
        TypeError: `xs` is not a sequence, `step` is not a program function, or a step did not return a pair.
    """
    return Scan(step, carry, xs)


def note(kind: str, **data: Any) -> Note:
    """Tell observers something (progress, resampling); the meaning of the program is unchanged."""
    return Note(kind, data)


__all__ = [
    "Last", "call", "condition", "factor", "note", "observe", "parallel", "sample", "scan", "twist",
]  # fmt: skip
