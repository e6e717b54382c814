"""Nodes that mean harm: they run the swarm's own node, with a lie at its border.

What a liar's node hears and says goes through a `Lie`, which may change it, drop it or add to it. Bytes are not
simulated, so what a piece holds is a name: true, or some liar's own; it fits a link if `compress` takes the one state
to the other. A name goes with the piece from node to node.

The same lies as real daemons tell in `tests/hostile`; there with bytes and signatures, here over many seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.blob import Blob
from p2pd.swarm.commands import Command, Send
from p2pd.swarm.evidence import accusation
from p2pd.swarm.messages import (
    Announce,
    Answer,
    Have,
    Join,
    Release,
    Request,
    Retract,
    Vouch,
)
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import Geometry, pack
from p2pd.swarm.voucher import make_voucher
from simulations.hosts import Host, Layer

if TYPE_CHECKING:
    from simulations.world import World

TRUE = b""
FORGED_RUN = 5  # pieces
CLAIMED_TERM = 1000
REPEAT_S = 1.0
FLOOD = 40  # announces beside each real one
REPLAYED_MAX = 64  # vouchers


class Lie:
    """An honest node. `hear`: the event that the core gets instead, None for none; `say`: the commands instead."""

    def __init__(self, liars: Liars, host: Host) -> None:
        self.liars, self.host = liars, host
        self.repeat_at = 0.0

    repeat_s = REPEAT_S

    def hear(self, node: Node, event: ev.Event) -> ev.Event | None:
        return event

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        if now >= self.repeat_at:
            self.repeat_at = now + self.repeat_s
            return commands + self.repeat(node)
        return commands

    def repeat(self, node: Node) -> list[Command]:
        return []

    def to_neighbours(self, node: Node, messages_of: Any) -> list[Command]:
        return [
            Send(number, message)
            for blob in list(node.state.blobs.values())
            if blob.geometry
            for message in messages_of(blob)
            for number in blob.neighbours
        ]

    def content(self, layer: Layer, index: int) -> bytes:
        """What its own pull makes of a piece."""
        return TRUE


class LyingNode:
    """The node, behind its lie. Everything else is the node's own."""

    def __init__(self, node: Node, lie: Lie) -> None:
        self._node, self._lie = node, lie

    def handle(self, event: ev.Event, now: float) -> list[Command]:
        heard = self._lie.hear(self._node, event)
        commands = [] if heard is None else self._node.handle(heard, now)
        return self._lie.say(self._node, commands, now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


# -- the lies ---------------------------------------------------------------------------------------------------------


class Flips(Lie):
    """Every piece that it sends is wrong."""

    def __init__(self, liars: Liars, host: Host) -> None:
        super().__init__(liars, host)
        host.wrong_share = 1.0


class Claims(Lie):
    """It says to its directory that it holds the lease, by a high term, and believes so itself."""

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        commands = super().say(node, commands, now)
        for c in commands:
            if type(c) is Send and type(c.message) is Announce and c.message.wanting:
                blob = node.state.blobs.get(c.message.digest)
                if blob and not blob.term and blob.want:
                    blob.term = CLAIMED_TERM
                    blob.holder_named(node.state.me.node_id, CLAIMED_TERM)
                    node.state.out = []
                    node.seeder.start(blob, True)
                    commands = commands + node.state.out
        return [self._claimed(node, c) for c in commands]

    def _claimed(self, node: Node, c: Command) -> Command:
        if type(c) is Send and type(c.message) is Announce and c.message.wanting:
            blob = node.state.blobs.get(c.message.digest)
            return Send(c.peer, replace(c.message, term=blob.term if blob else CLAIMED_TERM))
        return c


class ForgesSeed(Claims):
    """It claims the lease, pulls, and puts other bytes in place of the second half; the last link is a plain lie."""

    def content(self, layer: Layer, index: int) -> bytes:
        return b"forged" if index >= layer.geometry.count // 2 and layer.geometry.count > 1 else TRUE

    def hear(self, node: Node, event: ev.Event) -> ev.Event | None:
        if type(event) is ev.PieceStored:
            blob = node.state.blobs.get(event.digest)
            if blob and blob.geometry and event.index == blob.geometry.count - 1:
                return replace(event, after=event.digest)
        return event


class Sits(Claims):
    """It claims the lease, tells of progress, and pulls nothing."""

    def __init__(self, liars: Liars, host: Host) -> None:
        super().__init__(liars, host)
        self._progress = 0

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        out: list[Command] = []
        for c in super().say(node, commands, now):
            if type(c) in (cmd.Pull, cmd.Allow, cmd.StopPull):
                continue
            if type(c) is Send and type(c.message) is Announce and c.message.term:
                self._progress += 1
                c = Send(c.peer, replace(c.message, progress=self._progress))
            out.append(c)
        return out

    def repeat(self, node: Node) -> list[Command]:
        return self.to_neighbours(node, lambda blob: [Have(blob.digest, (), 0, 0, 0, 1 << 31)])


class ForgesRun(Lie):
    """A relay that forges some pieces and honest states over them, signed by itself, and tells everybody."""

    repeat_s = 0.2

    def repeat(self, node: Node) -> list[Command]:
        return self.to_neighbours(node, lambda blob: filter(None, [self._voucher(node, blob)]))

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        out: list[Command] = []
        for c in super().say(node, commands, now):
            if type(c) is cmd.Upload:
                blob = node.state.blobs.get(c.digest)
                voucher = self._voucher(node, blob) if blob else None
                if voucher and c.index in voucher.links:
                    c = replace(c, vouchers=(voucher,))
                    self.liars.contents[(self.host.number, c.digest, c.index)] = b"forged"
            out.append(c)
        return out

    def _voucher(self, node: Node, blob: Blob) -> Vouch | None:
        if blob.chain is None or blob.geometry is None or blob.geometry.count < 3 * FORGED_RUN:
            return None
        first = blob.geometry.count // 2
        end = first + FORGED_RUN
        before, after = blob.chain.states.get(first), blob.chain.states.get(end)
        if before is None or after is None:
            return None
        states = [before]
        layer = self.liars.world.layers[blob.digest]
        for index in range(first, end - 1):
            states.append(compress(layer, index, states[-1], b"forged"))
        state = node.state
        size, term = blob.geometry.size, max(1, blob.term)
        return make_voucher(state.sign, state.key, blob.upstream, blob.digest, size, term, first, (*states, after))


class HasAll(Lie):
    """It says that it has all, and sends nothing."""

    def hear(self, node: Node, event: ev.Event) -> ev.Event | None:
        return None if type(event) is ev.Received and type(event.message) is Request else event

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        return [self._all(c) for c in super().say(node, commands, now)]

    def _all(self, c: Command) -> Command:
        if type(c) is Send and type(c.message) is Join:
            geometry = Geometry.of(c.message.size)
            return Send(c.peer, replace(c.message, pieces=pack(geometry.all, geometry.count)))
        return c


class Replays(Lie):
    """It repeats the vouchers that it has heard, those that were taken back first of all."""

    def __init__(self, liars: Liars, host: Host) -> None:
        super().__init__(liars, host)
        self._kept: dict[bytes, Vouch] = {}

    def hear(self, node: Node, event: ev.Event) -> ev.Event | None:
        if type(event) is ev.Received:
            if type(event.message) is Vouch and len(self._kept) < REPLAYED_MAX:
                self._kept[event.message.signature] = event.message
            if type(event.message) is Retract:
                return None
        return event

    def repeat(self, node: Node) -> list[Command]:
        return self.to_neighbours(node, lambda blob: [v for v in self._kept.values() if v.digest == blob.digest])


class Accuses(Lie):
    """It shows true vouchers as false ones, forges retractions, gets nothing, and has wrong bytes from upstream."""

    def repeat(self, node: Node) -> list[Command]:
        return self.to_neighbours(node, self._accusations)

    def _accusations(self, blob: Blob) -> list[Any]:
        if blob.chain is None:
            return []
        vouchers = list(blob.chain.vouchers.values())[:1]
        shown: list[Any] = [accusation(v) for v in vouchers]
        shown += [replace(accusation(v), states=(v.states[0], bytes(32)), signature=bytes(64)) for v in vouchers]
        return shown + [Retract(v.key, blob.digest, v.term, bytes(64)) for v in vouchers]

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        out: list[Command] = []
        for c in super().say(node, commands, now):
            if type(c) is Send and type(c.message) is Announce:
                out.append(Send(c.peer, replace(c.message, stuck=c.message.wanting)))
                out.append(Send(c.peer, Release(c.message.digest, 0, "wrong-bytes", 0)))
            else:
                out.append(c)
        return out


class Floods(Lie):
    """Announces without end, of blobs that nobody has."""

    def __init__(self, liars: Liars, host: Host) -> None:
        super().__init__(liars, host)
        self._count = 0

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        out: list[Command] = []
        for c in super().say(node, commands, now):
            out.append(c)
            if not isinstance(c, Send) or type(c.message) not in (Announce, Have):
                continue
            for _ in range(FLOOD):
                self._count += 1
                digest = self._count.to_bytes(32, "big")
                out.append(
                    Send(c.peer, Announce(digest, 5, "blob", "", "", True, True, True, True, False, False, 0, 0, 0, 24))
                )
        return out


class DirectoryFails(Lie):
    """As a directory: nobody can get it."""

    def say(self, node: Node, commands: list[Command], now: float) -> list[Command]:
        return [self._answer(c) for c in super().say(node, commands, now)]

    def _answer(self, c: Command) -> Command:
        if type(c) is Send and type(c.message) is Answer:
            return Send(c.peer, replace(c.message, holder=b"", term=0, failure="missing"))
        return c


class DirectorySits(DirectoryFails):
    """As a directory: somebody holds the lease of whom nobody has ever heard."""

    def _answer(self, c: Command) -> Command:
        if type(c) is Send and type(c.message) is Answer:
            return Send(c.peer, replace(c.message, holder=b"\x07" * 20, term=50, failure=""))
        return c


LIES: dict[str, type[Lie]] = {
    "flips": Flips, "forges-run": ForgesRun, "forges-seed": ForgesSeed, "has-all": HasAll, "sits": Sits,
    "replays": Replays, "accuses": Accuses, "floods": Floods, "directory-fails": DirectoryFails,
    "directory-sits": DirectorySits,
}  # fmt: skip


# -- the world's side -------------------------------------------------------------------------------------------------


def compress(layer: Layer, index: int, before: bytes, content: bytes) -> bytes:
    """The state after a piece of that content."""
    if content == TRUE and before == layer.states[index]:
        return layer.states[index + 1]
    return sha256(before + content + index.to_bytes(4, "big")).digest()


class Liars:
    """Who lies in this world, and what the pieces hold that are not the blob's. Who was convicted, by whom."""

    def __init__(self, world: World, lies: Sequence[str]) -> None:
        self.world = world
        self.contents: dict[tuple[int, bytes, int], bytes] = {}  # (node, blob, piece) -> what it holds, if not TRUE
        self.convicted: dict[int, set[int]] = {}  # node -> who holds evidence against it
        self.accused_honest: list[str] = []
        self.seeded = False  # one of them has pulled from upstream: then more than one copy may be needed
        self._by_key = {host.key: host for host in world.hosts}
        self._by_id = {host.contact.node_id: host for host in world.hosts}
        chosen = world.random.sample(world.hosts, len(lies))
        self.of = {host.number: LIES[lie](self, host) for host, lie in zip(chosen, lies, strict=True)}

    def corrupt(self, host: Host) -> None:
        """A liar's process starts."""
        lie = self.of.get(host.number)
        if lie and host.node:
            host.node = LyingNode(host.node, lie)  # type: ignore[assignment]

    def pulled(self, host: Host, layer: Layer, index: int, before: bytes) -> bytes:
        """A node's own pull got a piece: the state after it."""
        lie = self.of.get(host.number)
        self.seeded = self.seeded or lie is not None
        content = lie.content(layer, index) if lie else TRUE
        self._holds(host, layer.digest, index, content)
        return compress(layer, index, before, content)

    def fits(self, sender: Host, receiver: Host, layer: Layer, index: int, link: tuple[bytes, bytes]) -> bool:
        """Whether the piece that the sender has fits; if so, the receiver has it now."""
        content = self.contents.get((sender.number, layer.digest, index), TRUE)
        if compress(layer, index, link[0], content) != link[1]:
            return False
        self._holds(receiver, layer.digest, index, content)
        return True

    def _holds(self, host: Host, digest: bytes, index: int, content: bytes) -> None:
        key = (host.number, digest, index)
        if content == TRUE:
            self.contents.pop(key, None)
        else:
            self.contents[key] = content

    def is_true(self, host: Host, digest: bytes) -> bool:
        """Whether all of its pieces are the blob's."""
        return not any(n == host.number and d == digest for n, d, _ in self.contents)

    def convict(self, host: Host, c: cmd.Convict) -> None:
        """A node holds evidence."""
        if host.number not in self.of:
            self.convicted.setdefault(self._by_key[c.voucher.key].number, set()).add(host.number)

    def blame(self, host: Host, c: cmd.Blame) -> None:
        """A node avoids another one."""
        blamed = self._by_id.get(c.node_id)
        if host.number not in self.of and blamed and blamed.number not in self.of and "directory" not in c.reason:
            self.accused_honest.append(f"n{blamed.number} by n{host.number}: {c.reason}")
