"""Blobs on disk: proven ones under their final names, partial ones beside a journal of their checked pieces.

A crash at any moment loses no piece whose `flush` had returned, and leaves nothing trusted that was not checked. Not a
judge of bytes (except in `put`), and not asynchronous: the daemon calls it in worker threads. Knows `p2pd.oci` and
`p2pd.units` only.
"""

from p2pd.store.errors import Removed, StoreError, StoreFailed, StoreFull, StoreLocked, WrongDigest
from p2pd.store.partial import Partial
from p2pd.store.store import OpenBlob, Store

__all__ = [
    "OpenBlob",
    "Partial",
    "Removed",
    "Store",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreLocked",
    "WrongDigest",
]
