"""Vouchers that contradict each other and of which neither counts for more: settled with one piece.

The source's list is asked for, a window at a time, and compared with ours (`lists`). At the highest link where they
differ a piece is asked of the source, to be checked against the source's link, unless ours is here already and holds.
One dispute at a time for each blob, a few for each blob in all; and as many as time allows while nothing comes although
neighbours have what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pd.swarm.blob import Blob
from p2pd.swarm.downloads import Downloads
from p2pd.swarm.lists import Comparison
from p2pd.swarm.messages import LINKS_MAX, GetLinks, Vouch
from p2pd.swarm.peer import Peer
from p2pd.swarm.state import State

DISPUTES_MAX = 8  # of one blob: each costs some vouchers and a piece
LIST_S = 4.0  # a source that shows no more of its list for so long has lost the dispute
PIECE_S = 10.0  # ... that has not sent its piece by then
SOURCES_MAX = 4  # neighbours that are asked for our own side of it


@dataclass(slots=True)
class Dispute:
    """One blob's. `source`: whose list it is. `rid`: of the piece that settles it, 0 before it is asked for."""

    source: int
    comparison: Comparison
    ends_at: float
    vouchers: list[Vouch]
    seam: int = -1
    rid: int = 0


class Disputes:
    """All disputes of a node."""

    def __init__(self, state: State, downloads: Downloads) -> None:
        self._s = state
        self._downloads = downloads
        self._of: dict[bytes, Dispute] = {}
        self._had: dict[bytes, int] = {}  # blob -> disputes so far

    def get(self, blob: Blob) -> Dispute | None:
        dispute = self._of.get(blob.digest)
        if dispute and (dispute.ends_at < self._s.now or dispute.source not in self._s.peers):
            del self._of[blob.digest]
            asked = self._downloads.get(dispute.source, dispute.rid)
            if asked:
                self._downloads.cancel(asked)  # it is checked against the source's link, and must not count by ours
            return None
        return dispute

    def open(self, peer: Peer, blob: Blob, voucher: Vouch) -> None:
        """This peer's voucher contradicts our chain: ask for its list from the top."""
        if self.get(blob) or self._had.get(blob.digest, 0) >= DISPUTES_MAX:
            return
        self._had[blob.digest] = self._had.get(blob.digest, 0) + 1
        dispute = self.doubt_ours(peer, blob)
        dispute.vouchers.append(voucher)
        dispute.comparison.hear(voucher)

    def doubt_ours(self, peer: Peer, blob: Blob) -> Dispute:
        """Ask for this peer's list from the top, whether or not anything of it contradicts ours."""
        assert blob.chain
        comparison = Comparison(blob.digest, blob.chain.count)
        dispute = self._of[blob.digest] = Dispute(peer.number, comparison, self._s.now + LIST_S, [])
        self._ask(blob, dispute)
        return dispute

    def hear(self, peer: Peer, blob: Blob, voucher: Vouch) -> None:
        """A voucher whose signature holds; it may be a part of the list that is asked for, or of ours."""
        dispute = self.get(blob)
        if dispute is None or blob.chain is None or dispute.seam >= 0:
            return
        if peer.number == dispute.source:
            dispute.comparison.hear(voucher)
            if len(dispute.vouchers) < LINKS_MAX:
                dispute.vouchers.append(voucher)
        before = dispute.comparison.top
        seam = dispute.comparison.compare(blob.chain.states)
        if seam is not None:
            dispute.seam = seam
            self._settle(blob, dispute)
        elif dispute.comparison.agrees:
            del self._of[blob.digest]
        elif dispute.comparison.top < before:
            dispute.ends_at = self._s.now + LIST_S
            first, _ = dispute.comparison.window
            dispute.vouchers = [
                v for v in dispute.vouchers if v.links.stop > first and v.first <= dispute.comparison.top
            ]
            self._ask(blob, dispute)

    def link(self, rid: int, digest: bytes) -> tuple[bytes, bytes] | None:
        """The source's link, for the piece that settles a dispute."""
        dispute = self._of.get(digest)
        if dispute is None or not dispute.rid or dispute.rid != rid:
            return None
        theirs = dispute.comparison.theirs
        return theirs[dispute.seam], theirs[dispute.seam + 1]

    def settled(self, blob: Blob) -> Dispute | None:
        """The dispute is over; what it was."""
        return self._of.pop(blob.digest, None)

    def forget(self, digest: bytes) -> None:
        self._of.pop(digest, None)
        self._had.pop(digest, None)

    def _ask(self, blob: Blob, dispute: Dispute) -> None:
        """Its side and ours of the next window."""
        first, count = dispute.comparison.window
        message = GetLinks(blob.digest, first, count)
        self._s.send(dispute.source, message)
        others = [n for n in blob.neighbours if n != dispute.source]
        for number in self._s.random.sample(others, min(SOURCES_MAX, len(others))):
            self._s.send(number, message)

    def _settle(self, blob: Blob, dispute: Dispute) -> None:
        """One piece shows whose list is true. Ours, if it is here, has shown it already."""
        dispute.ends_at = self._s.now + PIECE_S
        if blob.present >> dispute.seam & 1:
            del self._of[blob.digest]
        elif blob.missing >> dispute.seam & 1 and dispute.source in blob.neighbours:
            dispute.rid = self._downloads.ask_for_trial(self._s.peers[dispute.source], blob, dispute.seam)
        # else it is on its way by our own list: whoever sends it settles the dispute
