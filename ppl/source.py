"""Where the answers to draws come from: real randomness (`Keys`), or given choices (`Tape`).

A `Key` is a node of a hash tree. Keys of different paths are independent for all practical purposes, and a key
depends on its path alone: not on what was drawn before, nor on what is drawn beside it. So results do not depend on
batching.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, shake_128
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ppl.distributions import Distribution

_TO_UNIT = 2.0**-52  # 52 bits and a half: 53 would round the largest number up to 1


class Key:
    """128 bits of seed. `fold` derives the key of a child, `uniform` and `data` spend it."""

    __slots__ = ("digest",)

    def __init__(self, digest: bytes) -> None:
        self.digest = digest

    @classmethod
    def of(cls, seed: int | Key) -> Key:
        """The root key of a seed (any non-negative or negative int); a key is its own root."""
        if isinstance(seed, Key):
            return seed
        if not isinstance(seed, int | np.integer):
            raise TypeError(f"a seed is an int or a Key, not {seed!r}")
        return cls(blake2b(b"%d" % int(seed), digest_size=16, person=b"ppl seed").digest())

    def fold(self, path: str) -> Key:
        """The key of the child `path`: a keyed hash (BLAKE2b) of the path."""
        return Key(blake2b(path.encode(), digest_size=16, key=self.digest).digest())

    def uniform(self) -> float:
        """One uniform number strictly between 0 and 1, float64."""
        return ((int.from_bytes(self.digest[:8], "little") >> 12) + 0.5) * _TO_UNIT

    def uniforms(self, count: int) -> list[float]:
        """`count` independent uniforms strictly between 0 and 1, float64."""
        blocks = (blake2b(b"%d" % i, digest_size=64, key=self.digest).digest() for i in range(-(-count // 8)))
        bits = np.frombuffer(b"".join(blocks), "<u8")[:count]
        return (((bits >> np.uint64(12)).astype(np.float64) + 0.5) * _TO_UNIT).tolist()

    def stream(self) -> Iterator[float]:
        """Uniforms without end, for who does not know how many it takes."""
        for i in count():
            yield from self.fold(str(i)).uniforms(8)

    @property
    def data(self) -> np.ndarray:
        """uint32 [2]: the key data of a JAX threefry key."""
        return np.frombuffer(self.digest, "<u4", 2)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Key({self.digest.hex()})"


class KeyBlock(Sequence[Key]):
    """Many keys, as bytes: a key is made only for who asks for it."""

    __slots__ = ("digests",)

    def __init__(self, digests: bytes) -> None:
        self.digests = digests  # 16 bytes a key

    def __len__(self) -> int:
        return len(self.digests) // 16

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = 16 * (index + len(self) if index < 0 else index)
        if not 0 <= start < len(self.digests):
            raise IndexError(index)
        return Key(self.digests[start : start + 16])

    def uniforms(self) -> list[float]:
        """As `Key.uniform`, of each key."""
        bits = np.frombuffer(self.digests, "<u8")[::2]
        return (((bits >> np.uint64(12)).astype(np.float64) + 0.5) * _TO_UNIT).tolist()

    @property
    def data(self) -> np.ndarray:
        """uint32 [keys, 2]: as `Key.data`, of each key."""
        return np.frombuffer(self.digests, "<u4").reshape(-1, 4)[:, :2]


def uniforms(keys: Sequence[Key]) -> list[float]:
    """`Key.uniform` of each key."""
    return keys.uniforms() if isinstance(keys, KeyBlock) else [key.uniform() for key in keys]


@dataclass(frozen=True)
class Keys:
    """Real randomness: the draw at an address uses the root key folded with that address."""

    root: Key

    def key(self, address: str) -> Key:
        """The key of one draw."""
        return self.root.fold(address)

    def block(self, address: str, count: int) -> bytes:
        """The digests of the keys of a `parallel` of `count` draws, the first of them at `address`.

        One extendable hash (SHAKE128) of the root and the address: a tenth of the time of a hash for each draw.
        """
        return shake_128(self.root.digest + address.encode()).digest(16 * count)


@dataclass
class Tape:
    """Given choices: the draw at an address takes the value written for it.

    `log_prob` sums what the distributions say of the choices: with it, the exact tests drive the
    production code over every choice there is.
    """

    choices: Mapping[str, Any]
    log_prob: float = field(default=0.0, init=False)

    def draw(self, address: str, dist: Distribution[Any]) -> Any:
        """The written value; `KeyError` names an address the tape does not hold."""
        if address not in self.choices:
            raise KeyError(f"the tape holds no choice for {address}; it has {', '.join(self.choices) or 'none'}")
        value = self.choices[address]
        if getattr(dist, "weighted", False):  # a pair, drawn with the probability in the table
            p = sum(p for pair, p in dist.table() if pair == value)  # pyright: ignore[reportAttributeAccessIssue]
            self.log_prob += math.log(p) if p else -math.inf
        else:
            self.log_prob += dist.log_prob(value)
        return value


Source = Keys | Tape


def source_of(seed: int | Key | Source) -> Source:
    """`Keys` of a seed or key; a source is itself."""
    return seed if isinstance(seed, Keys | Tape) else Keys(Key.of(seed))


def begin_draws(keys: Sequence[Key], dists: Sequence[Distribution[Any]]) -> tuple[Callable[[], Sequence[Any]], bool]:
    """Start a batched draw of distributions of one family: the function that gives the values, and whether it waits."""
    if hasattr(dists[0], "wraps"):
        dists = [wrapper.dist for wrapper in dists]  # pyright: ignore[reportAttributeAccessIssue]
    kind = type(dists[0])
    if (begin := getattr(kind, "begin_many", None)) is not None:
        return begin(keys, dists), True
    if (many := getattr(kind, "draw_many", None)) is not None:
        return lambda: many(keys, dists), False
    return lambda: [dist.sample(key) for key, dist in zip(keys, dists, strict=True)], False
