"""Compiled programs are kept on disk, so that a second process compiles nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax

ENV = "PPL_CACHE"


def cache_root() -> Path | None:
    """The folder of what is kept on disk: `$PPL_CACHE`, or `ppl` in the user's cache folder; None if that is empty."""
    root = os.environ.get(ENV, str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ppl"))
    return Path(root) if root else None


def keep_compiled() -> Path | None:
    """Have jax keep what it compiles, in all of this process, and give the folder.

    It is `$PPL_CACHE`, or `ppl` in the user's cache folder; there is one for each kind of processor, since compiled
    code is for one. Nothing is done, and None given, where jax has been told of a folder before (by
    `JAX_COMPILATION_CACHE_DIR` or its own settings), where `$PPL_CACHE` is empty, or if the folder cannot be written.
    """
    set_before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    root = cache_root()
    folder = None if root is None else root / "xla" / _processor()
    if set_before == str(folder):
        return folder
    if set_before or folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        warnings.warn(
            f"compiled programs are not kept: {folder} cannot be written; set {ENV} to another folder, or to "
            "nothing to do without",
            stacklevel=3,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _processor() -> str:
    """A name for the kind of processor: code compiled for another may not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    except OSError:
        about = [platform.processor()]
    return hashlib.blake2b("\n".join([platform.machine(), *about]).encode(), digest_size=6).hexdigest()
