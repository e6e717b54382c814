"""What a node is to do: the commands that `Node.handle` returns, to be carried out in order."""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.swarm.messages import Contact, Message, Vouch


@dataclass(slots=True)
class Send:
    """Queue this message to that peer. Not frozen: there are so many that the time to make one counts."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class Connect:
    """Try to reach that node; `PeerUp` or `ConnectFailed` follows."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class Close:
    """End that connection; `PeerDown` follows."""

    peer: int
    why: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """A request went out (its message comes behind): be ready to take the piece in, check it against the link."""

    peer: int
    rid: int
    digest: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """What `rid` asked for is not wanted any more: throw away what comes of it. No `PieceChecked` follows."""

    peer: int
    rid: int


@dataclass(frozen=True, slots=True)
class Upload:
    """Send that piece in runs, behind these vouchers; `UploadDone` follows."""

    peer: int
    rid: int
    digest: bytes
    index: int
    vouchers: tuple[Vouch, ...]


@dataclass(frozen=True, slots=True)
class StopUpload:
    """Stop at the next run; `UploadDone` follows."""

    peer: int
    rid: int


@dataclass(frozen=True, slots=True)
class Keep:
    """A piece is present: remember it with its states and voucher (`voucher` is None for what this node pulled)."""

    digest: bytes
    index: int
    before: bytes
    after: bytes
    voucher: Vouch | None


@dataclass(frozen=True, slots=True)
class Drop:
    """These pieces rest on a refuted chain: forget them, cut clients off that read them."""

    digest: bytes
    pieces: int


@dataclass(frozen=True, slots=True)
class Prove:
    """Every link holds: give the blob its final name."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class ComputeChain:
    """A peer wants a proven blob whose states are not in memory: compute them; `ChainComputed` follows."""

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Get pieces [first, end) from upstream, from the state before the first one; `PullEnded` follows.

    `end` is -1 while the size is unknown: to the end. Bytes beyond `Allow` wait.
    """

    digest: bytes
    first: int
    end: int
    before: bytes


@dataclass(frozen=True, slots=True)
class Allow:
    """The pull may take pieces below `end`."""

    digest: bytes
    end: int


@dataclass(frozen=True, slots=True)
class StopPull:
    """Stop at the next piece; `PullEnded` follows."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Nobody who wants this blob can get it: say so to the clients. `reason` is one of directory.REASONS."""

    digest: bytes
    reason: str
    hold_s: int


@dataclass(frozen=True, slots=True)
class SizeHint:
    """Others say that the blob has this size: good enough for a manifest, which nobody sees before it is proven."""

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Blame:
    """A peer did what no honest node does; it is avoided for a while. For the log and a metric."""

    node_id: bytes
    name: str
    reason: str
    digest: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Convict:
    """The blob is proven, and link `index` of that voucher is not in it although its state-before is: keep that.

    `contact`: who signed it, as far as this node has met it. `cases`: blobs on which that signer was convicted here.
    """

    voucher: Vouch
    index: int
    contact: Contact | None
    cases: int


@dataclass(frozen=True, slots=True)
class Count:
    """Something to count: duplicate (bytes), refused (requests), hedged (requests), handed on (leases)."""

    what: str
    amount: int


Command = (
    Send | Connect | Close | Fetch | Abandon | Upload | StopUpload | Keep | Drop | Prove | ComputeChain | Pull | Allow
    | StopPull | Failed | SizeHint | Blame | Convict | Count
)  # fmt: skip
