"""The engine: a transformer that decodes and scores many texts at once, with a cache of rows keyed by text.

`ppl.models.rows` says where the keys and values of a text are. To extend texts, their rows are brought into one slab
(most of them are there), and one `while_loop` decodes until every row has stopped; where most have, the rest goes on
in a smaller slab.

Rows are only a cache: whether one is there changes no bit. The arithmetic of a row depends on its text alone, since

* a row's place and company in a call do not matter, nor does the number of rows in it (see `ppl.models.sums`);
* a row is always made link by link (see `Text`): a given link is fed, a sampled link decoded, whether it is drawn for
  the first time or, its row dropped or never there, written again. Feeding a sampled link would agree to float32
  rounding only, about 1e-6 nats: enough to turn a draw, and with it a resumed run;
* the cache tells equal tokens of different links apart (`Text.key`), since their last bits differ too: which of them
  was there first must not show.

"The same bits" is on one machine with one version of XLA: another may compile another order of summation. On a GPU the
number of rows in a call may show in the last bits too; `rows=` fixes it.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppl.models import decode as device
from ppl.models.clock import Usage
from ppl.models.decode import Progress, Stop
from ppl.models.draw import Options, Sampling
from ppl.models.job import Call, Job, alike, pieces_of
from ppl.models.places import Want
from ppl.models.reward_heads import log_scores
from ppl.models.rows import Rows, gather
from ppl.models.slab import Hold, Lease, Row
from ppl.models.sums import LEAST_ROWS
from ppl.models.text import TOKEN_BYTES, Text, TextKey
from ppl.models.transformer import Config, Params

MOST_ROWS = {"cpu": 128}  # per call; elsewhere 1,024


class Engine:
    """Decodes and scores texts with one transformer.

    `memory` is what the rows may take, in bytes (default: a quarter of the machine's, nine tenths of what is free on
    an accelerator); a call takes what it needs. `rows`, a power of two, fixes the number of rows in every call.

    Raises:
        ValueError: a text does not fit the context.
    """

    def __init__(self, params: Params, config: Config, *, memory: int | None = None, rows: int | None = None) -> None:
        self.params = params
        self.config = config
        self.usage = Usage()
        self.full = self.config.max_position_embeddings * TOKEN_BYTES  # bytes of a text that has no room left
        self.dtype = params["model.embed_tokens.weight"].dtype
        self.rows = Rows(config, default_memory() if memory is None else memory, self.dtype)
        self.most = rows or MOST_ROWS.get(jax.default_backend(), 1024)
        self.least = rows or LEAST_ROWS
        self._never = Stop.never(config.vocab_size)
        self._sampling = lru_cache(64)(lambda options: options.on_device(config.vocab_size))
        self._free = lru_cache(64)(lambda size, capacity: jnp.full((size, capacity), -1, jnp.int32))  # nothing forced

    @property
    def capacity(self) -> int:
        """Tokens that a text can have."""
        return self.config.max_position_embeddings

    def decode(
        self, texts: Sequence[Text], keys: np.ndarray, stop: Stop, max_tokens: int, options: Options,
        states: np.ndarray | None = None, ahead: int | None = None, forced: Sequence[np.ndarray] | None = None,
    ) -> Callable[[], list[Text]]:  # fmt: skip
        """Start one block behind each text; the returned function waits for the longer texts.

        A block ends with the stop, at `max_tokens`, or at the end of the context. `keys` is uint32 [texts, 2],
        `states` int32 [texts] where the stop begins (default 0). A grammar looks `ahead` tokens ahead (default
        `max_tokens`). Blocks that are `forced` are written again, to know how probable they were.
        """
        lengths = np.array([len(text.data) for text in texts], np.int32) // TOKEN_BYTES
        if lengths.max(initial=0) >= self.capacity:
            raise ValueError(
                f"a text of {lengths.max()} tokens fills the context of {self.capacity}: nothing can follow"
            )
        ends, last = (np.minimum(lengths + min(tokens, self.capacity), self.capacity)
                      for tokens in (max_tokens, ahead or max_tokens))  # fmt: skip
        if forced is not None:
            ends = lengths + np.array([len(block) for block in forced], np.int32)
        sampling, calls = self._sampling(options), list[Call]()
        held, hold = self._held(texts)
        order = self._by_slab(held)
        for part, sources in self._parts(order, [held[i] for i in order], hold):
            which = np.array(order[part])
            blocks = None if forced is None else [forced[i] for i in which]
            job = Job([texts[i] for i in which], lengths[which], ends[which], last[which], keys[which], stop, sampling,
                      blocks)  # fmt: skip
            begun = None if states is None else states[which]
            calls.append(self._begin(job, np.arange(len(which)), sources, job.starts, begun))
        return partial(self._finish, calls, order)

    def log_probs(self, parents: Sequence[Text], texts: Sequence[Text], options: Options) -> list[float]:
        """Of each text, which begins with its parent: the log probability of the rest, nats, drawn by these options."""
        out = [0.0] * len(texts)
        sampling, groups = self._sampling(options), defaultdict[tuple[int, int], list[int]](list)
        for i, (parent, text) in enumerate(zip(parents, texts, strict=True)):
            groups[pieces_of(len(text) - len(parent))].append(i)
        for (width, pieces), group in groups.items():
            some = [parents[i] for i in group]
            for part, sources in self._parts(some, *self._held(some), width):
                rows, start = group[part], time.perf_counter()
                tokens = [texts[i].tokens[len(parents[i]) :] for i in rows]
                lease, _, total = self._read(sources, some[part], tokens, width, pieces, sampling)
                self._started(total, start)
                values = self._wait(lease, [total])[0]
                lease.end()
                for i, target in zip(rows, lease.targets, strict=True):
                    out[i] = float(values[target])
        return out

    def log_right(self, args: Sequence[tuple[Text]]) -> list[float]:
        """log of the sigmoid of the score head at the last token of each text (nats), float64."""
        self.usage.judged += len(args)
        return log_scores(np.array([row.score for row in self.last([text for (text,) in args])]), "the score head")

    def last(self, texts: Sequence[Text]) -> list[Row]:
        """What is known at the last token of each text: hidden state and score. Their places may be taken already."""
        return self._held(texts)[0]

    def hidden(self, texts: Sequence[Text]) -> np.ndarray:
        """The last hidden state of each text, after the final norm: float32 [texts, hidden_size]."""
        rows, size = self.last(texts), 1
        while size < len(rows):
            size *= 2
        states = gather(zip(rows, range(len(rows)), strict=True), size, self.config.hidden_size, self.dtype)
        return np.asarray(states, np.float32)[: len(rows)]

    def next_log_probs(self, texts: Sequence[Text]) -> Array:
        """log P of each token of the vocabulary behind each text: float32 [texts or more, vocab_size], nats."""
        rows, size = self.last(texts), self._size(len(texts))
        states = gather(zip(rows, range(len(rows)), strict=True), size, self.config.hidden_size, self.dtype)
        return device.next_log_probs(self.params, states)

    def forget(self, keep: int = 0) -> None:
        """Drop the cached rows of all but the newest `keep` slabs; they are made again when they are needed."""
        self.rows.forget(keep)

    def _held(self, texts: Sequence[Text]) -> tuple[list[Row], Hold]:
        """The rows of the texts, each held as often as it is among them; those not cached are made."""
        found, hold = self.rows.find(text.key for text in texts), Hold()
        for row in found:
            if row is not None:
                hold.keep(row)
        made = self._make((text for text, row in zip(texts, found, strict=True) if row is None), hold)
        rows = [made[text.key] if row is None else row for text, row in zip(texts, found, strict=True)]
        return rows, hold

    def _parts(
        self, texts: Sequence[Any], sources: Sequence[Row | None], hold: Hold, width: int = 1
    ) -> Iterable[tuple[slice, Sequence[Row | None]]]:
        """What goes into one call each; the sources are let go just before."""
        most = max(1, self.most // width)
        self.rows.expect(-(-len(texts) // most))
        for low in range(0, len(texts), most):
            part = slice(low, low + most)
            for row in sources[part]:
                if row is not None:
                    hold.let_go(row)
            yield part, sources[part]

    def _size(self, count: int, width: int = 1) -> int:
        """Rows of a call for `count` texts, of which `width` tokens each are read at once."""
        size = max(1, self.least // width)
        while size < count:
            size *= 2
        return size

    def _begin(
        self, job: Job, which: np.ndarray, sources: Sequence[Row | None], lengths: np.ndarray,
        states: np.ndarray | None = None,
    ) -> Call:  # fmt: skip
        """Start one call; see `device.decode`. The one place that makes it: its operands always have the same types."""
        begin, size = time.perf_counter(), self._size(len(which))
        wants = [Want.of(row, job.texts[i], int(job.ends[i])) for row, i in zip(sources, which, strict=True)]
        lease = self.rows.place(wants, size)
        slab, targets = lease.slab, lease.targets
        hidden = gather(zip(sources, targets, strict=True), size, self.config.hidden_size, self.dtype)

        def spread(x: np.ndarray) -> np.ndarray:
            """To the rows of the call; the others are idle."""
            out = np.zeros((size, *x.shape[1:]), x.dtype)
            out[targets] = x
            return out

        begun = np.zeros_like(lengths) if states is None else states
        progress = Progress(hidden, jnp.asarray(spread(lengths)), jnp.asarray(spread(begun)))
        forced, least = self._free(size, slab.cache.capacity), size // 4 if size // 4 >= self.least else 0
        if job.forced is not None:
            blocks = np.full((size, slab.cache.capacity), -1, np.int32)  # -1 behind the end: never read
            for target, block in zip(targets, job.forced, strict=True):
                blocks[target, : len(block)] = block
            forced, least = jnp.asarray(blocks), 0
        with lease:
            slab.cache, progress, written = device.decode(
                self.params, self.config, slab.cache, slab.shared, progress, spread(job.starts[which]),
                spread(job.ends[which]), spread(job.last[which]), spread(job.keys[which]), forced, job.stop, job.how,
                np.int32(least),
            )  # fmt: skip
        self._started(written.scores, begin)
        return Call(job, which, lease, progress, written)

    def _by_slab(self, rows: Sequence[Row]) -> Sequence[int]:
        """An order in which those that are in one slab go into one call, so that few have to be moved."""
        if len(rows) <= self.most:
            return range(len(rows))
        slabs = {id(slab): place for place, slab in enumerate(self.rows.slabs)}
        return sorted(range(len(rows)), key=lambda i: slabs.get(id(rows[i].slab), -1))

    def _finish(self, calls: Sequence[Call], order: Sequence[int]) -> list[Text]:
        """Wait for blocks. Where few rows of a call go on, they do so in a smaller one."""
        for call in calls:
            rest: Call | None = call
            while rest is not None:
                rest = self._ended(rest)
        out: list[Any] = [None] * len(order)
        for i, text in zip(order, (text for call in calls for text in call.job.written), strict=True):
            out[i] = text
        return out

    def _ended(self, call: Call) -> Call | None:
        """Wait for a call and keep what is done; start another one for the rest."""
        job, slab, targets, progress = call.job, call.lease.slab, call.lease.targets, call.progress
        *arrays, lengths, states = self._wait(call.lease, [*call.written, progress.lengths, progress.state])
        tokens, counts, *logs, going, scores = arrays
        self.usage.tokens += int(counts.sum())
        tokens, sums = np.ascontiguousarray(tokens[:, : counts.max()]), np.stack(logs, 1).astype(np.float64)
        done, rest = list[int](), list[int]()
        for i, target in zip(call.which.tolist(), targets, strict=True):
            job.add(i, tokens[target, : counts[target]], sums[target])
            (rest if going[target] else done).append(target)
        at = dict(zip(targets, call.which.tolist(), strict=True))
        new = [job.text(at[target], self.full) for target in done]
        self.rows.settle(call.lease, done, lengths[done].tolist(), [text.key for text in new], progress.hidden, scores)
        if not rest:
            return None
        sources = [Row(slab, target, int(lengths[target]), progress.hidden, target, 0.0, None) for target in rest]
        which = np.array([at[target] for target in rest])
        following = self._begin(job, which, sources, lengths[rest], states[rest])
        call.lease.end()
        return following

    def _make(self, texts: Iterable[Text], hold: Hold) -> dict[TextKey, Row]:
        """Rows of texts that are not cached, link by link from what is; in each stage all texts go one link on.

        They are held as often as they are wanted.
        """
        stages: list[dict[TextKey, Text]] = []
        some = list(texts)
        wanted = Counter(text.key for text in some)
        for text in {text.key: text for text in some}.values():
            if len(text) > self.capacity or not len(text):
                raise ValueError(f"a text of {len(text)} tokens does not fit the context of 1..{self.capacity} tokens: "
                                 f"{str(text)[:60]!r}")  # fmt: skip
            for stage, link in enumerate(reversed(list(text.chain(until=self.rows.known)))):
                if stage == len(stages):
                    stages.append({})
                stages[stage][link.key] = link
        # A row stays as it is until all that stand on it are made.
        uses = Counter(link.parent.key for stage in stages for link in stage.values() if link.parent is not None)
        known = {key: row for key, row in zip(uses, self.rows.find(uses), strict=True) if row is not None}
        made, until = dict[TextKey, Row](), Hold()
        for key, row in known.items():
            until.keep(row, uses[key])
        for stage in stages:
            for width, pieces, group in alike(stage.values()):
                under = [None if text.parent is None else known.get(text.parent.key) for text in group]
                for part, sources in self._parts(group, under, until, width):
                    for row in self._link(group[part], sources, width, pieces):
                        key = row.key
                        assert key is not None
                        known[key] = row
                        until.keep(row, uses[key])
                        if key in wanted:
                            hold.keep(row, wanted[key])
                            made[key] = row
        return made

    def _link(self, texts: Sequence[Text], sources: Sequence[Row | None], width: int, pieces: int) -> list[Row]:
        """Read the last, given, link of each text, or (`pieces` = 0) write a sampled one once more as it was drawn."""
        lengths = [len(text) for text in texts]
        blocks = [text.tokens[text.start :] for text in texts]
        begin = time.perf_counter()
        parents = [text.parent for text in texts]
        if pieces:
            lease, hidden, scores = self._read(sources, parents, blocks, width, pieces, None)
            self._started(scores, begin)
        else:
            starts = np.array([text.start for text in texts], np.int32)
            ends, keys = np.array(lengths, np.int32), np.zeros((len(texts), 2), np.uint32)
            job = Job(parents, starts, ends, ends, keys, self._never, self._sampling(Options()), blocks)
            call = self._begin(job, np.arange(len(texts)), sources, starts)
            lease, hidden, scores = call.lease, call.progress.hidden, call.written.scores
        self.usage.fed += sum(map(len, blocks))
        values = self._wait(lease, [scores])[0]
        return self.rows.settle(lease, lease.targets, lengths, [text.key for text in texts], hidden, values)

    def _read(
        self, sources: Sequence[Row | None], parents: Sequence[Text | None], blocks: Sequence[np.ndarray], width: int,
        pieces: int, how: Sampling | None,
    ) -> tuple[Lease, Array, Array]:  # fmt: skip
        """Read a block behind each parent, whose row is the source, all at once but for blocks that are very long.

        Gives the rows, the last hidden states, and scores there, or if `how` is given log probabilities.
        """
        size, before = self._size(len(blocks), width), [0 if row is None else row.length for row in sources]
        ends = [length + len(block) for length, block in zip(before, blocks, strict=True)]
        lease = self.rows.place(list(map(Want.of, sources, parents, ends)), size)
        slab, targets = lease.slab, lease.targets
        hidden = gather(zip(sources, targets, strict=True), size, self.config.hidden_size, self.dtype)
        lengths, counts = np.zeros(size, np.int32), np.zeros(size, np.int32)
        tokens = np.zeros((size, width * pieces), np.int32)
        lengths[targets], counts[targets] = before, [len(block) for block in blocks]
        for target, block in zip(targets, blocks, strict=True):
            tokens[target, : len(block)] = block
        out: Any = 0.0
        with lease:
            for low in range(0, width * pieces, width):
                here = np.clip(counts - low, 0, width)
                place = slab.cache, slab.shared, hidden, lengths, tokens[:, low : low + width], here
                if how is None:
                    slab.cache, hidden, out = device.feed(self.params, self.config, *place)
                else:
                    slab.cache, hidden, total = device.log_probs(self.params, self.config, *place, how)
                    out = out + total
                lengths = lengths + here
        return lease, hidden, out

    def _wait(self, lease: Lease, results: Sequence[Array]) -> list[np.ndarray]:
        """The results of a call on the host. Errors of the device, and Ctrl-C, come out here."""
        with lease:
            return self.usage.clock.wait(results)

    def _started(self, result: Array, start: float) -> None:
        self.usage.calls += 1
        self.usage.clock.started(result, start)


def default_memory() -> int:
    """Bytes for the rows: of what is free on the device nine tenths, of a host's memory a quarter."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.9 * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
