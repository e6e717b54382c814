"""Rendezvous hashing: which of the nodes that one knows stand highest for a key, without a word between them.

Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998): each node's weight is a hash of
(node, key), and the highest wins. A node that comes or goes moves only the keys that it wins or won.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def highest(key: bytes, nodes: Iterable[bytes], count: int) -> list[bytes]:
    """The `count` nodes that rank highest for `key`, best first."""
    return sorted(nodes, key=lambda node: blake2b(node, key=key[:64], digest_size=16).digest(), reverse=True)[:count]
