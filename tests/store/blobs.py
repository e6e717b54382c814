"""Blobs for the store's tests: small, and each piece's right bytes known."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from p2pd.store import Partial


@dataclass(frozen=True)
class Blob:
    body: bytes
    piece_size: int

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"

    @property
    def name(self) -> str:
        return self.digest.removeprefix("sha256:")

    @property
    def size(self) -> int:
        return len(self.body)

    @property
    def count(self) -> int:
        return -(-self.size // self.piece_size)

    def piece(self, index: int) -> bytes:
        return self.body[index * self.piece_size : (index + 1) * self.piece_size]

    def record(self, index: int) -> bytes:
        return b"voucher of %d" % index

    def fill(self, partial: Partial, *indices: int) -> None:
        """Write and mark these pieces."""
        for index in indices:
            partial.write(index * self.piece_size, self.piece(index))
            partial.mark(index, self.record(index))


def blob(number: int, size: int = 1000, piece_size: int = 64) -> Blob:
    """The same bytes for the same number, no two pieces alike."""
    stream = b"".join(hashlib.sha256(b"%d %d" % (number, at)).digest() for at in range(-(-size // 32)))
    return Blob(stream[:size], piece_size)


def read(partial: Partial) -> bytes:
    return os.pread(partial.fileno(), partial.size + 1, 0)


def assert_right(partial: Partial, blob: Blob) -> None:
    """Each present piece has its right bytes on the disk, and its own record."""
    held = read(partial)
    assert len(held) == blob.size
    for index, record in partial.present.items():
        start = index * blob.piece_size
        assert held[start : start + len(blob.piece(index))] == blob.piece(index), index
        assert record == blob.record(index)


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))
