"""What can go wrong in the store. Imports nothing of p2pd.

    StoreError
     +- StoreFull      no room: the disk's, the quota's or [store] size_limit's; nothing that was recorded is lost
     +- StoreLocked    another process has this store
     +- StoreFailed    the disk refused for another reason (I/O error, read-only, rights)
     +- Removed        the partial was removed or evicted meanwhile
     +- WrongDigest    the bytes are not what the digest names

Misuse by the caller (a range outside the blob, committing with pieces missing) is ValueError.
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of the store's errors. str() names the path or digest and, where there is one, the remedy."""


class StoreFull(StoreError):
    """There is no room, and nothing more may be evicted."""


class StoreLocked(StoreError):
    """The store belongs to another process that is running."""


class StoreFailed(StoreError):
    """The file system gave an error. After a failed sync of a partial's data, that partial is best removed."""


class Removed(StoreError):
    """The partial is not in the store any more."""


class WrongDigest(StoreError):
    """The bytes given do not have the digest given; nothing was stored."""
