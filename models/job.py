"""What the engine is at work on: blocks behind texts, and how given tokens are cut into calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppl.models.decode import Progress, Stop, Written
from ppl.models.draw import Sampling
from ppl.models.slab import Lease
from ppl.models.text import Text

FEED = 256  # tokens of a row that are read at once


class Job:
    """One block behind each of some texts."""

    def __init__(
        self, texts: Sequence[Any], starts: np.ndarray, ends: np.ndarray, last: np.ndarray, keys: np.ndarray,
        stop: Stop, how: Sampling, forced: Sequence[np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        self.texts, self.starts, self.ends, self.last, self.keys = texts, starts, ends, last, keys
        self.stop, self.how, self.forced = stop, how, forced
        self.written: list[Any] = [None] * len(texts)
        self._blocks: list[bytes] = [b""] * len(texts)
        self._sums = np.zeros((len(texts), 3))

    def add(self, i: int, tokens: np.ndarray, logs: np.ndarray) -> None:
        """Further tokens of block i, and their sums of `log_q`, `log_prob` and `log_model`."""
        self._blocks[i] += tokens.tobytes()
        self._sums[i] += logs

    def text(self, i: int, full: int) -> Text:
        """Block i is done; `full` are the bytes that leave no room."""
        parent = self.texts[i]
        data = parent.data + self._blocks[i]
        log_q, log_prob, log_model = self._sums[i].tolist()
        text = self.written[i] = Text(parent.tokenizer, data, parent, log_prob, len(data) >= full)
        text.log_q, text.log_model = log_q, log_model
        return text


class Call(NamedTuple):
    """A call of `decode` that has been started, for the texts `which` of a job."""

    job: Job
    which: np.ndarray
    lease: Lease
    progress: Progress
    written: Written


def alike(links: Iterable[Text]) -> Iterator[tuple[int, int, list[Text]]]:
    """Links that can be made in one call: their width and number of pieces, 0 for sampled ones."""
    groups = defaultdict[tuple[int, int], list[Text]](list)
    for link in links:
        groups[(1, 0) if link.sampled else pieces_of(len(link) - link.start)].append(link)
    for (width, pieces), group in groups.items():
        yield width, pieces, group


def pieces_of(length: int) -> tuple[int, int]:
    """Width and number of pieces in which given tokens are read: few shapes, and they depend on the text alone."""
    width = 4
    while width < min(length, FEED):
        width *= 4
    return width, -(-length // width)
