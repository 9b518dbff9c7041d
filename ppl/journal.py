"""The journal of a run: every answer, appended to a file, so that a killed run goes on where it was.

A line is a checksum and a JSON list: the header, or [run, address, kind, answer]. A torn last line is recognised by
its checksum and dropped. Since a program is deterministic given its answers, and keys depend on seed and address
alone, a run that reads its answers back from the file asks the same questions, and goes on as it would have.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from ppl import codec
from ppl.effects import Call, Effect
from ppl.program import Program
from ppl.source import Keys, Source

FORMAT = 1
Entry = tuple[str, Any]  # kind, encoded answer


class JournalError(ValueError):
    """The journal cannot be used for this run; names the file and the first difference."""


class Journal:
    """An open file with the records of several runs."""

    def __init__(self, path: Path, file: BinaryIO, known: dict[int, dict[str, Entry]]) -> None:
        self.path = path
        self._file = file
        self._known = known
        self._records: list[Record] = []

    @staticmethod
    @contextmanager
    def opened(
        path: Path | str | None, programs: Sequence[Program[Any]], sources: Sequence[Source]
    ) -> Iterator[Journal | None]:
        """The journal at `path`, made if it is not there; none without a path.

        Raises:
            JournalError: it belongs to other programs, other seeds or another version, or is no journal.
        """
        if path is None:
            yield None
            return
        path = Path(path)
        header = _header(programs, sources)
        first = _line(header)
        lines, good = _read(path, first)
        if lines:
            _compare(path, lines[0], header)
        known: dict[int, dict[str, Entry]] = {}
        for run, address, kind, answer in lines[1:]:
            known.setdefault(run, {})[address] = kind, answer
        with path.open("r+b" if path.exists() else "x+b") as file:
            file.truncate(good)
            file.seek(good)
            journal = Journal(path, file, known)
            if not lines:
                file.write(first)
                file.flush()
            yield journal

    def record(self, run: int) -> Record:
        """The part of run number `run`."""
        record = Record(self, run, self._known.pop(run, {}))
        self._records.append(record)
        return record

    def append(self, content: Any) -> None:
        """One more line."""
        self._file.write(_line(content))

    def flush(self) -> None:
        """Hand what was written to the system: it survives the end of this process."""
        self._file.flush()

    def close_all(self) -> None:
        """All runs have ended.

        Raises:
            JournalError: the file holds answers that nobody asked for.
        """
        os.fsync(self._file.fileno())
        for record in self._records:
            record.check_used()


class Record:
    """The answers of one run: those in the file, until they are used, and those to be written."""

    __slots__ = ("_known", "_run", "journal")

    def __init__(self, journal: Journal, run: int, known: dict[str, Entry]) -> None:
        self.journal = journal
        self._run = run
        self._known = known

    def take(self, address: str, effect: Effect[Any], open_addresses: Any) -> tuple[bool, Any]:
        """Whether the file holds the answer, and the answer. `open_addresses()` are those the run waits for now.

        Raises:
            JournalError: the file holds the answer to another question, or answers to later ones only.
        """
        if not self._known:
            return False, None
        entry = self._known.pop(address, None)
        if entry is None:
            # All answers of a round are in the file before the next one begins.
            waiting = set(open_addresses())
            if later := next((a for a in self._known if a not in waiting), None):
                raise JournalError(
                    f"{self.journal.path}: the program asks for {address} where the journal holds an answer for {later}"
                )
            return False, None
        kind, answer = entry
        if (asked := describe(effect)) != kind:
            raise JournalError(f"{self.journal.path}: at {address} the program asks for {asked}, the journal holds the "
                               f"answer to {kind}")  # fmt: skip
        restore = getattr(getattr(effect, "dist", None), "decode", codec.decode)
        return True, restore(answer)

    def write(self, address: str, effect: Effect[Any], answer: Any) -> None:
        """Append an answer.

        Raises:
            TypeError: the answer cannot be written as JSON; names the site and the type.
        """
        store = getattr(getattr(effect, "dist", None), "encode", codec.encode)
        try:
            content = store(answer)
        except TypeError as error:
            raise TypeError(f"{address}: the journal cannot hold this answer: {error}") from None
        self.journal.append([self._run, address, describe(effect), content])

    def check_used(self) -> None:
        """Raise `JournalError` if the run has ended without asking for what the file still holds."""
        if self._known:
            raise JournalError(
                f"{self.journal.path}: the program ended without asking for {next(iter(self._known))}, which the "
                "journal holds"
            )


def describe(effect: Effect[Any]) -> str:
    """What identifies a question beside its address."""
    if isinstance(effect, Call):
        return f"{codec.sketch(effect.fn)}({', '.join(codec.sketch(arg) for arg in effect.args)})"
    return codec.sketch(effect.dist)  # pyright: ignore[reportAttributeAccessIssue]


def _header(programs: Sequence[Program[Any]], sources: Sequence[Source]) -> Any:
    if any(not isinstance(source, Keys) for source in sources):
        raise JournalError("a journal is of runs with seeds; the choices of a tape are given")
    try:
        release = version("ppl")
    except PackageNotFoundError:
        release = "unknown"
    return {
        "ppl journal": FORMAT,
        "version": release,
        "programs": [codec.sketch(program) for program in programs],
        "seeds": [source.root.digest.hex() for source in sources],  # pyright: ignore[reportAttributeAccessIssue]
    }


def _compare(path: Path, found: Any, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if (other := found.get(name)) == value:
            continue
        if isinstance(value, list) and isinstance(other, list):
            if len(value) != len(other):
                raise JournalError(f"{path}: the journal is of {len(other)} {name}, this run has {len(value)}")
            at = next(i for i, (a, b) in enumerate(zip(value, other, strict=True)) if a != b)
            name, value, other = f"{name}[{at}]", value[at], other[at]
        raise JournalError(f"{path}: {name} is {other} in the journal and {value} in this run; use another file, or "
                           "delete this one to start again")  # fmt: skip


def _line(content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _read(path: Path, first: bytes) -> tuple[list[Any], int]:
    """The lines of a journal, and the length up to the end of the last whole one; `first` is its proper first line."""
    data = path.read_bytes() if path.exists() else b""
    if first.startswith(data):  # nothing, or killed while writing the first line
        data = data[: len(data) // len(first) * len(first)]
    lines, good = [], 0
    while (end := data.find(b"\n", good)) >= 0:
        checksum, _, text = data[good:end].partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            break
        lines.append(json.loads(text))
        good = end + 1
    if good < len(data) and (not lines or data.find(b"\n", good) not in (-1, len(data) - 1)):
        raise JournalError(f"{path}: line {len(lines) + 1} is damaged or no line of a journal")
    if lines and not (isinstance(lines[0], dict) and "ppl journal" in lines[0]):
        raise JournalError(f"{path} is not a journal")
    return lines, good
