"""The states of a blob that the store has: for the peers that want it, and a check of the disk at the same time.

May know p2pd.store, p2pd.hashing and the swarm's pieces.
"""

from __future__ import annotations

import os

from p2pd.hashing import Compression
from p2pd.store import Store
from p2pd.swarm.pieces import Geometry

READ_SIZE = 1024 * 1024  # bytes read at a time: enough for the disk's full speed


def states_of(store: Store, digest: str) -> tuple[bytes, ...] | None:
    """The state after each piece, the digest last; None if the store does not have the blob.

    Reads all of it: for a worker thread. StoreError or OSError if it can't be read; a file that ends early gives other
    states than the blob's.
    """
    blob = store.open_blob(digest)
    if blob is None:
        return None
    geometry = Geometry.of(blob.size)
    compression = Compression()
    states: list[bytes] = []
    buffer = memoryview(bytearray(min(READ_SIZE, geometry.piece_size)))
    with blob:
        position = 0
        for index in range(geometry.count):
            end = position + geometry.length(index)
            while position < end:
                count = os.preadv(blob.fileno(), [buffer[: end - position]], position)
                if not count:
                    return (*states, b"")
                compression.update(buffer[:count])
                position += count
            states.append(compression.digest() if index == geometry.count - 1 else compression.state())
    return tuple(states)
