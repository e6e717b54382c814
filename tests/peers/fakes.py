"""What stands in for the rest of a node: a handler that remembers, files in memory, a wire spoken by hand."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pd.fleet import Identity
from p2pd.hashing import INITIAL_STATE, Compression
from p2pd.peers.connection import Connection, Outgoing
from p2pd.peers.frames import FrameReader
from p2pd.peers.incoming import Incoming, Intake
from p2pd.peers.tls import TlsTransport
from p2pd.peers.transport import PlainTransport
from p2pd.ratelimit import RateLimit
from p2pd.swarm.messages import PROTOCOL_VERSION, Hello, Message, encode

DIGEST = bytes(range(32))


class DiskFull(Exception):
    """The only error that the fake sink knows."""


def blob_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def link_of(data: bytes, before: bytes = INITIAL_STATE, offset: int = 0, last: bool = True) -> tuple[bytes, bytes]:
    """The states around a piece."""
    compression = Compression(before, offset)
    compression.update(data)
    return before, compression.digest() if last else compression.state()


def hello(key: bytes = b"k" * 32, **changes: object) -> Hello:
    fields = {"version": PROTOCOL_VERSION, "key": key, "name": "n", "zone": "", "host": "", "port": 1, "fleet": "test"}
    return Hello(**{**fields, **changes})  # type: ignore[arg-type]


class Sink:
    """A file in memory. `fails_at`: the write at that offset finds the disk full. Thread-safe enough for one writer."""

    def __init__(self, size: int, fails_at: int = -1) -> None:
        self.data = bytearray(size)
        self.writes: list[tuple[int, int]] = []
        self.fails_at = fails_at

    def write(self, offset: int, data: memoryview) -> None:
        if offset == self.fails_at:
            raise DiskFull("no space left")
        self.data[offset : offset + len(data)] = data
        self.writes.append((offset, len(data)))


class FileSource:
    """An unnamed file with these bytes, that knows whether it was closed."""

    def __init__(self, data: bytes) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._file.write(data)
        self._file.flush()
        self.closed = 0

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self.closed += 1
        self._file.close()


@dataclass
class Handler:
    """Remembers what it is told, in order."""

    links: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    told: list[tuple] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)
    react: Callable[[tuple], None] = lambda told: None
    changed: trio.Event = field(default_factory=trio.Event)

    def _tell(self, *what: object) -> None:
        self.told.append(what)
        self.react(what)
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, *what: object) -> None:
        """Wait until exactly this was told."""
        while what not in self.told:
            await self.changed.wait()

    def on_message(self, message: Message) -> None:
        self._tell("message", message)

    def on_piece_started(self, rid: int) -> None:
        self._tell("started", rid)

    def on_piece(self, rid: int, held: bool) -> None:
        self._tell("piece", rid, held)

    def on_overtaken(self, rid: int) -> None:
        self._tell("overtaken", rid)

    def on_sink_failed(self, rid: int, error: Exception) -> None:
        self._tell("sink failed", rid, str(error))

    def on_received(self, rid: int, count: int) -> None:
        self.received[rid] = self.received.get(rid, 0) + count

    def on_sent(self, outgoing: Outgoing, whole: bool) -> None:
        self._tell("sent", outgoing.rid, whole)

    def link_of(self, rid: int) -> tuple[bytes, bytes] | None:
        return self.links.get(rid)


async def sockets() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """The two ends of one TCP connection."""
    listener = trio.socket.socket()
    with listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        caller = trio.socket.socket()
        await caller.connect(listener.getsockname())
        other, _ = await listener.accept()
    return caller, other


async def tls_ends(one: Identity, two: Identity) -> tuple[TlsTransport, TlsTransport]:
    """`one` is called by `two`; both after the handshake."""
    here, there = await sockets()
    accepted = TlsTransport(here, one.accepting, accepted=True)
    called = TlsTransport(there, two.calling, accepted=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepted.start)
        nursery.start_soon(called.start)
    return accepted, called


class Wire:
    """The other side of a connection, spoken by hand."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.transport = PlainTransport(sock)
        self.frames = FrameReader(self.transport)

    async def send(self, *parts: Message | bytes) -> None:
        """Messages as frames, bytes as they are."""
        for part in parts:
            await self.transport.send_all(part if isinstance(part, bytes) else encode(part))

    async def message(self) -> Message:
        return await self.frames.message()

    def close(self) -> None:
        self.transport.close()


@dataclass
class Talk:
    """A running connection, its handler, and the other side."""

    connection: Connection
    handler: Handler
    wire: Wire
    intake: Intake
    ended: trio.Event = field(default_factory=trio.Event)
    why: str = ""

    def expect(self, rid: int, data: bytes, sink: Sink, key: tuple[bytes, int] | None = None) -> Incoming:
        """Be ready for a blob of one piece."""
        incoming = Incoming(rid, key or (DIGEST, rid), sink, 0, len(data), True, self.intake)
        self.handler.links[rid] = link_of(data)
        self.connection.expect(incoming)
        return incoming


@asynccontextmanager
async def talk(
    *, up: RateLimit | None = None, down: RateLimit | None = None, intake: Intake | None = None
) -> AsyncIterator[Talk]:
    """One Connection under way. At the end everything that it borrowed must be back."""
    ours, theirs = await sockets()
    transport = PlainTransport(ours)
    handler = Handler()
    shared = intake or Intake()
    connection = Connection(
        transport,
        FrameReader(transport),
        handler,
        intake=shared,
        up=up or RateLimit(None),
        down=down or RateLimit(None),
        sink_errors=(DiskFull,),
    )
    it = Talk(connection, handler, Wire(theirs), shared)

    async def run() -> None:
        it.why = await connection.run()
        it.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield it
        connection.close("the test is over")
        it.wire.close()
    if intake is None:
        assert (it.intake.buffers.lent, it.intake.writers) == (0, {})


class Played:
    """A transport that plays back bytes in the given parts, and then the end."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = deque(part for part in parts if part)

    async def receive_into(self, view: memoryview, promised: bool = False) -> int:
        await trio.lowlevel.checkpoint()
        if not self._parts:
            from p2pd.peers.transport import ConnectionLost

            raise ConnectionLost("closed by the other side")
        part = self._parts.popleft()
        count = min(len(part), len(view))
        view[:count] = part[:count]
        if count < len(part):
            self._parts.appendleft(part[count:])
        return count


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
