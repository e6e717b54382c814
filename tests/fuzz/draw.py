"""Choices drawn from bytes, so that a fuzzer's input can steer a sequence of well-formed events. Ends in zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draw:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def octets(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def number(self, most: int) -> int:
        """0 to `most`."""
        return int.from_bytes(self.octets((most.bit_length() + 7) // 8), "big") % (most + 1)

    def flag(self) -> bool:
        return bool(self.number(1))

    def choice(self, items: Sequence[Item]) -> Item:
        return items[self.number(len(items) - 1)]

    def rest(self) -> bytes:
        taken, self._at = self._data[self._at :], len(self._data)
        return taken
