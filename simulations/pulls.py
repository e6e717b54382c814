"""Upstream, and the nodes' own pulls from it: piece after piece as far as the core allows, on upstream's one line.

Also the clients that give p2pd up and go to upstream by themselves: their bytes count as upstream's too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.chain import INITIAL_STATE
from simulations.hosts import Arriving, Host, Layer
from simulations.network import Link, Pipe, Transfer

if TYPE_CHECKING:
    from simulations.world import World

CHUNK = 512 * 1024  # bytes that the node hashes and writes at a time while it streams
RETRY_AFTER_S = 3  # what the registry asks for with 429
BACK_OFF_S = 10.0  # of a kubelet whose pull failed


class Pulling:
    """One pull. `next`: the piece that comes or is to come; `allowed`: pieces below it may come."""

    __slots__ = ("allowed", "began", "end", "host", "layer", "next", "pipe", "state", "stored", "transfer")

    def __init__(self, host: Host, layer: Layer, first: int, end: int, state: bytes) -> None:
        self.state = state  # after what it has brought so far
        self.host = host
        self.layer = layer
        self.next = self.stored = first
        self.end = end
        self.allowed = first
        self.began = 0.0
        self.pipe: Pipe | None = None
        self.transfer: Transfer | None = None


class Pulls:
    """All pulls of the world. `bytes_sent`: what upstream has sent; `pieces`: (digest, index) -> how often."""

    def __init__(self, world: World) -> None:
        self._w = world
        self.line = Link(world.scenario.upstream_rate)
        self.bytes_sent = 0.0
        self.requests = 0
        self.bypassed = 0  # layers that clients fetched past p2pd
        self.failing = ""
        self.commands: dict[type, Callable] = {cmd.Pull: self._pull, cmd.Allow: self._allow, cmd.StopPull: self._stop}

    # -- commands ---------------------------------------------------------------------------------------------------

    def _pull(self, host: Host, c: cmd.Pull) -> None:
        w = self._w
        layer = w.layers[c.digest]
        assert c.digest not in host.pulls, "two pulls of one blob at one node"
        end = layer.geometry.count if c.end < 0 else c.end
        pulling = host.pulls[c.digest] = Pulling(host, layer, c.first, end, c.before or INITIAL_STATE)
        self.requests += 1
        w.clock.at(w.clock.now + w.scenario.upstream_delay, self._answered, pulling, c.end < 0)

    def _answered(self, pulling: Pulling, size_unknown: bool) -> None:
        if not self._counts(pulling):
            return
        reason = self.failing or ("" if self._w.wires.reachable(pulling.host, None) else "unreachable")
        if reason:
            self._over(pulling, reason)
            return
        pulling.pipe = Pipe((self.line, pulling.host.down), 0.0, 2 * self._w.scenario.latency)
        if size_unknown:
            self._w.tell(pulling.host, ev.SizeKnown(pulling.layer.digest, pulling.layer.geometry.size))
        self._go_on(pulling)

    def _allow(self, host: Host, c: cmd.Allow) -> None:
        pulling = host.pulls.get(c.digest)
        if pulling:
            pulling.allowed = c.end
            self._go_on(pulling)

    def _stop(self, host: Host, c: cmd.StopPull) -> None:
        pulling = host.pulls.pop(c.digest, None)
        if pulling:
            self._break(pulling)
            self._w.clock.soon(self._tell_ended, pulling, "stopped")

    # -- streaming --------------------------------------------------------------------------------------------------

    def _counts(self, pulling: Pulling) -> bool:
        return pulling.host.pulls.get(pulling.layer.digest) is pulling

    def _go_on(self, pulling: Pulling) -> None:
        if pulling.pipe is None or pulling.transfer or pulling.next >= min(pulling.end, pulling.allowed):
            return
        pulling.began = self._w.clock.now
        pulling.transfer = Transfer(pulling.layer.geometry.length(pulling.next), pulling)
        self._w.network.send(pulling.pipe, pulling.transfer)

    def arrived(self, pulling: Pulling, transfer: Transfer) -> None:
        """The network brought a piece."""
        w = self._w
        host, index = pulling.host, pulling.next
        length = pulling.layer.geometry.length(index)
        self.bytes_sent += length
        pulling.transfer = None
        pulling.next = index + 1
        seconds = w.clock.now - pulling.began
        stored_at = w.checked_at(host, min(length, CHUNK))
        w.clock.at(stored_at, self._stored, pulling, (index, seconds))
        self._go_on(pulling)

    def _stored(self, pulling: Pulling, what: tuple[int, float]) -> None:
        if not self._counts(pulling):
            return
        index, seconds = what
        layer, host = pulling.layer, pulling.host
        arriving = host.layers[layer.digest]
        if arriving.own_end == index:
            arriving.own_end = index + 1
        is_last = index + 1 == pulling.end
        if is_last:
            del host.pulls[layer.digest]
        self._w.pulled(host, layer, index)
        liars = self._w.liars
        pulling.state = liars.pulled(host, layer, index, pulling.state) if liars else layer.states[index + 1]
        self._w.tell(host, ev.PieceStored(layer.digest, index, pulling.state, seconds))
        if is_last:
            self._tell_ended(pulling, "end")

    def break_off(self, pulling: Pulling, reason: str) -> None:
        """The request or its body failed."""
        self._over(pulling, reason)

    def _over(self, pulling: Pulling, reason: str) -> None:
        if self._counts(pulling):
            del pulling.host.pulls[pulling.layer.digest]
            self._break(pulling)
            self._tell_ended(pulling, reason)

    def _tell_ended(self, pulling: Pulling, reason: str) -> None:
        retry_s = RETRY_AFTER_S if reason == "limited" else 0
        self._w.tell(pulling.host, ev.PullEnded(pulling.layer.digest, reason, retry_s))

    def _break(self, pulling: Pulling) -> None:
        """Bytes of a piece that is not whole were sent for nothing."""
        if pulling.transfer and pulling.pipe:
            self._w.network.clear(pulling.pipe)
            self.bytes_sent += pulling.transfer.size - pulling.transfer.left
            pulling.transfer = None

    def end_all_of(self, host: Host) -> None:
        """The node is dead."""
        for pulling in host.pulls.values():
            self._break(pulling)
        host.pulls.clear()
        for arriving in host.layers.values():
            if arriving.bypass:
                pipe, transfer = arriving.bypass.what[2], arriving.bypass
                self._w.network.clear(pipe)
                self.bytes_sent += transfer.size - transfer.left
                arriving.bypass = None

    # -- faults -----------------------------------------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """From now on every request gets this answer, and bodies under way break off."""
        self.failing = reason
        for host in self._w.hosts:
            for pulling in list(host.pulls.values()):
                self._over(pulling, reason)

    def heal(self) -> None:
        self.failing = ""

    # -- clients that go to upstream by themselves ------------------------------------------------------------------

    def bypass(self, host: Host, arriving: Arriving, first_byte: int = 0) -> None:
        """containerd got a 404 or a broken body: it fetches the rest from upstream itself."""
        if arriving.bypass or arriving.is_done or not host.alive:
            return
        if self.failing or not self._w.wires.reachable(host, None):
            life = host.life
            self._w.clock.at(self._w.clock.now + BACK_OFF_S, self._again, (host, life), arriving)
            return
        self.bypassed += 1
        self.requests += 1
        pipe = Pipe((self.line, host.down), 0.0, 2 * self._w.scenario.latency)
        size = arriving.layer.geometry.size - first_byte
        arriving.bypass = Transfer(size, (host, arriving, pipe))
        self._w.network.send(pipe, arriving.bypass)

    def _again(self, who: tuple[Host, int], arriving: Arriving) -> None:
        host, life = who
        if host.life == life and host.alive and not arriving.is_done:
            self._w.want(host, arriving, renewed=True)

    def bypass_arrived(self, transfer: Transfer) -> None:
        host, arriving, _ = transfer.what
        self.bytes_sent += transfer.size
        arriving.bypass = None
        self._w.layer_done(host, arriving)
