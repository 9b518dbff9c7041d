"""Sets of characters as sequences of ranges of UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Ranges = tuple[tuple[int, int], ...]
"""Code points, from and to, both included; in order, not touching; no surrogates."""

ALL: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
_ENDS = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)  # of one, two, three, four bytes


def ranges_of(points: Iterable[int]) -> Ranges:
    """Code points, in order, without surrogates, which no UTF-8 has."""
    out: list[list[int]] = []
    for point in points:
        if 0xD800 <= point <= 0xDFFF:
            continue
        if out and out[-1][1] == point - 1:
            out[-1][1] = point
        else:
            out.append([point, point])
    return tuple((low, high) for low, high in out)


def sequences(ranges: Ranges) -> Iterator[tuple[tuple[int, int], ...]]:
    """Sequences of (lowest, highest byte) that are together the characters, and no two of which overlap."""
    for low, high in ranges:
        for end in _ENDS:
            if low <= end:
                yield from _equally_long(low, min(high, end))
                low = end + 1
            if low > high:
                break


def _equally_long(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Of a range whose characters have as many bytes each: cut where a last byte would not go all the way."""
    length = len(chr(low).encode())
    for k in range(1, length):
        rest = (1 << (6 * k)) - 1  # what the last k bytes say
        if low & ~rest != high & ~rest:
            if low & rest:
                yield from _equally_long(low, low | rest)
                yield from _equally_long((low | rest) + 1, high)
                return
            if high & rest != rest:
                yield from _equally_long(low, (high & ~rest) - 1)
                yield from _equally_long(high & ~rest, high)
                return
    yield tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))
