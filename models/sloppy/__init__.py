"""The default model, its task, and the program that solves it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppl.language import condition, sample
from ppl.models.checkpoint import CheckpointError
from ppl.models.language_model import LanguageModel, StepReward, load
from ppl.models.sloppy import task
from ppl.models.text import Text
from ppl.program import program
from ppl.rewards import Reward, Use

HERE = Path(__file__).parent
Weighting = Literal["step", "published"]
USES: dict[Weighting, Use] = {"step": "step_likelihood", "published": "odds_each_step"}


@dataclass(frozen=True)
class Problem:
    """One line of a problem file. `answer` is known for held-out problems only."""

    id: str
    problem: str
    answer: str | None = None

    @classmethod
    def from_json(cls, line: str, number: int) -> Problem:
        """From a JSON object with "problem" and, if one likes, "id" and "answer".

        Raises:
            ValueError: saying what is wrong with the line.
        """
        example = '{"id": "a", "problem": "37+5*7-4"}'
        try:
            data = json.loads(line)
        except ValueError as error:
            raise ValueError(f"not JSON ({error}); a line looks like {example}") from None
        if not isinstance(data, dict) or not isinstance(data.get("problem"), str):
            raise ValueError(f'no string under "problem"; a line looks like {example}')
        task.parse(data["problem"])
        answer = data.get("answer")
        return cls(str(data.get("id", number)), data["problem"], None if answer is None else str(answer))


def load_model(preset: str = "default", folder: Path | str | None = None) -> LanguageModel:
    """The shipped model of a preset, or the one in `folder`.

    Raises:
        CheckpointError: naming the file and what is wrong with it, or why the model cannot do this task.
    """
    lm = load(HERE / preset if folder is None else folder, dtype="float32")
    known = set(lm.tokenizer.pieces())
    if "score.weight" not in lm.engine.params or not known.issuperset(task.ALPHABET) or longest(lm) < 1:
        raise CheckpointError(
            f"the model in {folder} cannot do this task: it needs a score head (score.weight, score.bias), the "
            f"characters {task.ALPHABET!r} as tokens, and a context of at least 9 tokens"
        )
    return lm


def held_out(preset: str = "default") -> list[Problem]:
    """The 500 frozen problems of a preset that training never sees."""
    lines = (HERE / preset / "problems.jsonl").read_text().splitlines()
    return [Problem.from_json(line, number) for number, line in enumerate(lines, 1)]


def longest(lm: LanguageModel) -> int:
    """The most operations a problem can have: 4 + 5 * operations characters must fit the context."""
    return (lm.engine.capacity - 4) // 5


@program
async def solve(lm: LanguageModel, reward: Reward | StepReward, problem: str, temperature: float = 1.0) -> Text:
    """Write one line per operation, and weigh each, or the last alone: as `reward` says (see `ppl.rewards`).

    A `StepReward` alone makes one factor P(this step is right) of each line, so that the target is the model's text
    times their product.
    """
    judged = (reward if isinstance(reward, Reward) else Reward(reward)).begin()
    text = lm.text(task.prompt(problem))
    for _ in range(len(task.parse(problem)[1])):
        text = await _line(lm, text, temperature)
        judged = await judged.step(text)
    await judged.end(text)
    return text


@program
async def rethink(lm: LanguageModel, problem: str, times: int) -> Text:
    """Solve, then `times` times go back to the line that the model was least sure of, and write on from there.

    Budget forcing (Muennighoff et al. 2025, "s1: Simple test-time scaling") for a model that has no word for "wait":
    it is made to look again, and nothing is judged.
    """
    prompt, steps, lines = lm.text(task.prompt(problem)), len(task.parse(problem)[1]), list[Text]()
    for again in range(times + 1):
        if again:
            doubtful = min(range(steps), key=lambda i: lines[i].log_prob or 0.0)
            del lines[doubtful:]
        while len(lines) < steps:
            lines.append(await _line(lm, lines[-1] if lines else prompt))
    return lines[-1]


async def _line(lm: LanguageModel, text: Text, temperature: float = 1.0) -> Text:
    """One line more; the run ends where it is none."""
    text = await sample("step", lm.extend(text, until="\n", max_tokens=3, temperature=temperature))
    if not task.is_line(text.last):  # not awaited at every line: each factor is a suspension of SMC
        await condition("two digits", False)
    return text


def answer_of(text: Text) -> str:
    """The last line."""
    return text.last.strip()
