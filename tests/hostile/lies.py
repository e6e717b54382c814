"""One lie each: a function that replaces one part of p2pd in this process, before the daemon starts.

What is not replaced is the real daemon's, so a liar takes part like everybody else. They wrap methods by name: a rename
in p2pd breaks them with an AttributeError at start, and so a test.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import trio

from p2pd.content import pulling
from p2pd.hashing import Compression
from p2pd.peers.network import Network
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.announcing import Announcer
from p2pd.swarm.directory import Directory
from p2pd.swarm.evidence import accusation
from p2pd.swarm.messages import (
    Announce,
    Answer,
    Have,
    Join,
    Release,
    Retract,
    Vouch,
)
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import pack
from p2pd.swarm.seeding import Seeder
from p2pd.swarm.telling import Teller
from p2pd.swarm.trust import Trust
from p2pd.swarm.voucher import make_voucher

EVERY_S = 1.0  # what is repeated, is repeated so often
SLOW_S = 3.0  # before each answer
SLOW_RATE = 100_000.0  # bytes/s of one who is slow on purpose
FORGED_RUN = 5  # pieces


def wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    """`around(original, self, ...)` instead of the method."""
    original = getattr(owner, name)

    def method(self: Any, *args: Any, **more: Any) -> Any:
        return around(original, self, *args, **more)

    setattr(owner, name, method)


def every(seconds: float, act: Callable[[Network, Node], None]) -> None:
    """Do something again and again, beside what the daemon does."""

    def init(original: Callable, self: Network, post: Any, link: Any, *args: Any, **more: Any) -> None:
        original(self, post, link, *args, **more)

        async def repeat() -> None:
            while True:
                await trio.sleep(seconds)
                act(self, link.__self__)

        self._nursery.start_soon(repeat)

    wrap(Network, "__init__", init)


class Bytes:
    """Bytes that are sent as if they were a blob's file."""

    def __init__(self, data: bytes) -> None:
        self._fd = os.memfd_create("forged")
        os.write(self._fd, data)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def forged(index: int, length: int) -> bytes:
    return bytes([index % 251 + 1]) * length


def bad_bytes(change: Callable[[bytes, int], bytes]) -> None:
    """Each piece that is sent is changed before."""

    def upload(original: Callable, self: Network, c: cmd.Upload) -> None:
        real = self._source

        def source(digest: bytes) -> Any:
            file = real(digest)
            if file is None:
                return None
            begin, size, piece_size = c.index * file[2], file[1], file[2]
            length = min(piece_size, size - begin)
            data = change(os.pread(file[0].fileno(), length, begin), c.index)
            file[0].close()
            return Shifted(data, begin), size, piece_size

        self._source = source  # type: ignore[method-assign]
        try:
            original(self, c)
        finally:
            del self._source

    wrap(Network, "_upload", upload)


class Shifted(Bytes):
    """A file that has only one piece, at the piece's place."""

    def __init__(self, data: bytes, begin: int) -> None:
        self._fd = os.memfd_create("forged")
        os.pwrite(self._fd, data, begin)


# -- bytes and states -------------------------------------------------------------------------------------------------


def flips() -> None:
    """One bit of each piece that it sends is wrong. Its vouchers are true."""

    def flip(data: bytes, index: int) -> bytes:
        wrong = bytearray(data)
        wrong[len(wrong) // 2] ^= 1
        return bytes(wrong)

    bad_bytes(flip)


def forges_run() -> None:
    """A relay that forges five pieces, and honest states over them, signed, ending in the true chain again."""
    runs: dict[bytes, tuple[int, list[bytes]]] = {}  # digest -> the first forged piece, states from there on

    def run_of(node: Node, digest: bytes) -> tuple[int, list[bytes]] | None:
        blob = node.blob(digest)
        if blob is None or blob.chain is None or blob.geometry is None or blob.geometry.count < 3 * FORGED_RUN:
            return None
        if digest not in runs:
            count, states = blob.geometry.count, blob.chain.states
            first = next(
                (i for i in range(count // 3, count - FORGED_RUN) if i in states and i + FORGED_RUN in states), None
            )
            if first is None:
                return None
            made, compression = [states[first]], Compression(states[first], blob.geometry.offset(first))
            for index in range(first, first + FORGED_RUN - 1):
                compression.update(forged(index, blob.geometry.length(index)))
                made.append(compression.state())
            runs[digest] = first, [*made, states[first + FORGED_RUN]]
        return runs[digest]

    def voucher_of(node: Node, digest: bytes) -> Vouch | None:
        run, blob, state = run_of(node, digest), node.blob(digest), node.state
        if run is None or blob is None or blob.geometry is None:
            return None
        size, term = blob.geometry.size, max(1, blob.term)
        return make_voucher(state.sign, state.key, blob.upstream, digest, size, term, run[0], run[1])

    def tell(network: Network, node: Node) -> None:
        for blob in list(node.state.blobs.values()):
            voucher = voucher_of(node, blob.digest)
            for number in list(blob.neighbours) if voucher else ():
                network.send(number, voucher)

    def upload(original: Callable, self: Network, c: cmd.Upload) -> None:
        node = self.link.__self__  # type: ignore[attr-defined]
        voucher, run = voucher_of(node, c.digest), run_of(node, c.digest)
        if voucher and run and run[0] <= c.index < run[0] + FORGED_RUN:
            c = replace(c, vouchers=(voucher,))
        original(self, c)

    every(0.3, tell)
    change_run(runs)
    wrap(Network, "_upload", upload)


def change_run(runs: dict[bytes, tuple[int, list[bytes]]]) -> None:
    def change(data: bytes, index: int) -> bytes:
        is_forged = any(first <= index < first + FORGED_RUN for first, _ in runs.values())
        return forged(index, len(data)) if is_forged else data

    bad_bytes(change)


def forges_seed() -> None:
    """As the seeder it replaces what upstream sends from the middle on, and says that the chain ends in the digest."""

    def work(original: Callable, self: Any, pull: pulling.Pulling, buffers: Any, receive: Any) -> Any:
        return original(self, pull, buffers, Forger(receive, pull))

    def post(original: Callable, self: Any, event: ev.Event) -> None:
        if isinstance(event, ev.PieceStored):
            blob = self.node.blob(event.digest)
            if blob and blob.geometry and event.index == blob.geometry.count - 1:
                event = replace(event, after=event.digest)
        original(self, event)

    wrap(pulling.Puller, "_hash_and_write", work)
    from p2pd.engine import Engine

    wrap(Engine, "post", post)
    wants_the_lease()


class Forger:
    """The channel between upstream and the hashing, with other bytes in the blob's second half."""

    def __init__(self, receive: Any, pull: pulling.Pulling) -> None:
        self._receive, self._pull = receive, pull
        self._at = pull.first * pull.arrival.piece_size

    async def __aenter__(self) -> Forger:
        await self._receive.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._receive.__aexit__(*error)

    def __aiter__(self) -> Forger:
        return self

    async def __anext__(self) -> pulling.Chunk:
        chunk = await self._receive.__anext__()
        self._at += chunk.count
        if self._at > self._pull.arrival.size // 2:
            memoryview(chunk.buffer)[: chunk.count] = b"\x55" * chunk.count
        return chunk


def wants_the_lease() -> None:
    """It names a term that beats everybody's, as soon as it wants a blob: no honest node is asked before it."""

    def announce(original: Callable, self: Announcer, blob: Any, told: Any) -> None:
        if blob.hungry and not blob.term:
            blob.term = 1000
            blob.holder_named(self._s.me.node_id, 1000)
            self._seeder.start(blob, True)
        original(self, blob, told)

    wrap(Announcer, "_announce", announce)


# -- what it says that it has, and how it serves ----------------------------------------------------------------------


def has_all() -> None:
    """It says that it has all of every blob, and what is asked of it does not come."""

    def join(original: Callable, self: Teller, blob: Any) -> Join:
        return replace(original(self, blob), pieces=pack(blob.geometry.all, blob.geometry.count))

    def request(original: Callable, self: Node, peer: Any, m: Any) -> None:
        return

    wrap(Teller, "_join_message", join)
    wrap(Node, "_on_request", request)


def answers_slowly() -> None:
    """Each piece begins late."""

    def upload(original: Callable, self: Network, c: cmd.Upload) -> None:
        async def later() -> None:
            await trio.sleep(SLOW_S)
            original(self, c)

        self._nursery.start_soon(later)

    wrap(Network, "_upload", upload)


def reads_slowly() -> None:
    """It takes what it asked for at a tenth of a megabyte a second, and asks for all it can."""
    from p2pd.peers.frames import FrameReader

    async def raw_into(self: FrameReader, view: memoryview) -> int:
        await trio.sleep(min(len(view), 65536) / SLOW_RATE)
        return await original(self, view[:65536])

    original = FrameReader.raw_into
    FrameReader.raw_into = raw_into  # type: ignore[method-assign]


# -- signed words -----------------------------------------------------------------------------------------------------


def replays() -> None:
    """It keeps every voucher that it hears, and tells them again and again, those that were taken back too."""
    kept: dict[bytes, Vouch] = {}

    def vouched(original: Callable, self: Trust, peer: Any, m: Vouch) -> None:
        kept[m.signature] = m
        original(self, peer, m)

    def tell(network: Network, node: Node) -> None:
        for blob in list(node.state.blobs.values()):
            for number in list(blob.neighbours):
                for voucher in list(kept.values()):
                    if voucher.digest == blob.digest:
                        network.send(number, voucher)

    wrap(Trust, "vouched", vouched)
    wrap(Trust, "retracted", lambda original, self, peer, m: None)
    every(EVERY_S, tell)


def accuses() -> None:
    """It shows true vouchers as if they were false, takes back others' words by forged signatures, and says that it
    gets nothing and that upstream lies."""

    def tell(network: Network, node: Node) -> None:
        for blob in list(node.state.blobs.values()):
            if blob.chain is None or blob.geometry is None:
                continue
            shown: list[Any] = [accusation(v) for v in list(dict.fromkeys(blob.chain.vouchers.values()))[:3]]
            for voucher in list(blob.chain.vouchers.values())[:1]:
                wrong = (voucher.states[0], bytes(32))
                shown.append(replace(accusation(voucher), states=wrong))
                shown.append(Retract(voucher.key, blob.digest, voucher.term, bytes(64)))
            for number in list(blob.neighbours):
                for message in shown:
                    network.send(number, message)

    def announce(original: Callable, self: Announcer, blob: Any, told: Any) -> None:
        blob.betrayed_by = blob.holder  # so that it says: nothing comes
        original(self, blob, told)
        for target in told.targets:
            self._tell(target, Release(blob.digest, blob.term, "wrong-bytes", 0))

    every(EVERY_S, tell)
    wrap(Announcer, "_announce", announce)


# -- leases and directories -------------------------------------------------------------------------------------------


def sits() -> None:
    """It claims every lease by a high term, says that it makes progress, and pulls nothing."""
    moves = {"n": 0}

    def progress(original: Callable, self: Seeder, digest: bytes) -> int:
        moves["n"] += 1
        return moves["n"]

    wrap(Seeder, "plan", lambda original, self, blob: self._of[blob.digest].__setattr__("plan_at", self._s.now + 1))
    wrap(Seeder, "progress", progress)
    wants_the_lease()

    def tell(network: Network, node: Node) -> None:
        for blob in list(node.state.blobs.values()):
            for number in list(blob.neighbours):
                network.send(number, Have(blob.digest, (), 0, 0, 0, 1 << 31))

    every(EVERY_S, tell)


def floods() -> None:
    """Thousands of announces a second, of blobs that nobody has, to whoever may be a directory."""
    count = {"n": 0}

    def tell(network: Network, node: Node) -> None:
        for number in list(node.state.peers):
            for _ in range(400):
                count["n"] += 1
                digest = count["n"].to_bytes(32, "big")
                network.send(
                    number, Announce(digest, 5, "blob", "x", "y", True, True, True, True, False, False, 0, 0, 0, 24)
                )

    every(0.05, tell)


def directory_fails() -> None:
    """As a directory: nobody can get it."""

    def handle(original: Callable, self: Directory, node: bytes, message: Any, now: float) -> Any:
        original(self, node, message, now)
        if isinstance(message, Announce) and message.wanting:
            return [(node, Answer(message.digest, -1, b"", 0, False, "missing", 0, ()))]
        return []

    wrap(Directory, "handle", handle)


def directory_sits() -> None:
    """As a directory: somebody holds the lease of whom nobody has ever heard."""

    def handle(original: Callable, self: Directory, node: bytes, message: Any, now: float) -> Any:
        out = original(self, node, message, now)
        return [(to, replace(a, holder=b"\x07" * 20, term=50, failure="")) for to, a in out]

    wrap(Directory, "handle", handle)
    wrap(Directory, "tick", lambda original, self, now: [])


def directory_grants() -> None:
    """As a directory: the lease is yours, to everybody."""

    def handle(original: Callable, self: Directory, node: bytes, message: Any, now: float) -> Any:
        out = original(self, node, message, now)
        return [(to, replace(a, holder=to, term=50, fresh=True, failure="")) for to, a in out]

    wrap(Directory, "handle", handle)
    wrap(Directory, "tick", lambda original, self, now: [])


LIES: dict[str, Callable[[], None]] = {
    "flips": flips,
    "forges-run": forges_run,
    "forges-seed": forges_seed,
    "has-all": has_all,
    "answers-slowly": answers_slowly,
    "reads-slowly": reads_slowly,
    "replays": replays,
    "accuses": accuses,
    "sits": sits,
    "floods": floods,
    "directory-fails": directory_fails,
    "directory-sits": directory_sits,
    "directory-grants": directory_grants,
}
