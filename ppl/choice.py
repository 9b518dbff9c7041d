"""One draw of a trace, and how draws are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ppl.distributions import Distribution, is_weighted, log_probs
from ppl.effects import Effect, Sample
from ppl.weighted import Proposed


@dataclass(frozen=True)
class Choice:
    """One draw."""

    address: str
    value: Any
    dist: Distribution[Any] = field(compare=False)
    log_prob: float
    """Natural log of the probability (or density) of the value under `dist`, not under a proposal."""
    log_weight: float = 0.0
    """Of a draw with a proposal: log target - log proposal."""

    @property
    def draw(self) -> Any:
        """What the driver answered."""
        return (self.value, self.log_weight) if is_weighted(self.dist) else self.value


def scored(draws: list[tuple[str, Distribution[Any], Any]]) -> list[Choice]:
    """Choices with their log probabilities, a batch for each family."""
    families: dict[Any, list[int]] = {}
    for i, (_, dist, _) in enumerate(draws):
        families.setdefault((type(dist), dist.family), []).append(i)
    out: list[Any] = [None] * len(draws)
    for members in families.values():
        pairs = [draws[i][2] if is_weighted(draws[i][1]) else (draws[i][2], 0.0) for i in members]
        scores = _scores([draws[i][1] for i in members], pairs)
        for i, (value, log_weight), log_prob in zip(members, pairs, scores, strict=True):
            out[i] = Choice(draws[i][0], value, draws[i][1], log_prob, log_weight)
    return out


def _scores(dists: list[Distribution[Any]], draws: list[tuple[Any, float]]) -> Sequence[float]:
    """Log probabilities of pairs (value, log weight): a weight says how the target's differs from the proposal's.

    A language model knows how probable what it drew was, so that a proposal costs no call of the target.
    """
    values = [value for value, _ in draws]
    if not isinstance(dists[0], Proposed) or is_weighted(dists[0].proposal):
        return log_probs(dists, values)
    under = log_probs([dist.proposal for dist in dists], values)  # pyright: ignore[reportAttributeAccessIssue]
    return [log_weight + log_q for (_, log_weight), log_q in zip(draws, under, strict=True)]


def draw_for(choice: Choice, effect: Effect[Any]) -> Any:
    """The logged answer that gives an effect the value of a choice."""
    if effect.weighted and is_weighted(choice.dist):
        return choice.draw
    return answer_with(choice.value, effect, choice.address)


def answer_with(value: Any, effect: Effect[Any], address: str) -> Any:
    """The logged answer that gives an effect this value: of a properly weighted draw, with the weight it has there.

    Raises:
        TypeError: the weight cannot be told from the value alone.
    """
    if not effect.weighted:
        return value
    assert isinstance(effect, Sample)
    return value, weigh(effect.dist, value, address)


def weigh(dist: Any, value: Any, address: str) -> float:
    """The log weight that a draw of `value` from a properly weighted distribution has.

    Raises:
        TypeError: it cannot be told from the value alone.
    """
    if not hasattr(dist, "weigh"):
        raise TypeError(f"{address}: {dist!r} cannot weigh a value that it did not draw (it has no method `weigh`)")
    return dist.weigh(value)
