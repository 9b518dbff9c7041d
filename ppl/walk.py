"""One run with its weight, brought from suspension to suspension.

A run is suspended behind each factor and twist: there SMC compares particles, and there a trace can end. `Walk` counts
these steps, so that a Markov kernel can stop where a particle of SMC stands and leave the target of that moment alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ppl.effects import Effect, Sample, Weight
from ppl.language import parallel
from ppl.request import Request
from ppl.run import Run
from ppl.twists import Twists

T = TypeVar("T")
Given = Callable[[Request], Any]  # the logged answer to a request, or an `Ask`


@dataclass(frozen=True)
class Ask:
    """An answer that is not known: the effect to ask for, and the answer to log from what it gives."""

    make: Callable[[], Effect[Any]]
    then: Callable[[Any], Any] | None = None


def ask(request: Request) -> Ask:
    """Ask for just what the program asks for; of a properly weighted draw, for the pair of value and weight."""
    effect = request.effect
    return Ask(lambda: effect.raw if isinstance(effect, Sample) else effect)


class Walk(Generic[T]):
    """A run, the log of its weight (standing twists included until it returns), and the steps that it has made."""

    __slots__ = ("killed", "log_weight", "run", "steps", "twists")

    def __init__(self, run: Run[T], twists: Twists | None = None, log_weight: float = 0.0) -> None:
        self.run = run
        self.twists = twists or Twists()
        self.log_weight = log_weight
        self.steps = 0
        self.killed: str | None = None
        """The address of the factor or draw of weight zero."""

    @property
    def active(self) -> bool:
        """Whether there is more to run: neither returned nor of weight zero."""
        return not self.run.done and self.log_weight > -math.inf

    def copy(self) -> Walk[T]:
        """Another one at the same place."""
        return Walk(self.run.clone(), self.twists.copy(), self.log_weight)

    async def advance(self, given: Given = ask) -> None:
        """Go past the next factor or twist, or to the return. Draws and calls that are not given go out as one batch.

        A run with several open effects performs the first factor or twist among them; without one, it takes all
        answers at once. So do the particles of SMC: whoever has made n steps stands at the same place.
        """
        while self.active:
            requests = self.run.requests()
            for request in requests:
                if isinstance(request.effect, Weight):
                    self._weigh(self.twists.change(request.effect, request.run), request)
                    if self.killed is None:
                        request.answer(None)
                    self._step()
                    return
            answers = [given(request) for request in requests]
            asked = [(i, answer) for i, answer in enumerate(answers) if type(answer) is Ask]
            if asked:
                drawn = await parallel(*[question.make() for _, question in asked])
                for (i, question), answer in zip(asked, drawn, strict=True):
                    answers[i] = answer if question.then is None else question.then(answer)
            for request, answer in zip(requests, answers, strict=True):
                if request.effect.weighted:
                    self._weigh(answer[1], request)
                if self.killed is not None:  # the program must not see an impossible world
                    break
                request.answer(answer)
        self._step()

    def follow(self, given: Given) -> None:
        """As `advance`, where everything is given."""
        step = self.advance(given)
        try:
            step.send(None)
        except StopIteration:
            return
        step.close()
        raise RuntimeError(f"{self.run.program!r} asks for more than was given")

    def finish(self) -> None:
        """Once the run has returned, divide its twists out."""
        if self.run.done:
            self.log_weight -= self.twists.total()

    def _step(self) -> None:
        self.steps += 1
        self.finish()

    def _weigh(self, log_weight: float, request: Request) -> None:
        self.log_weight += log_weight
        if self.log_weight == -math.inf:
            self.killed = request.address
