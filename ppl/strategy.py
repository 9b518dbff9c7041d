"""What `ppl compare` compares: tasks, and strategies for spending compute on their problems."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from ppl.infer import Algorithm
from ppl.models.drafted import Drafted, Speculative
from ppl.models.language_model import LanguageModel
from ppl.posterior import Posterior
from ppl.program import Program
from ppl.rewards import Aggregate, Reward, Use, Verdicts

P = TypeVar("P")
Meaning = Literal["preserves", "optimises"]
Writes = Literal["model", "drafted", "speculative", "thinking"]


@dataclass(frozen=True)
class Task(Generic[P]):
    """What strategies are compared on: one generation program, and problems whose answers are known."""

    name: str
    lm: LanguageModel
    model: Callable[..., Any]
    """The reward model: `model(text)` is an effect, its answer a log probability."""
    problems: Sequence[P]
    program: Callable[[LanguageModel, Reward, P], Program[Any]]
    answer: Callable[[Any], Hashable]
    """Of a value that the program returns."""
    right: Callable[[Hashable, P], bool]
    name_of: Callable[[P], str] = lambda problem: problem.id  # pyright: ignore[reportAttributeAccessIssue]
    steps: int = 10
    """Of a typical solution: the budget of strategies that count steps."""
    log_prob: Callable[[Any], float] | None = None
    """log P under the language model of a value that the program returns, nats: RPC needs it."""
    draft: LanguageModel | None = None
    """A cheaper model of the same tokens: strategies of two models need it."""
    think: Callable[[LanguageModel, Reward, P, int], Program[Any]] | None = None
    """The program that is made to think on so many times before it answers: budget forcing needs it."""
    again: Callable[[], Task[P]] | None = None
    """Makes the task in another process: it must be possible to pickle it, as functions of modules are, and `partial`
    of them. `ppl compare --jobs` needs it. Who changes a task by `replace` must change this too."""


@dataclass(frozen=True)
class Strategy:
    """One row of the table."""

    name: str
    algorithm: Callable[[int, Task[Any]], Algorithm[Any]]
    """For a budget of N generations."""
    vote: Any = "weighted"
    """A vote on the answers; or, `on_paths`, a function of the task that gives a vote on the program's values."""
    use: Use = "step_likelihood"
    aggregate: Aggregate = "prod"
    beta: float = 1.0
    verdicts: int = 0
    """Of each score, drawn from it as from a generative verifier; 0: the score as it is."""
    writes: Writes = "model"
    """Who writes: the task's model, its draft weighed by the model, its draft where the reward is content with it, or
    the model that is made to think on."""
    reward: bool = True
    """Whether it needs a reward at all: if not, what scores are asked for in a shared run is not counted."""
    on_paths: bool = False
    meaning: Meaning = "optimises"
    least: int = 1
    """The smallest budget that makes sense."""
    source: str = ""
    cost: str = "N generations"
    about: str = ""

    def weigh(self, task: Task[Any]) -> Reward:
        """What the scores of the task's reward model mean to this strategy."""
        model = Verdicts(task.model, self.verdicts) if self.verdicts else task.model
        return Reward(model, self.use, self.aggregate, self.beta)

    def lacks(self, task: Task[Any]) -> str | None:
        """What the task lacks of what the strategy needs, in words; None if nothing."""
        needs = [
            (self.writes in ("drafted", "speculative"), task.draft, "a second model", "draft"),
            (self.writes == "thinking", task.think, "a program that can be made to think on", "think"),
            (self.on_paths, task.log_prob, "log P of whole values", "log_prob"),
        ]
        for asked, there, what, field in needs:
            if asked and there is None:
                return f"{self.name} needs {what}: give Task({task.name!r}, ..., {field}=...)"
        return None

    def check(self, task: Task[Any]) -> None:
        """Raise `ValueError` if the task lacks what the strategy needs; says what to give."""
        if lacks := self.lacks(task):
            raise ValueError(lacks)

    def writer(self, task: Task[Any]) -> LanguageModel:
        """A handle of what writes, with its own count of tokens."""
        if self.writes == "drafted":
            return Drafted(task.lm, task.draft).handle()  # pyright: ignore[reportReturnType, reportArgumentType]
        if self.writes == "speculative":
            return Speculative(task.lm, task.draft, task.model).handle()  # pyright: ignore[reportReturnType, reportArgumentType]
        return task.lm.handle()

    def program(self, task: Task[P], lm: LanguageModel, reward: Reward, problem: P, n: int) -> Program[Any]:
        """What is run for a problem at a budget of N."""
        if self.writes == "thinking":
            assert task.think is not None
            return task.think(lm, reward, problem, n - 1)
        return task.program(lm, reward, problem)

    def choose(self, posterior: Posterior[Any], task: Task[Any]) -> Hashable:
        """The answer; None where there is none."""
        if posterior.is_empty:
            return None
        return posterior.vote(self.vote(task)) if self.on_paths else posterior.map(task.answer).vote(self.vote)

    def run_of(self, algorithm: Algorithm[Any]) -> tuple[Any, ...]:
        """Strategies for which this is equal, of what they make of one budget, share one run: their votes differ."""
        return repr(algorithm), self.use, self.aggregate, self.beta, self.verdicts, self.writes
