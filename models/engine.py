"""The engine: a transformer that decodes and scores many texts at once, with a cache of rows keyed by text.

A *row* holds the keys and values of a text's tokens and the last hidden state. Rows live in *slabs*, the outputs of
earlier device calls; a dictionary finds the row of a text. To extend texts, their rows are gathered into a new
slab (particles that were resampled simply gather the same row), and one `while_loop` decodes until every row has
stopped.

Rows are only a cache: whether one is there changes no bit. The arithmetic of a row depends on its text alone, since

* a call has a fixed number of rows, padded, and a row's place and company in it do not matter;
* a row is always made link by link (see `Text`): a given link is fed, a sampled link decoded, whether it is drawn for
  the first time or, its row dropped or never there, written again. Feeding a sampled link would agree to float32
  rounding only, about 1e-6 nats: enough to turn a draw, and with it a resumed run;
* the cache tells equal tokens of different links apart (`Text.key`), since their last bits differ too: which of them
  was there first must not show.

"The same bits" is on one machine with one version of XLA: another may compile another order of summation.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models import decode as device
from ppl.models.clock import Usage
from ppl.models.decode import Stop
from ppl.models.text import TOKEN_BYTES, Text
from ppl.models.transformer import Cache, Config, Params, empty_cache

ROWS = 128  # per decode call
FEED_ROWS = 32  # per call that feeds given tokens

TextKey = tuple[bytes, bytes]


class Slab:
    """The rows that one device call left: their cache and last hidden states [rows, hidden_size]."""

    __slots__ = ("cache", "hidden", "keys")

    def __init__(self, cache: Cache, hidden: Array) -> None:
        self.cache = cache
        self.hidden = hidden
        self.keys: list[TextKey] = []


Row = tuple[Slab, int, float]
"""Slab, index within it, and the logit of the score head at the last token (0 without a head)."""


class Engine:
    """Decodes and scores texts with one transformer.

    Raises:
        ValueError: a text does not fit the context.
    """

    def __init__(self, params: Params, config: Config) -> None:
        self.params = params
        self.config = config
        self.usage = Usage()
        self.full = self.config.max_position_embeddings * TOKEN_BYTES  # bytes of a text that has no room left
        self._rows: dict[TextKey, Row] = {}
        self._slabs: deque[Slab] = deque()
        self._limit = 0  # slabs that are kept
        self._never = Stop.never(config.vocab_size)
        self._free = jnp.full((ROWS, self.capacity), -1, jnp.int32)  # no token is forced

    @property
    def capacity(self) -> int:
        """Tokens that a text can have."""
        return self.config.max_position_embeddings

    def rows(self, texts: Sequence[Text]) -> list[Row]:
        """The rows of the texts; those not cached are made."""
        rows = [self._rows.get(text.key) for text in texts]  # held before making others drops some of them
        missing = [text for text, row in zip(texts, rows, strict=True) if row is None]
        made = self._make(missing) if missing else {}
        return [made[text.key] if row is None else row for text, row in zip(texts, rows, strict=True)]

    def decode(
        self, texts: Sequence[Text], keys: np.ndarray, stop: Stop, max_tokens: int, temperature: float
    ) -> Callable[[], list[Text]]:
        """Start one block behind each text; the returned function waits for the longer texts.

        A block ends with the stop, at `max_tokens`, or at the end of the context. `keys` is uint32 [texts, 2].
        """
        sources = self.rows(texts)
        lengths = np.array([len(text.data) for text in texts], np.int32) // TOKEN_BYTES
        if lengths.max(initial=0) >= self.capacity:
            raise ValueError(
                f"a text of {lengths.max()} tokens fills the context of {self.capacity}: nothing can follow"
            )
        ends = np.minimum(lengths + min(max_tokens, self.capacity), self.capacity)
        chunks: list[tuple[Sequence[Text], Slab, list[Array]]] = []
        for low in range(0, len(texts), ROWS):
            part = slice(low, low + ROWS)
            call = self._decode(sources[part], lengths[part], ends[part], keys[part], self._free, stop, temperature)
            chunks.append((texts[part], *call))
        return partial(self._finish, chunks)

    def _finish(self, chunks: list[tuple[Sequence[Text], Slab, list[Array]]]) -> list[Text]:
        out: list[Text] = []
        for parents, slab, results in chunks:
            tokens, counts, log_probs, scores = self.usage.clock.wait(results)
            tokens = tokens[:, : counts.max()]
            data, width = tokens.tobytes(), tokens.shape[1] * TOKEN_BYTES
            starts = range(0, len(data), width)
            ends = (np.arange(len(counts)) * width + counts * TOKEN_BYTES).tolist()
            new = [
                Text(parent.tokenizer, full := parent.data + data[low:high], parent, log_prob, len(full) >= self.full)
                for parent, low, high, log_prob in zip(parents, starts, ends, log_probs.tolist(), strict=False)
            ]
            self._keep(slab, [text.key for text in new], scores)
            out += new
            self.usage.tokens += int(counts.sum())
        self._trim(len(chunks))
        return out

    def log_probs(self, texts: Sequence[Text], starts: Sequence[int], temperature: float) -> list[float]:
        """Sum over tokens from position `start` on of their log probability, by a forward pass of the whole text."""
        groups: dict[int, list[int]] = defaultdict(list)
        for i, text in enumerate(texts):
            groups[_bucket(len(text))].append(i)
        out = [0.0] * len(texts)
        for width, group in groups.items():
            for part in (group[low : low + FEED_ROWS] for low in range(0, len(group), FEED_ROWS)):
                tokens, used = np.zeros((FEED_ROWS, width), np.int32), np.zeros((FEED_ROWS, width), bool)
                for row, i in enumerate(part):
                    tokens[row, : len(texts[i])] = texts[i].tokens
                    used[row, starts[i] : len(texts[i])] = True
                start = time.perf_counter()
                sums = device.log_probs(self.params, self.config, tokens, used, temperature)
                self._started(sums, start)
                for i, value in zip(part, self.usage.clock.wait([sums])[0].tolist(), strict=False):
                    out[i] = value
        return out

    def forget(self, keep: int = 0) -> None:
        """Drop the cached rows of all but the newest `keep` slabs; they are made again when they are needed."""
        while len(self._slabs) > keep:
            old = self._slabs.popleft()
            for key in old.keys:
                if (row := self._rows.get(key)) is not None and row[0] is old:
                    del self._rows[key]

    def log_right(self, args: Sequence[tuple[Text]]) -> list[float]:
        """log of the sigmoid of the score head at the last token of each text (nats), float64."""
        self.usage.judged += len(args)
        scores = np.array([score for _, _, score in self.rows([text for (text,) in args])])
        return (-np.logaddexp(0.0, -scores)).tolist()

    def _make(self, texts: Iterable[Text]) -> dict[TextKey, Row]:
        """Rows of texts that are not cached, link by link from what is; in each stage all texts go one link on."""
        stages: list[dict[TextKey, Text]] = []
        bases: dict[TextKey, Row | None] = {}  # what the first links stand on: None is an empty row
        wanted = {text.key: text for text in texts}
        for text in wanted.values():
            if len(text) > self.capacity or not len(text):
                raise ValueError(f"a text of {len(text)} tokens does not fit the context of 1..{self.capacity} tokens: "
                                 f"{str(text)[:60]!r}")  # fmt: skip
            links = list(text.chain(until=self._rows))
            for stage, link in enumerate(reversed(links)):
                if stage == len(stages):
                    stages.append({})
                stages[stage][link.key] = link
            if (base := links[-1].parent) is not None:
                bases[base.key] = self._rows.get(base.key)
        out: dict[TextKey, Row] = {}
        known: Mapping[TextKey, Row | None] = bases
        for stage in stages:
            slabs = len(self._slabs)
            made = self._feed([link for link in stage.values() if not link.sampled], known)
            made |= self._write([link for link in stage.values() if link.sampled], known)
            out |= {key: row for key, row in made.items() if key in wanted}
            known = made  # no other rows are held: they are as many as those of all earlier stages
            self._trim(len(self._slabs) - slabs)
        return out

    def _feed(self, texts: Iterable[Text], known: Mapping[TextKey, Row | None]) -> dict[TextKey, Row]:
        """Read the last link of each text, all its tokens at once."""
        groups: dict[int, list[Text]] = defaultdict(list)
        for text in texts:
            groups[_bucket(len(text) - text.start)].append(text)
        made: dict[TextKey, Row] = {}
        for width, group in groups.items():
            for part in (group[low : low + FEED_ROWS] for low in range(0, len(group), FEED_ROWS)):
                start = time.perf_counter()
                cache, hidden = self._gather([_under(text, known) for text in part], FEED_ROWS)
                tokens, counts = np.zeros((FEED_ROWS, width), np.int32), np.zeros(FEED_ROWS, np.int32)
                for i, text in enumerate(part):
                    counts[i] = len(text) - text.start
                    tokens[i, : counts[i]] = text.tokens[text.start :]
                lengths = _pad(np.array([text.start for text in part], np.int32), FEED_ROWS)
                slab, result = device.feed(self.params, self.config, cache, hidden, lengths, tokens, counts)
                self._started(result, start)
                made |= self._made(part, Slab(*slab), result)
        return made

    def _write(self, texts: Sequence[Text], known: Mapping[TextKey, Row | None]) -> dict[TextKey, Row]:
        """Write the last link of each text once more, as when it was drawn."""
        made: dict[TextKey, Row] = {}
        for part in (texts[low : low + ROWS] for low in range(0, len(texts), ROWS)):
            lengths = np.array([text.start for text in part], np.int32)
            ends = np.array([len(text) for text in part], np.int32)
            forced = np.full((ROWS, self.capacity), -1, np.int32)  # -1 behind the end: never read
            for i, text in enumerate(part):
                forced[i, : len(text) - text.start] = text.tokens[text.start :]
            sources = [_under(text, known) for text in part]
            slab, results = self._decode(
                sources, lengths, ends, np.zeros((0, 2), np.uint32), jnp.asarray(forced), self._never, 1.0
            )
            made |= self._made(part, slab, results[-1])
        return made

    def _made(self, texts: Sequence[Text], slab: Slab, result: Array) -> dict[TextKey, Row]:
        """Wait for the scores of rows that were made, and keep these."""
        (scores,) = self.usage.clock.wait([result])
        self.usage.fed += sum(len(text) - text.start for text in texts)
        self._keep(slab, [text.key for text in texts], scores)
        return {text.key: self._rows[text.key] for text in texts}

    def _decode(
        self, sources: Sequence[Row | None], lengths: np.ndarray, ends: np.ndarray, keys: np.ndarray,
        forced: Array, stop: Stop, temperature: float,
    ) -> tuple[Slab, list[Array]]:  # fmt: skip
        """Start one call; see `device.decode`. The one place that makes it: its operands always have the same types."""
        start = time.perf_counter()
        cache, hidden = self._gather(sources, ROWS)
        slab, *results = device.decode(
            self.params, self.config, cache, hidden, _pad(lengths, ROWS), _pad(ends, ROWS), _pad(keys, ROWS),
            forced, stop.table, stop.last, float(temperature),
        )  # fmt: skip
        self._started(results[-1], start)
        return Slab(*slab), results

    def _gather(self, sources: Sequence[Row | None], size: int) -> tuple[Cache, Array]:
        """Copy rows into the first places of a fresh slab of `size` rows; None is an empty row."""
        slabs = {id(row[0]): row[0] for row in sources if row is not None}
        owners = _pad(np.array([0 if row is None else id(row[0]) for row in sources]), size)
        index = _pad(np.array([0 if row is None else row[1] for row in sources], np.int32), size)
        out: Any = None
        for owner, slab in slabs.items():
            held, mine = (slab.cache, slab.hidden), owners == owner
            here = np.where(mine, index, 0)
            out = device.take(held, here) if out is None else device.merge(out, held, here, mine)
        if out is None:
            out = empty_cache(self.config, size, self.capacity), jnp.zeros((size, self.config.hidden_size))
        return out

    def _keep(self, slab: Slab, keys: list[TextKey], scores: np.ndarray) -> None:
        slab.keys = keys
        self._slabs.append(slab)
        self._rows.update(zip(keys, zip(repeat(slab), range(len(keys)), scores.tolist(), strict=False), strict=False))

    def _trim(self, made: int) -> None:
        """Keep several times as many slabs as the largest of the recent calls has made."""
        self._limit = max(self._limit - 1, 4 * made + 4)
        self.forget(self._limit)

    def _started(self, result: Array, start: float) -> None:
        self.usage.calls += 1
        self.usage.clock.started(result, start)


def _bucket(length: int) -> int:
    """Padded length of given tokens: few shapes to compile, and the shape depends on the text alone."""
    size = 4
    while size < length:
        size *= 4
    return size


def _pad(x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)]) if len(x) < size else x


def _under(text: Text, known: Mapping[TextKey, Row | None]) -> Row | None:
    """The row that the last link of a text stands on."""
    return None if text.parent is None else known[text.parent.key]
