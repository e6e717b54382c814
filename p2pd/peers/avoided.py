"""Whom this side has no word with for a while, because it broke the protocol or was refused.

Only what was seen of the other side itself counts: a node by the key that it has proved, an address by what answered
there. Who merely names a node, with an address of its own choice, can't get that node avoided.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

import trio

AVOIDED_S = 60.0
AVOIDED_MAX = 4096  # nodes, and addresses; the one that was added first is forgotten first

Who = TypeVar("Who", bound=Hashable)


class Avoided(Generic[Who]):
    """Node ids, or addresses with a port."""

    def __init__(self) -> None:
        self._until: OrderedDict[Who, float] = OrderedDict()

    def add(self, who: Who) -> None:
        self._until[who] = trio.current_time() + AVOIDED_S
        self._until.move_to_end(who)
        if len(self._until) > AVOIDED_MAX:
            self._until.popitem(last=False)

    def __contains__(self, who: Who) -> bool:
        return self._until.get(who, float("-inf")) > trio.current_time()
