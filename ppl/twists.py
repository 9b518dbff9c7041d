"""The twists that stand on a run."""

from __future__ import annotations

from ppl.effects import Factor, Twist
from ppl.run import Request


class Twists:
    """The twists that stand on one run, by scope and name: a new value replaces the old one."""

    __slots__ = ("_standing",)

    def __init__(self) -> None:
        self._standing: dict[str, float] = {}

    def copy(self) -> Twists:
        """The same twists, standing on another run."""
        other = Twists()
        other._standing = dict(self._standing)
        return other

    def change(self, request: Request) -> float:
        """By how much a factor or twist changes the log weight."""
        effect = request.effect
        if type(effect) is Factor:
            return effect.log_weight
        assert isinstance(effect, Twist)
        key = request.run.scope + effect.name
        change = effect.log_weight - self._standing.get(key, 0.0)
        self._standing[key] = effect.log_weight
        return change

    def total(self) -> float:
        """What is divided out when the run returns."""
        return sum(self._standing.values())
