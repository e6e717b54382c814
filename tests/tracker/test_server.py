"""A tracker over real sockets, its nodes spoken by hand: who is known, until when, and what garbage does."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pd.fleet import Identity
from p2pd.peers.frames import FrameReader
from p2pd.peers.tls import TlsTransport, answer
from p2pd.peers.transport import ConnectionLost, PlainTransport, Transport
from p2pd.swarm.messages import FRAME_HEADER, PROTOCOL_VERSION, Announce, Answer, Hello, Ping, Run, encode
from tests.fleet.certificates import Authority
from tracker import server as server_module
from tracker.server import Tracker

DIGEST = b"d" * 32
LATER_S = 3.0  # a new tracker grants nothing for two seconds


class Node:
    """One node's connection."""

    def __init__(self, stream: trio.SocketStream, name: str, identity: Identity | None = None) -> None:
        self.transport: Transport = (
            TlsTransport(stream.socket, identity.calling, accepted=False) if identity else PlainTransport(stream.socket)
        )
        self.frames = FrameReader(self.transport)
        self.key = identity.key.public if identity else name.encode().ljust(32, b".")
        self.name = name

    async def send(self, *parts: object) -> None:
        for part in parts:
            await self.transport.send_all(part if isinstance(part, bytes) else encode(part))  # type: ignore[arg-type]

    async def answer(self) -> Answer:
        with trio.fail_after(5):
            while not isinstance(message := await self.frames.message(), Answer):
                assert isinstance(message, Ping)
        return message

    async def ended(self) -> None:
        with trio.fail_after(5), pytest.raises(ConnectionLost):
            while True:
                await self.frames.message()

    def close(self) -> None:
        self.transport.close()


def announce(**changes: object) -> Announce:
    fields: dict = {
        "digest": DIGEST,
        "size": 1000,
        "kind": "blob",
        "upstream": "u",
        "repository": "r",
        "primary": True,
        "wanting": True,
        "waiting": True,
        "stuck": False,
        "can_pull": True,
        "complete": False,
        "term": 0,
        "progress": 0,
        "heard": 0,
        "need": 5,
    }
    return Announce(**{**fields, **changes})


class Place:
    """A tracker that runs."""

    def __init__(self, tracker: Tracker, port: int, refused: list[str], left: list[int]) -> None:
        self.tracker = tracker
        self.refused = refused
        self.left = left
        self.port = port

    async def call(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def join(self, name: str, identity: Identity | None = None, **changes: object) -> Node:
        node = Node(await self.call(), name, identity)
        try:
            return await self._greet(node, changes)
        except ConnectionLost:
            node.close()
            raise

    async def _greet(self, node: Node, changes: dict[str, object]) -> Node:
        await node.transport.start()
        fields = {"version": PROTOCOL_VERSION, "key": node.key, "name": node.name, "zone": "", "host": "", "port": 9581}
        await node.send(Hello(**{"fleet": "test", **fields, **changes}))  # type: ignore[arg-type]
        assert isinstance(await node.frames.message(), Hello)
        return node

    async def until(self, **counts: int) -> None:
        """Wait until the summary says so."""
        with trio.fail_after(5):
            while not counts.items() <= self.tracker.summary().items():  # noqa: ASYNC110  (it tells nobody)
                await trio.sleep(0.005)


@asynccontextmanager
async def running(identity: Identity | None = None) -> AsyncIterator[Place]:
    key = identity.key.public if identity else b"t" * 32
    refused: list[str] = []
    left: list[int] = []
    tracker = Tracker("test", key, lambda: identity, refused.append, left.append)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tracker.serve, [listener])
        nursery.start_soon(tracker.tick)
        yield Place(tracker, port, refused, left)
        nursery.cancel_scope.cancel()


async def test_nodes_hear_of_one_another_and_one_gets_the_lease() -> None:
    async with running() as place:
        place.tracker._directory._started -= LATER_S
        nodes = [await place.join(f"n{i}") for i in range(3)]
        await place.until(nodes=3)
        answers = []
        for node in nodes:
            await node.send(announce())
            answers.append(await node.answer())
        assert answers[0].term == 1
        assert {answer.holder for answer in answers} == {answers[0].holder}
        assert {contact.name for contact in answers[2].peers} == {"n0", "n1"}
        assert {(contact.host, contact.port) for contact in answers[2].peers} == {("127.0.0.1", 9581)}
        assert place.tracker.summary() == {"nodes": 3, "blobs": 1, "members": 3, "leases": 1}
        for node in nodes:
            node.close()


async def test_a_disconnect_frees_all_that_the_node_had_and_the_lease_goes_on() -> None:
    async with running() as place:
        place.tracker._directory._started -= LATER_S
        first, second = await place.join("first"), await place.join("second")
        await first.send(announce())
        assert (await first.answer()).term == 1
        await second.send(announce())
        await second.answer()
        first.close()
        taken = await second.answer()
        assert taken.term == 2
        await place.until(nodes=1, members=1, leases=1)
        second.close()
        await place.until(nodes=0, blobs=0, members=0, leases=0)


async def test_a_node_that_connects_anew_replaces_itself() -> None:
    async with running() as place:
        place.tracker._directory._started -= LATER_S
        old = await place.join("node")
        await old.send(announce())
        await old.answer()
        new = await place.join("node")
        await old.ended()
        await place.until(nodes=1, blobs=0)
        await new.send(announce())
        assert (await new.answer()).holder
        await place.until(nodes=1, members=1, leases=1)
        old.close()
        await trio.sleep(0.05)  # the old connection's end must not take the new one's things
        assert place.tracker.summary() == {"nodes": 1, "blobs": 1, "members": 1, "leases": 1}
        new.close()
        await place.until(nodes=0, members=0)


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\xff",
        FRAME_HEADER.pack(5) + b"\x91\xc0xyz",
        encode(Run(1, 0, 100)) + b"x" * 100,
        encode(Hello(PROTOCOL_VERSION, b"k" * 32, "again", "", "", 1, "test")),
        FRAME_HEADER.pack(200) + b"\x9f" + bytes(199),
    ],
)
async def test_garbage_of_one_node_costs_its_connection_and_nobody_elses(said: bytes) -> None:
    async with running() as place:
        good, bad = await place.join("good"), await place.join("bad")
        await bad.send(said)
        await bad.ended()
        await place.until(nodes=1)
        await good.send(announce())
        await good.answer()
        good.close()
        bad.close()


async def test_strangers_of_another_fleet_or_without_a_word_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKES_MAX", 4)
    async with running() as place:
        silent = [await place.call() for _ in range(20)]
        other = await place.join("other", fleet="other")
        await other.ended()
        good = await place.join("good")
        await place.until(nodes=1)
        for stream in silent:
            await stream.aclose()
        good.close()
        other.close()


async def test_who_looks_for_garbage_hears_of_nodes_that_left_and_of_strangers() -> None:
    async with running() as place:
        node = await place.join("node")
        await place.until(nodes=1)
        other = await place.join("other", fleet="other")
        await other.ended()
        other.close()
        assert place.left == [1]
        node.close()
        await place.until(nodes=0)
        assert place.left == [1, 0]


async def test_a_caller_does_not_stand_behind_those_that_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that comes back at once: were they taken in their order, each would be taken when it has given up."""

    def answer_slowly(*args: Any) -> Transport:
        time.sleep(0.05)  # as handshakes do it for each other
        return answer(*args)

    monkeypatch.setattr(server_module, "answer", answer_slowly)
    async with running() as place:
        before = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(100)]  # five seconds' work
        with trio.fail_after(2):
            good = await place.join("good")
        for caller in before:
            caller.close()
        good.close()


async def test_there_is_a_most_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "NODES_MAX", 2)
    async with running() as place:
        nodes = [await place.join(f"n{i}") for i in range(2)]
        await place.until(nodes=2)
        too_many = Node(await place.call(), "one too many")
        await too_many.ended()
        too_many.close()
        nodes[0].close()
        await place.until(nodes=1)
        nodes.append(await place.join("now"))
        await place.until(nodes=2)
        for node in nodes:
            node.close()


async def test_a_node_may_name_any_host_for_itself() -> None:
    async with running() as place:
        odd, good = await place.join("odd", host="a..b"), await place.join("good")
        await odd.send(announce())
        await odd.answer()
        await good.send(announce())
        assert [contact.host for contact in (await good.answer()).peers] == ["a..b"]
        odd.close()
        good.close()


async def test_members_are_served_and_strangers_refused(tmp_path: Path) -> None:
    ca, other = Authority.make(), Authority.make()
    tracker = ca.member("tracker").identity(tmp_path / "t")
    async with running(tracker) as place:
        node = await place.join("n", ca.member("n").identity(tmp_path / "n"))
        await place.until(nodes=1)
        await node.send(announce())
        assert (await node.answer()).digest == DIGEST
        with pytest.raises(ConnectionLost):
            await place.join("s", other.member("s").identity(tmp_path / "s", ca, other))
        with pytest.raises(ConnectionLost):
            await place.join("p")
        with trio.fail_after(5):
            while len(place.refused) < 2:  # noqa: ASYNC110
                await trio.sleep(0.005)
        assert place.refused == ["foreign-certificate", "plain-text"]
        assert place.tracker.summary()["nodes"] == 1
        node.close()


async def test_a_member_that_breaks_the_protocol_is_not_heard_again(tmp_path: Path) -> None:
    """Neither if it does so in its first message, nor later: each time may cost the tracker something."""
    ca = Authority.make()
    identities = {name: ca.member(name).identity(tmp_path / name) for name in ("t", "early", "late", "good")}
    async with running(identities["t"]) as place:
        early = Node(await place.call(), "early", identities["early"])
        await early.transport.start()
        await early.send(b"\xff" * 64)
        await early.ended()
        late = await place.join("late", identities["late"])
        await late.send(b"\xff" * 64)
        await late.ended()
        for name in ("early", "late"):
            with pytest.raises(ConnectionLost):
                await place.join(name, identities[name])
        assert place.refused == ["hello", "avoided", "avoided"]
        good = await place.join("good", identities["good"])
        for node in (early, late, good):
            node.close()


async def test_when_a_ca_is_trusted_no_more_all_are_looked_at_again(tmp_path: Path) -> None:
    old, new = Authority.make("old"), Authority.make("new")
    papers = old.member("tracker")
    before = papers.identity(tmp_path / "before", old, new)
    async with running(before) as place:
        node = await place.join("n", old.member("n").identity(tmp_path / "n"))
        await place.until(nodes=1)
        renewed = old.member("tracker", key=papers.key).identity(tmp_path / "renewed", old, new)
        place.tracker.identity_changed(before, renewed)
        await node.send(announce())
        assert (await node.answer()).digest == DIGEST  # a renewal costs nobody the connection
        now = new.member("tracker", key=papers.key).identity(tmp_path / "now", new)
        place.tracker.identity_changed(renewed, now)
        await node.ended()
        await place.until(nodes=0)
        node.close()
