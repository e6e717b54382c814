"""A small world for the core: nodes, a tracker and one upstream in virtual time, without bytes.

Serial uplinks, a fixed latency, an upstream of a fixed rate for each puller. Not a network model: it is for finding
what the logic does wrong, with the invariants checked after every event. A state is a number; "bytes" hold a link
unless the test says otherwise.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.chain import INITIAL_STATE
from p2pd.swarm.directory import Directory
from p2pd.swarm.messages import Contact, Message
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import Geometry
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import node_id

LATENCY_S = 0.001
EVENTS_MAX = 3_000_000  # a livelock ends here, not never


def true_states(digest: bytes, count: int) -> list[bytes]:
    """The chain of a pretended blob: state 0, ..., the digest."""
    middle = [sha256(digest + i.to_bytes(4, "big")).digest() for i in range(1, count)]
    return [INITIAL_STATE, *middle, digest]


@dataclass
class Host:
    """One node with what the world knows of it."""

    number: int
    node: Node
    rate: float
    alive: bool = True
    uplink_free: float = 0.0
    peers: dict[int, tuple[Host | Server, int]] = field(default_factory=dict)  # our peer number -> (other, its number)
    next_peer: int = 1
    connecting: set[bytes] = field(default_factory=set)
    abandoned: set[tuple[int, int]] = field(default_factory=set)
    pulls: dict[bytes, dict] = field(default_factory=dict)
    kept: dict[bytes, dict[int, tuple]] = field(default_factory=dict)
    proven: dict[bytes, float] = field(default_factory=dict)
    failed: dict[bytes, str] = field(default_factory=dict)
    wake_at: float = float("inf")
    corrupt: Callable[[int], bool] = lambda index: False  # which pieces it sends with wrong bytes
    duplicates: int = 0
    refused: int = 0
    blamed: list = field(default_factory=list)


@dataclass
class Server:
    """A tracker."""

    directory: Directory
    peers: dict[int, tuple[Host, int]] = field(default_factory=dict)
    next_peer: int = 1
    alive: bool = True


class World:
    """All of it, on one heap."""

    def __init__(self, count: int, seed: int, *, rate: float = 10e6, upstream_rate: float = 10e6, trackers: int = 1,
                 settings: Settings | None = None) -> None:  # fmt: skip
        self.random = Random(seed)
        self.now = 100.0
        self.heap: list = []
        self.sequence = 0
        self.events = 0
        self.upstream_rate = upstream_rate
        self.upstream_pieces: dict[bytes, dict[int, int]] = {}
        self.upstream_wrong = False
        self.upstream_reason = ""
        self.sizes: dict[bytes, int] = {}
        self.settings = settings or Settings()
        self.servers = [Server(Directory(Random(seed + 7 + i), self.now - 10)) for i in range(trackers)]
        self.hosts: list[Host] = []
        for _ in range(count):
            self.add_host(rate)

    def add_host(self, rate: float) -> Host:
        number = len(self.hosts)
        key = sha256(b"key %d" % number).digest()
        me = Contact(node_id(key), f"n{number}", "", "host", number + 1)
        node = Node(
            me,
            key,
            lambda data, key=key: sha256(key + data).digest() * 2,
            lambda key, signature, data: signature == sha256(key + data).digest() * 2,
            Random(self.random.random()),
            self.now,
            settings=self.settings,
            settles_after_s=0.5,
        )
        host = Host(number, node, rate)
        self.hosts.append(host)
        for place, server in enumerate(self.servers):
            self.at(self.now + LATENCY_S, lambda h=host, s=server, p=place: self.join_tracker(h, s, p))
        return host

    # -- time -------------------------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.heap, (when, self.sequence, action))

    def run(self, until: Callable[[], bool], seconds: float = 600.0) -> None:
        end = self.now + seconds
        while not until():
            assert self.heap, "nothing left to happen"
            self.now, _, action = heapq.heappop(self.heap)
            assert self.now < end, f"not done after {seconds} simulated seconds"
            self.events += 1
            assert self.events < EVENTS_MAX, "too many events: a livelock?"
            action()

    # -- nodes ------------------------------------------------------------------------------------------------------

    def tell(self, host: Host, event: ev.Event) -> None:
        if not host.alive:
            return
        commands = host.node.handle(event, self.now)
        for blob in host.node.state.blobs.values():
            blob.check()
        for command in commands:
            self.carry_out(host, command)
        self.schedule(host)

    def schedule(self, host: Host) -> None:
        deadline = host.node.deadline
        if deadline < host.wake_at:
            host.wake_at = deadline
            self.at(max(deadline, self.now), lambda: self.wake(host, deadline))

    def wake(self, host: Host, when: float) -> None:
        if host.wake_at == when:
            host.wake_at = float("inf")
            if host.node.deadline <= self.now:
                self.tell(host, ev.Tick())
            else:
                self.schedule(host)

    def carry_out(self, host: Host, c: cmd.Command) -> None:
        match c:
            case cmd.Send():
                self.send(host, c.peer, c.message)
            case cmd.Connect():
                self.connect(host, c.contact)
            case cmd.Close():
                self.close(host, c.peer)
            case cmd.Abandon():
                host.abandoned.add((c.peer, c.rid))
            case cmd.Upload():
                self.upload(host, c)
            case cmd.Keep():
                assert (c.before, c.after) == self.link(c.digest, c.index) or self.upstream_wrong, "a wrong link kept"
                host.kept.setdefault(c.digest, {})[c.index] = (c.before, c.after, c.voucher)
            case cmd.Drop():
                for index in list(host.kept.get(c.digest, {})):
                    if c.pieces >> index & 1:
                        del host.kept[c.digest][index]
            case cmd.Prove():
                assert len(host.kept[c.digest]) == Geometry.of(self.sizes[c.digest]).count
                host.proven[c.digest] = self.now
            case cmd.Pull():
                self.pull(host, c)
            case cmd.Allow():
                if c.digest in host.pulls:
                    host.pulls[c.digest]["allowed"] = c.end
                    self.pull_on(host, c.digest)
            case cmd.StopPull():
                if host.pulls.pop(c.digest, None):
                    self.at(self.now, lambda: self.tell(host, ev.PullEnded(c.digest, "stopped")))
            case cmd.Failed():
                host.failed[c.digest] = c.reason
            case cmd.ComputeChain():
                states = tuple(true_states(c.digest, Geometry.of(c.size).count)[1:])
                self.at(self.now + 0.01, lambda: self.tell(host, ev.ChainComputed(c.digest, states)))
            case cmd.Count():
                if c.what == "duplicate":
                    host.duplicates += c.amount
                elif c.what == "refused":
                    host.refused += c.amount
            case cmd.Blame():
                host.blamed.append(c)

    def link(self, digest: bytes, index: int) -> tuple[bytes, bytes]:
        states = true_states(digest, Geometry.of(self.sizes[digest]).count)
        return states[index], states[index + 1]

    # -- connections ------------------------------------------------------------------------------------------------

    def join_tracker(self, host: Host, server: Server, place: int) -> None:
        if not host.alive or not server.alive:
            return
        mine, theirs = host.next_peer, server.next_peer
        host.next_peer, server.next_peer = mine + 1, theirs + 1
        host.peers[mine], server.peers[theirs] = (server, theirs), (host, mine)
        server.directory.connected(host.node.state.me)
        contact = Contact(b"t" * 20, "tracker", "", "t", 1)
        self.tell(host, ev.PeerUp(mine, contact, b"k" * 32, True, place))
        if not getattr(server, "ticking", False):
            server.ticking = True  # type: ignore[attr-defined]
            self.tick_server(server)

    def tick_server(self, server: Server) -> None:
        if server.alive:
            self.reply(server, server.directory.tick(self.now))
            self.at(self.now + 0.1, lambda: self.tick_server(server))

    def reply(self, server: Server, out: list[tuple[bytes, Message]]) -> None:
        for node, message in out:
            for host, number in server.peers.values():
                if host.node.state.me.node_id == node:
                    self.at(
                        self.now + LATENCY_S,
                        lambda h=host, n=number, m=message: n in h.peers and self.tell(h, ev.Received(n, m)),
                    )

    def connect(self, host: Host, contact: Contact) -> None:
        if contact.node_id in host.connecting:
            return
        host.connecting.add(contact.node_id)
        self.at(self.now + 3 * LATENCY_S, lambda: self.connected(host, contact))

    def connected(self, host: Host, contact: Contact) -> None:
        host.connecting.discard(contact.node_id)
        other = next((h for h in self.hosts if h.node.state.me.node_id == contact.node_id), None)
        if not host.alive or other is None or not other.alive:
            self.tell(host, ev.ConnectFailed(contact.node_id))
            return
        mine, theirs = host.next_peer, other.next_peer
        host.next_peer, other.next_peer = mine + 1, theirs + 1
        host.peers[mine], other.peers[theirs] = (other, theirs), (host, mine)
        self.tell(other, ev.PeerUp(theirs, host.node.state.me, host.node.state.key, False))
        if mine in host.peers:
            self.tell(host, ev.PeerUp(mine, other.node.state.me, other.node.state.key, True))

    def close(self, host: Host, peer: int) -> None:
        link = host.peers.pop(peer, None)
        if link is None:
            return
        other, theirs = link
        self.at(self.now, lambda: self.tell(host, ev.PeerDown(peer, "closed")))
        if isinstance(other, Host):
            self.at(self.now + LATENCY_S, lambda: self.lost(other, theirs))

    def lost(self, host: Host, peer: int) -> None:
        if host.peers.pop(peer, None):
            self.tell(host, ev.PeerDown(peer, "lost"))

    def kill(self, host: Host) -> None:
        host.alive = False
        host.pulls.clear()
        for peer, (other, theirs) in list(host.peers.items()):
            del host.peers[peer]
            if isinstance(other, Host):
                self.at(self.now + LATENCY_S, lambda o=other, t=theirs: self.lost(o, t))
            else:
                other.peers.pop(theirs, None)
                self.reply(other, other.directory.disconnected(host.node.state.me.node_id, self.now))

    def kill_server(self, server: Server) -> None:
        server.alive = False
        for host, number in list(server.peers.values()):
            self.at(self.now + LATENCY_S, lambda h=host, n=number: self.lost(h, n))

    def send(self, host: Host, peer: int, message: Message) -> None:
        link = host.peers.get(peer)
        if link is None:
            return
        other, theirs = link

        def arrive() -> None:
            if isinstance(other, Server):
                if other.alive:
                    node = host.node.state.me.node_id
                    self.reply(other, other.directory.handle(node, message, self.now))
            elif theirs in other.peers:
                self.tell(other, ev.Received(theirs, message))

        self.at(self.now + LATENCY_S, arrive)

    # -- bytes ------------------------------------------------------------------------------------------------------

    def upload(self, host: Host, c: cmd.Upload) -> None:
        for voucher in c.vouchers:
            self.send(host, c.peer, voucher)
        link = host.peers.get(c.peer)
        length = Geometry.of(self.sizes[c.digest]).length(c.index)
        host.uplink_free = max(host.uplink_free, self.now) + length / host.rate
        begin, end = host.uplink_free - length / host.rate, host.uplink_free

        def done() -> None:
            if link is None or c.peer not in host.peers or not host.alive:
                return
            other, theirs = link
            self.tell(host, ev.UploadDone(c.peer, c.rid, length, True))
            self.at(self.now + LATENCY_S, lambda: self.piece_in(host, other, theirs, c))

        def started() -> None:
            if link and c.peer in host.peers and isinstance(link[0], Host):
                self.tell(link[0], ev.PieceStarted(link[1], c.rid))

        self.at(begin + LATENCY_S, started)
        self.at(end, done)

    def piece_in(self, sender: Host, host: Host, peer: int, c: cmd.Upload) -> None:
        if peer not in host.peers or (peer, c.rid) in host.abandoned:
            return
        link = host.node.link(peer, c.rid)
        held = link == self.link(c.digest, c.index) and not sender.corrupt(c.index)
        self.tell(host, ev.PieceChecked(peer, c.rid, held))

    def pull(self, host: Host, c: cmd.Pull) -> None:
        assert c.digest not in host.pulls, "two pulls of one blob at one node"
        if self.upstream_reason:
            self.at(self.now + 0.01, lambda: self.tell(host, ev.PullEnded(c.digest, self.upstream_reason, 5)))
            return
        geometry = Geometry.of(self.sizes[c.digest])
        end = geometry.count if c.end < 0 else c.end
        host.pulls[c.digest] = {"next": c.first, "end": end, "allowed": c.first, "busy": False, "id": object()}
        if c.end < 0:
            self.at(self.now + 0.01, lambda: self.tell(host, ev.SizeKnown(c.digest, geometry.size)))

    def pull_on(self, host: Host, digest: bytes) -> None:
        pull = host.pulls.get(digest)
        if pull is None or pull["busy"] or pull["next"] >= min(pull["end"], pull["allowed"]):
            return
        pull["busy"] = True
        index = pull["next"]
        seconds = Geometry.of(self.sizes[digest]).length(index) / self.upstream_rate

        def got() -> None:
            if host.pulls.get(digest) is not pull or not host.alive:
                return
            sent = self.upstream_pieces.setdefault(digest, {})
            sent[index] = sent.get(index, 0) + 1
            pull["busy"], pull["next"] = False, index + 1
            count = Geometry.of(self.sizes[digest]).count
            after = self.link(digest, index)[1]
            if self.upstream_wrong:
                after = sha256(b"wrong" + after).digest()
            if index + 1 == pull["end"]:
                del host.pulls[digest]
            self.tell(host, ev.PieceStored(digest, index, after, seconds))
            if index + 1 == pull["end"]:
                self.tell(host, ev.PullEnded(digest, "end"))
            else:
                self.pull_on(host, digest)
            assert count

        self.at(self.now + seconds, got)

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def want(self, host: Host, digest: bytes, size: int, *, known: bool = True, **more) -> None:
        self.sizes[digest] = size
        kwargs = {"kind": "blob", "upstream": "reg", "repository": "r", "clients": 1, "can_pull": True} | more
        self.tell(host, ev.Want(digest, size if known else -1, **kwargs))

    def all_proven(self, digest: bytes) -> bool:
        return all(digest in h.proven for h in self.hosts if h.alive)

    def upstream_copies(self, digest: bytes) -> float:
        geometry = Geometry.of(self.sizes[digest])
        sent = self.upstream_pieces.get(digest, {})
        return sum(geometry.length(i) * n for i, n in sent.items()) / geometry.size
