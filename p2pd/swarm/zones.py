"""Which pieces of a blob a node asks for in other zones: of each piece, one node of a zone fetches it across.

Lines between zones are shared and narrow: if each node asked blindly, a piece would enter a zone of n nodes almost n
times. So the members of a zone rank themselves for each piece by rendezvous hashing, without a word between them, and
the highest fetches what is not in the zone yet; the others take it from there. What does not come in time is open to
the second, then to the fourth, and so on. A node whose near neighbours have what it lacks and let it wait asks across,
too. Near neighbours are not preferred otherwise: that would hurt the mixing.

A node without a zone, or with no neighbour in it, asks anybody. A zone is what a node says of itself. A member that
says it has everything and sends nothing holds its zone up until its first request is late: then it is near no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import shake_128
from typing import Final

NEVER: Final = float("inf")
RANKED: Final = 1024  # pieces that are ranked one by one; of larger blobs each stands for all so many apart
WEIGHT_SIZE: Final = 4  # bytes
LEVELS: Final = 8  # of waiting: in the end 128 nodes of a zone may ask across, more than one is connected to
LIFTED_AFTER: Final = 2  # pauses that somebody near has a piece in vain


def outranks(digest: bytes, other: bytes, me: bytes, count: int) -> int:
    """The set of pieces for which the node `other` ranks above `me`. Both see the same."""
    ranked = min(count, RANKED)
    theirs, mine = _weights(digest, other, ranked), _weights(digest, me, ranked)
    above = 0
    for index in range(ranked):
        place = index * WEIGHT_SIZE
        if (theirs[place : place + WEIGHT_SIZE], other) > (mine[place : place + WEIGHT_SIZE], me):
            above |= 1 << index
    if count > ranked:
        for start in range(ranked, count, ranked):
            above |= (above & ((1 << ranked) - 1)) << start
        above &= (1 << count) - 1
    return above


def _weights(digest: bytes, node: bytes, count: int) -> bytes:
    return shake_128(node + digest).digest(count * WEIGHT_SIZE)


@dataclass(slots=True)
class Crossing:
    """What a node may ask for in other zones, of one blob. Sets of pieces are integers; -1 is all."""

    allowed: int = -1  # ... if nobody near has it
    lifted: int = 0  # ... although somebody near has it
    near: int = 0  # neighbours in this node's zone
    near_have: int = 0  # what they have between them
    ranks: list[int] = field(default_factory=list)  # near nodes that rank above this one, in binary: bit n of all at n
    waited: list[int] = field(default_factory=list)  # wanted, and elsewhere, for at least so many pauses
    look_at: float = NEVER
    short_since: float = NEVER  # since when nobody was found to ask for more, and no piece came

    @property
    def open(self) -> int:
        """What may be asked for in other zones now."""
        return self.allowed & ~self.near_have | self.lifted

    def members_changed(self, above: Iterable[int], near: int) -> None:
        """`above`: for each near neighbour that wants pieces, those for which it ranks above this node."""
        self.near = near
        self.ranks = []
        for pieces in above:
            for place, bits in enumerate(self.ranks):
                self.ranks[place], pieces = bits ^ pieces, bits & pieces
            if pieces:
                self.ranks.append(pieces)
        if not near:
            self.look_at, self.waited, self.lifted = NEVER, [], 0
        elif self.look_at == NEVER:
            self.look_at = 0.0
        self._allow()

    def look(self, elsewhere: int, now: float, pause: float) -> None:
        """A pause is over. `elsewhere`: what this node lacks and somebody of another zone has."""
        self.waited = [elsewhere, *(waited & elsewhere for waited in self.waited[: LEVELS - 1])]
        self.look_at = now + pause
        is_short = now - self.short_since >= pause
        self.lifted = self.waited[LIFTED_AFTER] if is_short and len(self.waited) > LIFTED_AFTER else 0
        self._allow()

    def _allow(self) -> None:
        self.allowed = ~self._ranked_from(0)
        for level, waited in enumerate(self.waited):
            if level:
                self.allowed |= waited & ~self._ranked_from(level)

    def _ranked_from(self, place: int) -> int:
        """The pieces for which at least 2 ** place near nodes rank above this one."""
        pieces = 0
        for bits in self.ranks[place:]:
            pieces |= bits
        return pieces
