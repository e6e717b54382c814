"""A connected node or tracker: what this node knows of it, whatever the blob."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from p2pd.swarm.messages import Contact

RATE_MAX: Final = 1e12  # bytes/s that are believed: small pieces may seem to take no time at all, again and again


@dataclass(slots=True)
class Peer:
    """One live connection, to a node or to a tracker."""

    number: int
    contact: Contact
    key: bytes
    outbound: bool
    tracker: int
    since: float = 0.0  # when it connected
    blobs: dict[bytes, None] = field(default_factory=dict)  # in which it is our neighbour; in order: runs repeat
    # as an uploader to us
    load: int = 0  # hundredths of its line that are taken, as it last said
    load_at: float = 0.0  # when it said so
    rate: float = 0.0  # bytes/s that one of its transfers reaches; 0 while unknown
    line: float = 0.0  # bytes/s of all that it sends, as it last said; 0 while unknown
    asked: int = 0  # our requests out there
    asked_at: float = 0.0  # when the last one went out
    usual_s: float = 0.0  # from request to piece; 0 while unknown
    not_before: float = 0.0  # refused: do not ask earlier
    last_done_at: float = 0.0
    silent: bool = False  # it let us wait in vain, and has delivered nothing since: its word counts for nothing
    lets_wait: bool = False  # something is late, and it has delivered nothing since it was asked for that
    # as a receiver from us
    drain: float = 0.0  # bytes/s at which it took what we sent last; 0 while unknown


def blend(rate: float, length: int, seconds: float, weight: float) -> float:
    """A running mean of bytes/s after `length` bytes more, which took `seconds`; 0 stands for no mean yet.

    The mean is of the time that a byte takes. Of two pieces that come at once, after they were both waited for, the
    second takes no time at all: a mean of rates would believe it, and this one counts it as it should.
    """
    if not rate:
        return min(RATE_MAX, length / seconds) if seconds > 0 else 0.0
    return min(RATE_MAX, 1 / ((1 - weight) / rate + weight * seconds / length))
