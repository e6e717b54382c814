"""A small world for the core: nodes, trackers and an upstream in virtual time, without bytes.

Serial uplinks, a fixed latency, an upstream of a fixed rate for each puller. Not a network model: it is for finding
what the logic does wrong, with the invariants checked after every event. A state is a number, and a piece's bytes are
known by the link that they hold: what a node keeps, sends or proves is checked against that.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.directory import Directory
from p2pd.swarm.messages import Contact, Message
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import Geometry
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import node_id
from tests.swarm.fakes import signer, true_states, verify

LATENCY_S = 0.001
SILENT_CALL_S = 5.0  # until a call that nobody answers has failed: the daemon's bound
EVENTS_MAX = 3_000_000  # a livelock ends here, not never
NEVER = float("inf")


@dataclass
class Pulling:
    """A pull of one host from upstream."""

    next: int
    end: int
    allowed: int
    before: bytes
    busy: bool = False


@dataclass
class Host:
    """One node with what the world knows of it."""

    number: int
    node: Node
    key: bytes
    rate: float
    alive: bool = True
    uplink_free: float = 0.0
    peers: dict[int, tuple[Host | Server, int]] = field(default_factory=dict)  # our peer number -> (other, its number)
    next_peer: int = 1
    connecting: set[bytes] = field(default_factory=set)
    abandoned: set[tuple[int, int]] = field(default_factory=set)
    pulls: dict[bytes, Pulling] = field(default_factory=dict)
    kept: dict[bytes, dict[int, tuple]] = field(default_factory=dict)
    proven: dict[bytes, float] = field(default_factory=dict)
    failed: dict[bytes, str] = field(default_factory=dict)
    wake_at: float = NEVER
    # how it is ill
    corrupt: Callable[[int], bool] = lambda index: False  # which pieces it sends with wrong bytes
    upstream_reason: str = ""  # why its upstream gives it nothing
    wrong_from: int = 1 << 30  # from this piece on, upstream's bytes are wrong
    # what is counted
    duplicates: int = 0
    refused: int = 0
    dropped: int = 0
    blamed: list[cmd.Blame] = field(default_factory=list)

    @property
    def id(self) -> bytes:
        return self.node.state.me.node_id


@dataclass
class Server:
    """A tracker."""

    directory: Directory
    peers: dict[int, tuple[Host, int]] = field(default_factory=dict)
    next_peer: int = 1
    alive: bool = True
    ticking: bool = False


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
        self.sizes: dict[bytes, int] = {}
        self.links: dict[bytes, list[bytes]] = {}
        self.settings = settings or Settings()
        self.servers = [Server(Directory(Random(seed + 7 + i), self.now - 10)) for i in range(trackers)]
        self.hosts: list[Host] = []
        for _ in range(count):
            self.add_host(rate)

    def add_host(self, rate: float) -> Host:
        number = len(self.hosts)
        key = sha256(b"key %d" % number).digest()
        host = Host(number, self._node(number, key), key, rate)
        self.hosts.append(host)
        self._meet_trackers(host)
        return host

    def _node(self, number: int, key: bytes) -> Node:
        me = Contact(node_id(key), f"n{number}", "", "host", number + 1)
        dice = Random(self.random.random())
        return Node(me, key, signer(key), verify, dice, self.now, settings=self.settings, settles_after_s=0.5)

    def _meet_trackers(self, host: Host) -> None:
        for place, server in enumerate(self.servers):
            self.at(self.now + LATENCY_S, lambda h=host, s=server, p=place: self.join_tracker(h, s, p))

    def announce_members(self, ghosts: int = 0) -> None:
        """What mDNS does: everybody hears of everybody alive, and of so many that are nowhere."""
        contacts = tuple(h.node.state.me for h in self.hosts if h.alive)
        contacts += tuple(Contact(node_id(b"ghost %d" % i), "ghost", "", "nowhere", 1) for i in range(ghosts))
        for host in self.hosts:
            others = tuple(c for c in contacts if c != host.node.state.me)
            self.at(self.now, lambda h=host, o=others: self.tell(h, ev.Members(o)))

    def revive(self, host: Host) -> None:
        """The daemon starts again, with what was recorded."""
        host.node = self._node(host.number, host.key)
        host.alive, host.uplink_free, host.wake_at = True, 0.0, NEVER
        host.connecting.clear()
        host.failed.clear()
        for digest, links in host.kept.items():
            if digest in host.proven:
                self.tell(host, ev.Stored(digest, self.sizes[digest]))
            else:
                self.tell(host, ev.Resumed(digest, self.sizes[digest], dict(links)))
        self._meet_trackers(host)

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
        self.execute(host, commands)
        self.schedule(host)

    def execute(self, host: Host, commands: list[cmd.Command]) -> None:
        for command in commands:
            self.carry_out(host, command)

    def schedule(self, host: Host) -> None:
        deadline = host.node.deadline
        if deadline < host.wake_at:
            host.wake_at = deadline
            self.at(max(deadline, self.now), lambda: self.wake(host, deadline))

    def wake(self, host: Host, when: float) -> None:
        if host.alive and host.wake_at == when:
            host.wake_at = NEVER
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
                self.keep(host, c)
            case cmd.Drop():
                self.drop(host, c)
            case cmd.Prove():
                links = host.kept[c.digest]
                for index in range(self.geometry(c.digest).count):
                    assert links[index][:2] == self.link(c.digest, index), "proven, and yet not the blob"
                host.proven[c.digest] = self.now
            case cmd.Pull():
                self.pull(host, c)
            case cmd.Allow():
                if c.digest in host.pulls:
                    host.pulls[c.digest].allowed = c.end
                    self.pull_on(host, c.digest)
            case cmd.StopPull():
                if host.pulls.pop(c.digest, None):
                    self.at(self.now, lambda: self.tell(host, ev.PullEnded(c.digest, "stopped")))
            case cmd.Failed():
                self.fail(host, c)
            case cmd.ComputeChain():
                states = tuple(self.states(c.digest)[1:])
                self.at(self.now + 0.01, lambda: self.tell(host, ev.ChainComputed(c.digest, states)))
            case cmd.Count():
                if c.what == "duplicate":
                    host.duplicates += c.amount
                elif c.what == "refused":
                    host.refused += c.amount
            case cmd.Blame():
                host.blamed.append(c)

    def keep(self, host: Host, c: cmd.Keep) -> None:
        if self.link(c.digest, c.index) != (c.before, c.after):
            assert any(h.wrong_from < 1 << 30 for h in self.hosts), "a wrong link kept, and no upstream lied"
        kept = host.kept.setdefault(c.digest, {})
        assert c.index not in kept, "a piece kept twice"
        for neighbour, place in ((c.index - 1, 1), (c.index + 1, 0)):
            if neighbour in kept:
                assert kept[neighbour][place] == (c.before, c.after)[1 - place], "two chains in one blob"
        kept[c.index] = (c.before, c.after, c.voucher)

    def drop(self, host: Host, c: cmd.Drop) -> None:
        kept = host.kept[c.digest]
        for index in [i for i in kept if c.pieces >> i & 1]:
            del kept[index]
            host.dropped += 1

    def fail(self, host: Host, c: cmd.Failed) -> None:
        """As the daemon does: the wish ends, and what is refuted is forgotten."""
        host.failed[c.digest] = c.reason
        if c.reason == "wrong-bytes":
            self.execute(host, host.node.give_up(c.digest))
            self.schedule(host)
        else:
            self.at(self.now, lambda: self.tell(host, ev.Unwant(c.digest)))

    def geometry(self, digest: bytes) -> Geometry:
        return Geometry.of(self.sizes[digest])

    def states(self, digest: bytes) -> list[bytes]:
        if digest not in self.links:
            self.links[digest] = true_states(digest, self.geometry(digest).count)
        return self.links[digest]

    def link(self, digest: bytes, index: int) -> tuple[bytes, bytes]:
        states = self.states(digest)
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
        if not server.ticking:
            server.ticking = True
            self.tick_server(server)

    def tick_server(self, server: Server) -> None:
        if server.alive:
            self.reply(server, server.directory.tick(self.now))
            self.at(self.now + 0.1, lambda: self.tick_server(server))

    def reply(self, server: Server, out: list[tuple[bytes, Message]]) -> None:
        for node, message in out:
            for host, number in server.peers.values():
                if host.id == node:
                    self.at(
                        self.now + LATENCY_S,
                        lambda h=host, n=number, m=message: n in h.peers and self.tell(h, ev.Received(n, m)),
                    )

    def connect(self, host: Host, contact: Contact) -> None:
        if contact.node_id in host.connecting:
            return
        host.connecting.add(contact.node_id)
        takes = SILENT_CALL_S if contact.host == "nowhere" else 3 * LATENCY_S
        self.at(self.now + takes, lambda: self.connected(host, contact))

    def connected(self, host: Host, contact: Contact) -> None:
        host.connecting.discard(contact.node_id)
        other = next((h for h in self.hosts if h.id == contact.node_id), None)
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
        host.abandoned.clear()
        host.pulls.clear()
        for peer, (other, theirs) in list(host.peers.items()):
            del host.peers[peer]
            if isinstance(other, Host):
                self.at(self.now + LATENCY_S, lambda o=other, t=theirs: self.lost(o, t))
            else:
                other.peers.pop(theirs, None)
                self.reply(other, other.directory.disconnected(host.id, self.now))

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
                    self.reply(other, other.directory.handle(host.id, message, self.now))
            elif theirs in other.peers:
                self.tell(other, ev.Received(theirs, message))

        self.at(self.now + LATENCY_S, arrive)

    # -- bytes ------------------------------------------------------------------------------------------------------

    def upload(self, host: Host, c: cmd.Upload) -> None:
        for voucher in c.vouchers:
            self.send(host, c.peer, voucher)
        held = host.kept.get(c.digest, {}).get(c.index)
        if held is None:
            assert c.digest in host.proven, "a piece sent that is not present"
            held = self.link(c.digest, c.index)
        link = host.peers.get(c.peer)
        length = self.geometry(c.digest).length(c.index)
        host.uplink_free = max(host.uplink_free, self.now) + length / host.rate
        begin, end = host.uplink_free - length / host.rate, host.uplink_free

        def done() -> None:
            if link is None or c.peer not in host.peers or not host.alive:
                return
            other, theirs = link
            self.tell(host, ev.UploadDone(c.peer, c.rid, length, True))
            assert isinstance(other, Host)
            self.at(self.now + LATENCY_S, lambda: self.piece_in(host, other, theirs, c, held[:2]))

        def started() -> None:
            if link and c.peer in host.peers and isinstance(link[0], Host):
                self.tell(link[0], ev.PieceStarted(link[1], c.rid))

        self.at(begin + LATENCY_S, started)
        self.at(end, done)

    def piece_in(self, sender: Host, host: Host, peer: int, c: cmd.Upload, holds: tuple[bytes, bytes]) -> None:
        if peer not in host.peers or (peer, c.rid) in host.abandoned:
            return
        held = host.node.link(peer, c.rid) == holds and not sender.corrupt(c.index)
        self.tell(host, ev.PieceChecked(peer, c.rid, held))

    def pull(self, host: Host, c: cmd.Pull) -> None:
        assert c.digest not in host.pulls, "two pulls of one blob at one node"
        if host.upstream_reason:
            reason = host.upstream_reason
            self.at(self.now + 0.01, lambda: self.tell(host, ev.PullEnded(c.digest, reason, 5)))
            return
        geometry = self.geometry(c.digest)
        end = geometry.count if c.end < 0 else c.end
        host.pulls[c.digest] = Pulling(c.first, end, c.first, c.before or self.states(c.digest)[0])
        if c.end < 0:
            self.at(self.now + 0.01, lambda: self.tell(host, ev.SizeKnown(c.digest, geometry.size)))

    def pull_on(self, host: Host, digest: bytes) -> None:
        pull = host.pulls.get(digest)
        if pull is None or pull.busy or pull.next >= min(pull.end, pull.allowed):
            return
        pull.busy = True
        index = pull.next
        seconds = self.geometry(digest).length(index) / self.upstream_rate

        def got() -> None:
            if host.pulls.get(digest) is not pull or not host.alive:
                return
            sent = self.upstream_pieces.setdefault(digest, {})
            sent[index] = sent.get(index, 0) + 1
            pull.busy, pull.next = False, index + 1
            pull.before = self.compress(host, digest, index, pull.before)
            ended = pull.next == pull.end
            if ended:
                del host.pulls[digest]
            self.tell(host, ev.PieceStored(digest, index, pull.before, seconds))
            if ended:
                self.tell(host, ev.PullEnded(digest, "end"))
            else:
                self.pull_on(host, digest)

        self.at(self.now + seconds, got)

    def compress(self, host: Host, digest: bytes, index: int, before: bytes) -> bytes:
        """The state after a piece from this host's upstream. From a wrong state no right one follows."""
        true_before, true_after = self.link(digest, index)
        if before == true_before and index < host.wrong_from:
            return true_after
        return sha256(before + index.to_bytes(4, "big") + bytes(index >= host.wrong_from)).digest()

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def want(self, host: Host, digest: bytes, size: int, *, known: bool = True, **more: object) -> None:
        self.sizes[digest] = size
        host.failed.pop(digest, None)
        kwargs = {"kind": "blob", "upstream": "reg", "repository": "r", "clients": 1, "can_pull": True} | more
        self.tell(host, ev.Want(digest, size if known else -1, **kwargs))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        self.at(end, lambda: None)
        self.run(lambda: self.now >= end)

    def all_proven(self, *digests: bytes) -> bool:
        return all(d in h.proven for d in digests for h in self.hosts if h.alive)

    def holder(self, digest: bytes) -> Host | None:
        """Who pulls the blob, by its own account."""
        for host in self.hosts:
            blob = host.node.blob(digest)
            if host.alive and blob and blob.term:
                return host
        return None

    def upstream_copies(self, digest: bytes) -> float:
        geometry = self.geometry(digest)
        sent = self.upstream_pieces.get(digest, {})
        return sum(geometry.length(i) * n for i, n in sent.items()) / geometry.size

    def fetched(self, digest: bytes) -> int:
        """Pieces that upstream sent at least once."""
        return len(self.upstream_pieces.get(digest, {}))
