"""The simulated world: hosts that run the swarm's own node, unchanged, on a model of a network.

One event at a time: the world tells a node what happened, carries out the commands that come back, and plans the node's
deadline. It decides nothing about pieces, leases or peers. Connections are `wires`, bytes are `network`, upstream is
`pulls`, what goes wrong is `faults`, what must never happen is `checkers`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.commands import Send
from p2pd.swarm.messages import Contact
from simulations.checkers import Checker
from simulations.clock import NEVER, Clock
from simulations.faults import Faults
from simulations.hosts import Arriving, End, Host, Layer, Server
from simulations.liars import Liars
from simulations.network import Link, Network, Pipe, Transfer
from simulations.pulls import Pulling, Pulls
from simulations.readers import Readers
from simulations.records import Records
from simulations.scenario import Scenario
from simulations.wires import Wires

START_S: Final = 100.0  # on the clock; the trackers have been up for a while then
CHUNK: Final = 1024 * 1024  # bytes that the daemon hashes and writes in one go, when they have come
UPSTREAM = "registry.example"


class World:
    """One run of a scenario. `may_meet`: which nodes may connect at all, for tests of fixed shapes."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        records: Records | None = None,
        may_meet: Callable[[Host, Host | None], bool] = lambda one, other: True,
    ) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed)
        self.settings = scenario.policy
        self.may_meet = may_meet
        self.records = records or Records()
        self.started_at = START_S
        self.clock = Clock(START_S, scenario.limit_s, scenario.limit_events)
        self.network = Network(
            self.clock,
            self._began,
            self._entered,
            self._arrived,
            slow_start=scenario.slow_start,
            unfair=scenario.unfair,
            seed=scenario.seed,
        )
        self.layers: dict[bytes, Layer] = {}
        self.image: list[Layer] = []
        self._cut_image()
        self.checker = Checker(self) if scenario.check else None
        self.wires = Wires(self)
        self.pulls = Pulls(self)
        self.readers = Readers(self)
        self._carry_out: dict[type, Callable] = {
            **self.wires.commands, **self.pulls.commands,
            cmd.Upload: self._upload, cmd.StopUpload: self._stop_upload, cmd.Abandon: self._abandon,
            cmd.Keep: self._keep, cmd.Drop: self._drop, cmd.Prove: self._prove, cmd.ComputeChain: self._compute_chain,
            cmd.Failed: self._failed, cmd.Count: self._count, cmd.Blame: self._blame,
            cmd.Convict: self._convict,
        }  # fmt: skip
        self.ninety = max(1, 9 * scenario.pieces // 10)
        self._check_s_per_byte = 1 / scenario.check_rate if scenario.check_rate else 0.0
        self.hosts = self._build_hosts()
        self.unfinished = len(self.hosts)  # nodes that are still to end
        self.liars = Liars(self, scenario.liars) if scenario.liars else None
        self.unfinished -= len(scenario.liars)  # nobody waits for them
        self.servers = [Server(place, self.new_random(), START_S - 60) for place in range(scenario.trackers)]
        for server in self.servers:
            self.wires.tick_tracker(server, None)
        self.faults = Faults(self)
        if self.records.interval_s:
            self._sample(None, None)
        self.problem = ""  # why it did not end
        self.cpu_s = 0.0

    def new_random(self) -> Random:
        """Dice of their own for a node or a tracker."""
        return Random(self.random.getrandbits(64))

    # -- building ---------------------------------------------------------------------------------------------------

    def _cut_image(self) -> None:
        first = 0
        for place, size in enumerate(self.scenario.image):
            layer = Layer.of(place, size, first)
            first += layer.geometry.count
            self.image.append(layer)
            self.layers[layer.digest] = layer

    def _build_hosts(self) -> list[Host]:
        s = self.scenario
        zones = [number * s.zones // s.nodes for number in range(s.nodes)]
        self.zone_lines: list[tuple[Link, Link]] = []
        if s.zones > 1 and s.oversubscription > 1:
            for zone in range(s.zones):
                nodes = zones.count(zone)
                up, down = (nodes * rate / s.oversubscription for rate in (s.uplink, s.downlink))
                self.zone_lines.append((Link(up), Link(down)))
        names = [f"zone{zone}" if s.zones > 1 else "" for zone in zones]  # one zone is none
        hosts = [Host(n, zones[n], names[n], Link(s.uplink), Link(s.downlink)) for n in range(s.nodes)]
        for host in hosts:
            self.wires.by_id[host.contact.node_id] = host
            start = START_S + (self.random.random() * s.arrival if s.arrival else 0.0)
            self.clock.at(start, self._arrives, host)
        return hosts

    def _arrives(self, host: Host, _: None) -> None:
        """A node is there, and its client asks for the image."""
        host.started_at = self.clock.now
        self.boot(host)

    def boot(self, host: Host) -> None:
        """A node's process starts, with what its disk has, and its client asks."""
        s = self.scenario
        host.boot(self.new_random(), self.settings, self.clock.now, self.settings.settle_s)
        if self.liars:
            self.liars.corrupt(host)
        self._load_store(host)
        for server in self.servers:
            self.wires.join_tracker(host, server)
        if not s.trackers:
            self.tell(host, ev.Members(tuple(self._others(host))))
        for layer in self.image:
            arriving = host.layers.get(layer.digest)
            if arriving is None:
                arriving = host.layers[layer.digest] = Arriving(layer, self.clock.now)
            if not arriving.is_done:
                self.want(host, arriving)
        self.readers.start(host)
        self._see_if_done(host)

    def _load_store(self, host: Host) -> None:
        for digest, arriving in host.layers.items():
            size = arriving.layer.geometry.size
            arriving.clients = 0
            if arriving.proven:
                self.tell(host, ev.Stored(digest, size))
            elif arriving.kept:
                self.tell(host, ev.Resumed(digest, size, dict(arriving.kept)))

    def _others(self, host: Host) -> list[Contact]:
        return [other.contact for other in self.hosts if other is not host]

    def want(self, host: Host, arriving: Arriving, renewed: bool = False) -> None:
        """Its client, or the prefetch for it, wants a layer."""
        busy = sum(1 for a in host.layers.values() if a.clients and not a.is_done)
        if not arriving.clients and busy < self.scenario.concurrent:
            arriving.clients = 1
            arriving.began = arriving.since = self.clock.now
        elif not renewed and arriving.began < self.clock.now:
            return
        arriving.wanted = True
        geometry = arriving.layer.geometry
        digest = arriving.layer.digest
        self.tell(host, ev.Want(digest, geometry.size, "blob", UPSTREAM, "library/image", arriving.clients, True))

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until every node that is to end has ended. LimitReached."""
        if self.unfinished:
            self.clock.run()

    def tell(self, host: Host, event: ev.Event) -> None:
        """Let a node handle an event, and do what it says."""
        node = host.node
        if not host.alive or node is None:
            return
        commands = node.handle(event, self.clock.now)
        sends: list[Send] | None = None
        for command in commands:
            if type(command) is Send:
                if sends is None:
                    sends = [command]
                else:
                    sends.append(command)
            else:
                action = self._carry_out.get(type(command))
                if action is not None:
                    action(host, command)
        if sends is not None:
            self.wires.send_all(host, sends)
        if self.checker:
            self.checker.after(host, event, commands)
        deadline = node.deadline
        if deadline < host.wake_at:
            host.wake_at = deadline
            self.clock.at(deadline if deadline > self.clock.now else self.clock.now, self._wake, host, deadline)

    def _wake(self, host: Host, when: float) -> None:
        if host.wake_at != when or host.node is None:
            return
        host.wake_at = NEVER
        deadline = host.node.deadline
        if deadline <= self.clock.now:
            self.tell(host, ev.Tick())
        else:
            host.wake_at = deadline
            self.clock.at(deadline, self._wake, host, deadline)

    # -- pieces out -------------------------------------------------------------------------------------------------

    def _upload(self, host: Host, c: cmd.Upload) -> None:
        end = host.ends.get(c.peer)
        if end is None:
            return
        if self.checker:
            self.checker.upload(host, c)
        for voucher in c.vouchers:
            self.wires.send(host, c.peer, voucher)
        transfer = Transfer(self.layers[c.digest].geometry.length(c.index), (end, c))
        if end.muted:
            return  # into the kernel and no further; the connection's end will tell
        end.sending[c.rid] = transfer
        if end.pipe is None:
            end.pipe = Pipe(self._links(host, end.twin.host), self.scenario.send_buffer, 2 * end.delay)
        self.network.send(end.pipe, transfer)

    def _links(self, host: Host, other: Host) -> tuple[Link, ...]:
        if host.zone == other.zone or not self.zone_lines:
            return (host.up, other.down)
        return (host.up, self.zone_lines[host.zone][0], self.zone_lines[other.zone][1], other.down)

    def _stop_upload(self, host: Host, c: cmd.StopUpload) -> None:
        end = host.ends.get(c.peer)
        transfer = end.sending.pop(c.rid, None) if end else None
        if end and end.pipe and transfer and not transfer.entered:
            count = self.network.cut(end.pipe, transfer)
            transfer.what = (end, None)  # a part of a piece: thrown away where it arrives
            self.clock.soon(self._upload_over, (end, c.rid), int(count))

    def _upload_over(self, which: tuple[End, int], count: int) -> None:
        end, rid = which
        if end.open:
            self.tell(end.host, ev.UploadDone(end.number, rid, count, False))

    def _began(self, pipe: Pipe, transfer: Transfer) -> None:
        what = transfer.what
        if type(what) is tuple and len(what) == 2 and what[1] is not None:
            end, c = what
            if end.last <= self.clock.now:
                self.clock.after(end.delay, self._piece_started, end.twin, c.rid)
            else:
                self.clock.at(max(self.clock.now + end.delay, end.last), self._piece_started, end.twin, c.rid)

    def _piece_started(self, end: End, rid: int) -> None:
        if end.open and rid not in end.abandoned:
            self.tell(end.host, ev.PieceStarted(end.number, rid))

    def _entered(self, pipe: Pipe, transfer: Transfer) -> None:
        what = transfer.what
        if type(what) is not tuple or len(what) != 2 or what[1] is None:
            return
        end, c = what
        if end.sending.pop(c.rid, None) is not None:
            self.tell(end.host, ev.UploadDone(c.peer, c.rid, int(transfer.size), True))

    # -- pieces in --------------------------------------------------------------------------------------------------

    def _arrived(self, pipe: Pipe, transfer: Transfer) -> None:
        what = transfer.what
        if type(what) is Pulling:
            self.pulls.arrived(what, transfer)
        elif len(what) == 3:
            self.pulls.bypass_arrived(transfer)
        else:
            self._arrived_at(what[0].twin, transfer)

    def _arrived_at(self, end: End, transfer: Transfer) -> None:
        sender, c = transfer.what
        receiver = end.host
        sender.host.sent += transfer.size
        receiver.received += transfer.size
        if sender.cross:
            self.records.cross_zone += transfer.size
        if c is None or c.rid in end.abandoned or not end.open:
            end.abandoned.discard(c.rid if c else -1)
            self.records.duplicate += transfer.size
        else:
            # Not before the messages that went ahead of it: the voucher is one of them.
            delay = max(end.delay, sender.last - self.clock.now)
            when = self.checked_at(receiver, min(int(transfer.size), CHUNK), delay)
            self.clock.at(when, self._checked, end, transfer)

    def checked_at(self, host: Host, count: int, delay: float = 0.0) -> float:
        """When these bytes are hashed and written: one after another at one node."""
        begin = max(self.clock.now + delay, host.disk_free)
        host.disk_free = begin + self.scenario.piece_cost + count * self._check_s_per_byte
        return host.disk_free

    def _checked(self, end: End, transfer: Transfer) -> None:
        sender, c = transfer.what
        host = end.host
        if not end.open or not host.alive:
            return
        if c.rid in end.abandoned:
            end.abandoned.discard(c.rid)
            self.records.duplicate += transfer.size
            return
        layer = self.layers[c.digest]
        link = host.node.link(end.number, c.rid)  # type: ignore[union-attr]
        wrong = sender.host.wrong_share and self.random.random() < sender.host.wrong_share
        if link is None:
            self.records.protocol_errors += 1
            self.wires.cut(end)  # the daemon takes it for a broken protocol
            return
        if self.liars:
            held = not wrong and self.liars.fits(sender.host, host, layer, c.index, link)
        else:
            held = not wrong and link == (layer.states[c.index], layer.states[c.index + 1])
        if self.checker:
            self.checker.checked(host, c.digest, c.index, held)
        if held:
            self.records.transfers += 1
        else:
            self.records.rejected += 1
        self.tell(host, ev.PieceChecked(end.number, c.rid, held))

    def _abandon(self, host: Host, c: cmd.Abandon) -> None:
        end = host.ends.get(c.peer)
        if end:
            end.abandoned.add(c.rid)

    def lost_bytes(self, transfers: list[Transfer]) -> None:
        """A connection broke with these under way: what had arrived of them is lost."""
        for transfer in transfers:
            self.records.duplicate += transfer.size - transfer.left

    # -- what a node keeps ------------------------------------------------------------------------------------------

    def pulled(self, host: Host, layer: Layer, index: int) -> None:
        if self.checker:
            self.checker.checked(host, layer.digest, index, True)

    def _keep(self, host: Host, c: cmd.Keep) -> None:
        if self.checker:
            self.checker.keep(host, c)
        arriving = host.layers[c.digest]
        index = c.index
        arriving.present |= 1 << index
        if self.faults.keeps_matter:
            arriving.kept[index] = (c.before, c.after, c.voucher)
        now = self.clock.now
        arriving.progress_at = now
        host.pieces += 1
        self.records.piece(now - START_S, arriving.layer.first + index)
        if host.pieces == 1:
            host.first_at = now
        elif host.pieces == self.ninety:
            host.ninety_at = now
        if index == arriving.position:
            self.readers.moved(host, arriving)

    def _drop(self, host: Host, c: cmd.Drop) -> None:
        arriving = host.layers[c.digest]
        arriving.present &= ~c.pieces
        arriving.own_end = arriving.position = 0
        for index in [i for i in arriving.kept if c.pieces >> i & 1]:
            del arriving.kept[index]

    def _prove(self, host: Host, c: cmd.Prove) -> None:
        arriving = host.layers[c.digest]
        if self.checker:
            self.checker.prove(host, c.digest)
        arriving.proven = True
        if not arriving.bypass:  # a client that went to upstream reads on there
            self.layer_done(host, arriving)

    def _compute_chain(self, host: Host, c: cmd.ComputeChain) -> None:
        when = self.clock.now + c.size * self._check_s_per_byte
        self.clock.at(when, self._chain_computed, (host, host.life), c.digest)

    def _chain_computed(self, who: tuple[Host, int], digest: bytes) -> None:
        host, life = who
        if host.life == life:
            self.tell(host, ev.ChainComputed(digest, self.layers[digest].states[1:]))

    def _failed(self, host: Host, c: cmd.Failed) -> None:
        """Nobody can get it: the client is told, and helps itself."""
        arriving = host.layers[c.digest]
        if arriving.wanted:
            arriving.wanted = False
            self.clock.soon(self._given_up, (host, host.life), arriving)

    def _given_up(self, who: tuple[Host, int], arriving: Arriving) -> None:
        host, life = who
        if host.life == life:
            self.records.given_up += 1
            self.tell(host, ev.Unwant(arriving.layer.digest))
            self.pulls.bypass(host, arriving)

    def layer_done(self, host: Host, arriving: Arriving) -> None:
        """A client has the whole layer; the next one is asked for."""
        if arriving.is_done:
            return
        arriving.is_done = True
        self.clock.soon(self._next_layer, (host, host.life))
        self._see_if_done(host)

    def _see_if_done(self, host: Host) -> None:
        if (
            host.done_at == NEVER
            and len(host.layers) == len(self.image)
            and all(a.is_done for a in host.layers.values())
        ):
            host.done_at = self.clock.now
            if self.liars is None or host.number not in self.liars.of:
                self._one_less()

    def _next_layer(self, who: tuple[Host, int], _: None) -> None:
        host, life = who
        if host.life != life or not host.alive:
            return
        for arriving in host.layers.values():
            if not arriving.clients and not arriving.is_done and arriving.wanted:
                self.want(host, arriving)
                return

    def lost(self, host: Host) -> None:
        """A node died before it ended, and will not come back."""
        if self.liars is None or host.number not in self.liars.of:
            self._one_less()

    def _one_less(self) -> None:
        self.unfinished -= 1
        if not self.unfinished:
            self.clock.stop()

    def _sample(self, _: None, __: None) -> None:
        """Note how busy the lines are."""
        records, count = self.records, len(self.hosts)
        up = sum(1 for host in self.hosts if host.up.flows) / count
        down = sum(1 for host in self.hosts if host.down.flows) / count
        rate = sum(host.up.used for host in self.hosts)
        line = self.pulls.line
        core = max((max(a.used / a.capacity, b.used / b.capacity) for a, b in self.zone_lines), default=0.0)
        records.rates.append((self.clock.now - START_S, rate, up, down, line.used / line.capacity, core))
        if records.on_progress:
            records.on_progress(self.clock.now - START_S, sum(host.pieces for host in self.hosts))
        self.clock.at(self.clock.now + records.interval_s, self._sample)

    # -- counting ---------------------------------------------------------------------------------------------------

    def _count(self, host: Host, c: cmd.Count) -> None:
        counts = self.records.counts
        counts[c.what] = counts.get(c.what, 0) + c.amount

    def _blame(self, host: Host, c: cmd.Blame) -> None:
        self.records.blamed += 1
        if self.liars:
            self.liars.blame(host, c)

    def _convict(self, host: Host, c: cmd.Convict) -> None:
        self.records.convicted += 1
        if self.liars:
            self.liars.convict(host, c)
