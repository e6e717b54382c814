"""A node of the fleet that means harm: it speaks the real protocol to tracker and peers, and then does one thing wrong.

    python -m tests.e2e.hostile --tracker HOST:PORT --file BLOB --harm flips

It claims to have all of one blob (or, to do harm as a receiver, to want it), and does what `HARMS` says for each peer.
Uses p2pd's own words for messages and vouchers, and none of its logic.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import trio

from p2pd.fleet import NodeKey
from p2pd.hashing import INITIAL_STATE, Compression
from p2pd.peers.avoided import Avoided
from p2pd.peers.frames import FrameReader
from p2pd.peers.handshake import shake_hands
from p2pd.peers.transport import ConnectionLost, PlainTransport, dial
from p2pd.swarm.messages import (
    FRAME_HEADER,
    LINKS_MAX,
    PROTOCOL_VERSION,
    RUN_SIZE_MAX,
    Announce,
    Answer,
    Contact,
    Have,
    Hello,
    Join,
    Message,
    Ping,
    ProtocolError,
    Request,
    Run,
    Vouch,
    encode,
)
from p2pd.swarm.pieces import Geometry, indices, pack, unpack
from p2pd.swarm.voucher import make_voucher

UPSTREAM = "registry.test:5000"
NAME = "malice"
ANNOUNCE_S = 1.0
PING_S = 3.0


class Blob:
    """The true blob: its bytes, its cut, its chain."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = hashlib.sha256(data).digest()
        self.geometry = Geometry.of(len(data))
        self.states = [INITIAL_STATE]
        compression = Compression()
        for index in range(self.geometry.count):
            compression.update(self.piece(index))
            last = index == self.geometry.count - 1
            self.states.append(compression.digest() if last else compression.state())

    def piece(self, index: int) -> bytes:
        start = self.geometry.offset(index)
        return self.data[start : start + self.geometry.length(index)]


class Hostile:
    """One hostile node and all its connections."""

    def __init__(self, blob: Blob, harm: str) -> None:
        self.blob = blob
        self.harm = HARMS[harm]
        self.receives = harm == "reads-nothing"
        self.key = NodeKey.generate()
        self.port = 0
        self.known: set[bytes] = set()
        self._told: set[str] = set()
        self.nursery: trio.Nursery

    def tell(self, what: str) -> None:
        """One line of each kind, for the test."""
        if what not in self._told:
            self._told.add(what)
            print(what, flush=True)

    @property
    def hello(self) -> Hello:
        return Hello(PROTOCOL_VERSION, self.key.public, NAME, "", "127.0.0.1", self.port, "insecure")

    async def run(self, tracker: tuple[str, int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self._accept, listeners[0])
            await self._with_tracker(*tracker)

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            stream = await listener.accept()
            self.nursery.start_soon(self._meet, PlainTransport(stream.socket))

    async def _with_tracker(self, host: str, port: int) -> None:
        transport = await dial(host, port, 5)
        frames = FrameReader(transport)
        await shake_hands(transport, frames, self.hello, Avoided())
        self.tell("ready")
        self.nursery.start_soon(self._announce, transport)
        while True:
            message = await frames.message()
            if isinstance(message, Answer):
                for contact in message.peers:
                    if contact.node_id not in self.known:
                        self.known.add(contact.node_id)
                        self.nursery.start_soon(self._call, contact)

    async def _announce(self, transport: PlainTransport) -> None:
        """As a member of the blob that wants it, so that it is named to others; never as one that can pull."""
        message = Announce(
            digest=self.blob.digest,
            size=len(self.blob.data),
            kind="blob",
            upstream=UPSTREAM,
            repository="",
            primary=True,
            wanting=True,
            waiting=False,
            stuck=False,
            can_pull=False,
            complete=False,
            term=0,
            progress=0,
            heard=0,
            need=20,
        )
        while True:
            await transport.send_all(encode(message))
            await trio.sleep(ANNOUNCE_S)

    async def _call(self, contact: Contact) -> None:
        with contextlib.suppress(ConnectionLost):
            await self._meet(await dial(contact.host, contact.port, 5))
        await trio.sleep(1)  # shown out: it comes back
        self.known.discard(contact.node_id)

    async def _meet(self, transport: PlainTransport) -> None:
        frames = FrameReader(transport)
        try:
            _, contact = await shake_hands(transport, frames, self.hello, Avoided())
            async with trio.open_nursery() as nursery:
                peer = Peer(self, transport, frames, contact.node_id)
                nursery.start_soon(peer.ping)
                await peer.read()
        except* (ConnectionLost, ProtocolError):
            transport.close()


class Peer:
    """One connection to an honest node."""

    def __init__(self, hostile: Hostile, transport: PlainTransport, frames: FrameReader, node_id: bytes) -> None:
        self.hostile, self.blob, self.node_id = hostile, hostile.blob, node_id
        self.transport, self.frames = transport, frames
        self.joined = self.is_mute = False
        self.sending = trio.Lock()
        self.next_rid = 1

    async def send(self, *parts: Message | bytes) -> None:
        async with self.sending:
            for part in parts if not self.is_mute else ():
                await self.transport.send_all(part if isinstance(part, bytes) else encode(part))

    async def ping(self) -> None:
        """Never silent: an honest node's patience with silence is not what is tested."""
        while True:
            await trio.sleep(PING_S)
            await self.send(Ping())

    async def read(self) -> None:
        while True:
            message = await self.frames.message()
            if isinstance(message, Run):
                await self.frames.skip(message.length)
            elif isinstance(message, Join) and message.digest == self.blob.digest:
                await self._join(message)
            elif isinstance(message, Have) and message.digest == self.blob.digest and self.hostile.receives:
                await self._ask(message.pieces)
            elif isinstance(message, Request):
                await self.hostile.harm(self, message)
                self.hostile.tell("harm done")

    async def _join(self, theirs: Join) -> None:
        geometry = self.blob.geometry
        if not self.joined:
            self.joined = True
            pieces = 0 if self.hostile.receives else geometry.all
            packed = pack(pieces, geometry.count)
            await self.send(Join(self.blob.digest, geometry.size, packed, self.hostile.receives, 0, 0, 50_000_000))
            await self.hostile.harm(self, None)
            self.hostile.tell("met")
        if self.hostile.receives:
            await self._ask(tuple(indices(unpack(theirs.pieces, geometry.count))))

    async def _ask(self, pieces: tuple[int, ...]) -> None:
        """Ask for everything; once something comes, read no more."""
        for index in pieces:
            self.next_rid += 1
            await self.send(Request(self.next_rid, self.blob.digest, index, False, 1))
        if self.next_rid > 6:
            self.hostile.tell("harm done")
            await trio.sleep_forever()

    async def send_piece(self, rid: int, data: bytes) -> None:
        parts: list[Message | bytes] = []
        for offset in range(0, len(data), RUN_SIZE_MAX):
            part = data[offset : offset + RUN_SIZE_MAX]
            parts += [Run(rid, offset, len(part)), part]
        await self.send(*parts)

    def vouchers(self, states: list[bytes]) -> list[Vouch]:
        """Vouchers of this node over a whole chain."""
        key, blob = self.hostile.key, self.blob
        return [
            make_voucher(
                key.sign,
                key.public,
                UPSTREAM,
                blob.digest,
                blob.geometry.size,
                1,
                first,
                states[first : first + LINKS_MAX + 1],
            )
            for first in range(0, blob.geometry.count, LINKS_MAX)
        ]


# -- what it does: with `None` when the two have met, and with each request -------------------------------------------


async def flips(peer: Peer, request: Request | None) -> None:
    """True vouchers, and pieces with one wrong bit."""
    if request is None:
        return
    wrong = bytearray(peer.blob.piece(request.index))
    wrong[len(wrong) // 2] ^= 1
    await peer.send(*peer.vouchers(peer.blob.states))
    await peer.send_piece(request.rid, bytes(wrong))


async def garbage(peer: Peer, request: Request | None) -> None:
    """A frame that is no message."""
    if request:
        await peer.send(FRAME_HEADER.pack(100) + b"\xc1" * 100)


async def huge(peer: Peer, request: Request | None) -> None:
    """A frame of two gigabytes."""
    if request:
        await peer.send(FRAME_HEADER.pack(1 << 31) + bytes(1 << 16))


async def silence(peer: Peer, request: Request | None) -> None:
    """Requests are taken, and nothing comes."""


async def stops_short(peer: Peer, request: Request | None) -> None:
    """True vouchers, the first bytes of a run, and then nothing more: the receiver holds memory for the rest."""
    if request:
        data = peer.blob.piece(request.index)
        await peer.send(*peer.vouchers(peer.blob.states))
        await peer.send(Run(request.rid, 0, min(len(data), RUN_SIZE_MAX)), data[:100])
        peer.is_mute = True  # no ping either


async def reads_nothing(peer: Peer, request: Request | None) -> None:
    """Harms as a receiver: see `Peer._ask`."""


async def unasked(peer: Peer, request: Request | None) -> None:
    """Pieces that nobody asked for."""
    await peer.send_piece(900_000, b"x" * 100_000)


async def forged_signature(peer: Peer, request: Request | None) -> None:
    """Vouchers whose signature is another's."""
    for voucher in peer.vouchers(peer.blob.states):
        await peer.send(replace(voucher, signature=bytes(64)))


async def false_chain(peer: Peer, request: Request | None) -> None:
    """A chain of forged pieces, honestly signed, told to everybody unasked and before anybody knows better."""
    blob, geometry = peer.blob, peer.blob.geometry
    forged = [bytes([index % 251]) * geometry.length(index) for index in range(geometry.count)]
    if request is None:
        states, compression = [INITIAL_STATE], Compression()
        for piece in forged[:-1]:
            compression.update(piece)
            states.append(compression.state())
        await peer.send(*peer.vouchers([*states, blob.digest]))
    else:
        await peer.send_piece(request.rid, forged[request.index])


async def false_answer(peer: Peer, request: Request | None) -> None:
    """The word of a directory, which it is not: nobody can get the blob, and the lease is the hearer's."""
    digest, size = peer.blob.digest, peer.blob.geometry.size
    for failure in ("missing", "wrong-bytes"):
        await peer.send(Answer(digest, size, b"", 0, False, failure, 0, ()))


async def false_grant(peer: Peer, request: Request | None) -> None:
    """To each node: the lease is yours."""
    await peer.send(Answer(peer.blob.digest, peer.blob.geometry.size, peer.node_id, 7, True, "", 0, ()))


async def stolen_lease(peer: Peer, request: Request | None) -> None:
    """It says that it holds the lease, by the highest term that there is."""
    await peer.send(Have(peer.blob.digest, (), 0, 0, 0, 1 << 40))


HARMS: dict[str, Callable[[Peer, Request | None], Awaitable[None]]] = {
    "flips": flips,
    "garbage": garbage,
    "huge": huge,
    "silence": silence,
    "stops-short": stops_short,
    "reads-nothing": reads_nothing,
    "unasked": unasked,
    "forged-signature": forged_signature,
    "false-chain": false_chain,
    "false-answer": false_answer,
    "false-grant": false_grant,
    "stolen-lease": stolen_lease,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.hostile", description=__doc__)
    parser.add_argument("--tracker", required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--harm", choices=HARMS, required=True)
    options = parser.parse_args()
    host, _, port = options.tracker.rpartition(":")
    trio.run(Hostile(Blob(options.file.read_bytes()), options.harm).run, (host, int(port)))


if __name__ == "__main__":
    main()
