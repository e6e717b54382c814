"""The network of two real nodes on loopback, each with a fake core that writes down its events."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import zip_longest

import pytest
import trio
from trio.testing import MockClock

from p2pd.fleet import Identity
from p2pd.peers import callers as callers_module
from p2pd.peers import network as network_module
from p2pd.peers.callers import CALLS_BURST
from p2pd.peers.network import DIALS_MAX, DIALS_WAITING_MAX, GREETINGS_MAX, HANDSHAKES_MAX, Network
from p2pd.peers.overtime import calls_of_this_thread
from p2pd.peers.transport import Transport
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import RUN_SIZE_MAX, Cancel, Contact, Hello, Ping, Request, Run, encode
from p2pd.swarm.pieces import Geometry
from p2pd.swarm.voucher import node_id
from tests.peers.fakes import DiskFull, FileSource, Sink, Wire, blob_bytes, hello, link_of, open_descriptors, sha256

SIZE = 300_000  # three pieces
DATA = blob_bytes(SIZE)
DIGEST = sha256(DATA)
PIECE = Geometry.of(SIZE).piece_size


def links_of(data: bytes) -> list[tuple[bytes, bytes]]:
    links, before = [], None
    for offset in range(0, len(data), PIECE):
        part, last = data[offset : offset + PIECE], offset + PIECE >= len(data)
        links.append(link_of(part, before, offset, last) if before else link_of(part, last=last))
        before = links[-1][1]
    return links


@dataclass
class Files:
    """One blob at most, to read and to write."""

    data: bytes | None = None
    sink_: Sink | None = None
    size: int = SIZE
    sink_errors: tuple[type[Exception], ...] = (DiskFull,)
    opened: list[FileSource] = field(default_factory=list)
    failed: list[tuple[bytes, str]] = field(default_factory=list)

    def sink(self, digest: bytes) -> tuple[Sink, int, int] | None:
        return (self.sink_, self.size, PIECE) if self.sink_ else None

    def source(self, digest: bytes) -> tuple[FileSource, int, int] | None:
        if self.data is None:
            return None
        self.opened.append(FileSource(self.data))
        return self.opened[-1], self.size, PIECE

    def sink_failed(self, digest: bytes, error: Exception) -> None:
        self.failed.append((digest, str(error)))


@dataclass
class Meter:
    received: dict[bytes, int] = field(default_factory=dict)
    sent: int = 0

    def from_peer(self, digest: bytes, count: int, zone: str) -> None:
        self.received[digest] = self.received.get(digest, 0) + count

    def to_peer(self, count: int, zone: str) -> None:
        self.sent += count


class Side:
    """One node."""

    def __init__(self, name: str, identity: Identity | None, *, nursery: trio.Nursery) -> None:
        self.identity = identity
        self.key = identity.key.public if identity else name.encode().ljust(32, b".")
        self.refused: list[str] = []
        self.events: list[ev.Event] = []
        self.links: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self.files, self.meter = Files(), Meter()
        self.tags: list[tuple[int, object]] = []
        self.hello = hello(self.key, name=name, port=0)
        self.network = Network(
            self._post,
            lambda peer, rid: self.links.get((peer, rid)),
            self.files,
            self.meter,
            self.hello,
            nursery,
            contexts=lambda: self.identity,
            on_refused=self.refused.append,
        )
        self.network.on_tag_message = lambda peer, message: self.tags.append((peer, message))
        self.react = lambda event: None
        self._changed = trio.Event()
        self.port = 0
        self.listeners: list[trio.SocketListener] = []

    def _post(self, event: ev.Event) -> None:
        self.events.append(event)
        self.react(event)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, kind: type, count: int = 1) -> list:
        """Wait for so many events of a kind."""
        with trio.fail_after(10):
            while len(found := [e for e in self.events if isinstance(e, kind)]) < count:
                await self._changed.wait()
        return found

    async def listen(self, nursery: trio.Nursery) -> None:
        self.listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = self.listeners[0].socket.getsockname()[1]
        self.network.hello = self.hello = hello(self.key, name=self.hello.name, port=self.port)
        nursery.start_soon(self.network.serve, self.listeners)

    @property
    def contact(self) -> Contact:
        return Contact(node_id(self.key), self.hello.name, "", "127.0.0.1", self.port)

    def do(self, command: cmd.Command) -> None:
        self.network.commands()[type(command)](command)


@asynccontextmanager
async def sides(*names: str, identities: Sequence[Identity | None] = ()) -> AsyncIterator[list[Side]]:
    """Listening nodes. When they end, no descriptor and no memory is left."""
    calls_of_this_thread()  # one descriptor for all connections that ever are
    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        made = [Side(*of, nursery=nursery) for of in zip_longest(names, identities)]
        for side in made:
            await side.listen(nursery)
        yield made
        nursery.cancel_scope.cancel()
    for side in made:
        await side.listeners[0].aclose()
        assert side.network._peers == {}
        assert side.network._intake.buffers.lent == 0
        assert all(source.closed == 1 for source in side.files.opened)
    assert open_descriptors() <= before


async def meet(one: Side, other: Side) -> tuple[int, int]:
    """Connect them; the connection's number at each."""
    one.do(cmd.Connect(other.contact))
    (up,) = await one.until(ev.PeerUp)
    (seen,) = await other.until(ev.PeerUp)
    return up.peer, seen.peer


async def test_two_nodes_meet_and_know_one_another() -> None:
    async with sides("a", "b") as (a, b):
        await meet(a, b)
        assert a.events == [ev.PeerUp(1, b.contact, b.key, True, -1)]
        assert b.events == [ev.PeerUp(1, a.contact, a.key, False, -1)]


async def test_a_piece_crosses_is_checked_and_counted() -> None:
    async with sides("a", "b") as (a, b):
        at_a, at_b = await meet(a, b)
        a.files.sink_, b.files.data = Sink(SIZE), DATA
        links = links_of(DATA)
        for rid, index in ((11, 0), (12, 2), (13, 1)):
            a.links[at_a, rid] = links[index]
            a.do(cmd.Fetch(at_a, rid, DIGEST, index))
            a.do(cmd.Send(at_a, Request(rid, DIGEST, index, True, 1)))
        requests = await b.until(ev.Received, 3)
        for event in requests:
            b.do(cmd.Upload(at_b, event.message.rid, DIGEST, event.message.index, ()))
        checked = await a.until(ev.PieceChecked, 3)
        assert set(checked) == {ev.PieceChecked(at_a, rid, True) for rid in (11, 12, 13)}
        done = await b.until(ev.UploadDone, 3)
        assert sum(event.count for event in done) == SIZE
        assert all(event.whole for event in done)
        assert bytes(a.files.sink_.data) == DATA
        assert a.meter.received == {DIGEST: SIZE}
        assert b.meter.sent == SIZE
        assert a.network.rates(at_a) == (SIZE, 0)
        assert b.network.rates(at_b) == (0, SIZE)


async def test_an_upload_of_what_is_gone_is_over_at_once() -> None:
    async with sides("a", "b") as (a, b):
        _, at_b = await meet(a, b)
        b.do(cmd.Upload(at_b, 5, DIGEST, 0, ()))
        assert (await b.until(ev.UploadDone))[0] == ev.UploadDone(at_b, 5, 0, False)


async def test_an_upload_whose_file_can_not_be_opened_is_over_at_once() -> None:
    class Broken(FileSource):
        def fileno(self) -> int:
            raise DiskFull("input/output error")

    async with sides("a", "b") as (a, b):
        _, at_b = await meet(a, b)
        source = Broken(DATA)
        b.files.source = lambda digest: (source, SIZE, PIECE)  # type: ignore[method-assign]
        b.do(cmd.Upload(at_b, 5, DIGEST, 0, ()))
        assert (await b.until(ev.UploadDone))[0] == ev.UploadDone(at_b, 5, 0, False)
        assert source.closed == 1


async def test_a_blob_that_can_not_arrive_costs_nobody_the_connection() -> None:
    async with sides("a", "b") as (a, b):
        at_a, at_b = await meet(a, b)
        b.files.data = DATA
        a.do(cmd.Fetch(at_a, 1, DIGEST, 0))  # no sink
        b.do(cmd.Upload(at_b, 1, DIGEST, 0, ()))
        await b.until(ev.UploadDone)
        b.do(cmd.Send(at_b, Cancel(9)))
        assert (await a.until(ev.Received))[0].message == Cancel(9)


async def test_an_empty_blob_needs_no_bytes() -> None:
    empty = hashlib.sha256().digest()
    async with sides("a", "b") as (a, b):
        at_a, at_b = await meet(a, b)
        a.files.sink_, a.files.size = Sink(0), 0
        a.do(cmd.Fetch(at_a, 1, empty, 0))
        a.do(cmd.Fetch(at_a, 2, DIGEST, 0))
        assert await a.until(ev.PieceChecked, 2) == [ev.PieceChecked(at_a, 1, True), ev.PieceChecked(at_a, 2, False)]
        b.files.data, b.files.size = b"", 0
        b.do(cmd.Upload(at_b, 1, empty, 0, ()))
        assert (await b.until(ev.UploadDone))[0] == ev.UploadDone(at_b, 1, 0, True)


async def test_a_full_disk_is_told_to_the_files() -> None:
    async with sides("a", "b") as (a, b):
        at_a, at_b = await meet(a, b)
        a.files.sink_, b.files.data = Sink(SIZE, fails_at=0), DATA
        a.links[at_a, 1] = links_of(DATA)[0]
        a.do(cmd.Fetch(at_a, 1, DIGEST, 0))
        b.do(cmd.Upload(at_b, 1, DIGEST, 0, ()))
        assert "can't store" in (await a.until(ev.PeerDown))[0].why
        assert a.files.failed == [(DIGEST, "no space left")]
        await b.until(ev.PeerDown)


async def test_the_core_may_start_an_upload_while_it_hears_of_the_end_of_another() -> None:
    """A peer goes while one piece is on its way to it and another is queued: the core starts that one, too late."""
    async with sides("a", "b") as (a, b):
        at_a, at_b = await meet(a, b)
        size = 64 * RUN_SIZE_MAX
        b.files.data, b.files.size = bytes(size), size

        def next_one(event: ev.Event) -> None:
            if isinstance(event, ev.UploadDone) and event.rid < 3:
                b.do(cmd.Upload(at_b, event.rid + 1, DIGEST, 0, ()))

        b.react = next_one
        b.files.source = lambda digest: (_kept(b, size), size, size)  # type: ignore[method-assign]
        b.do(cmd.Upload(at_b, 1, DIGEST, 0, ()))
        await trio.testing.wait_all_tasks_blocked(0.01)
        b.do(cmd.Close(at_b, "enough"))
        await b.until(ev.PeerDown)
        ends = [(e.rid, e.whole) for e in b.events if isinstance(e, ev.UploadDone)]
        assert ends == [(1, False), (2, False), (3, False)]
        assert at_a


def _kept(side: Side, size: int) -> FileSource:
    side.files.opened.append(FileSource(bytes(size)))
    return side.files.opened[-1]


async def test_commands_for_a_peer_that_is_gone_are_passed_over() -> None:
    async with sides("a") as (a,):
        a.files.data = DATA
        for command in (
            cmd.Send(7, Ping()),
            cmd.Close(7, "x"),
            cmd.Fetch(7, 1, DIGEST, 0),
            cmd.Abandon(7, 1),
            cmd.Upload(7, 1, DIGEST, 0, ()),
            cmd.StopUpload(7, 1),
        ):
            a.do(command)
        assert a.events == []
        assert a.network.rates(7) == (0, 0)


# -- dialling ---------------------------------------------------------------------------------------------------------


async def test_who_is_not_there_is_a_failed_connect() -> None:
    async with sides("a", "b") as (a, b):
        nobody = Contact(b"n" * 20, "n", "", "127.0.0.1", 1)
        mistaken = Contact(b"m" * 20, "m", "", "127.0.0.1", b.port)
        strange = [Contact(bytes([i]) * 20, "s", "", host, 1) for i, host in enumerate(("a..b", "", "≠", "x" * 256))]
        for contact in (nobody, mistaken, *strange):
            a.do(cmd.Connect(contact))
        failed = await a.until(ev.ConnectFailed, 6)
        assert {event.node_id for event in failed} == {contact.node_id for contact in (nobody, mistaken, *strange)}
        assert a.network._dialling == set()


async def test_dials_are_bounded_however_many_contacts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = most = 0

    async def call(host: str, port: int, timeout_s: float, contexts: None, *, by_name: bool) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await trio.sleep(0.001)
        at_once -= 1
        raise network_module.ConnectionLost("nobody there")

    monkeypatch.setattr(network_module, "call", call)
    async with sides("a") as (a,):
        for number in range(5000):
            a.do(cmd.Connect(Contact(number.to_bytes(20, "big"), "x", "", "10.0.0.1", 1)))
        assert len(a.network._dialling) == DIALS_MAX + DIALS_WAITING_MAX
        await a.until(ev.ConnectFailed, DIALS_MAX + DIALS_WAITING_MAX)
        assert most == DIALS_MAX


async def test_greetings_are_bounded_and_who_is_not_there_holds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rack that has lost its power is called for five seconds a node: the others are not to wait for that."""
    greeting = most = 0
    real = network_module.call

    async def call(host: str, port: int, timeout_s: float, contexts: None, *, by_name: bool) -> Transport:
        if host == "10.0.0.1":
            await trio.sleep_forever()
        return await real(host, port, timeout_s, contexts, by_name=by_name)

    async def shake(transport: Transport, *_: object) -> None:
        nonlocal greeting, most
        greeting += 1
        most = max(most, greeting)
        await trio.sleep(0.01)
        greeting -= 1
        transport.close()
        raise network_module.ConnectionLost("that will do")

    monkeypatch.setattr(network_module, "call", call)
    monkeypatch.setattr(network_module, "shake_hands", shake)
    async with sides("a", "b") as (a, b):
        dark = min(DIALS_MAX - GREETINGS_MAX, 2 * GREETINGS_MAX)
        for number in range(dark + 3 * GREETINGS_MAX):
            host = "10.0.0.1" if number < dark else "127.0.0.1"
            a.do(cmd.Connect(Contact(number.to_bytes(20, "big"), "x", "", host, b.port)))
        await a.until(ev.ConnectFailed, 3 * GREETINGS_MAX)
        assert most == GREETINGS_MAX


async def test_silent_strangers_do_not_shut_others_out() -> None:
    async with sides("a", "b") as (a, b):
        strangers = [
            await trio.open_tcp_stream("127.0.0.1", b.port, local_address=f"127.0.1.{number}")
            for number in range(1, HANDSHAKES_MAX + 10)
        ]
        with trio.fail_after(3):
            await meet(a, b)
        for stranger in strangers:
            await stranger.aclose()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x00\x00\x00\x00", encode(Ping()), b""])
async def test_garbage_at_the_door_harms_nobody(said: bytes) -> None:
    async with sides("a", "b") as (a, b):
        stranger = await trio.open_tcp_stream("127.0.0.1", b.port)
        await stranger.send_all(said)
        await stranger.aclose()
        await meet(a, b)
        assert len(b.events) == 1


async def test_a_peer_that_breaks_the_protocol_loses_its_connection_and_nobody_else_does() -> None:
    async with sides("a", "b") as (a, b):
        _, at_b = await meet(a, b)
        stream = await trio.open_tcp_stream("127.0.0.1", b.port)
        bad = Wire(stream.socket)
        await bad.send(hello(b"bad".ljust(32, b".")))
        assert isinstance(await bad.message(), Hello)
        await b.until(ev.PeerUp, 2)
        await bad.send(Run(1, 0, 10), b"x" * 10)
        down = (await b.until(ev.PeerDown))[0]
        assert "nobody asked for" in down.why
        assert down.peer != at_b
        b.do(cmd.Send(at_b, Cancel(1)))
        assert (await a.until(ev.Received))[0].message == Cancel(1)
        bad.close()


# -- trackers ---------------------------------------------------------------------------------------------------------


async def test_a_tracker_is_dialled_again_and_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with sides("a") as (a,), trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        nursery.start_soon(a.network.keep_tracker, 1, "127.0.0.1", port)
        for turn in range(1, 4):
            tracker = Wire((await listener.accept()).socket)
            await tracker.send(hello(b"t" * 32))
            up = (await a.until(ev.PeerUp, turn))[-1]
            assert (up.tracker, up.outbound) == (1, True)
            assert a.network.trackers == {f"127.0.0.1:{port}": "connected"}
            tracker.close()
            await a.until(ev.PeerDown, turn)
        await listener.aclose()
        caplog.clear()
        await trio.sleep(120)
        assert "refused" in a.network.trackers[f"127.0.0.1:{port}"]
        assert len(caplog.records) <= 2  # the same trouble is told once
        nursery.cancel_scope.cancel()


async def test_a_tracker_that_closes_at_once_is_not_called_in_a_hurry(autojump_clock: MockClock) -> None:
    async with sides("a") as (a,), trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(a.network.keep_tracker, 0, "127.0.0.1", listener.socket.getsockname()[1])
        calls = 0
        with trio.move_on_after(60):
            while True:
                tracker = Wire((await listener.accept()).socket)
                calls += 1
                await tracker.send(hello(b"t" * 32))
                tracker.close()
        assert calls <= 20
        nursery.cancel_scope.cancel()
        await listener.aclose()


async def test_who_calls_too_often_is_turned_away_without_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers_module, "CALLS_PER_S", 0.01)  # so that it is the count alone, on any machine
    async with sides("a", "b") as (a, b):
        callers = [
            await trio.open_tcp_stream("127.0.0.1", b.port, local_address="127.0.1.1") for _ in range(CALLS_BURST + 1)
        ]
        with trio.fail_after(3):  # well before a handshake's own time is up
            while await callers[-1].receive_some():
                pass
        assert "too-often" in b.refused
        await meet(a, b)
        for stream in callers:
            await stream.aclose()
