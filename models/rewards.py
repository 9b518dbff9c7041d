"""Reward models: judges of answers, or of the steps of answers, that programs call.

    prm = models.load_reward("Qwen2.5-Math-PRM-7B")
    text = await sample("step", lm.extend(text, until="\\n\\n"))
    await factor("right", await prm(text, question))

The answer of the call is a log probability (nats, at most 0, never clipped). Of what, says `prm.kind`, and the weight
that is right for one kind is wrong for another:

=========== ================================ ======================================================================
kind        s_t = `await prm(...)` is        what to do with it
=========== ================================ ======================================================================
`step`      log P(step t is right, given     `factor("right", s_t)` at each step: the factors multiply to
            that those before are)           P(all steps are right).
`prefix`    log P(steps 1..t are all right)  `factor("right", s_t - s_prev)`, s_prev = 0 at the first: the factors
                                             multiply to P(all right), the last s_t. Or, where it shall guide the
                                             search and not be the target, `twist("right", s_t)`.
`value`     log P(the answer will be right)  as `prefix`.
`outcome`   log P(the answer is right), a    `factor("right", s)` once, behind the last step.
            whole answer being judged
=========== ================================ ======================================================================

`factor("right", s_t)` at each step with a `prefix` or `value` model targets the product of all s_t: a doubtful first
step is counted again at every later one, T times in T steps, and long answers are punished for being long. With a
`step` model the ratio is wrong in turn: it keeps the judgement of the last step alone.

A model that was trained to compare answers gives a reward r of which only differences mean something; its score here is
log sigmoid(r), and `ppl.log_odds(score)` is r itself: `factor("reward", ppl.log_odds(score) / beta)`.

*Question and steps.* The program's text is in the generator's tokens and layout; a reward model has its own, so it is
told the question as a string and takes the steps from the text: what was written behind the prompt (the first link of
the text), a step ending where a sampled block does. Characters that the program adds (`text + "Step 2:"`) belong to
the step that follows. Without a question, it is the prompt as it reads; a prompt made by `lm.chat` shows more than the
question, so there it must be given. Steps that are not blocks, or not sampled, can be given as a list of strings. White
space around a step does not count.

*Cost.* A text is laid out as a chain of links, one for each step, and the engine reads those that it has not read yet:
T steps of a growing text cost what its whole length costs once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ppl.effects import Call
from ppl.models import checkpoint, files, reward_heads
from ppl.models.checkpoint import CheckpointError
from ppl.models.compiled import keep_compiled
from ppl.models.engine import Engine
from ppl.models.language_model import LanguageModel, StepReward
from ppl.models.reward_heads import Head, log_scores
from ppl.models.reward_layouts import Answer, Layout, MathShepherd, QwenAnswer, QwenPRM, RLHFlow, Skywork, Steps
from ppl.models.text import Text
from ppl.models.transformer import Params
from ppl.models.weights import Weights

Kind = Literal["step", "prefix", "value", "outcome"]


@dataclass(frozen=True)
class Format:
    """How one family of reward models is laid out, and what its scores mean."""

    kind: Kind
    about: str
    heads: dict[str, int]
    """The tensors of the head, and their first dimension; 0 stands for hidden_size."""
    layout: type[Layout] | None
    head: Callable[[Params, Any], Head] | None = None
    """Takes the head out of the parameters; the layout knows the tokens."""


def _signs(params: Params, layout: MathShepherd | RLHFlow) -> Head:
    return reward_heads.columns(params, *layout.signs)


def _linear(name: str) -> Callable[[Params, Any], Head]:
    return lambda params, layout: reward_heads.linear(params, name)


def _two_layers(params: Params, layout: Layout) -> Head:
    return reward_heads.two_layers(params)


def _sizes(outputs: int) -> dict[str, int]:
    return {"score.0.weight": 0, "score.0.bias": 0, "score.2.weight": outputs, "score.2.bias": outputs}


VALUE_HEAD = {"v_head.summary.weight": 1, "v_head.summary.bias": 1}
OURS: dict[str, int] = dict.fromkeys(checkpoint.STEP_HEAD, 1)
FORMATS = {
    "qwen-prm": Format("step", "Qwen2.5-Math-PRM", _sizes(2), QwenPRM, _two_layers),
    "qwen-rm": Format("outcome", "Qwen2.5-Math-RM", _sizes(1), QwenAnswer, _two_layers),
    "skywork": Format("value", "Skywork-o1-Open-PRM", VALUE_HEAD, Skywork, _linear("v_head.summary")),
    "steps": Format("step", "models of this library, which judge the steps they write", OURS, None),
    "classifier": Format("outcome", "...ForSequenceClassification", {"score.weight": 1}, Answer, _linear("score")),
    "math-shepherd": Format("value", "Math-Shepherd: + or - at the tag", {}, MathShepherd, _signs),
    "rlhflow": Format("value", "RLHFlow: + or - in a chat", {}, RLHFlow, _signs),
}
"""By name; those that the tensors tell come first, the more demanding before the others."""


class RewardModel:
    """Calling it gives an effect whose answer is the log probability that `kind` says (see the module), nats.

    `text` is what a program wrote, a `Text` of any tokenizer, or a sequence of steps; `question` what it is about.

    Raises:
        TypeError: `text` is neither.
        ValueError: nothing was sampled yet; the question is needed; the tokenizer cannot write it all; it does not fit
            the context: `fits` tells.
    """

    def __init__(self, engine: Engine, layout: Layout, head: Head, kind: Kind, name: str = "reward") -> None:
        self.engine = engine
        self.layout = layout
        self.head = head
        self.kind: Kind = kind
        self.name = name
        self._batch = self.score_many

    def __call__(self, text: Text | Sequence[str], question: str | None = None) -> Call[float]:
        if not isinstance(text, Text):
            text = _given(text)
        return Call(self.score, (text, question), self._batch)

    def score(self, text: Text | Sequence[str], question: str | None = None) -> float:
        """The answer of a call, at once."""
        return self.score_many([(text, question)])[0]

    def score_many(self, args: Sequence[tuple[Text | Sequence[str], str | None]]) -> list[float]:
        """The scores of pairs (text, question), together; each is the same bits as alone."""
        texts = [self.laid_out(*one) for one in args]
        for text in texts:
            if len(text) > self.engine.capacity:
                raise ValueError(f"{self.name}: question and steps take {len(text)} tokens, its context holds "
                                 f"{self.engine.capacity}: allow fewer or shorter steps (max_tokens), or end such a "
                                 'path by condition("fits", prm.fits(text, question))')  # fmt: skip
        self.engine.usage.judged += len(texts)
        return log_scores(self.head.logits(self.engine.hidden(texts)), self.name)

    def fits(self, text: Text | Sequence[str], question: str | None = None) -> bool:
        """Whether question and steps fit the context of the reward model."""
        return len(self.laid_out(text, question)) <= self.engine.capacity

    def laid_out(self, text: Text | Sequence[str], question: str | None = None) -> Text:
        """The text that the reward model reads, in its own tokens; the score is read at the last."""
        if isinstance(text, Text):
            steps = steps_of(text)
            question = _prompt(text) if question is None else question
        else:
            steps = _given(text)
            if question is None:
                raise ValueError(f"{self.name}: steps without a prompt need their question: prm(steps, question)")
        return self.layout.text(question, steps)

    def __repr__(self) -> str:
        return f"<{self.kind} reward {self.name}>"


def steps_of(text: Text) -> Steps:
    """What was written behind the prompt (the first link), cut where a sampled block ends.

    Raises:
        ValueError: nothing was.
    """
    steps, open_ = list[str](), ""
    for link in reversed(list(text.chain())):
        if link.parent is None or not link.parent.data:  # the prompt
            continue
        open_ += link.last
        if link.sampled:
            steps.append(open_)
            open_ = ""
    if not steps:
        raise ValueError(f"there is no step to judge: nothing was sampled behind the prompt of {text!r}; give steps "
                         "that were not sampled as a list of strings")  # fmt: skip
    steps[-1] += open_
    return tuple(steps)


def _prompt(text: Text) -> str:
    first = list(text.chain())[-1]
    behind = first.data.removeprefix(text.tokenizer.prefix)
    if not text.tokenizer.special.isdisjoint(np.frombuffer(behind, "<i4").tolist()):
        raise ValueError(f"the prompt {str(first)[:60]!r} has special tokens in it, so the question cannot be told "
                         "from what is around it: give it, like prm(text, question)")  # fmt: skip
    return str(first)


def _given(steps: Any) -> Steps:
    """Steps from a list, a blank line behind those that do not end with white space."""
    if isinstance(steps, str) or not isinstance(steps, Sequence) or not all(isinstance(step, str) for step in steps):
        raise TypeError(f"a reward model judges a Text or a list of steps, like [{steps!r}]")
    if not steps:
        raise ValueError("there is no step to judge: the list is empty")
    return tuple(step if step[-1:].isspace() else f"{step}\n\n" for step in steps)


def load_reward(
    path: Path | str, format: str | None = None, *, kind: Kind | None = None, dtype: str | None = None
) -> RewardModel | StepReward:
    """The reward model in a checkpoint folder, or under an id of the Hugging Face hub.

    `format` is one of `FORMATS`. Where the head has tensors of its own, these tell it; a causal language model that
    says + or - does not show it. `kind` is that of the format unless given: give it if you know how the steps of the
    training data were labelled. `dtype` is as in `models.load`.

    Raises:
        CheckpointError: a file is missing or damaged; the head is not of the format, or none is there; the tokenizer
            lacks a token or the chat template that the format needs.
        ValueError: `format` or `kind` is unknown.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; {_choices()}")
    if kind is not None and kind not in get_args(Kind):
        raise ValueError(f"unknown kind {kind!r}: choose {', '.join(get_args(Kind))}")
    keep_compiled()
    folder = files.find(path)
    name = folder.name if folder == Path(path) else str(path)
    tensors = Weights(folder).shapes
    found = next((known for known, one in FORMATS.items() if one.heads and _misfit(one, tensors) is None), None)
    format = format or found
    if format is None:
        raise CheckpointError(f"{folder} has no head that tells its format: it is a causal language model that says + "
                              f"or -, or no reward model; {_choices()}")  # fmt: skip
    how = FORMATS[format]
    if (wrong := _misfit(how, tensors)) is not None:
        hint = f"; it looks like format={found!r}" if found else ""
        raise CheckpointError(f"{folder}: {wrong}, so it is not of format {format!r} ({how.about}){hint}")
    params, config, tokenizer = checkpoint.load(folder, dtype, tuple(how.heads) or None if how.layout else None)
    if how.layout is None:
        reward = StepReward(LanguageModel(Engine(params, config), tokenizer, name))
        reward.kind = kind or how.kind
        return reward
    token = partial(_special, tokenizer.backend, files.read_optional(folder / "tokenizer_config.json"))
    try:
        pad = files.read_json(folder / "config.json").get("pad_token_id")
        layout = how.layout(tokenizer, token("bos_token"), b"" if pad is None else np.int32(pad).tobytes())
    except ValueError as error:
        raise CheckpointError(f"{folder} cannot be used in format {format!r}: {error}") from None
    assert how.head is not None
    head = how.head(params, layout)
    return RewardModel(Engine(params, config), layout, head, kind or how.kind, name)


def _misfit(how: Format, tensors: dict[str, tuple[int, ...]]) -> str | None:
    """What of the head is not there or has another shape; None if all is as it should be."""
    size = tensors.get("model.embed_tokens.weight", (0, 0))[-1]
    for name, outputs in how.heads.items():
        shape = (outputs or size, size) if name.endswith(".weight") else (outputs or size,)
        if name not in tensors:
            return f"there is no tensor {name}"
        if tensors[name] != shape:
            return f"the tensor {name} has shape {tensors[name]} where {shape} is expected"
    return None


def _special(backend: Any, config: dict[str, Any], name: str) -> bytes:
    """The special token that `tokenizer_config.json` calls so, int32 as bytes; nothing if there is none."""
    named = config.get(name)
    named = named.get("content") if isinstance(named, dict) else named
    token = backend.token_to_id(named) if isinstance(named, str) else None
    return b"" if token is None else np.int32(token).tobytes()


def _choices() -> str:
    return "give format=, one of " + ", ".join(f"{name!r} ({how.about})" for name, how in FORMATS.items())
