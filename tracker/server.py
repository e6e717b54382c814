"""A tracker: the directory's pure code behind the peers' connections.

A node is known as long as its connection lives. Nothing is kept on disk: what a tracker knows, the nodes tell it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random, SystemRandom

import trio

from p2pd.fleet import Identity
from p2pd.peers.avoided import AVOIDED_S, Avoided
from p2pd.peers.connection import Connection, Outgoing
from p2pd.peers.frames import FrameReader
from p2pd.peers.handshake import Doorstep
from p2pd.peers.incoming import Intake
from p2pd.peers.refusal import Refusals
from p2pd.peers.tls import Contexts, answer
from p2pd.peers.transport import ConnectionLost
from p2pd.ratelimit import RateLimit
from p2pd.swarm.directory import Directory
from p2pd.swarm.messages import PROTOCOL_VERSION, Contact, Hello, Message, ProtocolError
from tracker.waiting import WaitingRoom

log = logging.getLogger("p2pd.tracker")

NODES_MAX = 20_000
HANDSHAKES_MAX = 4096  # strangers that have not said hello: a whole fleet may come back in the same second
TICK_S = 0.1


class Node:
    """One node's connection, as its handler."""

    def __init__(self, tracker: Tracker, contact: Contact) -> None:
        self.tracker = tracker
        self.contact = contact
        self.connection: Connection | None = None

    def on_message(self, message: Message) -> None:
        self.tracker.heard(self, message)

    def on_piece_started(self, rid: int) -> None: ...
    def on_piece(self, rid: int, held: bool) -> None: ...
    def on_overtaken(self, rid: int) -> None: ...
    def on_sink_failed(self, rid: int, error: Exception) -> None: ...
    def on_received(self, rid: int, count: int) -> None: ...
    def on_sent(self, outgoing: Outgoing, whole: bool) -> None: ...
    def link_of(self, rid: int) -> tuple[bytes, bytes] | None:
        return None


class Tracker:
    """All nodes that are connected. `key` and `contexts`: who the tracker is; plain without contexts. `on_left`: a node
    is gone or a stranger was turned away, and so many nodes are still here."""

    def __init__(
        self,
        fleet: str,
        key: bytes,
        contexts: Callable[[], Contexts | None] = lambda: None,
        on_refused: Callable[[str], None] = lambda reason: None,
        on_left: Callable[[int], None] = lambda still_here: None,
    ) -> None:
        self._directory = Directory(Random(SystemRandom().random()), trio.current_time())
        self._nodes: dict[bytes, Node] = {}
        self._hello = Hello(PROTOCOL_VERSION, key, "tracker", "", "", 0, fleet)
        self._contexts = contexts
        self._refusals = Refusals(log, on_refused)
        self._on_left = on_left
        self._avoided: Avoided[bytes] = Avoided()
        self._doorstep = Doorstep(HANDSHAKES_MAX)
        self._intake = Intake()  # of nothing: a tracker asks for no pieces
        self._unlimited = RateLimit(None)

    def summary(self) -> dict[str, int]:
        return self._directory.summary()

    def heard(self, node: Node, message: Message) -> None:
        if self._nodes.get(node.contact.node_id) is node:
            self._send(self._directory.handle(node.contact.node_id, message, trio.current_time()))
            if self._directory.is_flooded_by(node.contact.node_id) and node.connection:
                self._avoid(node.contact, "floods")
                node.connection.close("floods")

    def identity_changed(self, before: Identity, now: Identity) -> None:
        """Who may be here has changed, or who this is: all come back, in a second or two, and are looked at again."""
        self._hello = replace(self._hello, key=now.key.public)
        if before.key.public != now.key.public or not now.trusts_all_of(before):
            for node in list(self._nodes.values()):
                if node.connection:
                    node.connection.close("the tracker's identity has changed")

    async def tick(self) -> None:
        """For ever: leases without progress, grants that were put off."""
        while True:
            await trio.sleep(TICK_S)
            if self._directory.watching:
                self._send(self._directory.tick(trio.current_time()))

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Let nodes in, for ever."""
        async with trio.open_nursery() as nursery:
            waiting = WaitingRoom()
            for listener in listeners:
                nursery.start_soon(waiting.gather, listener)
            try:
                while True:
                    sock = await waiting.newest()
                    if len(self._nodes) >= NODES_MAX:
                        sock.close()
                        continue
                    nursery.start_soon(self._converse, sock)
                    # One for each turn of all: a fleet that comes back at once leaves time for who is there already.
                    await trio.lowlevel.checkpoint()
            finally:
                waiting.close()

    async def _converse(self, sock: trio.socket.SocketType) -> None:
        host = "a stranger"
        try:
            transport = answer(sock, self._contexts())
            host = transport.remote_host
            frames = FrameReader(transport)
            _, contact = await self._doorstep.meet(transport, frames, self._hello, self._avoided)
        except (ConnectionLost, ProtocolError) as error:
            self._refusals.add(host, error)
            self._on_left(len(self._nodes))
            return
        node = Node(self, contact)
        node.connection = Connection(
            transport, frames, node, intake=self._intake, up=self._unlimited, down=self._unlimited, sink_errors=()
        )
        old = self._nodes.get(contact.node_id)
        if old and old.connection:
            old.connection.close("connected anew")
            self._send(self._directory.disconnected(contact.node_id, trio.current_time()))
        self._nodes[contact.node_id] = node
        self._directory.connected(contact)
        log.info("node %s at %s:%d", contact.name, contact.host, contact.port)
        try:
            why = await node.connection.run()
            log.info("node %s: %s", contact.name, why)
        finally:
            if node.connection.has_broken_protocol:
                self._avoid(contact, "broke the protocol")
            if self._nodes.get(contact.node_id) is node:
                del self._nodes[contact.node_id]
                self._send(self._directory.disconnected(contact.node_id, trio.current_time()))
            self._on_left(len(self._nodes))

    def _avoid(self, contact: Contact, why: str) -> None:
        who = f"{contact.name} ({contact.node_id.hex()[:16]})"
        log.warning("node %s %s: cut off, and avoided for %g s", who, why, AVOIDED_S)
        self._avoided.add(contact.node_id)

    def _send(self, out: list[tuple[bytes, Message]]) -> None:
        for node_id, message in out:
            node = self._nodes.get(node_id)
            if node and node.connection:
                node.connection.send(message)
