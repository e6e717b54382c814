"""What must never happen, asserted after every event of a run that is checked. Apart from the world, which it reads.

- a piece is kept only when this node's own check of it held, and sent only when it is kept;
- a piece is in exactly one state at a node, and while it is present its link is the one that it was checked against;
- a lease at a directory has a holder that is connected, and goes over only to a higher term, or to a lower node id;
- every queue keeps its bound.

`Violation` names the node, the event and the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pd.swarm import commands as cmd
from p2pd.swarm.commands import Command
from p2pd.swarm.events import Event, PieceChecked, PieceStored, Received
from p2pd.swarm.messages import Answer, Retract, Vouch
from p2pd.swarm.pieces import indices
from simulations.hosts import Host, Server

if TYPE_CHECKING:
    from simulations.world import World

COMMANDS_MAX = 20_000  # that one event leads to
_MOVES_LINKS = frozenset({PieceChecked, PieceStored, Vouch, Retract, Answer})


class Violation(AssertionError):
    """A rule was broken."""


class Checker:
    """`after` is called behind every event; the others where the world carries something out."""

    def __init__(self, world: World) -> None:
        self._w = world
        self._held: dict[int, set[tuple[bytes, int]]] = {}  # node -> pieces that its own check let pass, or its pull
        self._kept: dict[int, set[tuple[bytes, int]]] = {}
        # (node, blob, piece) -> what it fitted
        self._links: dict[tuple[int, bytes, int], tuple[bytes, bytes]] = {}
        self._leases: dict[
            tuple[int, int, bytes], tuple[bytes, int] | None
        ] = {}  # (tracker, its life, digest) -> lease
        self._event: Event | None = None

    def _fail(self, host: Host, rule: str) -> None:
        at = self._w.clock.now - self._w.started_at
        raise Violation(f"n{host.number} at {at:.6f} s, seed {self._w.scenario.seed}: {rule}")

    # -- pieces -----------------------------------------------------------------------------------------------------

    def checked(self, host: Host, digest: bytes, index: int, held: bool) -> None:
        if held:
            self._held.setdefault(host.number, set()).add((digest, index))

    def keep(self, host: Host, c: cmd.Keep) -> None:
        piece = (c.digest, c.index)
        if piece not in self._held.get(host.number, ()):
            self._fail(host, f"piece {c.index} kept that no check let pass")
        states = self._w.layers[c.digest].states
        if self._w.liars is None and (c.before, c.after) != (states[c.index], states[c.index + 1]):
            self._fail(host, f"piece {c.index} kept with states that are not the blob's")
        kept = self._kept.setdefault(host.number, set())
        if piece in kept:
            self._fail(host, f"piece {c.index} kept twice")
        kept.add(piece)
        self._links[(host.number, *piece)] = (c.before, c.after)

    def upload(self, host: Host, c: cmd.Upload) -> None:
        whole = host.layers[c.digest].proven
        if not whole and (c.digest, c.index) not in self._kept.get(host.number, ()):
            self._fail(host, f"piece {c.index} sent that is not kept")

    def prove(self, host: Host, digest: bytes) -> None:
        layer = self._w.layers[digest]
        if host.layers[digest].present != layer.geometry.all:
            self._fail(host, f"layer {layer.place} proven without all of its pieces")
        liars = self._w.liars
        if liars and host.number not in liars.of and not liars.is_true(host, digest):
            self._fail(host, f"layer {layer.place} proven with a forged piece")

    def died(self, host: Host) -> None:
        """What it kept without its disk is gone."""
        kept = {(d, i) for d, a in host.layers.items() for i in a.kept}
        self._kept[host.number] = kept
        self._held[host.number] = set(kept)

    # -- after each event -------------------------------------------------------------------------------------------

    def after(self, host: Host, event: Event, commands: list[Command]) -> None:
        node = host.node
        assert node is not None
        for c in commands:
            if type(c) is cmd.Drop:
                kept = self._kept.get(host.number, set())
                kept -= {(d, i) for d, i in kept if d == c.digest and c.pieces >> i & 1}
        try:
            for blob in node.state.blobs.values():
                blob.check()
        except AssertionError as error:
            raise Violation(f"n{host.number} after {event}: a piece in two states or in none: {error}") from error
        if type(event.message if type(event) is Received else event) in _MOVES_LINKS:
            self._check_links(host)
        if len(commands) > COMMANDS_MAX:
            self._fail(host, f"{len(commands)} commands from one {type(event).__name__}")
        self._check_bounds(host)

    def _check_links(self, host: Host) -> None:
        assert host.node is not None
        for blob in host.node.state.blobs.values():
            if blob.chain is None or blob.proven:
                continue
            for index in indices(blob.present):
                link = blob.chain.link(index)
                if link is None or self._links.get((host.number, blob.digest, index), link) != link:
                    self._fail(host, f"piece {index} present whose link is another one now, or gone")

    def _check_bounds(self, host: Host) -> None:
        node = host.node
        assert node is not None
        settings = node.state.settings
        most_out = (
            settings.requests_most + settings.shown_to_one * max(1, len(node.state.peers)) + len(node.state.peers)
        )
        if node.downloads.out > most_out:
            self._fail(host, f"{node.downloads.out} requests out")
        held_most = settings.places_most * (1 + settings.queued_at_place)
        if node.uploads.held > held_most + settings.shown_to_one * len(node.state.peers):
            self._fail(host, f"{node.uploads.held} uploads under way and queued")
        if len(node.state.peers) > settings.connections_max + len(self._w.servers):
            self._fail(host, f"{len(node.state.peers)} connections")

    # -- leases -----------------------------------------------------------------------------------------------------

    def directory(self, server: Server) -> None:
        """After a tracker handled something."""
        for layer in self._w.image:
            key = (server.place, server.life, layer.digest)
            before, lease = self._leases.get(key), server.directory.lease(layer.digest)
            self._leases[key] = lease
            if lease is None or lease == before:
                continue
            holder, term = lease
            if holder not in server.ends:
                raise Violation(f"tracker {server.place}: the lease of layer {layer.place} is with a node that is gone")
            if before and holder != before[0] and (-before[1], before[0]) < (-term, holder):
                raise Violation(f"tracker {server.place}: the lease of layer {layer.place} went to a term that loses")
