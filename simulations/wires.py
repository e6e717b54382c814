"""Connections between nodes and to trackers, and the messages on them.

Messages take the latency, and wait behind the piece bytes that the kernel holds for the same connection. They keep
their order. Pieces go by `network`, on the connection's pipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import Contact, Message
from simulations.hosts import End, Host, Server

if TYPE_CHECKING:
    from simulations.world import World

SHAKE: Final = 3  # latencies from the first SYN to a connection that both sides may use
SILENCE_S: Final = 20.0  # a connection of which nothing is heard for so long is dead: the daemon's own bound
DIAL_TIMEOUT_S: Final = 5.0  # the daemon's
TRACKER_RETRY_S: Final = 1.0
TRACKER_TICK_S: Final = 0.1  # the tracker's own
TRACKER = Contact(b"t" * 20, "tracker", "", "tracker", 9590)
TRACKER_KEY = b"t" * 32


class Wires:
    """All connections of the world."""

    def __init__(self, world: World) -> None:
        self._w = world
        self._clock = world.clock
        self.by_id: dict[bytes, Host] = {}
        self.parted: frozenset[int] = frozenset()  # nodes on the other side of a partition
        self.commands: dict[type, Callable] = {cmd.Connect: self._connect, cmd.Close: self._close}

    def delay(self, one: Host, other: Host) -> float:
        scenario = self._w.scenario
        return scenario.latency + (scenario.zone_latency if one.zone != other.zone else 0.0)

    def reachable(self, one: Host, other: Host | None) -> bool:
        """Whether a partition lets them through; None stands for trackers and upstream, on the larger side."""
        far = other is not None and other.number in self.parted
        return (one.number in self.parted) == far and self._w.may_meet(one, other)

    # -- messages ---------------------------------------------------------------------------------------------------

    def send(self, host: Host, peer: int, message: Message) -> None:
        """One message, behind all that went before it."""
        end = host.ends.get(peer)
        if end is None or end.muted:
            return
        if end.server is not None:
            self._clock.after(end.delay, self._reach_tracker, end, message)
        elif end.is_clear(self._clock.now):
            self._clock.after(end.delay, self._deliver, end.twin, message)
        else:
            self._clock.at(self._behind(end), self._deliver, end.twin, message)

    def send_all(self, host: Host, sends: list[cmd.Send]) -> None:
        """What one event of a node led to: mostly news, the same to all neighbours, which travel as one."""
        ends, now = host.ends, self._clock.now
        batch: list[tuple[End, Message]] = []
        delay = 0.0
        for c in sends:
            end = ends.get(c.peer)
            if end is None or end.muted:
                continue
            if end.server is not None or not end.is_clear(now):
                self.send(host, c.peer, c.message)
                continue
            if end.delay != delay:
                if batch:
                    self._clock.after(delay, self._deliver_all, batch)
                batch, delay = [], end.delay
            batch.append((end.twin, c.message))
        if batch:
            self._clock.after(delay, self._deliver_all, batch)

    def _deliver(self, end: End, message: Message) -> None:
        if end.open and not end.muted:
            self._w.tell(end.host, ev.Received(end.number, message))

    def _deliver_all(self, batch: list[tuple[End, Message]], _: None) -> None:
        tell = self._w.tell
        for end, message in batch:
            if end.open and not end.muted:
                tell(end.host, ev.Received(end.number, message))

    def _behind(self, end: End) -> float:
        """When a message arrives that waits behind bytes, or behind a message that did."""
        when = self._clock.now + end.delay
        if end.pipe and end.pipe.head is not None:
            when += self._w.network.ahead_s(end.pipe)
        end.last = when = max(when, end.last)
        return when

    # -- nodes ------------------------------------------------------------------------------------------------------

    def _connect(self, host: Host, c: cmd.Connect) -> None:
        node = c.contact.node_id
        if node in host.connecting:
            return
        host.connecting.add(node)
        other = self.by_id[node]
        dead = not self.reachable(host, other) or (not other.alive and self._w.scenario.silent)
        wait = DIAL_TIMEOUT_S if dead else SHAKE * self.delay(host, other)
        self._clock.at(self._clock.now + wait, self._shaken, (host, host.life), other)

    def _shaken(self, who: tuple[Host, int], other: Host) -> None:
        host, life = who
        if not host.alive or host.life != life:
            return
        host.connecting.discard(other.contact.node_id)
        if not other.alive or not self.reachable(host, other):
            self._w.tell(host, ev.ConnectFailed(other.contact.node_id))
            return
        delay = self.delay(host, other)
        mine, theirs = self._end(host, delay), self._end(other, delay)
        mine.twin, theirs.twin = theirs, mine
        mine.cross = theirs.cross = host.zone != other.zone
        self._w.tell(other, ev.PeerUp(theirs.number, host.contact, host.key, False))
        if mine.open:
            self._w.tell(host, ev.PeerUp(mine.number, other.contact, other.key, True))

    def _end(self, host: Host, delay: float) -> End:
        end = End(host, host.next_end, delay)
        host.ends[end.number] = end
        host.next_end += 1
        return end

    def _close(self, host: Host, c: cmd.Close) -> None:
        end = host.ends.get(c.peer)
        if end:
            self.cut(end)

    def cut(self, end: End) -> None:
        """One side ends a connection; the other hears of it one latency later."""
        self._shut(end)
        self._clock.soon(self._tell_down, end, "closed")
        if end.server is not None:
            self._clock.after(end.delay, self._left_tracker, end)
        elif not end.muted:
            self._clock.after(end.delay, self._lost, end.twin)

    def _lost(self, end: End, _: None) -> None:
        if end.open:
            self._shut(end)
            self._tell_down(end, "lost")

    def _shut(self, end: End) -> None:
        end.open = False
        end.host.ends.pop(end.number, None)
        if end.pipe:
            self._w.lost_bytes(self._w.network.clear(end.pipe))
        end.sending.clear()

    def _tell_down(self, end: End, why: str) -> None:
        if end.host.ends is not None and end.host.alive:
            self._w.tell(end.host, ev.PeerDown(end.number, why))

    def host_died(self, host: Host, silently: bool) -> None:
        """All its connections end; if it fell silent, the others notice when they have heard nothing for long."""
        for end in list(host.ends.values()):
            self._shut(end)
            if end.server is not None:
                if silently:
                    self._clock.at(self._clock.now + SILENCE_S, self._left_tracker, end)
                else:
                    self._clock.after(end.delay, self._left_tracker, end)
                continue
            twin = end.twin
            if silently:
                twin.muted = True
                twin.sending.clear()  # nothing of it can be stopped any more
                if twin.pipe:
                    self._w.lost_bytes(self._w.network.clear(twin.pipe))
                self._clock.at(self._clock.now + SILENCE_S, self._lost, twin)
            else:
                self._clock.after(end.delay, self._lost, twin)

    # -- trackers ---------------------------------------------------------------------------------------------------

    def join_tracker(self, host: Host, server: Server) -> None:
        """The node dials a tracker, and goes on until it answers."""
        when = self._clock.now + SHAKE * self._w.scenario.latency
        self._clock.at(when, self._at_tracker, (host, host.life), server)

    def _at_tracker(self, who: tuple[Host, int], server: Server) -> None:
        host, life = who
        if not host.alive or host.life != life:
            return
        if not server.alive or not self.reachable(host, None):
            self._clock.at(self._clock.now + TRACKER_RETRY_S, self._at_tracker, who, server)
            return
        old = server.ends.get(host.contact.node_id)
        if old:
            self._left_tracker(old, None)
        end = self._end(host, self._w.scenario.latency)
        end.server = server
        server.ends[host.contact.node_id] = end
        server.directory.connected(host.contact)
        self._w.tell(host, ev.PeerUp(end.number, TRACKER, TRACKER_KEY, True, server.place))

    def _reach_tracker(self, end: End, message: Message) -> None:
        server = end.server
        node = end.host.contact.node_id
        if server and server.alive and server.ends.get(node) is end:
            self._reply(server, server.directory.handle(node, message, self._clock.now))

    def _left_tracker(self, end: End, _: None) -> None:
        server = end.server
        node = end.host.contact.node_id
        if server and server.alive and server.ends.get(node) is end:
            del server.ends[node]
            self._reply(server, server.directory.disconnected(node, self._clock.now))

    def _reply(self, server: Server, out: list[tuple[bytes, Message]]) -> None:
        if self._w.checker:
            self._w.checker.directory(server)
        for node, message in out:
            end = server.ends.get(node)
            if end and end.open:
                self._clock.after(end.delay, self._deliver, end, message)

    def tick_tracker(self, server: Server, _: None) -> None:
        """For ever, as the tracker does it."""
        if server.alive and server.directory.watching:
            self._reply(server, server.directory.tick(self._clock.now))
        self._clock.at(self._clock.now + TRACKER_TICK_S, self.tick_tracker, server)

    def tracker_dies(self, server: Server) -> None:
        server.alive = False
        for end in list(server.ends.values()):
            if end.open:
                self._clock.after(end.delay, self._lost, end)
                self.join_tracker(end.host, server)
        server.ends.clear()
