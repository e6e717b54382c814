"""What the parts of a node share: its peers, its blobs, the time of the event in hand, and the commands so far.

Owned by `Node`; the other parts (downloads, uploads, seeding, announcing) are handed it and hold nothing that another
one needs to know.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from random import Random
from typing import Final

from p2pd.swarm.blob import Blob
from p2pd.swarm.commands import Blame, Close, Command, Send
from p2pd.swarm.messages import LINKS_MAX, Contact, Message, Vouch
from p2pd.swarm.peer import Peer
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import Sign, Verify, make_voucher

NEVER: Final = float("inf")
PROVED_TERM: Final = 1 << 40  # of a voucher for what its signer proved: above every lease's term, so never retracted
AVOIDED_MAX: Final = 4096
BRIEF_S: Final = 1.0  # a connection that ends sooner brought nothing
BRIEF_FREE: Final = 2  # such ones in a row: both sides may have called at once
BRIEF_WAIT_MAX_S: Final = 60.0  # the wait doubles from BRIEF_S to this
BRIEF_MAX: Final = 4096  # nodes of which that is remembered
MET_MAX: Final = 4096  # nodes whose names are remembered, for when one of their signatures turns out false


@dataclass(slots=True)
class Brief:
    """How often in a row a node was connected for a moment only, and until when it is left alone for that."""

    times: int
    until: float


@dataclass(slots=True)
class State:
    me: Contact
    key: bytes
    sign: Sign
    verify: Verify
    random: Random
    settings: Settings
    now: float = 0.0
    out: list[Command] = field(default_factory=list)
    peers: dict[int, Peer] = field(default_factory=dict)
    by_node: dict[bytes, int] = field(default_factory=dict)
    blobs: dict[bytes, Blob] = field(default_factory=dict)
    stored: OrderedDict[bytes, int] = field(default_factory=OrderedDict)  # proven, on disk: digest -> size; newest last
    avoided: dict[bytes, float] = field(default_factory=dict)  # node id -> until when
    brief: dict[bytes, Brief] = field(default_factory=dict)  # node id -> its last connections
    met: OrderedDict[bytes, Contact] = field(default_factory=OrderedDict)  # nodes ever connected; newest last
    pulls: dict[bytes, None] = field(default_factory=dict)  # blobs that are being pulled from upstream
    pull_slowed: bool = False  # upstream's last pieces took longer than its best ones

    def silent_peers(self) -> set[int]:
        """Those whose word that they have something is not to be relied on now."""
        return {number for number, peer in self.peers.items() if peer.silent}

    def send(self, peer: int, message: Message) -> None:
        self.out.append(Send(peer, message))

    def blame(self, peer: Peer, reason: str, blob: Blob | None = None, index: int = -1) -> None:
        """Avoid a peer for a while, say why, and end its connection."""
        if len(self.avoided) < AVOIDED_MAX:
            self.avoided[peer.contact.node_id] = self.now + self.settings.avoid_s
        digest = blob.digest if blob else bytes(32)
        peer.not_before = NEVER  # nothing more is asked of it while the connection ends
        self.out.append(Blame(peer.contact.node_id, peer.contact.name, reason, digest, index))
        self.out.append(Close(peer.number, reason))

    def meet(self, contact: Contact) -> None:
        """A node is connected: remember what it calls itself."""
        self.met[contact.node_id] = contact
        self.met.move_to_end(contact.node_id)
        if len(self.met) > MET_MAX:
            self.met.popitem(last=False)

    def is_near(self, contact: Contact) -> bool:
        """Whether a node is in this node's zone."""
        return bool(self.me.zone) and contact.zone == self.me.zone

    def is_avoided(self, node_id: bytes) -> bool:
        until = self.avoided.get(node_id)
        if until is not None and until <= self.now:
            del self.avoided[node_id]
            return False
        return until is not None

    def ended(self, peer: Peer) -> None:
        """A connection is over. One that closes it again and again at once must not keep both of us, and the directory,
        at it without end; nor does what it says it has count anew each time."""
        node = peer.contact.node_id
        before = self.brief.pop(node, None)
        if self.now - peer.since >= BRIEF_S:
            return
        times = before.times + 1 if before else 1
        pause = min(BRIEF_WAIT_MAX_S, BRIEF_S * 2.0 ** min(times - BRIEF_FREE - 1, 16)) if times > BRIEF_FREE else 0.0
        self.brief[node] = Brief(times, self.now + pause)
        if len(self.brief) > BRIEF_MAX:
            del self.brief[next(iter(self.brief))]

    def is_brief(self, node_id: bytes) -> bool:
        """Whether a node is left alone for now, since its connections end as soon as they are there."""
        brief = self.brief.get(node_id)
        return brief is not None and brief.until > self.now

    def is_left_alone(self, node_id: bytes) -> bool:
        """Whether a node is not to be called now."""
        return self.is_avoided(node_id) or self.is_brief(node_id)

    def voucher_term(self, blob: Blob) -> int:
        """The term of vouchers signed now: the lease's, but above what this node took back."""
        assert blob.chain
        return PROVED_TERM if blob.proven else max(blob.term, blob.chain.retracted.get(self.key, 0) + 1)

    def proofs(self, blob: Blob, first: int, end: int) -> list[Vouch]:
        """Vouchers for links of a proven blob, on this node's own word: others may refuse those that proved it here.

        Each serves a run of LINKS_MAX links and is signed once, however often and for whatever part of it one asks.
        """
        assert blob.chain and blob.geometry and blob.proven
        starts = range(first - first % LINKS_MAX, end, LINKS_MAX)
        for start in starts:
            if start not in blob.proofs:
                places = range(start, min(start + LINKS_MAX, blob.geometry.count) + 1)
                states, size = [blob.chain.states[i] for i in places], blob.geometry.size
                blob.proofs[start] = make_voucher(
                    self.sign, self.key, blob.upstream, blob.digest, size, PROVED_TERM, start, states
                )
        return [blob.proofs[start] for start in starts]

    def vouchers_for(self, blob: Blob, index: int) -> tuple[Vouch, ...]:
        """The voucher that covers a link, made and signed now if this node computed the link itself."""
        chain = blob.chain
        assert chain and blob.geometry
        if blob.geometry.count == 1:
            return ()
        if index not in chain.vouchers:
            # Sign the whole run that has gathered around it: one signature serves many links. Only links that this
            # node computed itself: a voucher for another's would outlive that other's retraction.
            own = blob.computed
            start, end = index, index + 1
            while start > 0 and index - start < LINKS_MAX // 2 and own >> (start - 1) & 1:
                if start - 1 in chain.vouchers:
                    break
                start -= 1
            while end - start < LINKS_MAX and own >> end & 1 and end not in chain.vouchers:
                end += 1
            states = [chain.states[i] for i in range(start, end + 1)]
            size = blob.geometry.size
            term = self.voucher_term(blob)
            chain.add(make_voucher(self.sign, self.key, blob.upstream, blob.digest, size, term, start, states))
        return (chain.vouchers[index],)
