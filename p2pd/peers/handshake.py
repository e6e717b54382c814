"""The first word each way, behind TLS's own handshake where there is one: who is there, and who speaks the same.

May know p2pd.swarm's messages.
"""

from __future__ import annotations

import trio

from p2pd.peers.avoided import AVOIDED_S, Avoided
from p2pd.peers.frames import FrameReader
from p2pd.peers.refusal import Refused
from p2pd.peers.transport import ConnectionLost, Transport
from p2pd.swarm.messages import PROTOCOL_VERSION, Contact, Hello, Message, ProtocolError, encode
from p2pd.swarm.voucher import node_id

# What a node calls its fleet in Hello and mDNS. Certificates say who is a member: a name for each CA would part those
# who have the new one from those who still have the old one.
FLEET_MEMBERS, FLEET_INSECURE = "members", "insecure"
TIMEOUT_S = 5.0  # for TLS and both words: a stranger holds a place no longer


class Doorstep:
    """Those that have called and not yet said who they are: at most `most`. When one more comes, the one that has stood
    there the longest is sent away: an honest one stands there for milliseconds, so the silent can't shut it out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._standing: dict[trio.CancelScope, None] = {}

    async def meet(
        self, transport: Transport, frames: FrameReader, mine: Hello, avoided: Avoided[bytes]
    ) -> tuple[bytes, Contact]:
        """As `shake_hands`."""
        if len(self._standing) >= self._most:
            oldest = next(iter(self._standing))
            del self._standing[oldest]
            oldest.cancel()
        scope = trio.CancelScope()
        self._standing[scope] = None
        try:
            with scope:
                return await shake_hands(transport, frames, mine, avoided)
        finally:
            self._standing.pop(scope, None)
        raise ConnectionLost("said nothing while others came")


async def shake_hands(
    transport: Transport, frames: FrameReader, mine: Hello, avoided: Avoided[bytes]
) -> tuple[bytes, Contact]:
    """Say who we are, hear who it is: its key and contact. `avoided`: nodes that are turned away; who proves a key and
    then breaks the protocol becomes one of them.

    ProtocolError or ConnectionLost if that comes to nothing; the transport is closed then.
    """
    try:
        with trio.fail_after(TIMEOUT_S):
            await transport.start()
            if transport.peer_key is not None:  # before it has a chance to keep this side busy once more
                _turn_away(node_id(transport.peer_key), avoided)
            await transport.send_all(encode(mine))
            hello = await frames.message()
        key, contact = _identity(hello, mine, transport)
        _turn_away(contact.node_id, avoided)
        return key, contact
    except trio.TooSlowError:
        transport.close()
        raise ConnectionLost(f"did not say hello within {TIMEOUT_S:g} s") from None
    except ProtocolError as error:
        transport.close()
        if transport.peer_key is None:
            raise
        member = node_id(transport.peer_key)
        avoided.add(member)
        raise ProtocolError(f"node {member.hex()[:16]}: {error}; it is avoided for {AVOIDED_S:g} s") from None
    except BaseException:
        transport.close()
        raise


def _turn_away(node: bytes, avoided: Avoided[bytes]) -> None:
    if node in avoided:
        raise Refused("avoided", f"node {node.hex()[:16]} broke the protocol less than {AVOIDED_S:g} s ago")


def _identity(hello: Message, mine: Hello, transport: Transport) -> tuple[bytes, Contact]:
    """Refused where it means no harm, ProtocolError where it breaks the protocol."""
    if not isinstance(hello, Hello):
        raise ProtocolError(f"{type(hello).__name__} instead of Hello")
    if hello.version != PROTOCOL_VERSION:
        raise Refused("hello", f"speaks version {hello.version} of the protocol, this node {PROTOCOL_VERSION}")
    if hello.fleet != mine.fleet:
        raise Refused("hello", "belongs to another fleet")
    if transport.peer_key not in (None, hello.key):
        raise ProtocolError("names another key than its certificate's")
    host = hello.host or transport.remote_host
    return hello.key, Contact(node_id(hello.key), hello.name, hello.zone, host, hello.port)
