"""What neighbours say that they have: all of it (Join), or the news of it (Have, News). The other side of `telling`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2pd.swarm.announcing import Announcer
from p2pd.swarm.blob import Blob, Neighbour
from p2pd.swarm.downloads import Downloads
from p2pd.swarm.messages import Have, Join, Leave, News
from p2pd.swarm.peer import Peer
from p2pd.swarm.pieces import unpack
from p2pd.swarm.seeding import Seeder
from p2pd.swarm.state import NEVER, State
from p2pd.swarm.telling import Teller
from p2pd.swarm.trust import Trust
from p2pd.swarm.uploads import FULL
from p2pd.swarm.zones import outranks

BLOBS_OF_PEER_MAX: Final = 1024  # blobs in which one peer may be our neighbour


class Hearer:
    """The neighbours of all blobs. `bring_in`: a blob that is on disk into the swarm, if it is there."""

    def __init__(
        self,
        state: State,
        downloads: Downloads,
        seeder: Seeder,
        announcer: Announcer,
        teller: Teller,
        trust: Trust,
        bring_in: Callable[[bytes], Blob | None],
    ) -> None:
        self._s = state
        self._downloads = downloads
        self._seeder = seeder
        self._announcer = announcer
        self._teller = teller
        self._trust = trust
        self._bring_in = bring_in

    def joined(self, peer: Peer, m: Join) -> None:
        """A peer takes part in a blob, or tells anew all that it has of it."""
        blob = self._s.blobs.get(m.digest)
        if blob is None:
            blob = self._bring_in(m.digest) if m.wanting else None
            if blob is None:
                return
        if blob.geometry is None or m.size != blob.geometry.size or len(peer.blobs) >= BLOBS_OF_PEER_MAX:
            return
        try:
            pieces = unpack(m.pieces, blob.geometry.count)
        except ValueError:
            self._s.blame(peer, "a set of pieces that does not fit the blob", blob)
            return
        new = m.digest not in peer.blobs
        neighbour = blob.neighbours.setdefault(peer.number, Neighbour(peer))
        peer.blobs[m.digest] = None
        if new and self._s.is_near(peer.contact):
            neighbour.near = not peer.lets_wait
            me, other = self._s.me.node_id, peer.contact.node_id
            neighbour.outranks = outranks(blob.digest, other, me, blob.geometry.count)
        useful = self._trust.has_told(blob, neighbour, pieces)
        blob.neighbour_lacks(neighbour, neighbour.have & ~useful)
        blob.neighbour_has(neighbour, useful)
        wants_now = m.wanting and not neighbour.wanting  # so far it was told of nothing new
        near_changes = neighbour.near and (new or m.wanting != neighbour.wanting)
        neighbour.wanting, neighbour.term = m.wanting, m.term
        if near_changes:
            blob.near_changed()
        peer.load, peer.load_at = m.load, self._s.now
        self._note_line(peer, m.rate)
        if (new or wants_now) and (blob.present or blob.hungry) and not blob.computing:
            self._teller.join(peer, blob)
        if m.term:
            self._announcer.claimed(blob, peer, m.term)
        self._seeder.neighbour_has(blob, peer.number, pieces)
        self._seeder.neighbours_changed(blob)
        if new and blob.handed_on:
            self._seeder.successor_named(blob)

    def _note_line(self, peer: Peer, rate: int) -> None:
        """How fast a peer says that it sends. Until it has sent to us, one transfer is expected to be as fast."""
        if rate:
            peer.line = float(rate)
            peer.rate = peer.rate or peer.line

    def left(self, peer: Peer, m: Leave) -> None:
        """A peer takes part no more."""
        blob = self._s.blobs.get(m.digest)
        peer.blobs.pop(m.digest, None)
        if blob and peer.number in blob.neighbours:
            blob.remove_neighbour(peer.number)
            self._seeder.neighbours_changed(blob)

    def news(self, peer: Peer, m: News) -> None:
        """News of several blobs."""
        for have in m.haves:
            self.has(peer, have)

    def has(self, peer: Peer, m: Have) -> None:
        """News of one: pieces that are there now, and how busy the peer's line is."""
        peer.load, peer.load_at = m.load, self._s.now
        if m.load < FULL:  # not always with pieces: who was refused hears when there is room
            peer.not_before = min(peer.not_before, self._s.now) if peer.not_before < NEVER else NEVER
        blob = self._s.blobs.get(m.digest)
        neighbour = blob.neighbours.get(peer.number) if blob else None
        if not blob or not neighbour or not blob.geometry:
            return
        self._note_line(peer, m.rate)
        geometry = blob.geometry
        pieces = 0
        for index in m.pieces:
            pieces |= 1 << index
        if pieces.bit_length() > geometry.count:
            self._s.blame(peer, "news of a piece that the blob does not have", blob)
            return
        if m.count > geometry.count:
            self._s.blame(peer, "news of more pieces than the blob has", blob)
            return
        if m.count and neighbour.wanting:
            blob.usual_count += 0.1 * (m.count - blob.usual_count)
        if neighbour.strays:
            neighbour.unused |= pieces & neighbour.strays
            pieces &= ~neighbour.strays
        blob.neighbour_has(neighbour, pieces)
        if m.term:
            self._announcer.claimed(blob, peer, m.term)
            if blob.hungry and m.pieces:
                self._downloads.claim(peer, blob, pieces)
        if blob.missing:
            if neighbour.have & blob.missing and blob.want:
                self._downloads.offered(peer, blob, neighbour)
        elif blob.hungry:
            self._downloads.look()  # the end: any news may show what is worth asking for twice
        if blob.seeding and pieces:
            self._seeder.neighbour_has(blob, peer.number, pieces)
            self._seeder.neighbours_changed(blob)
        if neighbour.wanting and neighbour.have.bit_count() == geometry.count:
            neighbour.wanting = False
            if neighbour.near:
                blob.near_changed()
            self._seeder.neighbours_changed(blob)
