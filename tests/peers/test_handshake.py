"""The handshake: who is not one of us is turned away, in time, with a reason, and without another error."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
from trio.testing import MockClock

from p2pd.peers.avoided import Avoided
from p2pd.peers.frames import FrameReader
from p2pd.peers.handshake import TIMEOUT_S, shake_hands
from p2pd.peers.refusal import Refused, reason_of
from p2pd.peers.transport import ConnectionLost, PlainTransport, dial
from p2pd.swarm.messages import FRAME_HEADER, Ping, ProtocolError, encode
from p2pd.swarm.voucher import node_id
from tests.peers.fakes import Wire, hello, sockets


async def answer(*parts: object) -> tuple:
    """What our side makes of a stranger that says this."""
    ours, theirs = await sockets()
    wire, transport = Wire(theirs), PlainTransport(ours)
    await wire.send(*parts)
    try:
        return await shake_hands(transport, FrameReader(transport), hello(b"m" * 32), Avoided())
    finally:
        wire.close()
        transport.close()


async def test_both_learn_who_the_other_is() -> None:
    ours, theirs = await sockets()
    one, two = PlainTransport(ours), PlainTransport(theirs)
    found = []

    async def shake(transport: PlainTransport, mine: object) -> None:
        found.append((await shake_hands(transport, FrameReader(transport), mine, Avoided()))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake, one, hello(b"1" * 32, name="one", zone="r1", host="", port=11))
        nursery.start_soon(shake, two, hello(b"2" * 32, name="two", zone="r2", host="10.0.0.2", port=22))
    contacts = {contact.name: contact for contact in found}
    assert (contacts["one"].host, contacts["one"].port) == ("127.0.0.1", 11)  # from where the connection comes
    assert (contacts["two"].host, contacts["two"].zone) == ("10.0.0.2", "r2")
    assert contacts["two"].node_id == node_id(b"2" * 32)
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([hello(version=2)], "version 2"),
        ([hello(fleet="other")], "another fleet"),
        ([Ping()], "Ping instead of Hello"),
        ([FRAME_HEADER.pack(1 << 31)], "a frame of"),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], "a frame of"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], "speaks TLS"),
        ([FRAME_HEADER.pack(4) + b"\xff\xff\xff\xff"], "not msgpack|no known kind"),
    ],
)
async def test_a_stranger_is_turned_away_with_a_reason(said: list, reason: str) -> None:
    with pytest.raises((ProtocolError, Refused), match=reason) as ended:
        await answer(*said)
    assert reason_of(ended.value) == "hello"


async def test_a_silent_stranger_is_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = await sockets()
    began = trio.current_time()
    transport = PlainTransport(ours)
    with pytest.raises(ConnectionLost, match="did not say hello"):
        await shake_hands(transport, FrameReader(transport), hello(), Avoided())
    assert trio.current_time() - began == pytest.approx(TIMEOUT_S)
    transport.close()
    theirs.close()


async def test_one_that_dribbles_its_hello_is_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = await sockets()
    transport, wire = PlainTransport(ours), Wire(theirs)

    async def dribble() -> None:
        await wire.send(FRAME_HEADER.pack(1000))
        while True:
            await trio.sleep(1)
            await wire.send(b"\x00")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        with pytest.raises(ConnectionLost, match="did not say hello"):
            await shake_hands(transport, FrameReader(transport), hello(), Avoided())
        nursery.cancel_scope.cancel()
    transport.close()
    wire.close()


async def test_one_that_says_hello_and_resets_the_connection_is_a_lost_connection() -> None:
    ours, theirs = await sockets()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
    transport = PlainTransport(ours)
    frames = FrameReader(transport)
    await theirs.send(encode(hello(b"x" * 32, host="")))
    theirs.close()
    with pytest.raises(ConnectionLost):
        await shake_hands(transport, frames, hello(), Avoided())
    transport.close()


async def test_the_address_of_one_that_is_gone_is_a_lost_connection() -> None:
    ours, theirs = await sockets()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    await trio.lowlevel.wait_readable(ours)
    transport = PlainTransport(ours)
    with pytest.raises(ConnectionLost):
        _ = transport.remote_host
    transport.close()


@pytest.mark.parametrize("host", ["a..b", "", "x" * 70 + ".example", "≠.example", "nowhere.invalid", "fe80::1%none"])
async def test_a_contact_may_name_any_host(host: str) -> None:
    with pytest.raises(ConnectionLost):
        await dial(host, 9, 5)


async def test_a_port_that_nobody_listens_on_is_a_lost_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionLost, match="Connection refused"):
            await dial("127.0.0.1", taken.getsockname()[1], 5)
