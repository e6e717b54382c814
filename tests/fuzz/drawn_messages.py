"""Messages of any kind that the wire lets pass, their fields from small pools, so that they have to do with each other.

Not a target itself.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from p2pd.swarm.messages import Have, Hello, Message, Ping, ProtocolError, Run, decode, encode
from p2pd.swarm.voucher import make_retraction, make_voucher
from tests.fuzz.draw import Draw
from tests.swarm.fakes import contact, digest_of, key, signer, true_states

COUNT = 5  # pieces of the blobs
SIZE = COUNT << 17
DIGESTS = (digest_of("one"), digest_of("two"), digest_of("three"))
KINDS = tuple(kind for kind in Message.__args__ if kind not in (Hello, Run, Ping))  # type: ignore[attr-defined]
SIGNERS = ("a", "b", "me", "stranger")
NUMBERS = (0, 1, 2, 3, COUNT - 1, COUNT, 64, 1000, 65535, 1 << 32, 1 << 40, 1 << 62)
TEXTS = ("", "docker.io", "library/debian", "blob", "manifest", "busy", "gone", "absent", "missing", "denied",
         "limited", "unreachable", "no-progress", "wrong-bytes", "?")  # fmt: skip


def any_message(draw: Draw, kinds: tuple[type, ...] = ()) -> Any:
    """One of the kinds (all without), whose form the wire allows."""
    for _ in range(20):
        kind = draw.choice(kinds or KINDS)
        if kind.__name__ == "Vouch" and draw.number(31):
            return _voucher(draw)
        if kind.__name__ == "Retract" and draw.number(31):
            name = draw.choice(SIGNERS)
            return make_retraction(signer(key(name)), key(name), draw.choice(DIGESTS), draw.number(4))
        message = _filled(draw, kind)
        try:
            return decode(encode(message)[4:])
        except (ProtocolError, OverflowError):
            continue
    return Ping()


def _filled(draw: Draw, kind: type) -> Any:
    return kind(*(_value(draw, field.name, str(field.type)) for field in fields(kind)))


def _voucher(draw: Draw) -> Any:
    """A signed one, true or not."""
    name, digest, first = draw.choice(SIGNERS), draw.choice(DIGESTS), draw.number(COUNT - 1)
    states = true_states(digest, COUNT)
    if not draw.number(15):
        states[1 + draw.number(COUNT - 2)] = b"f" * 32
    until = first + 2 + draw.number(COUNT)
    size = SIZE if draw.number(31) else draw.choice((1, SIZE + 1, 1 << 40))
    return make_voucher(signer(key(name)), key(name), "reg", digest, size, draw.number(3), first, states[first:until])


def _value(draw: Draw, name: str, kind: str) -> Any:
    if name == "digest":
        return draw.choice(DIGESTS)
    if name == "digests":
        return tuple(draw.choice(DIGESTS) for _ in range(draw.number(3)))
    if name == "haves":
        return tuple(_filled(draw, Have) for _ in range(draw.number(3)))
    if name == "size":
        return SIZE if draw.number(15) else draw.choice((-1, 0, 1, SIZE, SIZE + 1, 1 << 40))
    if name == "holder":
        return contact(draw.choice(SIGNERS)).node_id if draw.number(3) else b""
    if name == "peers":
        return tuple(contact(draw.choice(SIGNERS)) for _ in range(draw.number(3)))
    if name == "pieces":
        return (
            bytes([draw.number(31) | (not draw.number(63)) << 7])
            if kind == "bytes"
            else tuple(draw.number(COUNT - bool(draw.number(31))) for _ in range(draw.number(6)))
        )
    if name == "states":
        return tuple(draw.octets(32) for _ in range(draw.number(3)))
    if name == "key":
        return key(draw.choice(SIGNERS))
    if name == "signature":
        return draw.octets(64)
    if name in ("index", "first", "rid", "count"):
        return draw.number(COUNT)
    if name == "sources":
        return 1 + draw.number(COUNT)
    if kind == "bool":
        return draw.flag()
    if kind == "str":
        return draw.choice(TEXTS)
    return draw.choice(NUMBERS)
