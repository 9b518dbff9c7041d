"""What an engine has used: the wall time of its device, and counts of its work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax import Array


class Clock:
    """Wall time during which the device had work, and never more.

    Calls run in order and return before they are done. Work found done when the next call starts is counted up to
    the last moment at which it was seen unfinished: a gap counts as host time, the doubt with it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._open: list[Any] = []  # arrays; the stubs of some versions of jax lack `is_ready`
        self._since = self._seen = 0.0

    def started(self, result: Array, start: float) -> None:
        """A call was made at `start`."""
        self._look()
        if not self._open:
            self._since = start
        self._open.append(result)
        self._seen = time.perf_counter()

    def wait(self, results: Sequence[Array]) -> list[np.ndarray]:
        """The results of a call on the host, once they are there."""
        self._look()
        arrays = [np.asarray(result) for result in results]
        if self._open:
            self._open = [result for result in self._open if not result.is_ready()]
            self._seen = time.perf_counter()
            if not self._open:
                self.seconds += self._seen - self._since
        return arrays

    def _look(self) -> None:
        """See whether the device is still at work."""
        if self._open and self._open[-1].is_ready():
            self.seconds += self._seen - self._since
            self._open.clear()
        elif self._open:
            self._seen = time.perf_counter()


@dataclass
class Usage:
    """What the engine has done so far."""

    tokens: int = 0
    """Tokens sampled."""
    fed: int = 0
    """Tokens read: prompts, and texts whose row was dropped."""
    judged: int = 0
    """Reward evaluations."""
    calls: int = 0
    """Device calls."""
    clock: Clock = field(default_factory=Clock)
