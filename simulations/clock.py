"""Virtual time: a heap of events, and lanes for those that all wait equally long.

An event is (when, number, function, a, b); the number counts up, so that events of one moment happen in the order in
which they were planned and a run can be replayed. A message that takes one fixed latency needs no heap: in a lane of
one delay the events are in order already, which is most of them.

Knows nothing of networks or nodes. Bounded in events and in time: a livelock ends here with a message, not never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

NEVER = float("inf")

Action = Callable[[Any, Any], None]
Entry = tuple[float, int, Action, Any, Any]


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
        self._heap: list[Entry] = []
        self._lanes: dict[float, deque[Entry]] = {}

    def at(self, when: float, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) for a moment that is not over."""
        self._number = number = self._number + 1
        heappush(self._heap, (when, number, action, a, b))

    def soon(self, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) for now, behind what is planned for now already."""
        self.after(0.0, action, a, b)

    def after(self, delay: float, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) in a lane: for the few delays that many events have. Each new delay costs every event."""
        lane = self._lanes.get(delay)
        if lane is None:
            lane = self._lanes[delay] = deque()
        self._number = number = self._number + 1
        lane.append((self.now + delay, number, action, a, b))

    def stop(self) -> None:
        """Let `run` return after the event in hand."""
        self.stopped = True

    def run(self) -> None:
        """Events in order of time until `stop`. LimitReached if that never comes."""
        heap, lanes = self._heap, self._lanes
        self.stopped = False
        events, events_most, end = self.events, self._events_most, self._end
        try:
            while not self.stopped:
                first, source = (heap[0], None) if heap else ((NEVER,), None)
                for lane in lanes.values():
                    if lane and lane[0] < first:
                        first, source = lane[0], lane
                if first[0] > end:
                    left = "nothing is left to happen" if first[0] == NEVER else "it is not done"
                    raise LimitReached(f"{left} after {min(self.now, end) - end + self._seconds_most:.1f} simulated s")
                if events >= events_most:
                    raise LimitReached(f"not done after {events_most} events: a livelock, or --events-most is too low")
                if source is None:
                    heappop(heap)
                else:
                    source.popleft()
                events += 1
                self.now = first[0]
                first[2](first[3], first[4])
        finally:
            self.events = events
