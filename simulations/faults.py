"""What goes wrong, planned from the seed before the run: who is slow, dies, lies, and when lines break.

Everything here heals: the dead that come back come back, partitions and failures end. After that every live node must
end, which the world waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pd.swarm import events as ev
from simulations.clock import NEVER
from simulations.hosts import Arriving, Host, Server

if TYPE_CHECKING:
    from simulations.world import World


class Faults:
    """All faults of one run. `keeps_matter`: whether somebody's disk will be read again."""

    def __init__(self, world: World) -> None:
        self._w = world
        self._s = s = world.scenario
        self._random = world.random
        self.keeps_matter = s.restarts > 0
        self._doomed: set[int] = set()  # who is to die by plan
        self._slow()
        self._dishonest()
        self._cached()
        self._deaths()
        if s.seeder_death:
            self._watch(None, None)
        self._spans()

    def _some(self, share: float) -> list[Host]:
        hosts = self._w.hosts
        return self._random.sample(hosts, round(share * len(hosts)))

    def _is_over(self) -> bool:
        """Whether faults have ended for good."""
        heal_after = self._s.heal_after
        return bool(heal_after) and self._w.clock.now >= self._w.started_at + heal_after

    # -- what a node is like ----------------------------------------------------------------------------------------

    def _slow(self) -> None:
        slow = self._s.stragglers
        if slow is None or slow.amount == 1:
            return
        for host in self._some(slow.share):
            host.is_straggler = True
            if slow.which != "down":
                host.up.capacity *= slow.amount
            if slow.which != "up":
                host.down.capacity *= slow.amount

    def _dishonest(self) -> None:
        if self._s.lying:
            for host in self._some(self._s.lying.share):
                host.wrong_share = self._s.lying.amount
        if self._s.lossy:
            for host in self._some(self._s.lossy.share):
                host.is_lossy = True
                self._plan_break(host)

    def _plan_break(self, host: Host) -> None:
        assert self._s.lossy
        self._w.clock.at(self._w.clock.now + self._random.expovariate(1 / self._s.lossy.amount), self._break, host)

    def _break(self, host: Host, _: None) -> None:
        """One of its connections breaks, a tracker's as well."""
        if self._is_over():
            return
        if host.alive and host.ends:
            end = host.ends[self._random.choice(sorted(host.ends))]
            server = end.server
            self._w.wires.cut(end)
            if server:
                self._w.wires.join_tracker(host, server)
        self._plan_break(host)

    def _cached(self) -> None:
        cached = self._s.cached
        if cached is None:
            return
        for host in self._some(cached.share):
            for layer in self._w.image[: int(cached.amount)]:
                arriving = host.layers[layer.digest] = Arriving(layer, self._w.clock.now)
                arriving.proven = arriving.is_done = True
                arriving.present = layer.geometry.all

    # -- deaths -----------------------------------------------------------------------------------------------------

    def _deaths(self) -> None:
        s, now = self._s, self._w.clock.now
        for number, host in enumerate(self._some(s.deaths)):
            self._doomed.add(host.number)
            comes_back = number < round(s.restarts * s.deaths * s.nodes)
            when = now + s.arrival + self._random.random() * s.bound_s
            self._w.clock.at(when, self._die, host, comes_back)

    def _die(self, host: Host, comes_back: bool) -> None:
        w = self._w
        if not host.alive:
            return
        w.records.deaths += 1
        host.alive = False
        w.pulls.end_all_of(host)
        w.wires.host_died(host, self._s.silent)
        if w.checker:
            w.checker.died(host)
        host.reset()
        if comes_back:
            w.clock.at(w.clock.now + self._s.restart_after, self._come_back, host)
        elif host.done_at == NEVER:
            w.lost(host)

    def _come_back(self, host: Host, _: None) -> None:
        self._w.records.restarts += 1
        for digest in [d for d, a in host.layers.items() if not a.kept and not a.proven]:
            del host.layers[digest]
        self._w.boot(host)

    def _watch(self, _: None, __: None) -> None:
        """Wait until somebody has pulled enough of the first layer."""
        w = self._w
        layer = w.image[0]
        for host in w.hosts:
            pulling = host.pulls.get(layer.digest)
            if pulling and pulling.next >= self._s.seeder_death * layer.geometry.count:
                self._die(host, False)
                return
        w.clock.at(w.clock.now + 0.02, self._watch)

    # -- spans ------------------------------------------------------------------------------------------------------

    def _spans(self) -> None:
        s, clock = self._s, self._w.clock
        if s.tracker_loss:
            for server in self._w.servers:
                clock.at(clock.now + s.tracker_loss.start, self._lose_tracker, server)
                if s.tracker_loss.end != NEVER:
                    clock.at(clock.now + s.tracker_loss.end, self._tracker_back, server)
        if s.partition:
            clock.at(clock.now + s.partition.start, self._part)
            clock.at(clock.now + s.partition.end, self._join)
        if s.upstream_failure:
            clock.at(clock.now + s.upstream_failure.start, self._fail_upstream)
            clock.at(clock.now + s.upstream_failure.end, self._heal_upstream)

    def _lose_tracker(self, server: Server, _: None) -> None:
        self._w.wires.tracker_dies(server)

    def _tracker_back(self, server: Server, _: None) -> None:
        server.boot(self._w.new_random(), self._w.clock.now)

    def _part(self, _: None, __: None) -> None:
        """Lines between the two sides break; the trackers and upstream are on the larger one."""
        w = self._w
        assert self._s.partition
        share = min(self._s.partition.share, 1 - self._s.partition.share) if self._s.partition.share < 1 else 0.5
        w.wires.parted = frozenset(host.number for host in self._some(share))
        for host in w.hosts:
            for end in list(host.ends.values()):
                other = None if end.server is not None else end.twin.host
                if end.open and not w.wires.reachable(host, other):
                    server = end.server
                    w.wires.cut(end)
                    if server:
                        w.wires.join_tracker(host, server)
            if host.number in w.wires.parted:
                for pulling in list(host.pulls.values()):
                    w.pulls.break_off(pulling, "unreachable")

    def _join(self, _: None, __: None) -> None:
        self._w.wires.parted = frozenset()
        if not self._w.servers:
            for host in self._w.hosts:
                if host.alive:
                    self._w.tell(host, ev.Members(tuple(o.contact for o in self._w.hosts if o is not host)))

    def _fail_upstream(self, _: None, __: None) -> None:
        self._w.pulls.fail(self._s.upstream_reason)

    def _heal_upstream(self, _: None, __: None) -> None:
        self._w.pulls.heal()
