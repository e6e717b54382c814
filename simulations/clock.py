"""Virtual time: events in order, at any moment or after one of a few delays.

An event is (when, number, function, a, b); the number counts up, so that events of one moment happen in the order in
which they were planned and a run can be replayed. A message that takes one fixed latency needs no sorting: in a lane of
one delay the events are in order already. The others wait unsorted in slots of a millisecond, and are sorted when
their slot comes: a heap of all of them took a tenth of a run, most of it outside the processor's caches.

Knows nothing of networks or nodes. Bounded in events and in time: a livelock ends here with a message, not never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

NEVER: Final = float("inf")
SLOTS: Final = 1024.0  # in a second; a power of two, so that rounding moves no event into another slot

Action = Callable[[Any, Any], None]
# (when, number, action, a, b): float, int, Action, Any, Any. A tuple's own type would have it taken apart and put
# together again at each step where this is compiled.
Entry = Any


class LimitReached(Exception):
    """The run did not end within its events or its time, or nothing was left to happen. The message says which."""


class Clock:
    """`now` in seconds. `events`: how many have happened."""

    def __init__(self, start: float, seconds_most: float, events_most: int) -> None:
        self.now = start
        self.events = 0
        self.stopped = False
        self._end = start + seconds_most
        self._seconds_most = seconds_most
        self._events_most = events_most
        self._number = 0
        self._slot = int(start * SLOTS)  # what is planned up to the end of this one is in these two:
        self._sorted: list[Entry] = []  # the last is the next
        self._late: list[Entry] = []  # a heap: planned when its slot had come
        self._waiting: dict[int, list[Entry]] = {}  # slot -> what is planned in it
        self._slots: list[int] = []  # those, a heap
        self._next = NEVER  # when the first of them begins
        self._lanes: dict[float, deque[Entry]] = {}
        self._all_lanes: tuple[deque[Entry], ...] = ()

    def at(self, when: float, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) for a moment that is not over."""
        self._number = number = self._number + 1
        slot = int(min(when, self._end + 1.0) * SLOTS)
        if slot <= self._slot:
            heappush(self._late, (when, number, action, a, b))
            return
        entries = self._waiting.get(slot)
        if entries is None:
            entries = self._waiting[slot] = []
            heappush(self._slots, slot)
            self._next = min(self._next, slot / SLOTS)
        entries.append((when, number, action, a, b))

    def soon(self, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) for now, behind what is planned for now already."""
        self.after(0.0, action, a, b)

    def after(self, delay: float, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) in a lane: for the two or three delays that most events have. Every event looks at each."""
        lane = self._lanes.get(delay)
        if lane is None:
            lane = self._lanes[delay] = deque()
            self._all_lanes = (*self._all_lanes, lane)
        self._number = number = self._number + 1
        lane.append((self.now + delay, number, action, a, b))

    def stop(self) -> None:
        """Let `run` return after the event in hand."""
        self.stopped = True

    def run(self) -> None:
        """Events in order of time until `stop`. LimitReached if that never comes."""
        self.stopped = False
        events, events_most, end = self.events, self._events_most, self._end
        source: Any
        try:
            while not self.stopped:
                when, number, kind, source = NEVER, 0, 0, None
                if self._sorted:
                    first = self._sorted[-1]
                    when, number, kind = first[0], first[1], 1
                if self._late:
                    first = self._late[0]
                    at: float = first[0]
                    if at < when or (at == when and first[1] < number):
                        when, number, kind = at, first[1], 2
                for lane in self._all_lanes:
                    if lane:
                        first = lane[0]
                        at = first[0]
                        if at < when or (at == when and first[1] < number):
                            when, number, kind, source = at, first[1], 3, lane
                if when >= self._next and self._slots:
                    self._open_slot()
                    continue
                if when > end:
                    self._give_up(when)
                if events >= events_most:
                    raise LimitReached(f"not done after {events_most} events: a livelock, or --events-most is too low")
                if kind == 1:
                    first = self._sorted.pop()
                elif kind == 2:
                    first = heappop(self._late)
                else:
                    first = source.popleft()
                events += 1
                self.now = when
                first[2](first[3], first[4])
        finally:
            self.events = events

    def _open_slot(self) -> None:
        """The next slot comes: all that was planned before it has happened."""
        self._slot = heappop(self._slots)
        self._sorted = self._waiting.pop(self._slot)
        self._sorted.sort(reverse=True)
        self._next = self._slots[0] / SLOTS if self._slots else NEVER

    def _give_up(self, when: float) -> None:
        left = "nothing is left to happen" if when == NEVER else "it is not done"
        raise LimitReached(f"{left} after {min(self.now, self._end) - self._end + self._seconds_most:.1f} simulated s")
