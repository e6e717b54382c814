"""One flight: tasks that want the same answer at the same time share one request. And a small cache that forgets.

Imports nothing of p2pd but this package's errors.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from p2pd.upstream.errors import UpstreamError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    def __init__(self) -> None:
        self.landed = trio.Event()
        self.values: list[V] = []  # one value, or none
        self.error: UpstreamError | None = None


class Flights(Generic[K, V]):
    """At most one call of `work` at a time for each key. The tasks that came meanwhile get its result or its error.

    Safe to cancel: if the task that runs the call is cancelled, one of the waiting ones runs it anew.
    """

    def __init__(self) -> None:
        self._open: dict[K, _Flight[V]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """The result of `work`, run here or in the task that came first."""
        while (flight := self._open.get(key)) is not None:
            await flight.landed.wait()
            if flight.error is not None:
                raise copy.copy(flight.error)
            if flight.values:
                return flight.values[0]
        flight = self._open[key] = _Flight()
        try:
            value = await work()
            flight.values.append(value)
            return value
        except UpstreamError as error:
            flight.error = copy.copy(error)
            raise
        finally:
            del self._open[key]
            flight.landed.set()


class Cache(Generic[K, V]):
    """The `size_max` entries used last, each for its lifetime (seconds of `clock`)."""

    def __init__(self, size_max: int, clock: Callable[[], float]) -> None:
        self._size_max = size_max
        self._clock = clock
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, None if there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry[1]:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, lifetime_s: float = float("inf")) -> None:
        """Remember `value`; the entry that was used longest ago goes when there are too many."""
        self._entries[key] = (value, self._clock() + lifetime_s)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size_max:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget it, if it is there."""
        self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)
