"""One blob on its way to this node: what is known of it, what of it is there, and who waits.

Not what is done about it: that is `arrivals`. May know p2pd.store, p2pd.oci, the swarm's pieces and the
upstreams' identities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from p2pd.oci import Kind
from p2pd.store import Partial
from p2pd.swarm.pieces import prefix_end
from p2pd.upstream import Identity


def raw(digest: str) -> bytes:
    """The 32 bytes of "sha256:<hex>"."""
    return bytes.fromhex(digest[7:])


def text(digest: bytes) -> str:
    return "sha256:" + digest.hex()


@dataclass(eq=False)
class Arrival:
    """One blob on its way. `present`: pieces whose links held; `own_end`: bytes that this node's own pull has written
    from the beginning on without a gap (not yet checked to the end, but exactly what upstream said)."""

    digest: str
    kind: Kind
    upstream: str
    repository: str
    identity: Identity | None = field(default=None, repr=False)  # of the client that it is for, where that is needed
    size: int = -1
    size_is_sure: bool = False  # from a proven manifest or upstream's own word, not from another node
    partial: Partial | None = None
    piece_size: int = 1
    present: int = 0
    own_end: int = 0
    proven: bool = False
    failure: str = ""  # one of directory.REASONS, or "storage"
    refuted: int = 0  # how often pieces had to be dropped: who has read of them can't go on
    clients: int = 0
    alone: bool = False
    keep_until: float = 0.0
    started_at: float | None = None  # None while nobody wants it: a part that is left from before
    progress_at: float = 0.0
    flushed_at: float = 0.0
    told_can_pull: bool = False
    pinned: bool = False  # its file is not to be evicted: it is wanted
    opening: trio.Lock = field(default_factory=trio.Lock)
    from_peers: int = 0
    from_upstream: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    def change(self) -> None:
        """Wake whoever waits for something about this blob."""
        self.changed.set()
        self.changed = trio.Event()

    def progress(self) -> None:
        self.progress_at = trio.current_time()
        self.change()

    def opened(self, partial: Partial) -> None:
        """It has a file now."""
        self.partial, self.size, self.piece_size = partial, partial.size, partial.piece_size

    def closed(self) -> None:
        """It has no file any more, and so no size and no bytes; whoever read of them can't go on."""
        self.partial, self.size, self.size_is_sure, self.pinned = None, -1, False, False
        self.present = self.own_end = 0
        self.refuted += 1

    def present_end(self, offset: int) -> int:
        """The end of what is present from `offset` on, in bytes; `offset` itself if its piece is not."""
        if self.size < 0:
            return offset
        index = prefix_end(self.present, offset // self.piece_size)
        return max(offset, min(self.size, index * self.piece_size))


class Lent:
    """A partial's file, lent to a sender: pinned until closed. StoreError if it is gone."""

    def __init__(self, partial: Partial) -> None:
        partial.pin()
        self._partial: Partial | None = partial

    def fileno(self) -> int:
        assert self._partial
        return self._partial.fileno()

    def close(self) -> None:
        if self._partial:
            self._partial.unpin()
            self._partial = None
