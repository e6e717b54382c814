"""Vouchers, retractions and tag statements as frames' bodies: only what the key itself signed holds.

The input is laid over a good message: a byte that says which, a position, then what stands there instead.
"""

from __future__ import annotations

from p2pd.fleet.keys import NodeKey, verify
from p2pd.swarm.messages import ProtocolError, Retract, TagIs, Vouch, decode, encode
from p2pd.swarm.voucher import make_retraction, make_voucher, retraction_holds, tag_bytes, voucher_holds

_KEY = NodeKey.generate()
_DIGEST = b"d" * 32
_TAG = TagIs(_KEY.public, "docker.io", "library/debian", "12", _DIGEST, 1000, "application/json", 1, bytes(64))
_GOOD = (
    make_voucher(_KEY.sign, _KEY.public, "docker.io", _DIGEST, 1 << 20, 1, 0, [b"a" * 32, b"b" * 32, b"c" * 32]),
    make_retraction(_KEY.sign, _KEY.public, _DIGEST, 3),
    TagIs(*(getattr(_TAG, name) for name in TagIs.__slots__[:-1]), _KEY.sign(tag_bytes(_TAG))),
)


def holds(message: object) -> bool:
    if isinstance(message, Vouch):
        return voucher_holds(message, verify)
    if isinstance(message, Retract):
        return retraction_holds(message, verify)
    if isinstance(message, TagIs):
        return verify(message.key, message.signature, tag_bytes(message))
    return False


def check(data: bytes) -> None:
    data = data.ljust(3, b"\0")
    good = _GOOD[data[0] % 3]
    body = encode(good)[4:]
    at = int.from_bytes(data[1:3], "big") % (len(body) + 1)
    changed = body[:at] + data[3:] + body[at + len(data) - 3 :]
    try:
        message = decode(changed)
    except ProtocolError:
        return
    assert holds(message) == (message == good)
