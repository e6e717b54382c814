"""One blob's swarm at one node: its pieces, its chain, and what the neighbours have of it.

Invariant: a piece is in exactly one state at any time: present (its link held), in flight (asked of peers), pulling
(on its way from upstream), or missing. `check` asserts it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from random import Random

from p2pd.swarm.chain import Chain
from p2pd.swarm.evidence import Doubted
from p2pd.swarm.messages import Vouch
from p2pd.swarm.peer import Peer
from p2pd.swarm.pieces import PIECES_MAX, Geometry, any_of, indices
from p2pd.swarm.zones import Crossing

FALLEN_MAX = 256  # signers of one blob whose vouchers lost; more than that many never held one lease
HOLDERS_MAX = 16  # holders of one lease that are remembered, newest named last
EXCUSES_MAX = 8  # of one node: whose pieces did not fit oftener is asked for nothing more of the blob
CHANCES_MAX = 8  # times that all of them get one more, since this node's own chain fell: who signs can make it fall
EXCUSED_MAX = 256  # nodes whose excuses are counted, the latest ones


@dataclass(slots=True)
class Neighbour:
    """What a connected peer has of this blob."""

    peer: Peer
    have: int = 0
    ahead: int = 0  # pieces here that it was told of before the others were
    count: int = 0  # pieces that it has, as it last said; 0 if it does not say
    wanting: bool = False
    term: int = 0  # of the lease that it says it holds
    unused: int = 0  # what it has of another chain than ours
    strays: int = 0  # pieces that count as such when it gets them: from where its chain is another one
    questioned: int | None = None  # its piece did not fit our link: it was asked for its own
    questioned_at: float = 0.0
    questioned_link: tuple[bytes, bytes] | None = None  # what its piece did not fit
    questioned_again: bool = False  # since a voucher of its showed just that link
    has_left: bool = False  # a chain, since one of its pieces was last excused for that
    shown: dict[int, float] = field(default_factory=dict)  # pieces this seeder showed to it alone -> when
    near: bool = False  # in this node's zone, and does not let us wait
    outranks: int = 0  # if so: pieces that are rather for it to fetch from other zones than for this node


@dataclass(slots=True)
class Want:
    """Why this node wants the blob."""

    kind: str
    upstream: str
    repository: str
    clients: int
    can_pull: bool
    alone: bool


@dataclass(slots=True)
class Blob:
    """The state of one blob. Sets of pieces are integers."""

    digest: bytes
    geometry: Geometry | None = None
    chain: Chain | None = None
    want: Want | None = None
    upstream: str = ""  # of the last want: vouchers name it

    present: int = 0
    flying: int = 0
    pulling: int = 0
    missing: int = 0
    computed: int = 0  # links that this node computed itself, from upstream or from the proven file
    copies: dict[int, int] = field(default_factory=dict)  # piece in flight -> requests out for it (1 or 2)

    neighbours: dict[int, Neighbour] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)  # neighbours that have a piece, in binary: bit n of all pieces at n

    crossing: Crossing = field(default_factory=Crossing)  # what may be asked for in other zones

    told: list[int] = field(default_factory=list)  # pieces here that the neighbours of each turn to hear were told of
    usual_count: float = 0.0  # pieces that those who want more have, as their news say
    last_piece_at: float = 0.0
    wanted_since: float = 0.0
    reading: int = -1  # where a local client stands still
    proven: bool = False
    # the lease
    term: int = 0  # of the lease that this node holds, 0 without one
    given_back: int = 0  # the term of the lease that this node gave back last: an answer that names it is a late one
    holder: bytes = b""  # who holds it, as far as this node knows
    holder_reached: int = -1  # the highest link that the holder itself has vouched for to us
    holder_spoke_at: float = 0.0  # when it vouched for a higher one than before
    left: int = 0  # pieces that went out from here at least once while this node seeds
    seeding: bool = False  # pieces are shown one by one, not announced
    handed_on: bool = False  # this node gave the lease away, because its line is slow: it does so once
    alone: bool = False  # pulling outside the lease, for a client that has nowhere else to go
    pull_out: bool = False  # a Pull was ordered whose end has not been heard of
    computing: bool = False  # the states of a proven blob are being computed
    # whose word counts
    holders: dict[bytes, int] = field(default_factory=dict)  # node -> the highest term of its that a directory named
    doubted: Doubted = field(default_factory=Doubted)
    proofs: dict[int, Vouch] = field(default_factory=dict)  # its first link -> this node's own, of the proven blob
    refuted: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)  # links that own pulling refutes
    shown_at: float = 0.0  # when the others last heard how far the pull that refutes it has come
    fallen: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # signer -> from which link on, up to which term
    excused: dict[bytes, int] = field(default_factory=dict)  # node -> how often its piece may have been another chain's
    chances: int = 0  # times that each of them got one more
    betrayed_by: bytes = b""  # whose own piece did not fit its own link
    link_failures: dict[int, dict[bytes, None]] = field(default_factory=dict)  # link -> nodes whose piece did not fit

    def set_size(self, size: int) -> None:
        """The size is known now, for good."""
        if self.geometry is None:
            self.geometry = Geometry.of(size)
            self.chain = Chain(self.digest, self.geometry.count)
            self.missing = self.geometry.all

    def holder_named(self, node: bytes, term: int) -> bool:
        """A directory says who holds the lease; whether that is news."""
        if node != self.holder:
            self.holder_reached = -1
        self.holder = node
        if term <= self.holders.get(node, 0):
            return False
        self.holders.pop(node, None)
        self.holders[node] = term
        if len(self.holders) > HOLDERS_MAX:
            del self.holders[next(iter(self.holders))]
        return True

    def holder_vouches(self, link: int, now: float) -> None:
        """The holder itself shows that it has come as far as this link."""
        if link > self.holder_reached:
            self.holder_reached, self.holder_spoke_at = link, now

    @property
    def quiet_since(self) -> float:
        """Since when nothing has moved for this node: neither a piece came, nor did the holder get on."""
        return max(self.last_piece_at, self.wanted_since, self.holder_spoke_at)

    def link(self, index: int) -> tuple[bytes, bytes] | None:
        """The states that piece `index` is checked against; None while nobody has vouched for the two together.

        Two vouchers that meet make no link: else nobody would have signed a false one between them.
        """
        if self.chain is None:
            return None
        if self.chain.count == 1 or index in self.chain.vouchers or self.computed >> index & 1:
            return self.chain.link(index)
        return None

    def fell(self, key: bytes, link: int, term: int) -> None:
        """A signer's vouchers lost against one that counts for more: from this link on they are of another chain."""
        if key in self.fallen or len(self.fallen) < FALLEN_MAX:
            lowest, highest = self.fallen.get(key, (link, term))
            self.fallen[key] = (min(lowest, link), max(highest, term))

    def has_fallen(self, voucher: Vouch) -> bool:
        link, term = self.fallen.get(voucher.key, (PIECES_MAX, -1))
        return voucher.term <= term and voucher.links.stop > link

    def excuse(self, node: bytes) -> bool:
        """Whether a node's piece that does not fit may be of another chain once more: by node, not by connection."""
        times = self.excused.pop(node, 0)
        self.excused[node] = min(times, EXCUSES_MAX) + 1
        if len(self.excused) > EXCUSED_MAX:
            del self.excused[next(iter(self.excused))]
        return times < EXCUSES_MAX

    def is_past_excuse(self, node: bytes) -> bool:
        """Whether it has sent one more since: nothing more is asked of it."""
        return self.excused.get(node, 0) > EXCUSES_MAX

    def excuse_once_more(self) -> None:
        """This node's own chain fell: it may have been the wrong one."""
        if self.chances >= CHANCES_MAX:
            return
        self.chances += 1
        for node, times in self.excused.items():
            self.excused[node] = min(times, EXCUSES_MAX)

    @property
    def complete(self) -> bool:
        return self.geometry is not None and self.present == self.geometry.all

    @property
    def hungry(self) -> bool:
        """Whether pieces are still to be got."""
        return self.want is not None and not self.complete

    def check(self) -> None:
        """The invariant of the module's first lines."""
        if self.geometry:
            sets = (self.present, self.flying, self.pulling, self.missing)
            assert sum(s.bit_count() for s in sets) == self.geometry.count, self
            assert self.present | self.flying | self.pulling | self.missing == self.geometry.all, self
            assert set(indices(self.flying)) == set(self.copies), self

    # -- pieces -----------------------------------------------------------------------------------------------------

    def fly(self, index: int) -> None:
        """One more request is out for a piece."""
        bit = 1 << index
        assert (self.missing | self.flying) & bit
        self.missing &= ~bit
        self.flying |= bit
        self.copies[index] = self.copies.get(index, 0) + 1

    def land(self, index: int) -> None:
        """One request less is out for a piece; with the last one it is missing again (unless it came)."""
        if index not in self.copies:
            return
        self.copies[index] -= 1
        if not self.copies[index]:
            del self.copies[index]
            self.flying &= ~(1 << index)
            self.missing |= 1 << index

    def arrive(self, index: int) -> None:
        """A piece's link held: it is present."""
        bit = 1 << index
        self.copies.pop(index, None)
        self.flying &= ~bit
        self.pulling &= ~bit
        self.missing &= ~bit
        self.present |= bit

    def plan_pull(self, pieces: int) -> None:
        """These missing pieces are on their way from upstream."""
        self.pulling |= pieces & self.missing
        self.missing &= ~pieces

    def end_pull(self) -> None:
        self.missing |= self.pulling
        self.pulling = 0

    def lose(self, pieces: int) -> int:
        """Pieces whose links are void are missing again; returns those that were present."""
        lost = self.present & pieces
        self.present &= ~lost
        self.told = [told & ~lost for told in self.told]
        self.left &= ~lost
        self.computed &= ~pieces
        self.missing |= lost
        return lost

    # -- neighbours -------------------------------------------------------------------------------------------------

    def neighbour_has(self, neighbour: Neighbour, pieces: int) -> int:
        """Add to what a neighbour has; returns what is new of it."""
        new = pieces & ~neighbour.have
        neighbour.have |= new
        if new:
            self._count(new)
            if neighbour.near:
                self.crossing.near_have |= new
        return new

    def neighbour_lacks(self, neighbour: Neighbour, pieces: int) -> None:
        """Take away from what a neighbour has."""
        gone = pieces & neighbour.have
        neighbour.have &= ~gone
        self._discount(gone)
        if gone and neighbour.near:
            self._gather_near()

    def remove_neighbour(self, peer: int) -> None:
        neighbour = self.neighbours.pop(peer, None)
        if neighbour:
            self.neighbour_lacks(neighbour, neighbour.have)
            if neighbour.near:
                self.near_changed()

    def near_changed(self) -> None:
        """A neighbour of this node's zone came, left, or wants pieces now, or no more, or its word counts no more."""
        near = [n for n in self.neighbours.values() if n.near]
        self._gather_near()
        self.crossing.members_changed([n.outranks for n in near if n.wanting], len(near))

    def _gather_near(self) -> None:
        have = 0
        for neighbour in self.neighbours.values():
            if neighbour.near:
                have |= neighbour.have
        self.crossing.near_have = have

    def useful(self, neighbour: Neighbour, pieces: int) -> int:
        """What of `pieces` this neighbour is to be asked for: all that it has, unless it is in another zone."""
        useful = neighbour.have & pieces
        return useful if neighbour.near or not useful else useful & self.crossing.open

    def available(self, but: Container[int] = ()) -> int:
        """What the neighbours have between them, leaving out those in `but`."""
        pieces = 0
        for number, neighbour in self.neighbours.items():
            if number not in but:
                pieces |= neighbour.have
        return pieces

    def rarest(self, pieces: int, random: Random) -> int:
        """A member of `pieces` that the fewest neighbours have."""
        for bits in reversed(self.counts):
            fewer = pieces & ~bits
            if fewer:
                pieces = fewer
        return any_of(pieces, random)

    def _count(self, pieces: int) -> None:
        """One neighbour more has these: binary addition, of all pieces at once."""
        for place, bits in enumerate(self.counts):
            self.counts[place] = bits ^ pieces
            pieces &= bits
            if not pieces:
                return
        self.counts.append(pieces)

    def _discount(self, pieces: int) -> None:
        """One neighbour less has these."""
        for place, bits in enumerate(self.counts):
            if not pieces:
                return
            self.counts[place] = bits ^ pieces
            pieces &= ~bits
