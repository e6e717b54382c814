"""Whose word counts: vouchers that come, contradict each other, or turn out false; and what falls with them.

Between two vouchers that contradict each other the order is:
1. what this node computed itself from upstream's bytes, and the two ends of the chain, which the digest fixes;
2. the holder of the lease that a directory named, the newest lease first; the same signer's later term before its
   earlier one;
3. of all others the one that came first. The other one is kept, and a dispute settles it where that is possible: see
   `disputes`.

What loses is kept, within bounds, until the blob is proven: then it convicts its signer, if it holds a link that the
signer answers for (`evidence`). Before that it is word against word, and only this node acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pd.swarm import events as ev
from p2pd.swarm.announcing import Announcer
from p2pd.swarm.blob import Blob, Neighbour
from p2pd.swarm.chain import CONTRADICTS, Chain
from p2pd.swarm.commands import Blame, Convict, Drop
from p2pd.swarm.disputes import Disputes
from p2pd.swarm.downloads import Asked, Downloads
from p2pd.swarm.evidence import Accusations, Cases, accusation, accused, false_link
from p2pd.swarm.messages import Accuse, GetLinks, Retract, Vouch
from p2pd.swarm.peer import Peer
from p2pd.swarm.pieces import indices, prefix_end
from p2pd.swarm.seeding import Seeder
from p2pd.swarm.state import State
from p2pd.swarm.telling import Teller
from p2pd.swarm.uploads import Uploads
from p2pd.swarm.voucher import make_retraction, node_id, retraction_holds, voucher_holds

MISFIT = "a piece that does not fit its link"
ANSWER_S = 2.0  # a neighbour that is asked for its link is asked for nothing else for so long, unless it answers
SHOWN_S = 1.0  # between two signs of how far a pull is that begins anew
SUSPECT_LINK_AFTER = 2  # nodes whose piece did not fit a link: then the link is the liar, not they


class Trust:
    """One node's judgement of what others signed."""

    def __init__(
        self,
        state: State,
        uploads: Uploads,
        downloads: Downloads,
        seeder: Seeder,
        announcer: Announcer,
        teller: Teller,
    ) -> None:
        self._s = state
        self._uploads = uploads
        self._downloads = downloads
        self._seeder = seeder
        self._announcer = announcer
        self._teller = teller
        self._accusations = Accusations()
        self.disputes = Disputes(state, downloads)
        self.cases = Cases()

    # -- vouchers that come -----------------------------------------------------------------------------------------

    def vouched(self, peer: Peer, m: Vouch) -> None:
        """A peer hands on a voucher."""
        blob = self._s.blobs.get(m.digest)
        if blob is None or blob.chain is None or blob.geometry is None or blob.complete:
            return
        chain = blob.chain
        if m.key == peer.key and peer.contact.node_id == blob.holder:
            blob.holder_vouches(m.links.stop - 1, self._s.now)
        if self._answered(peer, blob, m):
            return
        if all(chain.vouchers.get(index) == m for index in m.links):
            self._of_use(peer, blob, m)
            return
        problem = chain.accepts(m, blob.geometry.size)
        if problem is None and blob.has_fallen(m):
            problem = CONTRADICTS  # with what was here before
        if problem not in (None, CONTRADICTS) or self.cases.is_barred(m.key, self._s.now):
            self._of_no_use(peer, blob, m)
            return
        if problem and m.signature in blob.doubted.vouchers and not self._outranks(blob, m):
            self._contradicted(peer, blob, m)
            return
        if problem is None and all(index in chain.vouchers for index in m.links):
            self._of_use(peer, blob, m)
            self.disputes.hear(peer, blob, m)  # nothing new in it: not worth a check of its signature
            return
        if problem and not blob.doubted.has_room_for(m) and not self._outranks(blob, m):
            self._of_no_use(peer, blob, m)
            return
        if not voucher_holds(m, self._s.verify):
            self._s.blame(peer, "a voucher whose signature is wrong", blob, m.first)
            return
        if problem is None:
            chain.add(m)
            self._of_use(peer, blob, m)
            self.disputes.hear(peer, blob, m)
        elif self._outranks(blob, m):
            self._displace(blob, m, peer.number)
        else:
            blob.doubted.keep([m])
            self._contradicted(peer, blob, m)

    def _contradicted(self, peer: Peer, blob: Blob, m: Vouch) -> None:
        """A voucher that holds, and counts for no more than what it contradicts."""
        assert blob.chain
        self._of_no_use(peer, blob, m)
        dispute = self.disputes.get(blob)
        if dispute:
            self.disputes.hear(peer, blob, m)
        elif not any(node_id(v.key) == blob.holder and self._rank(blob, v) for v in self._against(blob, m)):
            self.disputes.open(peer, blob, m)

    def _against(self, blob: Blob, m: Vouch) -> list[Vouch]:
        """The vouchers that hold the states which it contradicts."""
        assert blob.chain
        links = {i for place in blob.chain.contradicted(m) for i in (place - 1, place)}
        return [blob.chain.vouchers[i] for i in sorted(links) if i in blob.chain.vouchers]

    def holder_named(self, blob: Blob) -> None:
        """A directory named a holder that this node did not know of: what it signed may count now."""
        if blob.chain is None or blob.geometry is None or blob.complete:
            return
        for voucher in list(blob.doubted.vouchers.values()):
            if node_id(voucher.key) != blob.holder or self.cases.is_barred(voucher.key, self._s.now):
                continue
            if blob.chain.accepts(voucher, blob.geometry.size) == CONTRADICTS and self._outranks(blob, voucher):
                self._displace(blob, voucher, -1)

    def _of_no_use(self, peer: Peer, blob: Blob, m: Vouch) -> None:
        """What this peer has rests on another chain than ours. It need not know."""
        neighbour = blob.neighbours.get(peer.number)
        if neighbour is None or blob.geometry is None:
            return
        bits = ((1 << len(m.links)) - 1) << m.first
        neighbour.unused |= neighbour.have & bits
        blob.neighbour_lacks(neighbour, bits & blob.geometry.all)
        for index in m.links:
            for asked in self._downloads.of_piece(blob.digest, index):
                if asked.peer == peer.number:
                    self._downloads.cancel(asked)

    def _of_use(self, peer: Peer, blob: Blob, m: Vouch) -> None:
        """This peer shows links that are ours, too: what it has of them is of our chain after all."""
        neighbour = blob.neighbours.get(peer.number)
        if neighbour is None or neighbour.questioned is not None:
            return
        again = neighbour.unused & (((1 << len(m.links)) - 1) << m.first) & ~neighbour.strays
        if again:
            neighbour.unused &= ~again
            blob.neighbour_has(neighbour, again)
            self._downloads.look()

    def gets_nothing(self, blob: Blob) -> None:
        """Nothing comes. If neighbours have what is missing, but of another chain than ours, ours may be the false one.

        It is compared with that of one who has most of it, or who wants nothing more: a seeder hides what it has.
        """
        if blob.chain is None or self.disputes.get(blob):
            return
        others = {number: neighbour.unused & blob.missing for number, neighbour in blob.neighbours.items()}
        most = max((pieces.bit_count() for pieces in others.values()), default=0)
        sources = [n for n, pieces in others.items() if pieces.bit_count() == most > 0]
        sources = sources or [n for n, neighbour in blob.neighbours.items() if not neighbour.wanting]
        if sources:
            self.disputes.doubt_ours(self._s.peers[self._s.random.choice(sources)], blob)

    def _rank(self, blob: Blob, voucher: Vouch) -> int:
        """The term of the lease that a directory named this signer for, if it signed under it; else 0."""
        term = blob.holders.get(node_id(voucher.key), 0)
        return term if voucher.term >= term else 0

    def _counts_more(self, blob: Blob, m: Vouch, other: Vouch) -> bool:
        """Whether a voucher counts for more than another: the same signer's later one, else the newer lease's."""
        if other.key == m.key:
            return m.term > other.term
        return self._rank(blob, m) > self._rank(blob, other)

    def _outranks(self, blob: Blob, m: Vouch) -> bool:
        """Whether a voucher that contradicts the chain counts for more than all that it contradicts."""
        chain = blob.chain
        assert chain
        if blob.has_fallen(m):
            return False
        for place in chain.contradicted(m):
            if place in (0, chain.count) or blob.computed >> max(0, place - 1) & 0b11:
                return False
            against = [chain.vouchers[i] for i in (place - 1, place) if i in chain.vouchers]
            if not against:
                return False
            if not all(self._counts_more(blob, m, other) for other in against):
                return False
        return True

    def _displace(self, blob: Blob, m: Vouch, bringer: int) -> None:
        """A voucher that counts for more: what contradicts it falls, and what stands on that. The others hear of it."""
        chain = blob.chain
        assert chain
        lowest = chain.contradicted(m)[0] - 1
        weaker = {i for i in range(lowest, chain.count)}
        weaker -= {i for i, v in chain.vouchers.items() if v.key != self._s.key and not self._counts_more(blob, m, v)}
        signers = {chain.vouchers[i].key for i in (lowest, lowest + 1) if i in chain.vouchers}
        losers = {voucher.key for voucher in self._against(blob, m)} - {self._s.key}
        for index in weaker:
            voucher = chain.vouchers.get(index)
            if voucher and voucher.key in losers:  # who vouched only for what lies above may be right: it may come anew
                blob.fell(voucher.key, index, voucher.term)
        self._forget(blob, weaker)
        for key in signers:
            self._blame_signer(key, "vouched for other states than the holder of the lease", blob, lowest)
        if chain.accepts(m, m.size) is None:
            chain.add(m)
            for number in blob.neighbours:
                if number != bringer:
                    self._s.send(number, m)

    def piece_held(self, blob: Blob, asked: Asked) -> None:
        """A piece fits. If it was the one that settles a dispute, ours is the false list."""
        dispute = self.disputes.get(blob)
        if dispute is None or dispute.seam != asked.index:
            return
        self.disputes.settled(blob)
        if dispute.rid != asked.rid or blob.chain is None or blob.geometry is None:
            return  # ours: the source's list is false, and those who signed it are found when the blob is proven
        chain, theirs = blob.chain, dispute.comparison.theirs
        # What said nothing new was heard unchecked; it must not be handed on, nor speak for whom it names.
        signed = [v for v in dispute.vouchers if voucher_holds(v, self._s.verify)]
        for voucher in signed:
            theirs |= {p: state for p, state in enumerate(voucher.states, voucher.first) if p <= dispute.seam}
        differ = {p for p, state in theirs.items() if chain.states.get(p, state) != state}
        losers = [chain.vouchers[i] for i in (dispute.seam - 1, dispute.seam) if i in chain.vouchers]
        signers = {voucher.key for voucher in losers} - {self._s.key}
        for voucher in signed:
            blob.fallen.pop(voucher.key, None)
        for place in sorted(differ):  # the digest says so: no lease of theirs counts against that
            for ours in (chain.vouchers.get(place - 1), chain.vouchers.get(place)):
                if ours and ours.key in signers:
                    blob.fell(ours.key, max(0, place - 1), ours.term)
        self._forget(blob, {i for p in differ for i in (p - 1, p) if i >= 0})
        for key in signers:
            self._blame_signer(key, "a list of states whose piece does not fit", blob, dispute.seam)
        for voucher in signed:
            if chain.accepts(voucher, blob.geometry.size) is None:
                chain.add(voucher)

    def forget(self, blob: Blob) -> None:
        self.disputes.forget(blob.digest)

    # -- pieces that do not fit -------------------------------------------------------------------------------------

    def bad_piece(self, peer: Peer, blob: Blob, asked: Asked) -> None:
        """A piece that does not fit its link. The sender is to blame, or the link, if nobody's piece fits.

        Two liars must not be able to talk a node out of a true chain: a link counts as false only if nothing above it,
        of the same signer, has ever fitted. Whoever forges a state can't bring pieces that fit behind it.
        """
        listed = self.disputes.link(asked.rid, asked.digest)
        if self._has_left(peer, blob, asked):
            if listed:
                self.disputes.settled(blob)
            return
        if listed:
            self.disputes.settled(blob)
            self._question(peer, blob, asked, listed)
            return
        failures = blob.link_failures.setdefault(asked.index, {})
        failures[peer.contact.node_id] = None
        voucher = blob.chain.vouchers.get(asked.index) if blob.chain else None
        if voucher and voucher.key == peer.key:
            # Its own piece does not fit its own link: whatever of the two is wrong, it will not seed this to the end.
            blob.betrayed_by = peer.contact.node_id
            self._announcer.track(blob)
            self._s.blame(peer, MISFIT, blob, asked.index)
        else:
            self._question(peer, blob, asked, blob.link(asked.index))
        if voucher is None or blob.chain is None:
            return
        if len(failures) < SUSPECT_LINK_AFTER:
            return
        vouchers = blob.chain.vouchers
        above = blob.present >> (asked.index + 1) << (asked.index + 1)
        if not any(i in vouchers and vouchers[i].key == voucher.key for i in indices(above)):
            for node in failures:
                self._s.avoided.pop(node, None)
            blob.link_failures.pop(asked.index, None)
            self._suspect(blob, voucher, asked.index, for_good=False)

    def _has_left(self, peer: Peer, blob: Blob, asked: Asked) -> bool:
        """Whether the sender has said since it was asked that it dropped pieces: it has left that chain."""
        neighbour = blob.neighbours.get(peer.number)
        if neighbour is None or not asked.has_left:
            return False
        if neighbour.has_left:
            if not blob.excuse(peer.contact.node_id):
                return False
            neighbour.has_left = False
        return True

    def _question(self, peer: Peer, blob: Blob, asked: Asked, link: tuple[bytes, bytes] | None) -> None:
        """Its piece does not fit this link, ours or what it showed before. It may believe in another one by now, which
        is no fault: ask for its link.

        `vouched` hears the answer. What was asked for before the question is of the same chain; what was asked for
        after it, unanswered, and does not fit, convicts.
        """
        index, neighbour = asked.index, blob.neighbours.get(peer.number)
        if neighbour and neighbour.questioned is not None and asked.sent <= neighbour.questioned_at:
            blob.neighbour_lacks(neighbour, 1 << index)
            return
        surely = link is None or (blob.chain is not None and blob.chain.count == 1)
        if surely or neighbour is None or neighbour.questioned is not None:
            self._s.blame(peer, MISFIT, blob, index)
            return
        if not blob.excuse(peer.contact.node_id):
            self._strays(blob, neighbour, 0)
            return
        peer.not_before = max(peer.not_before, self._s.now + ANSWER_S)
        neighbour.questioned_at = self._s.now
        neighbour.questioned = index
        neighbour.questioned_link = link
        neighbour.questioned_again = False
        neighbour.unused |= 1 << index
        blob.neighbour_lacks(neighbour, 1 << index)
        self._s.send(peer.number, GetLinks(blob.digest, index, 1))

    def _answered(self, peer: Peer, blob: Blob, m: Vouch) -> bool:
        """Whether this voucher answers a question, and shows that the piece was at fault."""
        neighbour = blob.neighbours.get(peer.number)
        if neighbour is None or neighbour.questioned not in m.links or blob.chain is None:
            return False
        index = neighbour.questioned
        assert index is not None
        place = index - m.first
        link = m.states[place], m.states[place + 1]
        if neighbour.questioned_link == link:  # ours may be another one by now
            if neighbour.questioned_again:
                self._s.blame(peer, MISFIT, blob, index)
                return True
            # It may have been sent for another link, and reach over one that its bringer does not believe in any more.
            neighbour.questioned_again = True
            self._s.send(peer.number, GetLinks(blob.digest, index, 1))
            return False
        neighbour.questioned = None
        peer.not_before = min(peer.not_before, self._s.now)
        if link == blob.chain.link(index):
            return False
        self._strays(blob, neighbour, index)  # where two chains part they do not meet again
        return False

    def _strays(self, blob: Blob, neighbour: Neighbour, index: int) -> None:
        """From this piece up what it has is of another chain than ours."""
        assert blob.geometry
        neighbour.strays |= blob.geometry.all >> index << index
        neighbour.unused |= neighbour.have & neighbour.strays
        blob.neighbour_lacks(neighbour, neighbour.strays)

    def has_told(self, blob: Blob, neighbour: Neighbour, pieces: int) -> int:
        """A neighbour tells anew what it has; returns what of it is of our chain.

        If it dropped pieces, it believes in their chain no longer: what it says now, asked or not, says nothing about a
        piece that it sent before.
        """
        had = neighbour.have | neighbour.unused
        dropped = had & ~pieces
        if dropped:
            neighbour.has_left = True
            self._downloads.sender_left(neighbour.peer.number, blob.digest, had)
            if neighbour.questioned is not None:
                neighbour.questioned = None
                neighbour.peer.not_before = min(neighbour.peer.not_before, self._s.now)
        if blob.is_past_excuse(neighbour.peer.contact.node_id):
            assert blob.geometry
            neighbour.strays = blob.geometry.all  # also if it left, and is here again
        elif dropped & neighbour.strays:
            neighbour.strays = 0
        neighbour.unused = neighbour.unused & pieces | pieces & neighbour.strays
        return pieces & ~neighbour.strays

    def _suspect(self, blob: Blob, voucher: Vouch, index: int, for_good: bool) -> None:
        """A vouched link is wrong, or computed from wrong bytes: what rests on that signer is forgotten.

        `for_good`: this node computed the link itself. Else it is word against word, and the signer may be heard again.
        """
        self._blame_signer(voucher.key, "a link that no piece fits", blob, index)
        self._void(blob, voucher.key, voucher.term, for_good)

    def _blame_signer(self, key: bytes, reason: str, blob: Blob, index: int) -> None:
        self._s.out.append(Blame(b"", key.hex()[:16], reason, blob.digest, index))

    # -- this node's own pull ---------------------------------------------------------------------------------------

    def extend(self, blob: Blob, chain: Chain, e: ev.PieceStored) -> bool:
        """Take in a link that this node computed. Its own computing counts for more than another's voucher."""
        if e.index in chain.states and not chain.extend(e.index, e.after):
            if e.index + 1 == chain.count:
                self._missed(blob, chain)
                return False
            for link in (e.index, e.index + 1):
                voucher = chain.vouchers.get(link)
                if voucher and chain.states.get(e.index + 1, e.after) != e.after:
                    blob.refuted.setdefault(e.index, (chain.states[e.index], chain.states[e.index + 1]))
                    self._suspect(blob, voucher, link, for_good=True)
        if e.index in chain.states and chain.extend(e.index, e.after):
            return True
        self._seeder.restart(blob)  # what the pull went on from is void
        return False

    def computed(self, blob: Blob, index: int) -> None:
        """What this node pulls contradicts what it was told, or is pulled anew since that missed the digest. Where its
        chain parts from the one that the others still believe in, they hear of it; and until then how far it is, since
        they get nothing from it meanwhile."""
        chain = blob.chain
        assert chain
        before, after = blob.refuted.pop(index, (b"", b""))
        if before != chain.states[index]:
            return
        if after != chain.states[index + 1]:
            blob.refuted.clear()  # above it nothing has a state-before that is true
        elif self._s.now - blob.shown_at < SHOWN_S:
            return
        blob.shown_at = self._s.now
        for voucher in self._s.vouchers_for(blob, index):
            for number in blob.neighbours:
                self._s.send(number, voucher)

    def _missed(self, blob: Blob, chain: Chain) -> None:
        """The chain misses the digest. Upstream sent wrong bytes, if this node pulled all of it; else the links below
        its own may be the false ones, and it begins anew where they begin."""
        first = prefix_end(blob.computed, 0)
        if first >= chain.count - 1:
            self._wrong_bytes(blob)
            return
        self._s.out.append(
            Blame(b"", "", "a chain that misses the digest: its last piece was pulled here", blob.digest, first)
        )
        for index in range(first, chain.count):
            link = chain.link(index)
            if link and index in chain.vouchers:
                blob.refuted[index] = link
        signers = {v.key: v.term for v in sorted(chain.vouchers.values(), key=lambda v: v.term)}
        signers.pop(self._s.key, None)
        self._take_back(blob)
        lost = set(range(first, chain.count))
        self._forget(blob, lost)
        for key, term in signers.items():
            chain.retract(key, term, blob.computed)
        assert blob.geometry
        above = blob.geometry.all >> first << first
        for neighbour in blob.neighbours.values():
            blob.neighbour_lacks(neighbour, above)
        self._seeder.restart(blob)

    def _take_back(self, blob: Blob) -> None:
        """Tell the others that this node's own vouchers for the blob are void."""
        assert blob.chain
        signed = (v.term for v in blob.chain.vouchers.values() if v.key == self._s.key)
        term = max(self._s.voucher_term(blob), *signed, 0)
        retraction = make_retraction(self._s.sign, self._s.key, blob.digest, term)
        blob.chain.retract(retraction.key, retraction.term, blob.computed)
        for number in blob.neighbours:
            self._s.send(number, retraction)

    def _wrong_bytes(self, blob: Blob) -> None:
        """All of the chain is this node's own, and misses the digest: upstream sent wrong bytes."""
        assert blob.geometry
        self._take_back(blob)
        self._announcer.release(blob, "wrong-bytes")
        blob.alone = False
        self._seeder.stop(blob)
        self.drop_all(blob)

    # -- what falls -------------------------------------------------------------------------------------------------

    def retracted(self, peer: Peer, m: Retract) -> None:
        blob = self._s.blobs.get(m.digest)
        if blob is None or blob.chain is None or blob.proven:
            return
        if m.term <= blob.chain.retracted.get(m.key, -1):
            return
        if not retraction_holds(m, self._s.verify):
            self._s.blame(peer, "a retraction whose signature is wrong", blob)
            return
        lost = self._void(blob, m.key, m.term, True)
        if lost or m.key in blob.chain.retracted:  # else it could not be remembered, and would go round for ever
            for number in blob.neighbours:
                if number != peer.number:
                    self._s.send(number, m)

    def drop_all(self, blob: Blob) -> None:
        """The whole chain is refuted: nothing of it stays."""
        assert blob.geometry
        blob.fallen.clear()
        self._downloads.cancel_blob(blob.digest)
        self._forget(blob, set(range(blob.geometry.count)), keep_own=False)

    def _void(self, blob: Blob, key: bytes, term: int, for_good: bool) -> int:
        """Forget what rests on a signer's vouchers; returns those links."""
        assert blob.chain
        blob.fallen.clear()
        self._doubt(blob, blob.chain.vouchers.values())
        forget = blob.chain.retract if for_good else blob.chain.void
        return self._lose_links(blob, forget(key, term, blob.computed))

    def _forget(self, blob: Blob, links: set[int], keep_own: bool = True) -> int:
        assert blob.chain
        self._doubt(blob, blob.chain.vouchers.values())
        return self._lose_links(blob, blob.chain.forget(links, blob.computed if keep_own else 0))

    def _doubt(self, blob: Blob, vouchers: Iterable[Vouch]) -> None:
        """Keep vouchers until the blob is proven. Those that are true will say so then."""
        blob.doubted.keep(v for v in vouchers if v.key != self._s.key)

    def _lose_links(self, blob: Blob, links: set[int]) -> int:
        lost = 0
        for index in links:
            lost |= 1 << index
        for asked in list(self._downloads.of_blob(blob.digest)):
            if lost >> asked.index & 1:
                self._downloads.cancel(asked)
        pieces = blob.lose(lost)
        if lost:
            blob.excuse_once_more()
        for neighbour in blob.neighbours.values():  # what they have may be of use on the chain that comes now
            if lost and not blob.is_past_excuse(neighbour.peer.contact.node_id):
                neighbour.strays = 0
            blob.neighbour_has(neighbour, neighbour.unused & ~neighbour.strays)
            neighbour.unused &= neighbour.strays
        self._downloads.look()
        self._uploads.cancel_pieces(blob.digest, lost)
        if pieces:
            self._s.out.append(Drop(blob.digest, pieces))
            for neighbour in blob.neighbours.values():
                self._teller.join(neighbour.peer, blob)
        return lost

    # -- evidence ---------------------------------------------------------------------------------------------------

    def proved(self, blob: Blob) -> None:
        """The chain is proven: see who signed something else."""
        assert blob.chain
        if blob.doubted.vouchers:
            for voucher, index in blob.doubted.judge(blob.chain.states):
                self._convict(blob, voucher, index, -1)
            blob.doubted.vouchers.clear()
        blob.refuted.clear()

    def accused(self, peer: Peer, m: Accuse) -> None:
        """A peer shows a voucher: it counts for what it shows to this node, and not at all for who shows it."""
        blob = self._s.blobs.get(m.digest)
        if blob is None or blob.chain is None or blob.geometry is None or m.size != blob.geometry.size:
            return
        if self.cases.knows(m.key, m.digest) or not self._accusations.admits(peer.number, self._s.now):
            return
        voucher = accused(m)
        if not blob.proven:
            if blob.doubted.has_room_for(voucher) and voucher_holds(voucher, self._s.verify):
                blob.doubted.keep([voucher])
            return
        if len(blob.chain.states) != blob.chain.count + 1:
            return  # its states are being computed
        index = false_link(voucher, blob.chain.states)
        if index is None or not voucher_holds(voucher, self._s.verify):
            self._s.blame(peer, "an accusation that the proven chain does not bear out", blob)
            return
        self._convict(blob, voucher, index, peer.number)

    def peer_down(self, peer: int) -> None:
        self._accusations.forget(peer)

    def _convict(self, blob: Blob, voucher: Vouch, index: int, bringer: int) -> None:
        served_right = not blob.upstream or voucher.upstream == blob.upstream
        cases = self.cases.add(voucher.key, voucher.digest, self._s.now, served_right)
        if not cases:
            return
        contact = self._s.met.get(node_id(voucher.key))
        self._s.out.append(Convict(voucher, index, contact, cases))
        shown = accusation(voucher)
        for number in blob.neighbours:
            if number != bringer:
                self._s.send(number, shown)
