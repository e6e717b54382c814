"""How a blob is cut into pieces, and sets of pieces as integers (bit i is piece i).

A piece's size follows from the blob's size alone, so all nodes agree on it without a word. Fixed in the protocol's
version: changing a constant here is a new version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Final

# 256 KiB lose a tenth on slow lines and small layers; 64 KiB take half as much CPU again. docs/simulator.md
PIECE_SIZE_MIN: Final = 128 * 1024  # bytes
PIECE_SIZE_MAX: Final = 16 * 1024 * 1024  # bytes; a node holds a few in flight, and a bad one is fetched again
# A hop of a rollout takes some four pieces' time: with half as many, 256 nodes lose 0.02 of the bound, 60 nodes 0.04.
PIECES_WANTED: Final = 1024  # at most, of pieces below the largest
PIECES_WANTED_SMALL: Final = 512  # ... but of pieces below a MiB, which cost a CPU much beside their bytes
SMALL_PIECE: Final = 1024 * 1024  # bytes
BLOB_SIZE_MAX: Final = 1 << 40  # bytes; 65,536 pieces of 16 MiB, whose set is 8 KiB and whose states are 2 MiB
PIECES_MAX: Final = BLOB_SIZE_MAX // PIECE_SIZE_MAX


@dataclass(frozen=True)
class Geometry:
    """The cut of a blob: `size` and `piece_size` in bytes, `count` pieces. An empty blob is one empty piece."""

    size: int
    piece_size: int
    count: int

    @classmethod
    def of(cls, size: int) -> Geometry:
        """The cut of a blob of `size` bytes. ValueError outside 0..BLOB_SIZE_MAX."""
        if not 0 <= size <= BLOB_SIZE_MAX:
            raise ValueError(f"a blob of {size} bytes is outside 0..{BLOB_SIZE_MAX}")
        piece_size = PIECE_SIZE_MIN
        while piece_size < PIECE_SIZE_MAX:
            wanted = PIECES_WANTED_SMALL if piece_size < SMALL_PIECE else PIECES_WANTED
            if size <= piece_size * wanted:
                break
            piece_size *= 2
        return cls(size, piece_size, max(1, -(-size // piece_size)))

    def offset(self, index: int) -> int:
        return index * self.piece_size

    def length(self, index: int) -> int:
        return min(self.piece_size, self.size - index * self.piece_size)

    @cached_property
    def all(self) -> int:
        """The set of all pieces."""
        return (1 << self.count) - 1


def indices(pieces: int) -> Iterator[int]:
    """The members of a set, ascending."""
    while pieces:
        low = pieces & -pieces
        yield low.bit_length() - 1
        pieces ^= low


def lowest(pieces: int) -> int:
    """The first member of a set that is not empty."""
    return (pieces & -pieces).bit_length() - 1


def any_of(pieces: int, random: Random) -> int:
    """A member of a set that is not empty, near enough to uniform: the next one at or above a random place."""
    place = int(random.random() * pieces.bit_length())
    above = pieces >> place
    return place + lowest(above) if above else lowest(pieces)


def prefix_end(pieces: int, start: int) -> int:
    """The first index at or above `start` that is not in the set."""
    rest = ~(pieces >> start)
    return start + lowest(rest)


def pack(pieces: int, count: int) -> bytes:
    """A set as it travels: little-endian, ceil(count / 8) bytes."""
    return pieces.to_bytes((count + 7) // 8, "little")


def unpack(data: bytes, count: int) -> int:
    """The set that `pack` wrote. ValueError if the length or a bit beyond `count` does not fit."""
    pieces = int.from_bytes(data, "little")
    if len(data) != (count + 7) // 8 or pieces >> count:
        raise ValueError(f"a set of {len(data)} bytes does not fit {count} pieces")
    return pieces
