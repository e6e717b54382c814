"""Bytes that the other side has said will come do not wake the loop a few at a time; all else does so at once."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2pd.fleet import Identity
from p2pd.peers.tls import RECORD_SIZE
from p2pd.peers.transport import WAKE_BYTES, ConnectionLost, PlainTransport, Transport
from tests.fleet.certificates import Authority
from tests.peers.fakes import sockets, tls_ends

SIZE = 4 * WAKE_BYTES
TRICKLE = b"t" * 1000
Ends = tuple[Transport, Transport]


@pytest.fixture(scope="module")
def identity() -> Identity:
    with tempfile.TemporaryDirectory() as directory:
        return Authority.make("fleet").member("one").identity(Path(directory))


@pytest.fixture(params=["plain", "tls"])
async def ends(request: pytest.FixtureRequest, identity: Identity) -> AsyncIterator[Ends]:
    """Who sends and who receives."""
    if request.param == "tls":
        pair: Ends = await tls_ends(identity, identity)
    else:
        here, there = await sockets()
        pair = PlainTransport(here), PlainTransport(there)
    yield pair
    for end in pair:
        end.close()


@asynccontextmanager
async def reading(receiver: Transport, view: memoryview, promised: bool = True) -> AsyncIterator[list[int]]:
    """A read that waits already when the block begins, and has ended behind it: how much it got."""
    got: list[int] = []

    async def read() -> None:
        got.append(await receiver.receive_into(view, promised))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            yield got


async def test_a_trickle_wakes_nobody_until_it_is_worth_it(ends: Ends) -> None:
    sender, receiver = ends
    view = memoryview(bytearray(SIZE))
    async with reading(receiver, view) as got:
        await sender.send_all(TRICKLE)
        await trio.sleep(0.05)
        assert got == []
        await sender.send_all(b"r" * (2 * WAKE_BYTES))
    assert got[0] >= WAKE_BYTES - RECORD_SIZE
    assert bytes(view[: len(TRICKLE) + 1]) == TRICKLE + b"r"


async def test_the_last_of_it_comes_at_once(ends: Ends) -> None:
    sender, receiver = ends
    async with reading(receiver, memoryview(bytearray(len(TRICKLE)))) as got:
        await sender.send_all(TRICKLE)
    assert got == [len(TRICKLE)]


async def test_what_nobody_promised_comes_at_once(ends: Ends) -> None:
    """A frame that follows a piece."""
    sender, receiver = ends
    view = memoryview(bytearray(SIZE))
    async with reading(receiver, view) as got:
        await sender.send_all(bytes(SIZE))
    while sum(got) < SIZE:
        got.append(await receiver.receive_into(view[sum(got) :], promised=True))
    async with reading(receiver, view, promised=False) as got:
        await sender.send_all(b"f")
    assert got == [1]


async def test_the_end_of_the_connection_comes_at_once(ends: Ends) -> None:
    sender, receiver = ends
    view = memoryview(bytearray(SIZE))
    async with reading(receiver, view) as got:
        await sender.send_all(TRICKLE)
        sender.close()
    assert got == [len(TRICKLE)]
    with pytest.raises(ConnectionLost):
        await receiver.receive_into(view, promised=True)
