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
from typing import Any, Final

NEVER: Final = float("inf")

Action = Callable[[Any, Any], None]
Entry = tuple[float, int, Action, Any, Any]
LAST: Entry = (NEVER, 0, lambda a, b: None, None, None)  # behind everything


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
        self._all_lanes: tuple[deque[Entry], ...] = ()

    def at(self, when: float, action: Action, a: Any = None, b: Any = None) -> None:
        """Plan action(a, b) for a moment that is not over."""
        self._number = number = self._number + 1
        heappush(self._heap, (when, number, action, a, b))

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
        heap = self._heap
        self.stopped = False
        events, events_most, end = self.events, self._events_most, self._end
        try:
            while not self.stopped:
                first, source = (heap[0] if heap else LAST), None
                for lane in self._all_lanes:
                    if lane and lane[0] < first:
                        source = lane
                        first = lane[0]
                if source is None:
                    if first is LAST or first[0] > end:
                        self._give_up(first)
                    heappop(heap)
                else:
                    source.popleft()
                if events >= events_most:
                    raise LimitReached(f"not done after {events_most} events: a livelock, or --events-most is too low")
                events += 1
                self.now, _, action, a, b = first
                action(a, b)
        finally:
            self.events = events

    def _give_up(self, first: Entry) -> None:
        left = "nothing is left to happen" if first is LAST else "it is not done"
        raise LimitReached(f"{left} after {min(self.now, self._end) - self._end + self._seconds_most:.1f} simulated s")
