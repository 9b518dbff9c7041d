"""Folders of checkpoints as they are found: shards, heads, stray files, those of other models, ids of the hub."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ppl import models
from ppl.models import checkpoint, files
from ppl.models.checkpoint import CheckpointError
from ppl.models.language_model import LanguageModel
from ppl.models.text import Tokenizer

HEAD = ("score.weight", "score.bias")


@pytest.fixture(scope="module")
def saved(new_model: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model of four characters with the head of a step reward."""
    lm = new_model("abc\n", eos="\n")
    folder = tmp_path_factory.mktemp("saved") / "model"
    checkpoint.save(folder, lm.engine.params, lm.engine.config, lm.tokenizer)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def refused(folder: Path, *words: str, **how: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder, **how)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def tensors(folder: Path, **changes: np.ndarray) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "model.safetensors")) | changes


def write(folder: Path, held: dict[str, np.ndarray]) -> None:
    save_file(held, folder / "model.safetensors")


def configure(folder: Path, name: str = "config.json", **changes: Any) -> None:
    old = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(old | changes))


def shard(folder: Path) -> None:
    """The same model in two files with an index."""
    held = tensors(folder)
    (folder / "model.safetensors").unlink()
    names, where = sorted(held), {}
    for number, part in enumerate((names[:10], names[10:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: held[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def test_shards_hold_the_same_tensors(saved: Path, folder: Path) -> None:
    shard(folder)
    whole, parts = checkpoint.load(saved)[0], checkpoint.load(folder)[0]
    assert set(whole) == set(parts)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name])


def test_a_missing_or_damaged_shard_is_named(folder: Path) -> None:
    shard(folder)
    second = folder / "model-00002-of-00002.safetensors"
    kept = second.read_bytes()
    second.write_bytes(kept[:-7])
    refused(folder, str(second), "truncated")
    held = dict(load_file(folder / "model-00001-of-00002.safetensors"))
    save_file(held, second)
    refused(folder, str(second), "lacks the tensor model.layers", "model.safetensors.index.json")
    second.unlink()
    refused(folder, str(second), "does not exist", "index.json lists it")
    for broken in ({}, {"weight_map": {}}, {"weight_map": {"a": "../b.safetensors"}}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(broken))
        refused(folder, "model.safetensors.index.json", "weight_map" if "weight_map" not in broken else "")
    refused(folder, "'../b.safetensors' is not the name of a file beside it")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"])
def test_a_pickle_is_never_loaded(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, str(folder / name), "pickle", "save_pretrained")


def test_stray_tensors_that_files_are_known_to_hold_are_left_out(saved: Path, folder: Path) -> None:
    table = np.zeros((4, 16), np.float16)
    strays = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32) for i in range(2)}
    write(folder, tensors(folder, **{"lm_head.weight": table, "model.rotary_emb.inv_freq": table}, **strays))
    assert set(checkpoint.load(folder)[0]) == set(checkpoint.load(saved)[0])
    write(folder, tensors(folder, **{"model.layers.0.self_attn.q_proj.bias": table}))
    refused(folder, "model.safetensors", "does not use: model.layers.0.self_attn.q_proj.bias")


def test_the_head_of_a_model_that_judges_is_given_as_it_is(folder: Path) -> None:
    deep = {"score.0.weight": np.ones((16, 16)), "score.0.bias": np.ones(16), "score.2.weight": np.ones((2, 16))}
    write(folder, {name: x for name, x in tensors(folder).items() if name not in HEAD} | deep)
    refused(folder, "does not use: score.0.bias, score.0.weight, score.2.weight")
    with pytest.raises(ValueError, match="float64"):
        checkpoint.load(folder, dtype="float64")
    refused(folder, "score.0.", "F64", heads=["score."])  # what is not of floats of 32 or 16 bits
    deep = {name: value.astype(np.float32) for name, value in deep.items()}
    write(folder, tensors(folder, **deep, **{"lm_head.weight": np.ones((4, 16), np.float32)}))
    configure(folder, tie_word_embeddings=False)
    params, config, _ = checkpoint.load(folder, heads=["score."], dtype="bfloat16")
    assert {name: params[name].shape for name in deep} == {name: value.shape for name, value in deep.items()}
    assert "lm_head.weight" not in params and params["score.0.bias"].dtype == jnp.float32
    assert "lm_head.weight" in checkpoint.load(folder, heads=["score.", "lm_head."])[0]
    refused(folder, "no tensor v_head.summary....", heads=["v_head.summary."])
    write(folder, {name: x for name, x in tensors(folder).items() if name != "lm_head.weight"})
    assert set(checkpoint.load(folder, heads=["score."])[0]) == set(params) and not config.tie_word_embeddings
    refused(folder, "lacks the tensor lm_head.weight")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, ["'gpt2' is not supported", "llama, mistral, qwen2, qwen3"]),
        ({"hidden_act": "gelu"}, ["hidden_act 'gelu'"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["'yarn' is not supported, only linear and llama3"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["'dynamic'"]),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}, ["'longrope'"]),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ["one set for all layers"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 0}}, ["factor must be a positive number, not 0"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0}}, ["low_freq_factor=4.0"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ({"model_type": "mistral", "sliding_window": 0}, ["sliding_window must be a positive integer, not 0"]),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, ["some of"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quantized"]),
        ({"rms_norm_eps": "1e-6"}, ["rms_norm_eps must be a positive number, not '1e-6'"]),
        ({"model_type": "qwen2"}, ["model.safetensors lacks the tensor model.layers.0.self_attn.q_proj.bias"]),
    ],
)  # fmt: skip
def test_an_architecture_that_is_not_supported_is_named(
    folder: Path, changes: dict[str, Any], words: list[str]
) -> None:
    data = json.loads((folder / "config.json").read_text())
    del data["rope_scaling"], data["sliding_window"]
    (folder / "config.json").write_text(json.dumps(data | changes))
    refused(folder, str(folder), *words)


def test_what_a_family_does_not_have_is_not_read(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen3", "sliding_window": 8}
    for more in ({"use_sliding_window": False}, {"use_sliding_window": True, "max_window_layers": 2}, {}):
        assert checkpoint.Config.from_json(data | more).sliding_window is None
    flags = {"attention_bias": True, "mlp_bias": True}  # that the classes of other families do not have
    for family, kept in {"llama": (True, True), "qwen3": (True, False), "qwen2": (False, False)}.items():
        read = checkpoint.Config.from_json(data | flags | {"model_type": family})
        assert (read.attention_bias, read.mlp_bias) == kept
    scaled = checkpoint.Config.from_json(data | {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}).rope_scaling
    assert scaled is not None and scaled.original_max_position_embeddings == data["max_position_embeddings"]
    types = {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
    assert checkpoint.Config.from_json(data | types).sliding_window == 8


def test_the_tokenizer_of_another_model_is_named(folder: Path) -> None:
    backend = Tokenizer.of_characters("abc\n").backend
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(folder / "tokenizer.json"))
    refused(folder, "tokenizer.json", "has 6 tokens", "knows only 4", "another model")
    Tokenizer.of_characters("ab").backend.save(str(folder / "tokenizer.json"))
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"] = {"a": 0, "b": 7}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    refused(folder, "tokenizer.json", "has 2 tokens, numbered to 7")
    configure(folder, eos_token_id=None)
    data["model"]["vocab"], data["decoder"] = {"a": 0, "b": 1}, {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    refused(folder, "tokenizer.json", "the decoder WordPiece is not supported")
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    refused(folder, "tokenizer.json does not exist, only tokenizer.model", "AutoTokenizer", "save_pretrained")


def test_a_text_ends_with_what_any_of_the_files_says(folder: Path) -> None:
    configure(folder, "generation_config.json", eos_token_id=[0, 2])
    assert checkpoint.load(folder)[2].eos == {0, 2, 3}
    configure(folder, eos_token_id=None)
    configure(folder, "tokenizer_config.json", eos_token="b")
    assert checkpoint.load(folder)[2].eos == {0, 2}
    (folder / "generation_config.json").unlink()
    assert checkpoint.load(folder)[2].eos == {1}
    configure(folder, "tokenizer_config.json", eos_token={"content": "a"})
    assert checkpoint.load(folder)[2].eos == {0}
    (folder / "tokenizer_config.json").unlink()
    configure(folder, "special_tokens_map.json", eos_token="c")
    assert checkpoint.load(folder)[2].eos == {2}
    configure(folder, eos_token_id=4)
    refused(folder, "tokenizer.json: there is no token 4, which is the eos_token_id", "another model")
    configure(folder, eos_token_id=None)
    configure(folder, "generation_config.json", eos_token_id="x")
    refused(folder, "generation_config.json: eos_token_id must be a token id or a list")


def test_a_text_is_never_cut_or_padded(folder: Path) -> None:
    backend = Tokenizer.of_characters("abc\n").backend
    backend.enable_truncation(3)
    backend.enable_padding(length=8, pad_token="a")
    backend.save(str(folder / "tokenizer.json"))
    assert str(models.load(folder).text("abcab")) == "abcab"


def test_a_prompt_begins_as_the_files_say(folder: Path) -> None:
    assert len(models.load(folder).text("ab")) == 2
    configure(folder, "tokenizer_config.json", bos_token="c", add_bos_token=True)
    lm = models.load(folder)
    assert str(lm.text("ab")) == "cab" and str(lm.text("cab")) == "cab" and str(lm.text("ab") + "ab") == "cabab"
    configure(folder, "tokenizer_config.json", add_bos_token=False)
    assert str(models.load(folder).text("ab")) == "ab"


def test_tokens_of_the_model_that_the_tokenizer_lacks_are_no_text(folder: Path) -> None:
    Tokenizer.of_characters("abc").backend.save(str(folder / "tokenizer.json"))
    configure(folder, eos_token_id=None)
    lm = models.load(folder)
    text = models.Text(lm.tokenizer, np.array([0, 3, 1], "<i4").tobytes())
    assert str(text) == "ab" and text.finished is False
    dist = lm.extend(lm.text("a"), until="bc", max_tokens=3)
    assert dist.can_write(models.Text(lm.tokenizer, dist.text.data + np.array([1, 1, 2], "<i4").tobytes()))
    assert not dist.can_write(models.Text(lm.tokenizer, dist.text.data + np.array([1, 2, 1], "<i4").tobytes()))
    assert dist.can_write(models.Text(lm.tokenizer, dist.text.data + np.array([1, 3, 2], "<i4").tobytes()))


def cached(saved: Path, hub: Path, *names: str) -> None:
    """The layout of the hub's cache."""
    model = hub / "models--some--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0" * 40)
    (model / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for name in names:
        shutil.copy(saved / name, model / "snapshots" / ("0" * 40) / name)


def test_an_id_of_the_hub_is_looked_up_in_its_cache(saved: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[Any] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", spy(asked))
    cached(saved, tmp_path, "config.json", "model.safetensors", "tokenizer.json")
    lm = models.load("some/model")
    assert lm.name == "some/model" and len(asked) == 1 and asked[0]["local_files_only"]
    (tmp_path / "models--some--model/snapshots" / ("0" * 40) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"some/model is no folder, is not in the local cache.*no network"):
        models.load("some/model")
    patterns = asked[-1]["allow_patterns"]
    assert "model*.safetensors" in patterns and not any(p.endswith((".bin", ".py", "*")) for p in patterns)


def spy(asked: list[Any]) -> Any:
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def download(name: str, **how: Any) -> str:
        asked.append(how)
        if not how.get("local_files_only"):
            raise OSError("no network")
        return real(name, **how)

    return download


def test_without_the_library_of_the_hub_a_folder_is_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"some/model is no folder.*pip install huggingface_hub"):
        models.load("some/model")
    assert files.find(tmp_path) == tmp_path and files.find("./some/model") == Path("some/model")
