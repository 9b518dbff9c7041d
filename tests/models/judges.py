"""Small random reward models under the names of the real ones, and what their authors' code makes of them in torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

from ppl.models.reward_layouts import QWEN_SYSTEM
from tests.models import vocabularies
from tests.models.test_chat import CHATML, LLAMA3

SIZES = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
         "sliding_window": None}  # fmt: skip

Reference = Callable[[str, Sequence[str]], list[float]]
"""Log scores of a question and steps: of each step, or, for an outcome, of the answers of 1, 2, ... steps."""


class Judge(NamedTuple):
    format: str
    family: str
    kind: str
    build: Callable[[Path, Any, Any], Reference]
    """Saves a folder from a backbone with an LM head and a tokenizer; gives the reference."""
    config: dict[str, Any] = {}  # noqa: RUF012


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def random_(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * shape[-1] ** -0.5


def head(inputs: int, outputs: int) -> Any:
    out = torch.nn.Sequential(torch.nn.Linear(inputs, inputs), torch.nn.ReLU(), torch.nn.Linear(inputs, outputs))
    for parameter in out.parameters():  # scores that differ
        parameter.mul_(3)
    return out


def write(
    folder: Path, model: Any, extra: dict[str, torch.Tensor], architecture: str, keep_lm_head: bool = True
) -> None:
    state = {name: value.clone() for name, value in (model.state_dict() | extra).items()}
    if not keep_lm_head:
        state.pop("lm_head.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [architecture]}))


def hidden(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.model(torch.tensor([ids])).last_hidden_state[0]


def ids_of(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(messages).input_ids


def qwen_messages(question: str, answer: str) -> list[dict[str, str]]:
    return [said("system", QWEN_SYSTEM), said("user", question), said("assistant", answer)]


@torch.no_grad()
def qwen_prm(folder: Path, model: Any, tokenizer: Any) -> Reference:
    score = head(32, 2)
    write(folder, model, {f"score.{k}": v for k, v in score.state_dict().items()}, "Qwen2ForProcessRewardModel")
    tag = tokenizer.convert_tokens_to_ids("<extra_0>")

    @torch.no_grad()
    def reference(question: str, steps: Sequence[str]) -> list[float]:
        ids = ids_of(tokenizer, qwen_messages(question, "<extra_0>".join(steps) + "<extra_0>"))
        probs = torch.softmax(score(hidden(model, ids)), -1)
        return probs[torch.tensor(ids) == tag, 1].double().log().tolist()

    return reference


@torch.no_grad()
def qwen_rm(folder: Path, model: Any, tokenizer: Any) -> Reference:
    score = head(32, 1)
    extra = {f"score.{k}": v for k, v in score.state_dict().items()}
    write(folder, model, extra, "Qwen2ForRewardModel", keep_lm_head=False)

    @torch.no_grad()
    def reference(question: str, steps: Sequence[str]) -> list[float]:
        whole = [ids_of(tokenizer, qwen_messages(question, "\n\n".join(steps[: i + 1]))) for i in range(len(steps))]
        return [torch.nn.functional.logsigmoid(score(hidden(model, ids))[-1, 0]).item() for ids in whole]

    return reference


@torch.no_grad()
def skywork(folder: Path, model: Any, tokenizer: Any) -> Reference:
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    summary = torch.nn.Linear(32, 1)
    extra = {f"v_head.summary.{k}": v for k, v in summary.state_dict().items()}
    write(folder, model, extra, "Qwen2ForCausalLM")

    @torch.no_grad()
    def reference(question: str, steps: Sequence[str]) -> list[float]:
        ids, ends, newline = tokenizer.encode(tokenizer.bos_token + question + "\n"), [], tokenizer.encode("\n")[-1]
        for step in steps:
            ids += [*tokenizer.encode(step), newline]
            ends.append(len(ids) - 1)
        return torch.sigmoid(summary(hidden(model, ids)))[ends, 0].double().log().tolist()

    return reference


@torch.no_grad()
def math_shepherd(folder: Path, model: Any, tokenizer: Any) -> Reference:
    write(folder, model, {}, "MistralForCausalLM")
    signs = tokenizer.encode("+ -")[1:]
    tag = tokenizer.encode("ки")[-1]
    assert len(signs) == 2 and tokenizer.convert_ids_to_tokens([*signs, tag]) == ["▁+", "▁-", "▁ки"]

    @torch.no_grad()
    def reference(question: str, steps: Sequence[str]) -> list[float]:
        ids = tokenizer.encode(f"{question} " + "\n".join(f"{step} ки" for step in steps))
        probs = model(torch.tensor([ids])).logits[0][:, signs].softmax(-1)
        return probs[torch.tensor(ids) == tag, 0].double().log().tolist()

    return reference


@torch.no_grad()
def rlhflow(folder: Path, model: Any, tokenizer: Any) -> Reference:
    write(folder, model, {}, "LlamaForCausalLM")
    signs = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]

    @torch.no_grad()
    def reference(question: str, steps: Sequence[str]) -> list[float]:
        out, messages = [], []
        for i, step in enumerate(steps):
            messages += [said("user", step if i else f"{question} {step}"), said("assistant", "+")]
            logits = model(torch.tensor([ids_of(tokenizer, messages)])).logits[0, -3, signs]
            out.append(logits.softmax(-1)[0].double().log().item())
        return out

    return reference


@torch.no_grad()
def classifier(folder: Path, model: Any, tokenizer: Any, pad: int | None = None) -> Reference:
    model.config.pad_token_id = pad
    score = random_(1, 32)
    write(folder, model, {"score.weight": score}, "LlamaForSequenceClassification", keep_lm_head=False)
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=1)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, config=config).eval()

    @torch.no_grad()
    def reference(question: str, steps: Sequence[str]) -> list[float]:
        out = []
        for i in range(len(steps)):
            answer = "\n\n".join(steps[: i + 1])
            ids = ids_of(tokenizer, [said("user", question), said("assistant", answer)])
            out.append(torch.nn.functional.logsigmoid(theirs(torch.tensor([ids])).logits[0, 0]).item())
        return out

    return reference


JUDGES = {
    "qwen-prm": Judge("qwen-prm", "qwen2", "step", qwen_prm),
    "qwen-rm": Judge("qwen-rm", "qwen2", "outcome", qwen_rm),
    "skywork": Judge("skywork", "qwen2", "value", skywork),
    "math-shepherd": Judge("math-shepherd", "mistral", "value", math_shepherd),
    "rlhflow": Judge("rlhflow", "llama", "value", rlhflow),
    "rlhflow, tied": Judge("rlhflow", "llama", "value", rlhflow, {"tie_word_embeddings": True}),
    "classifier": Judge("classifier", "llama", "outcome", classifier),
    "classifier, padding at the end": Judge("classifier", "llama", "outcome", partial(classifier, pad=374)),
}


def vocabulary(family: str, folder: Path) -> Any:
    """The tokenizer of transformers, which it also writes to the folder."""
    kind, layout = {"qwen2": ("qwen", CHATML), "mistral": ("mistral", None), "llama": ("llama 3", LLAMA3)}[family]
    fast = vocabularies.save(kind, folder, **({} if layout is None else {"chat_template": layout}))
    if family == "qwen2":
        fast.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    if family == "mistral":  # in the vocabulary of Math-Shepherd these are words
        data = json.loads(fast.backend_tokenizer.to_str())
        for piece in ("к", "и", "ки", "▁ки", "+", "-", "▁+", "▁-"):
            data["model"]["vocab"][piece] = len(data["model"]["vocab"])
        data["model"]["merges"] += [["к", "и"], ["▁", "ки"], ["▁", "+"], ["▁", "-"]]
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(data)), bos_token="<s>", eos_token="</s>"
        )
    fast.save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def build(name: str, folder: Path) -> Reference:
    """Save the judge of that name; its reference."""
    judge = JUDGES[name]
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(judge.family, **SIZES, **judge.config)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return judge.build(folder, model, vocabulary(judge.family, folder))
