"""When Python looks for garbage in a tracker's whole memory: as often as its nodes leave, and not as they come.

Python itself does so each time that the memory has grown by a quarter, a tenth of a millisecond for each node that is
there; and through what came of late after every ten looks at the newest, which is all of a fleet that arrives. A pause
of a fifth or a third of a second, again and again, and nothing is found: only who has left leaves garbage.
"""

from __future__ import annotations

import gc

YOUNG = 2_000  # objects, net, between two looks at the newest: some milliseconds each
NEVER = 1_000_000_000
LEFT_LEAST = 1000  # nodes and strangers that leave some ten megabytes of garbage at the most


class Garbage:
    """Of one tracker's process; of all of it, since Python has no other."""

    def __init__(self) -> None:
        self._left = 0
        gc.set_threshold(YOUNG, NEVER, NEVER)

    def node_left(self, still_here: int) -> None:
        """A node is gone, or a stranger was turned away, and so many nodes are still here."""
        self._left += 1
        if self._left >= max(LEFT_LEAST, still_here):
            self._left = 0
            gc.collect()
