"""The tensors of a checkpoint: one safetensors file, or shards with an index. No pickle is ever loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors

from ppl.models.files import INDEX, WEIGHTS, CheckpointError, read_json

FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

CONVERT = (
    "convert it once, where transformers and torch are installed: "
    "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
)


class Weights:
    """The tensors of a folder: their files, shapes and types at once, their values one by one.

    Raises:
        CheckpointError: there is no safetensors file, or one is missing or damaged, or lacks what the index promises.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        """The file of each tensor."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        """As safetensors calls them: F32, BF16, F16, ..."""
        self.main = folder / WEIGHTS  # what errors about the whole name
        promised: Mapping[str, str] = {}
        if not self.main.is_file() and (folder / INDEX).is_file():
            self.main = folder / INDEX
            promised = _weight_map(self.main)
        elif not self.main.is_file():
            raise CheckpointError(_missing(folder))
        for path in [folder / name for name in sorted(set(promised.values()))] or [self.main]:
            if not path.is_file():
                raise CheckpointError(f"{path} does not exist, though {self.main.name} lists it: copy it too")
            self._look(path)
        for name, file in promised.items():
            if name not in self.files:
                raise CheckpointError(f"{folder / file} lacks the tensor {name}, which {self.main.name} says it holds")

    def read(self, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
        """The values of some tensors, file by file; one is in memory at a time if the caller keeps none.

        Raises:
            CheckpointError: a tensor is not of floats.
        """
        for path in dict.fromkeys(self.files[name] for name in names):
            with safetensors.safe_open(path, framework="numpy") as file:
                for name in (name for name in names if self.files[name] == path):
                    if self.types[name] not in FLOATS:
                        raise CheckpointError(f"{path}: {name} is of type {self.types[name]}; weights must be "
                                              f"{', '.join(FLOATS)}: quantized ones are not supported")  # fmt: skip
                    yield name, file.get_tensor(name)

    def _look(self, path: Path) -> None:
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 (not a dictionary)
                    part = file.get_slice(name)
                    self.files[name] = path
                    self.shapes[name] = tuple(part.get_shape())
                    self.types[name] = part.get_dtype()
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged or truncated ({error}): copy or download it again") from None


def _weight_map(index: Path) -> dict[str, str]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{index}: no weight_map that says which file holds which tensor")
    for file in files.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index}: {file!r} is not the name of a file beside it")
    return files


def _missing(folder: Path) -> str:
    pickles = sorted(p.name for pattern in ("*.bin", "*.bin.index.json", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickles:
        return (
            f"{folder / pickles[0]}: weights are pickled, and a pickle can run any code when it is read: "
            f"{WEIGHTS} is needed; {CONVERT}"
        )
    return (
        f"{folder / WEIGHTS} does not exist: a checkpoint is a folder with config.json, tokenizer.json, and "
        f"{WEIGHTS} or its shards with {INDEX}"
    )
