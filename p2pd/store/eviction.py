"""Which blobs go when room is needed. Pure: no disk, no clock; imports nothing of p2pd.

Idle partials go before proven blobs (a proven blob serves clients and peers; a partial that nobody waits for serves
few), each in the order of its last use. What is pinned is not offered to `choose` in the first place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Victim:
    """What could go: `size` in bytes as it counts in the limit, `last_use` in seconds since the epoch."""

    digest: str
    size: int
    last_use: float
    partial: bool


def choose(candidates: Iterable[Victim], excess: int, partials: int = 0) -> tuple[list[Victim], bool]:
    """The first candidates that together free `excess` bytes and at least `partials` partials; False if all do not."""
    if excess <= 0 and partials <= 0:
        return [], True
    chosen = []
    for victim in sorted(candidates, key=lambda victim: (not victim.partial, victim.last_use, victim.digest)):
        if excess <= 0 and partials <= 0:
            break
        if excess <= 0 and not victim.partial:
            break
        chosen.append(victim)
        excess -= victim.size
        partials -= victim.partial
    return chosen, excess <= 0 and partials <= 0
