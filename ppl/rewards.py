"""How the scores of a reward model become weights: what they mean decides what is right.

    reward = Reward(prm)                       # as its kind says
    judged = reward.begin()
    for _ in range(steps):
        text = await sample("step", lm.extend(text, until="\\n\\n"))
        judged = await judged.step(text)
    await judged.end(text)

A score is a log probability, never clipped. `use` says what its weight is:

* `step_likelihood`: log P(this step is right). Each step is a factor: the target is p(text) * prod_t r_t^beta. With
  another `aggregate` (`min`, `mean`, `last` of the r_t) that is the factor, foreseen by a twist at each step.
* `value`: log P(success), foreseen from here. A twist at each step, and a factor of the last one at the end: the target
  is p(text) * r_T^beta, whatever was thought on the way (Feng et al. 2024, "Step-by-step reasoning for math problems
  via twisted sequential Monte Carlo").
* `outcome`: log P(the answer is right), asked once, at the end.
* `none`: nothing. The model is not asked, and the target is p(text).
* `odds_each_step`: the weights of the published particle filter (Puri et al. 2025, "A probabilistic inference approach
  to inference-time scaling of LLMs"): the odds of the aggregate so far, at each step again, so that the same evidence
  counts up to T times. The target is p(text) * prod_t (r_1..t / (1 - r_1..t))^beta, which nobody asked for.

`beta` tempers: below 1 the reward counts less, above 1 it sharpens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ppl.distributions import Bernoulli, log_odds
from ppl.effects import Effect
from ppl.inference.arguments import check_count
from ppl.language import factor, parallel, sample, twist
from ppl.program import Program

Use = Literal["step_likelihood", "value", "outcome", "none", "odds_each_step"]
Aggregate = Literal["prod", "min", "mean", "last"]
USES: dict[str, Use] = {"step": "step_likelihood", "prefix": "value", "value": "value", "outcome": "outcome"}


@dataclass(frozen=True)
class Reward:
    """A reward model, and what its scores are to be. `use` None: what the model's `kind` is right for.

    `model(text)`, or `model(text, question)` where a question is given, is an effect (a `call`) or a program whose
    answer is a log probability, nats.

    Raises:
        ValueError: an unknown `use` or `aggregate`, or one without the other; a `beta` that is not positive and
            finite; no `use` for a model that does not say its kind.
    """

    model: Callable[..., Effect[float] | Program[float]]
    use: Use | None = None
    aggregate: Aggregate = "prod"
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.use is None:
            kind = getattr(self.model, "kind", None)
            if kind not in USES:
                raise ValueError(
                    f"Reward({self.model!r}): it does not say of what its scores are probabilities "
                    f"(kind: {', '.join(USES)}): give use={' or '.join(map(repr, get_args(Use)))}"
                )
            object.__setattr__(self, "use", USES[kind])
        if self.use not in get_args(Use):
            raise ValueError(f"Reward: use={self.use!r}: choose {', '.join(get_args(Use))}")
        if self.aggregate not in get_args(Aggregate):
            raise ValueError(f"Reward: aggregate={self.aggregate!r}: choose {', '.join(get_args(Aggregate))}")
        if self.aggregate != "prod" and self.use in ("value", "outcome", "none"):
            raise ValueError(
                f"Reward: use={self.use!r} has no more than one score that counts, and aggregate={self.aggregate!r} "
                "is of the scores of steps: step_likelihood or odds_each_step"
            )
        if not 0 < self.beta < math.inf:
            raise ValueError(f"Reward: beta must be positive and finite, not {self.beta!r}")

    def begin(self, question: str | None = None) -> Judged:
        """Before the first step."""
        return Judged(self, question)


class Judged(NamedTuple):
    """The scores so far, nats. It never changes: `step` gives another one."""

    reward: Reward
    question: str | None = None
    scores: tuple[float, ...] = ()

    async def step(self, text: Any) -> Judged:
        """Behind a step of the program: judge it, and weigh what is known so far."""
        reward = self.reward
        if reward.use in ("outcome", "none"):
            return self
        after = Judged(reward, self.question, (*self.scores, await self._ask(text)))
        if self.foreseen:
            await twist("value", reward.beta * after.total)
        elif reward.use == "odds_each_step":
            await factor("reward", reward.beta * log_odds(after.total))
        else:
            await factor("reward", reward.beta * after.scores[-1])
        return after

    async def end(self, text: Any) -> None:
        """Behind the last step."""
        reward = self.reward
        if reward.use == "outcome":
            await factor("reward", reward.beta * await self._ask(text))
        elif self.scores and self.foreseen:
            await factor("reward", reward.beta * self.total)

    @property
    def foreseen(self) -> bool:
        """Whether what counts comes at the end, and twists foresee it."""
        use, aggregate = self.reward.use, self.reward.aggregate
        return use == "value" or (use == "step_likelihood" and aggregate != "prod")

    @property
    def total(self) -> float:
        """The aggregate of the scores so far; of values the last."""
        reward, scores = self.reward, self.scores
        if reward.use == "value" or reward.aggregate == "last":
            return scores[-1]
        if reward.aggregate == "min":
            return min(scores)
        if reward.aggregate == "mean":  # of the probabilities
            top = max(scores)
            return top if top == -math.inf else top + math.log(sum(math.exp(s - top) for s in scores) / len(scores))
        return sum(scores)

    def _ask(self, text: Any) -> Effect[float] | Program[float]:
        return self.reward.model(text) if self.question is None else self.reward.model(text, self.question)


@dataclass(frozen=True)
class Verdicts:
    """A generative verifier as a reward model: its score is the share of `count` verdicts that say yes.

    `verdict(text)` is a program that thinks about a text and returns whether it holds, or a reward model (an effect
    whose answer is a log probability), of which verdicts are drawn. The share is an unbiased estimate of P(yes), so the
    target of a `Reward` that multiplies scores as they are, `step_likelihood` or `outcome` with `beta` 1, is the same
    for every `count`: nested importance sampling (Andrieu and Roberts 2009, "The pseudo-marginal approach"; for
    verifiers Singhi et al. 2025, "When to solve, when to verify"). Few verdicts are often all no: weight zero.

    Its kind is that of the reward model, of a program "step".

    Raises:
        ValueError: `count` below 1.
        TypeError: a program returns something else than True or False.
    """

    verdict: Callable[..., Effect[float] | Program[bool]]
    count: int = 4

    def __post_init__(self) -> None:
        check_count("Verdicts", "count", self.count)

    @property
    def kind(self) -> str:
        return getattr(self.verdict, "kind", "step")

    def __call__(self, *question: Any) -> Program[float]:
        return Program("verdicts", _verdicts, (self, question), {})


async def _verdicts(verifier: Verdicts, question: tuple[Any, ...]) -> float:
    asked = [verifier.verdict(*question) for _ in range(verifier.count)]
    answers = await parallel(*asked)
    if isinstance(asked[0], Effect):
        answers = await parallel(*[sample("yes", Bernoulli(math.exp(log_p))) for log_p in answers])
    elif not all(isinstance(answer, bool | np.bool_) for answer in answers):
        raise TypeError(f"Verdicts: {asked[0].name} returned {answers[0]!r}: a verdict is True or False (for a log "
                        "probability give a reward model, that is an effect)")  # fmt: skip
    return math.log(sum(answers) / len(answers)) if any(answers) else -math.inf
