"""The default model, its task, and the program that solves it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppl.distributions import log_odds
from ppl.language import condition, factor, sample
from ppl.models.checkpoint import CheckpointError
from ppl.models.language_model import LanguageModel, StepReward, load
from ppl.models.sloppy import task
from ppl.models.text import Text
from ppl.program import program

HERE = Path(__file__).parent
Weighting = Literal["step", "published"]


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
async def solve(lm: LanguageModel, reward: StepReward, problem: str, weighting: Weighting = "step") -> Text:
    """Write one line per operation, and weigh each.

    `step`: one factor P(this step is right) per line, so the target is the model's text times the product over steps.
    `published`: the weights of the published particle filter (Puri et al. 2025, "A probabilistic inference approach to
    inference-time scaling of LLMs"), the odds of the running score at each line, so that it counts again at later ones.
    """
    text = lm.text(task.prompt(problem))
    running = 0.0
    for _ in range(len(task.parse(problem)[1])):
        text = await sample("step", lm.extend(text, until="\n", max_tokens=3))
        if not task.is_line(text.last):  # not awaited at every line: each factor is a suspension of SMC
            await condition("two digits", False)
        log_right = await reward(text)
        running += log_right
        await factor("right", log_right if weighting == "step" else log_odds(running))
    return text


def answer_of(text: Text) -> str:
    """The last line."""
    return text.last.strip()
