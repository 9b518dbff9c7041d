"""What was worked out about a grammar and a model is kept on disk, so that no second process has to do it again."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import jax
import numpy as np

from ppl.models.compiled import cache_root
from ppl.models.transformer import Config, Params

MOST = 500  # files
SAMPLE = 256  # numbers of each array of parameters that tell models apart
VERSION = 1  # of what is kept: to be counted up where the same would be worked out otherwise


class Kept:
    """Arrays by what they are of, beside the model, in a folder of files.

    What cannot be read is worked out again, and what cannot be written is not kept: neither is an error.
    """

    def __init__(self, folder: Path, params: Params, config: Config) -> None:
        self.folder = folder
        self._model = params, config

    @classmethod
    def of(cls, params: Params, config: Config) -> Kept | None:
        """In the cache folder of the user (see `keep_compiled`); None where nothing is to be kept."""
        root = cache_root()
        return None if root is None else cls(root / "grammars", params, config)

    @cached_property
    def model(self) -> bytes:
        """Which one: see `fingerprint`."""
        return fingerprint(*self._model)

    def read(self, *what: bytes) -> dict[str, np.ndarray] | None:
        """Arrays by name, or None if they are not there."""
        try:
            with np.load(self._file(what), allow_pickle=False) as found:
                return dict(found)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, arrays: Mapping[str, np.ndarray], *what: bytes) -> None:
        """A whole file or none, whoever else writes it."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
            os.replace(file.name, self._file(what))
            files = sorted(self.folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
            for path in files[: max(0, len(files) - MOST)]:
                path.unlink(missing_ok=True)

    def _file(self, what: tuple[bytes, ...]) -> Path:
        digest = blake2b(repr((VERSION, self.model, what)).encode(), digest_size=16)
        return self.folder / f"{digest.hexdigest()}.npz"


def fingerprint(params: Params, config: Config) -> bytes:
    """Of a model on this kind of device: from some numbers of each of its arrays, not all."""
    digest = blake2b(repr((config, jax.default_backend())).encode(), digest_size=16)
    for name in sorted(params):
        array = np.asarray(params[name]).reshape(-1)
        some = array[:: max(1, array.size // SAMPLE)][:SAMPLE]
        digest.update(repr((name, params[name].shape, array.dtype.name)).encode() + some.tobytes())
    return digest.digest()
