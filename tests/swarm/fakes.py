"""Keys without cryptography, blobs without bytes: a signature is a hash that only tests can make, a state a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from p2pd.swarm.chain import INITIAL_STATE
from p2pd.swarm.messages import Contact, Vouch
from p2pd.swarm.voucher import make_voucher, node_id


def key(name: str) -> bytes:
    return sha256(f"key of {name}".encode()).digest()


def signer(public: bytes) -> Callable[[bytes], bytes]:
    return lambda data: sha256(public + data).digest() * 2


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    return signature == sha256(public + data).digest() * 2


def contact(name: str) -> Contact:
    """A node by its name; "n@rack" is in the zone "rack"."""
    return Contact(node_id(key(name)), name, name.partition("@")[2], "host", 9581)


def digest_of(name: str) -> bytes:
    return sha256(name.encode()).digest()


def true_states(digest: bytes, count: int) -> list[bytes]:
    """The chain of a pretended blob: state 0, ..., the digest."""
    middle = [sha256(digest + i.to_bytes(4, "big")).digest() for i in range(1, count)]
    return [INITIAL_STATE, *middle, digest]


def vouch(
    name: str, digest: bytes, size: int, first: int, states: Sequence[bytes], term: int = 1, upstream: str = "reg"
) -> Vouch:
    """A voucher of that node, over states from `first` on."""
    public = key(name)
    return make_voucher(signer(public), public, upstream, digest, size, term, first, tuple(states))
