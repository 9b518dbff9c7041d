"""Checkpoints: what is saved is loaded, and whatever is wrong with a folder is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ppl.models import checkpoint, language_model
from ppl.models.checkpoint import CheckpointError
from ppl.models.draw import Options
from ppl.models.language_model import LanguageModel, StepReward
from ppl.models.text import Tokenizer
from ppl.models.transformer import Config, init_params


@pytest.fixture(scope="module")
def saved(new_model: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lm = new_model("abc\n", eos="\n")
    folder = tmp_path_factory.mktemp("saved") / "model"
    checkpoint.save(folder, lm.engine.params, lm.engine.config, lm.tokenizer)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def refused(folder: Path, name: str, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    assert str(folder / name) in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("tied", [True, False])
def test_round_trip(tied: bool, config_of: Callable[..., Config], tmp_path: Path) -> None:
    config = config_of(4, tie_word_embeddings=tied, rope_theta=123.0)
    params = init_params(config, jax.random.key(3))
    checkpoint.save(tmp_path / "new" / "m", params, config, Tokenizer(Tokenizer.of_characters("abc\n").backend, [3, 1]))
    again, read, tokenizer = checkpoint.load(tmp_path / "new" / "m")
    assert read == config and set(again) == set(params) and tokenizer.eos == {1, 3}
    for name, value in params.items():
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], np.asarray(value, np.float16))
    assert tokenizer.encode("cab\n") == np.array([2, 0, 1, 3], np.int32).tobytes()


def test_a_loaded_model_is_called_after_its_folder_and_judges(saved: Path) -> None:
    lm = language_model.load(saved)
    assert lm.name == "model" and StepReward(lm).score(lm.text("ab")) < 0


def test_one_end_of_text_token_may_stand_without_a_list(folder: Path) -> None:
    edit(folder, eos_token_id=2)
    assert checkpoint.load(folder)[2].eos == {2}
    edit(folder, eos_token_id=None)
    assert checkpoint.load(folder)[2].eos == frozenset()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name, "does not exist")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "config.json", "does not exist")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.02, 0.1, 0.5, 0.999])
def test_truncated_weights_are_named(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(folder, "model.safetensors", "truncated")


def change(folder: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = dict(load_file(folder / "model.safetensors"))
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "score.bias"])
def test_a_missing_tensor_is_named(folder: Path, name: str) -> None:
    change(folder, lambda tensors: tensors.pop(name))
    refused(folder, "model.safetensors", f"lacks the tensor {name}")


def test_a_misshapen_tensor_is_named(folder: Path) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    change(folder, lambda tensors: tensors.update({name: np.zeros((3, 16), np.float16)}))
    refused(folder, "model.safetensors", name, "(3, 16)", "(8, 16)")


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"model.extra.weight": np.zeros(3, np.float16)}))
    refused(folder, "model.safetensors", "model.extra.weight")


def edit(folder: Path, **changes: Any) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | changes))


def test_a_config_that_is_not_json_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    refused(folder, "config.json")


def test_a_config_that_lacks_a_size_is_named(folder: Path) -> None:
    (folder / "config.json").write_text('{"vocab_size": 4}')
    refused(folder, "config.json", "hidden_size")


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_config_that_is_no_object_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")


@pytest.mark.parametrize(
    "changes",
    [{"head_dim": 3}, {"num_key_value_heads": 3}, {"num_key_value_heads": 0}, {"num_hidden_layers": "2"},
     {"eos_token_id": "end"}],
)  # fmt: skip
def test_a_config_with_an_impossible_value_is_named(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    refused(folder, "config.json")


@pytest.mark.parametrize("text", ["", "{}", "nonsense"])
def test_a_damaged_tokenizer_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    refused(folder, "tokenizer.json")


def test_a_tokenizer_larger_than_the_model_is_named(folder: Path) -> None:
    Tokenizer.of_characters("abcdefg").backend.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has 7 tokens.* only 4") as caught:
        checkpoint.load(folder)
    assert str(folder) in str(caught.value)


def test_without_a_score_head_there_is_no_step_reward(folder: Path) -> None:
    def behead(tensors: dict[str, np.ndarray]) -> None:
        del tensors["score.weight"], tensors["score.bias"]

    change(folder, behead)
    lm = language_model.load(folder)
    with pytest.raises(ValueError, match="copy has no score head"):
        StepReward(lm)


def test_float16_moves_log_probs_little(saved: Path, new_model: Callable[..., LanguageModel]) -> None:
    """The docstring of `save` promises 1e-2 nats."""
    exact, rounded = new_model("abc\n", eos="\n"), language_model.load(saved)
    heads = [exact.text("ab")] * 4
    texts = [head + block for head, block in zip(heads, ("c", "a\n", "bca", "cccc"), strict=True)]
    pairs = zip(*(lm.engine.log_probs(heads, texts, Options()) for lm in (exact, rounded)), strict=True)
    assert all(0 < abs(a - b) < 1e-2 for a, b in pairs)
