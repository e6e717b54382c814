"""Clients and members that mean harm, each as a process: nothing of it is wrong on the wire, there is only too much.

    python -m tests.bench.attacks NAME --mirror PORT --peers PORT --blob PATH

Says "attacking" once it is at it; goes on until it is ended. Not tampering: tests/e2e/hostile.py does that.
"""

from __future__ import annotations

import argparse
import resource
import select
from collections.abc import Awaitable, Callable

import trio

from p2pd.fleet import NodeKey
from p2pd.swarm.messages import PROTOCOL_VERSION, GetLinks, Have, Hello, Join, Leave, Ping, encode

CONNECTIONS = 1500  # three times what the mirror keeps
OWN_ADDRESS = "127.0.0.66"  # what is counted for each caller is not counted for the honest ones
RECONNECT_S = 1.0  # who is sent away comes back after so long: to measure places, not how fast one is hung up on
LOOK_S = 0.25  # who does not read looks so often whether it is hung up on
LOOPS = 4


class Place:
    """What is attacked."""

    def __init__(self, mirror: int, peers: int, blob: str, count: int) -> None:
        self.mirror, self.peers, self.blob, self.count = mirror, peers, blob, count

    def request(self, extra: str = "") -> bytes:
        return f"GET {self.blob} HTTP/1.1\r\nHost: 127.0.0.1\r\n{extra}\r\n".encode()


async def _again_and_again(port: int, use: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
    """A connection after the other, each until the other side ends it."""
    while True:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port, local_address=OWN_ADDRESS) as stream:
                await use(stream)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side ended it, which is its right
        await trio.sleep(RECONNECT_S)


async def _until_closed(stream: trio.SocketStream) -> None:
    while await stream.receive_some(1 << 16):
        pass


async def _many(count: int, port: int, use: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_again_and_again, port, use)


async def idle(place: Place) -> None:
    """Connections to the mirror without a word."""
    await _many(place.count, place.mirror, _until_closed)


async def slow_headers(place: Place) -> None:
    """A byte of a head now and then."""

    async def use(stream: trio.SocketStream) -> None:
        await stream.send_all(b"GET /v2/ HTTP/1.1\r\nX: ")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.5)

    await _many(place.count, place.mirror, use)


async def never_reads(place: Place) -> None:
    """A blob asked for, and not read, until the node ends it."""

    async def use(stream: trio.SocketStream) -> None:
        await stream.send_all(place.request())
        end = select.poll()
        end.register(stream.socket, select.POLLRDHUP)
        while not end.poll(0):  # noqa: ASYNC110  (trio can wait for bytes, but not only for the end)
            await trio.sleep(LOOK_S)

    await _many(place.count, place.mirror, use)


async def one_byte_ranges(place: Place) -> None:
    """One byte of a blob, again and again."""

    async def use(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(place.request("Range: bytes=0-0\r\n"))
            if not await stream.receive_some(1 << 16):
                return

    await _many(LOOPS, place.mirror, use)


async def silent_peers(place: Place) -> None:
    """Callers at the peers' port who do not say who they are."""
    await _many(place.count // 5, place.peers, _until_closed)


async def flooding_member(place: Place) -> None:
    """A member whose messages are all right, as fast as they go out."""
    digest = bytes.fromhex(place.blob.rpartition(":")[2].partition("?")[0])
    kinds = (Join(digest, 1 << 20, b"\x0f", True, 0, 0, 0), Have(digest, (1,), 1, 0, 0, 0), GetLinks(digest, 0, 1),
             Ping(), Leave(digest))  # fmt: skip
    flood = b"".join(map(encode, kinds)) * 200

    async def use(stream: trio.SocketStream) -> None:
        key = NodeKey.generate().public
        await stream.send_all(encode(Hello(PROTOCOL_VERSION, key, "flood", "", "", 1, "")))
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                await _until_closed(stream)
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            while True:
                await stream.send_all(flood)

    await _many(1, place.peers, use)


ATTACKS = {
    function.__name__.replace("_", "-"): function
    for function in (idle, slow_headers, never_reads, one_byte_ranges, silent_peers, flooding_member)
}


def start() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attacks")
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--mirror", type=int, required=True)
    parser.add_argument("--peers", type=int, required=True)
    parser.add_argument("--blob", required=True)
    parser.add_argument("--count", type=int, default=CONNECTIONS, help="connections at a time, where they are many")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    print("attacking", flush=True)
    trio.run(ATTACKS[options.name], Place(options.mirror, options.peers, options.blob, options.count))


if __name__ == "__main__":
    start()
