"""Lists of a blob's states, compared from the digest down. Needs no signature and believes nobody.

The top of every true list is the digest. Where two lists agree on the state after a piece and differ on the state
before it, at most one of the two states leads there: only a true list's piece fits. So that one piece, asked of each,
convicts every liar, as long as one source is honest; if none is, bandwidth is lost and nothing else.

Going down assumes that nobody finds a pseudo-preimage or a free-start collision of SHA-256's compression function.
Pure: what is asked of whom is `disputes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pd.swarm.messages import LINKS_MAX, Vouch


def highest_disagreement(one: Mapping[int, bytes], other: Mapping[int, bytes], top: int) -> tuple[int | None, int]:
    """The highest link whose state after is the same in both lists and whose state before is not; None if there is
    none as far down as both are known. And the lowest place down to which they have been found to agree.

    `top`: a place where they agree, to begin with.
    """
    place = top
    while place > 0:
        before, theirs = one.get(place - 1), other.get(place - 1)
        if before is None or theirs is None:
            return None, place
        if before != theirs:
            return place - 1, place
        place -= 1
    return None, place


@dataclass(slots=True)
class Comparison:
    """One source's list beside ours, a window of LINKS_MAX links at a time, from the top down.

    Bounded by the window: what agrees is forgotten.
    """

    digest: bytes
    count: int
    top: int = 0  # they agree from here up to the digest
    theirs: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.top = self.count
        self.theirs[self.count] = self.digest

    @property
    def window(self) -> tuple[int, int]:
        """What to ask for next: the first link, and how many."""
        first = max(0, self.top - LINKS_MAX)
        return first, max(1, self.top - first)

    def hear(self, voucher: Vouch) -> None:
        """The source's word on these states, as far as they lie in the window. Its first word counts."""
        first, _ = self.window
        for place, state in enumerate(voucher.states, voucher.first):
            if first <= place <= self.top:
                self.theirs.setdefault(place, state)

    def compare(self, ours: Mapping[int, bytes]) -> int | None:
        """The link to settle it with, once it is known; None before that. Moves the window down where they agree."""
        seam, self.top = highest_disagreement(ours, self.theirs, self.top)
        self.theirs = {place: state for place, state in self.theirs.items() if place <= self.top}
        return seam

    @property
    def agrees(self) -> bool:
        """Whether the lists are the same to the bottom."""
        return self.top == 0
