"""Bytes that the other side has said will come do not wake the loop a few at a time; all else does so at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio

from p2pd.fleet import Identity
from p2pd.peers.tls import RECORD_SIZE, TlsTransport
from p2pd.peers.transport import WAKE_BYTES, ConnectionLost, PlainTransport, Transport
from tests.fleet.certificates import Authority
from tests.peers.fakes import sockets

SIZE = 4 * WAKE_BYTES
TRICKLE = b"t" * 1000


@pytest.fixture(scope="module")
def identity() -> Identity:
    with tempfile.TemporaryDirectory() as directory:
        return Authority.make("fleet").member("one").identity(Path(directory))


@pytest.fixture(params=["plain", "tls"])
async def ends(request: pytest.FixtureRequest, identity: Identity) -> tuple[Transport, Transport]:
    """Who sends and who receives."""
    here, there = await sockets()
    if request.param == "plain":
        return PlainTransport(here), PlainTransport(there)
    sender = TlsTransport(here, identity.accepting, accepted=True)
    receiver = TlsTransport(there, identity.calling, accepted=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.start)
        nursery.start_soon(receiver.start)
    return sender, receiver


async def read(transport: Transport, view: memoryview, got: list[int], promised: bool = True) -> None:
    got.append(await transport.receive_into(view, promised))


async def test_a_trickle_wakes_nobody_until_it_is_worth_it(ends: tuple[Transport, Transport]) -> None:
    sender, receiver = ends
    view, got = memoryview(bytearray(SIZE)), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, receiver, view, got)
        await trio.sleep(0.02)
        await sender.send_all(TRICKLE)
        await trio.sleep(0.05)
        assert got == []
        await sender.send_all(b"r" * (2 * WAKE_BYTES))
    assert got[0] >= WAKE_BYTES - RECORD_SIZE
    assert bytes(view[: len(TRICKLE) + 1]) == TRICKLE + b"r"
    sender.close()
    receiver.close()


async def test_the_last_of_it_comes_at_once(ends: tuple[Transport, Transport]) -> None:
    sender, receiver = ends
    view, got = memoryview(bytearray(SIZE)), []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, receiver, view[: len(TRICKLE)], got)
            await trio.sleep(0.02)
            await sender.send_all(TRICKLE)
    assert got == [len(TRICKLE)]
    sender.close()
    receiver.close()


async def test_what_nobody_promised_comes_at_once(ends: tuple[Transport, Transport]) -> None:
    """A frame that follows a piece."""
    sender, receiver = ends
    view, got = memoryview(bytearray(SIZE)), []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, receiver, view, got)
            await trio.sleep(0.02)
            await sender.send_all(bytes(SIZE))
        while sum(got) < SIZE:
            await read(receiver, view[sum(got) :], got)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, receiver, view, got, False)
            await trio.sleep(0.02)
            await sender.send_all(b"f")
    assert got[-1] == 1
    sender.close()
    receiver.close()


async def test_the_end_of_the_connection_comes_at_once(ends: tuple[Transport, Transport]) -> None:
    sender, receiver = ends
    view, got = memoryview(bytearray(SIZE)), []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, receiver, view, got)
            await trio.sleep(0.02)
            await sender.send_all(TRICKLE)
            sender.close()
        with pytest.raises(ConnectionLost):
            await receiver.receive_into(view[got[0] :], promised=True)
    assert got == [len(TRICKLE)]
    receiver.close()
