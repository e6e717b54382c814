"""Vouchers: a node's signature over (upstream, digest, size, links): "I computed these from bytes that I got there".

What is signed, and the rules of what a voucher and a retraction may say. Not the cryptography: `sign` and `verify` are
handed in. A relay hands a voucher on and cannot alter it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

import msgpack

from p2pd.swarm.messages import LINKS_MAX, Retract, TagIs, Vouch

Sign = Callable[[bytes], bytes]  # message -> 64-byte Ed25519 signature
Verify = Callable[[bytes, bytes, bytes], bool]  # key, signature, message

_VOUCHER = b"p2pd voucher 1\0"
_RETRACTION = b"p2pd retraction 1\0"
_TAG = b"p2pd tag 1\0"


def node_id(key: bytes) -> bytes:
    """A node's id: the first 20 bytes of SHA-256 of its public key."""
    return sha256(key).digest()[:20]


def make_voucher(
    sign: Sign, key: bytes, upstream: str, digest: bytes, size: int, term: int, first: int, states: Sequence[bytes]
) -> Vouch:
    """A voucher for len(states) - 1 links, from state `first` on."""
    unsigned = Vouch(key, upstream, digest, size, term, first, tuple(states), b"")
    return Vouch(key, upstream, digest, size, term, first, tuple(states), sign(_voucher_bytes(unsigned)))


def voucher_holds(voucher: Vouch, verify: Verify) -> bool:
    """Whether the form and the signature are right. Says nothing of whether the signer is to be believed."""
    if not 2 <= len(voucher.states) <= LINKS_MAX + 1:
        return False
    return verify(voucher.key, voucher.signature, _voucher_bytes(voucher))


def make_retraction(sign: Sign, key: bytes, digest: bytes, term: int) -> Retract:
    """The signer's word that its vouchers for `digest` up to `term` are void."""
    return Retract(key, digest, term, sign(_retraction_bytes(digest, term)))


def retraction_holds(retraction: Retract, verify: Verify) -> bool:
    return verify(retraction.key, retraction.signature, _retraction_bytes(retraction.digest, retraction.term))


def tag_bytes(statement: TagIs) -> bytes:
    """What the signature of a tag statement covers."""
    s = statement
    return _TAG + msgpack.packb([s.upstream, s.repository, s.tag, s.digest, s.size, s.media_type, s.time])


def _voucher_bytes(v: Vouch) -> bytes:
    return _VOUCHER + msgpack.packb([v.upstream, v.digest, v.size, v.term, v.first, list(v.states)])


def _retraction_bytes(digest: bytes, term: int) -> bytes:
    return _RETRACTION + msgpack.packb([digest, term])
