"""The seeder: what is pulled from upstream, how far ahead, and to whom each new piece is shown.

Super-seeding by claims: a new piece is shown to one neighbour at a time (told of it as if only it existed); the first
request claims it, and a claim that does not move is open again. So each piece leaves the seeder once before any leaves
twice, which is worth 0.13 of the bound and more. Nothing is hidden when only one neighbour wants the blob.

Run-ahead: what the seeder holds that has not left it is what dies with it, so while others want the blob that is kept
to 2 % of it, unless the others are so slow that the seeder's own client would get under half of upstream's rate.

A slow line: upstream's one copy leaves over the seeder's line. One that is far slower than the others' hands the lease
on, once, and what it pulled and nobody else has yet is still shown by claims. In 60 nodes of which 6 have a tenth of
the rate that makes a rollout that began at one of them 1.3 to 1.6 times the bound, and was 10 times.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from p2pd.swarm.blob import Blob, Neighbour
from p2pd.swarm.commands import Allow, Pull, StopPull
from p2pd.swarm.messages import NEWS_MAX, GetLinks, Have
from p2pd.swarm.pieces import indices, lowest, prefix_end
from p2pd.swarm.state import NEVER, State
from p2pd.swarm.uploads import Uploads

REPLAN_S: Final = 0.5  # how often a holder with nothing to pull looks whether something is missing after all
STATE_S: Final = 0.1  # ... or whether the state to go on from has come
STATE_ASKS: Final = 5  # times that it is asked for, before we go on from another one
CLAIM_PIECE_TIMES: Final = 2
SLOWED: Final = 1.1  # times upstream's best time for a piece: then something else takes its share of our line
ZONES_MAX: Final = 256  # that are told apart
LINES_KNOWN: Final = 3  # neighbours that have said how fast their lines are, before we compare
SLOWER: Final = 2.0  # times as long as over another's line
HAND_ON_S: Final = 10.0  # ... and by so much: a change costs a second or two, and what upstream has sent in vain
SHOWS_S: Final = 2.0  # after the first piece came: what is measured before says more of a busy machine than of its line
UPSTREAM_WEIGHT: Final = 0.2  # of the newest piece in the estimate of upstream's rate


@dataclass(slots=True)
class Seeding:
    """One blob that this node pulls."""

    plan_at: float  # when to look (again) what is to be pulled
    term: int  # of the lease: what is shown is a claim, also after the lease was handed back with the last piece
    pulling: bool = False
    handed_on: bool = False  # another node holds the lease now; what nobody else has is still shown piece by piece
    asked: int = 0  # times that nobody told the state to go on from
    waits: bool = False  # for the end of an earlier pull
    allowed: int = 0
    end: int = 0
    progress: int = 0  # links and pieces that left: what the lease's renewal counts
    moved_at: float = 0.0  # when a piece last left
    piece_s: float = 0.0  # upstream's time for one piece, unhindered
    best_s: float = NEVER  # the least that was
    first_at: float = 0.0  # when upstream's first piece came
    carried_before: int = 0  # bytes that our line had carried by then
    pulled: int = 0
    tick_at: float = 0.0
    shown_in: dict[str, int] = field(default_factory=dict)  # zone -> pieces that its nodes were shown


class Seeder:
    """All blobs that this node pulls, by lease or alone."""

    def __init__(self, state: State, uploads: Uploads) -> None:
        self._s = state
        self._uploads = uploads
        self._of: dict[bytes, Seeding] = {}

    def progress(self, digest: bytes) -> int:
        seeding = self._of.get(digest)
        return seeding.progress if seeding else 0

    def active(self, digest: bytes) -> bool:
        return digest in self._of

    # -- the pull ---------------------------------------------------------------------------------------------------

    def start(self, blob: Blob, fresh: bool) -> None:
        """This node is to pull the blob now. `fresh`: nobody has begun it before."""
        old = self._of.get(blob.digest)
        if old and not old.handed_on:
            return
        if old:
            self.stop(blob)
        grace = 0.0 if fresh else self._s.settings.resume_grace_s
        self._of[blob.digest] = Seeding(self._s.now + grace, blob.term, moved_at=self._s.now)
        blob.seeding = True
        blob.left = blob.present  # what was here before is announced already
        if not grace:
            self.plan(blob)

    def stop(self, blob: Blob) -> None:
        """The lease is lost or nobody wants the blob: stop at the next piece, keep serving."""
        seeding = self._of.pop(blob.digest, None)
        if seeding and seeding.pulling:
            self._s.out.append(StopPull(blob.digest))
        blob.end_pull()
        self.reveal(blob)

    def hand_on(self, blob: Blob) -> None:
        """The lease goes to another: pull no more, but go on showing what nobody else has, each piece to one neighbour.

        Over a slow line each is to leave once: told of to everybody, some would leave often and the last one late.
        """
        seeding = self._of[blob.digest]
        seeding.handed_on = True
        blob.left |= blob.present & ~blob.computed  # came from others
        for index in indices(blob.present & blob.computed):
            self._s.vouchers_for(blob, index)  # while this lease's term still counts
        self.restart(blob)
        self.show(blob)

    def successor_named(self, blob: Blob) -> None:
        """The next holder is known: it hears of what has not left yet, else it would pull that again."""
        seeding, number = self._of.get(blob.digest), self._s.by_node.get(blob.holder, -1)
        if seeding and seeding.handed_on and number in blob.neighbours:
            pieces = tuple(islice(indices(blob.present & ~blob.left), NEWS_MAX))
            self._s.send(number, Have(blob.digest, pieces, 0, self._uploads.load, self._uploads.told_rate, 0))

    def came(self, blob: Blob, index: int) -> None:
        """A piece came from a peer: who has handed the lease on need not show it to anybody."""
        seeding = self._of.get(blob.digest)
        if seeding and seeding.handed_on:
            blob.left |= 1 << index

    def restart(self, blob: Blob) -> None:
        """What the pull went on from is void: end it; `pull_ended` plans anew."""
        seeding = self._of.get(blob.digest)
        if seeding and seeding.pulling:
            blob.end_pull()
            self._s.out.append(StopPull(blob.digest))

    def plan(self, blob: Blob) -> None:
        """Choose the next run of pieces that nobody else has, and pull it."""
        seeding = self._of[blob.digest]
        seeding.plan_at = self._s.now + REPLAN_S
        if seeding.pulling or blob.complete or seeding.handed_on:
            return
        seeding.waits = blob.pull_out
        if seeding.waits:
            return
        if blob.geometry is None or blob.chain is None:
            seeding.pulling, seeding.end, seeding.allowed = True, -1, 0
            blob.pull_out = True
            self._s.pulls[blob.digest] = None
            self._s.out.append(Pull(blob.digest, 0, -1, b""))
            self._allow(blob, seeding)
            return
        needed = self._needed(blob, seeding)
        if not needed:
            return
        first = lowest(needed)
        before = blob.chain.states.get(first)
        if before is None:
            self._ask_for_state(blob, first)
            seeding.asked += 1
            seeding.plan_at = self._s.now + STATE_S
            return
        seeding.asked = 0
        seeding.end = prefix_end(needed, first)
        seeding.pulling, seeding.allowed = True, first
        blob.plan_pull(((1 << seeding.end) - 1) & ~((1 << first) - 1))
        blob.pull_out = True
        self._s.pulls[blob.digest] = None
        self._s.out.append(Pull(blob.digest, first, seeding.end, before))
        self._allow(blob, seeding)

    def _needed(self, blob: Blob, seeding: Seeding) -> int:
        """What is to be pulled. What only those say they have who let us wait comes last: it may be true. It is not
        left out where nobody tells the state behind it: then there is nothing else to go on with."""
        assert blob.chain
        needed = blob.missing & ~blob.available()
        if needed and (lowest(needed) in blob.chain.states or seeding.asked < STATE_ASKS):
            return needed
        return blob.missing & ~blob.available(but=self._s.silent_peers())

    def size_known(self, blob: Blob) -> None:
        """The pull itself told the size: all of the blob is on its way."""
        seeding = self._of.get(blob.digest)
        if seeding and seeding.pulling and seeding.end < 0 and blob.geometry:
            seeding.end = blob.geometry.count
            blob.plan_pull(blob.missing)
            self._allow(blob, seeding)

    def stored(self, blob: Blob, seconds: float) -> None:
        """The pull got a piece."""
        seeding = self._of.get(blob.digest)
        if seeding is None:
            return
        weight = UPSTREAM_WEIGHT if seeding.piece_s else 1.0
        seeding.piece_s += weight * (seconds - seeding.piece_s)
        seeding.best_s = min(seeding.best_s, seeding.piece_s)
        self._s.pull_slowed = seeding.piece_s > SLOWED * seeding.best_s
        if not seeding.first_at:
            seeding.first_at, seeding.carried_before = self._s.now, self._uploads.carried
        seeding.pulled += 1
        seeding.progress += 1
        self.show(blob)
        self._allow(blob, seeding)

    def pull_ended(self, blob: Blob) -> None:
        seeding = self._of.get(blob.digest)
        blob.end_pull()
        if seeding:
            was_its_own, seeding.pulling = seeding.pulling, False
            if blob.complete or seeding.handed_on:
                self._finish_if_left(blob)
            elif was_its_own or seeding.waits:
                self.plan(blob)

    def _allow(self, blob: Blob, seeding: Seeding) -> None:
        """Let the pull go on as far as little enough is at stake."""
        if not seeding.pulling:
            return
        settings = self._s.settings
        if blob.geometry is None:
            return
        limit = settings.alone_pieces
        if any(n.wanting for n in blob.neighbours.values()):
            window = max(settings.ahead_pieces, int(blob.geometry.count * settings.ahead_ratio))
            at_stake = blob.present & ~blob.left & blob.computed
            leaving = self._uploads.leaving(blob.digest)
            waiting = (at_stake & ~leaving).bit_count()
            if self._s.now - seeding.moved_at > settings.free_run_s and not leaving & at_stake:
                window = waiting + settings.ahead_pieces  # nobody takes anything: a little at a time, for ourselves
            limit = max(0, window - waiting)
            if blob.want and blob.want.clients and seeding.piece_s > 0 and seeding.first_at:
                # What piles up before our line's rate shows would stay with a slow holder.
                since = seeding.first_at + settings.own_client_s
                due = settings.own_client_share * (self._s.now - since) / seeding.piece_s
                limit = max(limit, int(due) + 1 - seeding.pulled)
        on_the_way = blob.pulling & ((1 << seeding.allowed) - 1)
        end = min(seeding.end, max(seeding.allowed, seeding.allowed + limit - on_the_way.bit_count()))
        if end > seeding.allowed:
            seeding.allowed = end
            self._s.out.append(Allow(blob.digest, end))

    def _ask_for_state(self, blob: Blob, index: int) -> None:
        """A run starts where the piece before is somebody's: whoever has it has the voucher for the state behind it."""
        bit = 1 << (index - 1)
        for number, neighbour in blob.neighbours.items():
            if neighbour.have & bit:
                self._s.send(number, GetLinks(blob.digest, index - 1, 1))

    # -- showing ----------------------------------------------------------------------------------------------------

    def show(self, blob: Blob) -> None:
        """Show new pieces, each to one neighbour; all of them to a neighbour that is the only one."""
        seeding = self._of.get(blob.digest)
        if not blob.seeding or seeding is None:
            return
        wanting = [(number, n) for number, n in blob.neighbours.items() if n.wanting]
        offered = 0
        for _, n in wanting:
            for index in n.shown:
                offered |= 1 << index
        unclaimed = blob.present & ~blob.left & ~offered
        if not unclaimed or not wanting:
            self._finish_if_left(blob)
            return
        bound = NEVER if len(wanting) == 1 else self._s.settings.shown_to_one
        while unclaimed:
            able = [(number, n) for number, n in wanting if len(n.shown) < bound and unclaimed & ~n.have]
            if not able:
                break
            number, neighbour = min(able, key=lambda one: self._claimant(one, seeding))
            index = lowest(unclaimed & ~neighbour.have)
            neighbour.shown[index] = self._s.now
            zone = self._zone(number)
            if zone:
                if len(seeding.shown_in) >= ZONES_MAX:
                    seeding.shown_in.clear()  # the turns begin anew
                seeding.shown_in[zone] = seeding.shown_in.get(zone, 0) + 1
            unclaimed &= ~(1 << index)
            self._s.send(number, Have(blob.digest, (index,), 0, 0, self._uploads.told_rate, seeding.term))

    def _claimant(self, able: tuple[int, Neighbour], seeding: Seeding) -> tuple[bool, bool, int, int, float]:
        """Who is shown a piece first: not who takes pieces slowly, for a claim is gone for all others meanwhile; and
        who is in another zone, each zone in its turn: the others fetch it from there, over that zone's line."""
        number, neighbour = able
        is_slow, in_zone = self._uploads.is_slow(number), seeding.shown_in.get(self._zone(number), 0)
        return is_slow, neighbour.near, in_zone, len(neighbour.shown), self._s.random.random()

    def _zone(self, number: int) -> str:
        return self._s.peers[number].contact.zone

    def objection(self, blob: Blob, peer: int, index: int) -> str:
        """Why a request does not fit the claims: another neighbour's piece is gone. "" if it does."""
        if not blob.seeding or not any(index in n.shown for number, n in blob.neighbours.items() if number != peer):
            return ""
        seeding = self._of.get(blob.digest)
        return "busy" if seeding and seeding.handed_on else "gone"  # the next holder is to know that it is here

    def sent(self, blob: Blob, peer: int, index: int) -> None:
        """A piece went out whole."""
        seeding = self._of.get(blob.digest)
        neighbour = blob.neighbours.get(peer)
        if neighbour:
            neighbour.shown.pop(index, None)
        if blob.seeding and not blob.left >> index & 1:
            blob.left |= 1 << index
            if seeding:
                seeding.progress += 1
                seeding.moved_at = self._s.now
        if blob.seeding:
            self.show(blob)
        if seeding:
            self._allow(blob, seeding)

    def neighbour_has(self, blob: Blob, peer: int, pieces: int) -> None:
        """A neighbour told of pieces: those have left, whoever brought them there."""
        if blob.seeding:
            neighbour = blob.neighbours[peer]
            for index in [i for i in neighbour.shown if pieces >> i & 1]:
                del neighbour.shown[index]
            gone = pieces & blob.present & ~blob.left
            if gone:
                blob.left |= gone
                seeding = self._of.get(blob.digest)
                if seeding:
                    seeding.progress += gone.bit_count()
                    seeding.moved_at = self._s.now

    def neighbours_changed(self, blob: Blob) -> None:
        """Somebody came, left, or stopped wanting."""
        if blob.seeding:
            self.show(blob)
            seeding = self._of.get(blob.digest)
            if seeding:
                self._allow(blob, seeding)

    def reveal(self, blob: Blob) -> None:
        """Super-seeding is over: tell everybody what is here."""
        if not blob.seeding:
            return
        blob.seeding = False
        for neighbour in blob.neighbours.values():
            neighbour.shown.clear()
        pieces = tuple(indices(blob.present))
        blob.told = [blob.present] * self._s.settings.news_turns
        for number, neighbour in blob.neighbours.items():
            if neighbour.wanting:
                for place in range(0, len(pieces), NEWS_MAX):
                    batch = pieces[place : place + NEWS_MAX]
                    self._s.send(
                        number,
                        Have(blob.digest, batch, len(pieces), self._uploads.load, self._uploads.told_rate, blob.term),
                    )

    def _finish_if_left(self, blob: Blob) -> None:
        wanted = any(n.wanting for n in blob.neighbours.values())
        seeding = self._of.get(blob.digest)
        is_over = blob.complete or (seeding is not None and seeding.handed_on)
        if blob.seeding and is_over and (not wanted or not blob.present & ~blob.left):
            self.reveal(blob)
            self._of.pop(blob.digest, None)

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        if not self._of:
            return NEVER
        deadline = NEVER
        for seeding in self._of.values():
            deadline = min(deadline, seeding.plan_at, seeding.tick_at)
        return deadline

    def tick(self) -> list[Blob]:
        """What time brings. Returns the blobs whose lease is better with another node."""
        now, slow = self._s.now, []
        for digest, seeding in list(self._of.items()):
            blob = self._s.blobs.get(digest)
            if blob is None:
                del self._of[digest]
                continue
            if seeding.plan_at <= now:
                self.plan(blob)
            if seeding.tick_at <= now:
                piece_s = blob.geometry.piece_size / (self._uploads.rate or 10e6) if blob.geometry else 0.0
                claim_s = max(self._s.settings.claim_least_s, CLAIM_PIECE_TIMES * piece_s)
                seeding.tick_at = now + min(0.25, claim_s / 2)
                self._reopen(blob, claim_s)
                if self._holds_up(blob, seeding):
                    slow.append(blob)
                    continue
                self.show(blob)
                self._allow(blob, seeding)
        return slow

    def _holds_up(self, blob: Blob, seeding: Seeding) -> bool:
        """Whether the others would get the rest far sooner if one of them held the lease: all of it leaves over our
        line, and theirs are faster.

        What a node has seen its line carry is less than it could, the more so at the start: we compare with the
        quarter that says most. So many would have to lie to take the lease from us, and could do it once. Of our own
        line we believe the better of what single transfers show and of all that it carried since the first piece: on
        a busy machine each transfer takes long, and yet all of it leaves.
        """
        if not blob.term or blob.alone or blob.handed_on or blob.geometry is None or not self._uploads.reach:
            return False  # alone: its client has nowhere else to go, so this node pulls in any case
        shown_s = self._s.now - seeding.first_at
        if not seeding.first_at or shown_s < SHOWS_S:
            return False
        lines = sorted(neighbour.peer.line for neighbour in blob.neighbours.values())
        lines = lines[bisect_right(lines, 0.0) :]
        if len(lines) < LINES_KNOWN:
            return False
        mine = max(self._uploads.reach, (self._uploads.carried - seeding.carried_before) / shown_s)
        theirs, size = lines[3 * (len(lines) - 1) // 4], blob.geometry.piece_size
        rest = (blob.geometry.count - blob.left.bit_count()) * size
        return rest / mine > SLOWER * rest / theirs + HAND_ON_S

    def _reopen(self, blob: Blob, claim_s: float) -> None:
        """Claims that do not move are open again. Who takes none may believe in another chain, and hears of ours."""
        now = self._s.now
        for number, neighbour in blob.neighbours.items():
            old = [i for i, at in neighbour.shown.items() if now - at > claim_s and not self._uploads.moves(number, i)]
            for index in old:
                del neighbour.shown[index]
            if old and blob.computed:
                for voucher in self._s.vouchers_for(blob, blob.computed.bit_length() - 1):
                    self._s.send(number, voucher)
