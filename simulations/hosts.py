"""What the world knows of a node, of its connections and of its blobs on their way. Data only; `world` drives it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any

from p2pd.swarm.chain import INITIAL_STATE
from p2pd.swarm.directory import Directory
from p2pd.swarm.messages import Contact
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import Geometry
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import node_id
from simulations.clock import NEVER
from simulations.network import Link, Pipe, Transfer


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of the image: its place, its cut, and the pretended states of its chain (state 0, ..., the digest)."""

    place: int
    digest: bytes
    geometry: Geometry
    states: tuple[bytes, ...]
    first: int  # number of its first piece within the image

    @classmethod
    def of(cls, place: int, size: int, first: int) -> Layer:
        digest = sha256(b"layer %d of %d bytes" % (place, size)).digest()
        geometry = Geometry.of(size)
        middle = [sha256(digest + i.to_bytes(4, "big")).digest() for i in range(1, geometry.count)]
        return cls(place, digest, geometry, (INITIAL_STATE, *middle, digest), first)


class Arriving:
    """A layer at one node. `present`: pieces kept; `position`: how far its reader has come."""

    __slots__ = (
        "began", "bypass", "clients", "is_done", "kept", "layer", "own_end", "position", "present", "progress_at",
        "proven", "since", "started", "wanted",
    )  # fmt: skip

    def __init__(self, layer: Layer, now: float) -> None:
        self.layer = layer
        self.present = 0
        self.kept: dict[int, tuple[bytes, bytes, Any]] = {}  # with their states and vouchers, where restarts need them
        self.own_end = 0  # this node's own pull has brought the pieces below
        self.proven = False
        self.is_done = False  # the client has it, from here or past p2pd
        self.wanted = True
        self.clients = 0
        self.position = 0
        self.began = self.since = self.progress_at = now
        self.started = False
        self.bypass: Transfer | None = None  # the client went to upstream by itself


class End:
    """One side of a connection. `twin` is the other side's."""

    __slots__ = (
        "abandoned", "cross", "delay", "host", "last", "muted", "number", "open", "pipe", "sending", "server", "twin",
    )  # fmt: skip

    def __init__(self, host: Host, number: int, delay: float) -> None:
        self.host = host
        self.number = number
        self.delay = delay
        self.open = True
        self.muted = False  # the other side is dead, but nobody has noticed
        self.twin: End = self
        self.server: Server | None = None
        self.pipe: Pipe | None = None
        self.last = 0.0  # when the last message that waited behind bytes arrives
        self.sending: dict[int, Transfer] = {}
        self.abandoned: set[int] = set()
        self.cross = False  # between zones

    def is_clear(self, now: float) -> bool:
        """Whether a message would have nothing before it."""
        return (self.pipe is None or self.pipe.head is None) and self.last <= now


class Host:
    """One node, through all its lives."""

    __slots__ = (
        "alive",
        "connecting",
        "contact",
        "disk_free",
        "done_at",
        "down",
        "ends",
        "first_at",
        "is_lossy",
        "is_straggler",
        "key",
        "layers",
        "life",
        "next_end",
        "ninety_at",
        "node",
        "number",
        "pieces",
        "pulls",
        "received",
        "sent",
        "started_at",
        "up",
        "wake_at",
        "wrong_share",
        "zone",
    )  # fmt: skip

    def __init__(self, number: int, zone: int, zone_name: str, up: Link, down: Link) -> None:
        self.number = number
        self.zone = zone
        self.up, self.down = up, down
        self.key = sha256(b"key %d" % number).digest()
        self.contact = Contact(node_id(self.key), f"n{number}", zone_name, f"host{number}", 9581)
        self.node: Node | None = None
        self.life = 0
        self.alive = False
        self.is_straggler = False
        self.is_lossy = False
        self.wrong_share = 0.0  # of the pieces that it sends
        self.layers: dict[bytes, Arriving] = {}
        self.started_at = NEVER
        self.first_at = self.ninety_at = self.done_at = NEVER
        self.pieces = 0
        self.sent = 0.0  # bytes to peers
        self.received = 0.0  # bytes from peers
        self.disk_free = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget what a process forgets when it ends."""
        self.life += 1
        self.ends: dict[int, End] = {}
        self.next_end = 1
        self.connecting: set[bytes] = set()
        self.pulls: dict[bytes, Any] = {}
        self.wake_at = NEVER

    def boot(self, random: Random, settings: Settings, now: float, settles_after_s: float) -> None:
        """A new process."""
        key = self.key
        self.alive = True
        self.node = Node(
            self.contact, key, Signer(key), verify, random, now, settings=settings, settles_after_s=settles_after_s
        )


class Signer:
    """Pretended signatures: nobody here forges them, so a digest of the key and the text is enough."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, data: bytes) -> bytes:
        return sha256(self._key + data).digest() * 2


def verify(key: bytes, signature: bytes, data: bytes) -> bool:
    return signature == sha256(key + data).digest() * 2


class Server:
    """A tracker. `ends`: node id -> the node's side of the connection."""

    def __init__(self, place: int, random: Random, now: float) -> None:
        self.place = place
        self.ends: dict[bytes, End] = {}
        self.life = 0
        self.boot(random, now)

    def boot(self, random: Random, now: float) -> None:
        self.life += 1
        self.alive = True
        self.directory = Directory(random, now)
