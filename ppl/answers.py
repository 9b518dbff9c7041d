"""Questions to weighted values."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import numpy as np

from ppl.source import Key

if TYPE_CHECKING:
    import jax

    Array = np.ndarray | jax.Array | Sequence[Any]

T = TypeVar("T")
U = TypeVar("U")
Vote = Literal["weighted", "majority", "argmax"]


class Answers(Generic[T]):
    """What can be asked of weighted values, however they came about."""

    def items(self) -> list[tuple[T, float]]:
        """(value, probability) of each particle of positive probability, in order."""
        raise NotImplementedError

    def table(self) -> dict[T, float]:
        """Distinct (hashable) values with their probabilities, most probable first; first seen wins ties."""
        out: dict[T, float] = {}
        for value, p in self.items():
            try:
                out[value] = out.get(value, 0.0) + p
            except TypeError:
                raise TypeError(f"{value!r} cannot be hashed: use .map(...) to turn the values into tuples") from None
        return dict(sorted(out.items(), key=lambda item: -item[1]))

    def mode(self) -> T:
        """The most probable value."""
        return next(iter(self.table()))

    def prob(self, predicate: Callable[[T], bool]) -> float:
        """Posterior probability that the predicate holds."""
        return sum(p for value, p in self.items() if predicate(value))

    @overload
    def expect(self, f: Callable[[T], float]) -> float: ...
    @overload
    def expect(self, f: Callable[[T], Array]) -> np.ndarray: ...
    def expect(self, f: Callable[[T], Any]) -> Any:
        """Posterior expectation of `f`: a number, or an array of the shape that `f` gives.

        Raises:
            ValueError: `f` gives arrays of different shapes.
        """
        items = self.items()
        ys = [np.asarray(f(value)) for value, _ in items]
        if len(shapes := {y.shape for y in ys}) > 1:
            raise ValueError(f"expect: f gives arrays of different shapes, {' and '.join(map(str, shapes))}")
        total = sum(p * y.astype(np.result_type(y, float)) for y, (_, p) in zip(ys, items, strict=True))
        return total.item() if np.ndim(total) == 0 else total  # pyright: ignore[reportAttributeAccessIssue]

    def sample(self, n: int, seed: int | Key = 0) -> list[T]:
        """`n` independent values drawn by weight, with replacement. The same seed gives the same values."""
        if n < 0:
            raise ValueError(f"sample: cannot draw {n} values")
        items = self.items()
        bounds = list(accumulate(p for _, p in items))
        us = Key.of(seed).fold("posterior").uniforms(n)
        return [items[bisect_right(bounds, u * bounds[-1], 0, len(items) - 1)][0] for u in us]

    @overload
    def vote(self, how: Vote = "weighted") -> T: ...
    @overload
    def vote(self, how: Callable[[Answers[Any]], U]) -> U: ...
    def vote(self, how: Any = "weighted") -> Any:
        """One answer out of many (values must be hashable); first seen wins ties.

        `weighted` is the mode of the posterior; `majority` counts particles and ignores weights; `argmax` takes
        the particle of the largest weight, which picks the reward model's over-confident mistakes as N grows. Others
        are in `ppl.selectors`; any function of the posterior will do.
        """
        if callable(how):
            return how(self)
        items = self.items()
        if how == "argmax":
            return max(items, key=lambda item: item[1])[0]
        if how == "majority":
            counts: Counter[Hashable] = Counter(value for value, _ in items)
            return counts.most_common(1)[0][0]
        if how == "weighted":
            return self.mode()
        raise ValueError(f"vote({how!r}): choose weighted, majority or argmax, or a selector of ppl.selectors")
