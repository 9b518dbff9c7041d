"""The twists that stand on a run."""

from __future__ import annotations

from typing import Any

from ppl.effects import Twist, Weight
from ppl.run import Run


class Twists:
    """The twists that stand on one run, by scope and name: a new value replaces the old one."""

    __slots__ = ("_standing",)

    def __init__(self) -> None:
        self._standing: dict[str, float] = {}

    def copy(self) -> Twists:
        """The same twists, standing on another run."""
        other = Twists()
        if self._standing:
            other._standing = dict(self._standing)
        return other

    def change(self, effect: Weight, run: Run[Any]) -> float:
        """By how much a factor or twist of a run changes the log weight."""
        if type(effect) is not Twist:
            return effect.log_weight
        length, scope = run.twist_scope
        key = f"{scope}{run.scope[length:]}{effect.name}"
        change = effect.log_weight - self._standing.get(key, 0.0)
        self._standing[key] = effect.log_weight
        return change

    def total(self) -> float:
        """What is divided out when the run returns."""
        return sum(self._standing.values())
