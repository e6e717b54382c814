"""When Python looks for garbage in a tracker's whole memory: as often as its nodes leave, and not as they come.

Python itself does so each time that the memory has grown by a quarter, a tenth of a millisecond for each node that is
there. While a fleet of thousands arrives that is a pause of a third of a second, again and again, and nothing is found:
only nodes that have left leave garbage.
"""

from __future__ import annotations

import gc

YOUNG = 10_000  # objects, net, between two looks at the young ones: a few milliseconds each
NEVER = 1_000_000_000
LEFT_LEAST = 1000  # nodes that leave some ten megabytes of garbage at the most


class Garbage:
    """Of one tracker's process; of all of it, since Python has no other."""

    def __init__(self) -> None:
        self._left = 0
        gc.set_threshold(YOUNG, 10, NEVER)

    def node_left(self, still_here: int) -> None:
        """A node is gone, and so many are still here."""
        self._left += 1
        if self._left >= max(LEFT_LEAST, still_here):
            self._left = 0
            gc.collect()
