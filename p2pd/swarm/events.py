"""What happens to a node: the events that `Node.handle` takes. With `commands.py` this is the core's whole interface.

`peer` is the shell's number of one live connection; it is never used again after `PeerDown`. `digest` is 32 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from p2pd.swarm.messages import Contact, Message
from p2pd.swarm.voucher import Sign


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A connection is ready: both sides have said Hello. `tracker`: it is one of the configured directories."""

    peer: int
    contact: Contact
    key: bytes
    outbound: bool
    tracker: int = -1  # its place in the configured list, or -1 for a node


@dataclass(frozen=True, slots=True)
class PeerDown:
    peer: int
    why: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """This node has another key from now on, and so another id: its certificate was renewed with a new one. The shell
    ends all connections; they come back under the new id, and what this node holds goes on under it.
    """

    me: Contact
    key: bytes
    sign: Sign


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """`Connect` led to nothing."""

    node_id: bytes


@dataclass(slots=True)
class Received:
    """A message of a peer; all but Hello, Ping and Run, which are the connection's own.

    Not frozen: there are so many that the time to make one counts.
    """

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class PieceStarted:
    """The first bytes of what `rid` asked for have come."""

    peer: int
    rid: int


@dataclass(frozen=True, slots=True)
class PieceChecked:
    """A piece has come whole. `held`: compressing it took the state before to the state after."""

    peer: int
    rid: int
    held: bool


@dataclass(frozen=True, slots=True)
class UploadDone:
    """The last byte of an upload went out (into the kernel), or it was given up. `count`: bytes that were sent."""

    peer: int
    rid: int
    count: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """The store has this blob, proven (at start, or put there by the shell)."""

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The store has a part of this blob: present pieces, each with the states around it and its voucher's bytes."""

    digest: bytes
    size: int
    pieces: Mapping[int, tuple[bytes, bytes, Message | None]]


@dataclass(frozen=True, slots=True)
class Evicted:
    """The store has this blob no more."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class ChainComputed:
    """Answer to `ComputeChain`: the states after each piece, the digest last; None if the file is not the blob."""

    digest: bytes
    states: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class Want:
    """A client or a command wants this blob, or no longer does. Repeated when something about the wish changes.

    `clients`: how many wait for it right now (0 for a prefetch). `size` is -1 while unknown. `can_pull`: this node has
    an upstream for it that is not held back.
    """

    digest: bytes
    size: int
    kind: str
    upstream: str
    repository: str
    clients: int
    can_pull: bool
    alone: bool = False  # pull what is missing, lease or not: for clients that have nowhere else to go


@dataclass(frozen=True, slots=True)
class Unwant:
    digest: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """A local client has stood still for seconds at this piece."""

    digest: bytes
    index: int


@dataclass(frozen=True, slots=True)
class SizeKnown:
    """Upstream's answer, or a proven manifest, told the size."""

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class PieceStored:
    """This node's own pull got a piece and computed the state after it. `seconds`: how long upstream took for it."""

    digest: bytes
    index: int
    after: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class PullEnded:
    """This node's own pull of the range in `Pull` is over. `reason`: "end", "stopped", or one of directory.REASONS."""

    digest: bytes
    reason: str
    retry_s: int = 0


@dataclass(frozen=True, slots=True)
class Members:
    """The whole view that mDNS has now (never a reason to drop anybody)."""

    contacts: tuple[Contact, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """`Node.deadline` has come."""


Event = (
    PeerUp | PeerDown | ConnectFailed | Received | PieceStarted | PieceChecked | UploadDone | Stored | Resumed | Evicted
    | Renamed | ChainComputed | Want | Unwant | Reading | SizeKnown | PieceStored | PullEnded | Members | Tick
)  # fmt: skip
