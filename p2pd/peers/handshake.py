"""The first word each way: who is there, and whether both speak the same. May know p2pd.swarm's messages."""

from __future__ import annotations

import trio

from p2pd.peers.frames import FrameReader
from p2pd.peers.transport import ConnectionLost, PlainTransport
from p2pd.swarm.messages import PROTOCOL_VERSION, Contact, Hello, ProtocolError, encode
from p2pd.swarm.voucher import node_id

TIMEOUT_S = 5.0  # for both words: a stranger holds a place no longer


async def shake_hands(transport: PlainTransport, frames: FrameReader, mine: Hello) -> tuple[Hello, Contact]:
    """Say who we are, hear who it is. ProtocolError or ConnectionLost if that comes to nothing."""
    try:
        with trio.fail_after(TIMEOUT_S):
            await transport.send_all(encode(mine))
            hello = await frames.message()
    except trio.TooSlowError:
        raise ConnectionLost(f"did not say hello within {TIMEOUT_S:g} s") from None
    if not isinstance(hello, Hello):
        raise ProtocolError(f"{type(hello).__name__} instead of Hello")
    if hello.version != PROTOCOL_VERSION:
        raise ProtocolError(f"speaks version {hello.version} of the protocol, this node {PROTOCOL_VERSION}")
    if hello.fleet != mine.fleet:
        raise ProtocolError("belongs to another fleet")
    host = hello.host or transport.remote_host
    return hello, Contact(node_id(hello.key), hello.name, hello.zone, host, hello.port)
