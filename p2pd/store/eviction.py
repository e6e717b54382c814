"""Which blobs go when room is needed. Pure: no disk, no clock; imports nothing of p2pd.

For the size limit, idle partials go before proven blobs (a proven blob serves clients and peers; a partial that nobody
waits for serves few), each in the order of its last use. For a disk that others filled, proven blobs go first: a whole
blob is easy to get again. A partial goes only when it has been idle for long: its pull may be about to go on. What is
pinned is never a candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

IDLE_S_MIN = 3600.0  # a partial used within the last hour is not given up for a full disk


@dataclass(frozen=True, slots=True)
class Victim:
    """What could go: `size` bytes of the limit and `disk` bytes of the disk; `last_use` in seconds since the epoch."""

    digest: str
    size: int
    disk: int
    last_use: float
    partial: bool


def for_limit(candidates: Iterable[Victim], excess: int, partials: int) -> list[Victim] | None:
    """The first that together free `excess` bytes of the limit and at least `partials` partials; None if all do not."""
    chosen = []
    for victim in sorted(candidates, key=lambda victim: (not victim.partial, victim.last_use, victim.digest)):
        if excess > 0 or (partials > 0 and victim.partial):
            chosen.append(victim)
            excess -= victim.size
            partials -= victim.partial
    return chosen if excess <= 0 and partials <= 0 else None


def for_disk(candidates: Iterable[Victim], excess: int, now: float) -> list[Victim] | None:
    """The first that together free `excess` bytes of the disk; None if all that may go do not."""
    chosen = []
    for victim in _in_order_for_disk(candidates, now):
        if excess <= 0:
            break
        chosen.append(victim)
        excess -= victim.disk
    return chosen if excess <= 0 else None


def _in_order_for_disk(candidates: Iterable[Victim], now: float) -> Iterator[Victim]:
    for victim in sorted(candidates, key=lambda victim: (victim.partial, victim.last_use, victim.digest)):
        if not victim.partial or victim.last_use < now - IDLE_S_MIN:
            yield victim
