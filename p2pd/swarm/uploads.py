"""Who gets pieces from this node, and when: the node-wide upload places.

A place belongs to a peer, not to a piece: who has one is sent what it asks for, piece after piece, until it asks for
nothing more. So both ends of a line know who is on it, a receiver can see to it that just as many send to it as it can
take, and no place stands waiting for the next request. A few places keep each piece's time short, which is what makes
a swarm double quickly; another opens beside a receiver that drains at under a third of its share. Who comes while all
places are taken is refused at once, with the load, and hears when there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from p2pd.swarm.blob import Blob
from p2pd.swarm.commands import Count, StopUpload, Upload
from p2pd.swarm.messages import Have, Refuse, Request
from p2pd.swarm.peer import RATE_MAX, Peer, blend
from p2pd.swarm.state import NEVER, State

FULL: Final = 99  # hundredths of our line: from here on it is spoken for
SLOW_FLOOR_S: Final = 0.25  # a transfer is never called slow before this
SLOW_FIRST_S: Final = 1.0  # ... nor before this, while our line's rate is not known
SLOW_FACTOR: Final = 3  # times what a piece takes in one of the places, if the line is shared fairly
TURN_PIECES: Final = 64  # after so many a peer leaves its place to one that was refused, if there is one
TURN_LEAST: Final = 4  # ... and after so many, to one that is far behind it: who ends last is what counts
REFUSED_MAX: Final = 64  # peers that are remembered as refused
NOTICES: Final = 2  # for a place that gets free: the first may have found another meanwhile
NOTICE_S: Final = 0.01  # ... and if none of them comes in this time, the next ones hear of it
SLOW_RATIO: Final = 0.4  # of the usual rate: who takes pieces slower than that is slow
DRAIN_WEIGHT: Final = 0.3  # of the newest transfer to a peer
RATE_UP: Final = 0.5  # how fast the estimate of our own line follows what was faster, and what was slower:
RATE_DOWN: Final = 0.05  # ... for `LINE_S`. A look at a slow line takes longer, and counts for as much more
FIRST_ONES: Final = 4  # transfers, of which fewer go out at a time
REACH_LENGTH: Final = 512 * 1024  # bytes, of a transfer whose time counts: of a smaller one half is in the kernel
REACH_UP: Final = 0.5  # how fast the estimate of what our line carries at least follows a faster, a slower transfer:
REACH_DOWN: Final = 0.1  # ... the slower may be the receiver's fault
LINE_S: Final = 0.05  # of sending, for a look at our line's rate: a piece may leave us at once, into the kernel
LINE_PIECES: Final = 16  # ... and of so many, after 1, 2, 4, 8: transfers that share a line end at random, and in some
# moments it seems far faster than it is. Without that, 16 daemons at 15 Mbit/s: 1.40 to 1.57 of the bound, not 1.15


@dataclass(slots=True)
class Sending:
    peer: int
    rid: int
    digest: bytes
    index: int
    length: int
    linked: bool
    first: bool  # the only copy outside this node
    started: float = 0.0


@dataclass(slots=True)
class Place:
    """A peer that is being sent to: what is on its way, and what it asked for behind that."""

    current: Sending
    share: float  # of our line that the peer can be expected to take
    sent: int = 0  # pieces, in this place
    queue: deque[Sending] = field(default_factory=deque)


@dataclass(slots=True)
class Refused:
    """When a peer was refused last, and a piece of which blob."""

    at: float
    digest: bytes


class Uploads:
    """The places, and who waits for one. `load` and `rate` are what the news advertise."""

    def __init__(self, state: State) -> None:
        self._s = state
        self._places: dict[int, Place] = {}
        self._waiting: deque[Sending] = deque()
        self._refused: dict[int, Refused] = {}  # those that wait longest first
        self._notice_at = NEVER  # when the next ones hear of a place that is still free
        self._ended = 0  # transfers
        self._usual_s = 0.0  # that one transfer takes
        self._usual_drain = 0.0  # bytes/s at which one transfer usually goes out
        self._reach = 0.0  # bytes/s at which one transfer goes out; follows slow ones slowly
        self._sent = 0  # bytes
        self._pieces_sent = 0
        self._pieces_enough = 1  # of them for the next look at the line's rate
        self._sent_since = 0.0  # when the places were last empty, or the line's rate was last looked at
        self.carried = 0  # bytes that went out from here, in whole pieces, of all blobs
        self.rate = 0.0  # bytes/s of our line, as far as one could see

    @property
    def load(self) -> int:
        """Hundredths of our line that are taken, as far as one can tell; from FULL on a request is refused."""
        if not self._places:
            return 0
        if len(self._places) >= self._s.settings.places_most:
            return FULL
        count, shares = 0, 0.0
        for number, place in self._places.items():
            if not self._drains_slowly(number, place):
                count += 1
                shares += place.share
        return int(100 * max(shares, count / self._s.settings.places) + 0.5)

    @property
    def reach(self) -> float:
        """Bytes/s that our line is seen to carry at least; 0 while nothing has gone out."""
        return max(self.rate, self._reach)

    @property
    def told_rate(self) -> int:
        """Bytes/s of our line that the news tell, as far as one can see."""
        return int(self.rate or self.reach)

    @property
    def told_load(self) -> int:
        """The load that the news tell. While somebody was refused, a place that gets free is for him: nobody else is
        to come for it, else most of those who hear of it come in vain."""
        return max(self.load, FULL) if self._places and self._still_refused() else self.load

    def _still_refused(self) -> bool:
        """Whether anybody still waits who was refused: who did not come again has found another."""
        if self._refused:
            settings = self._s.settings
            patience = max(2 * settings.refused_least_s, min(1.2 * settings.refused_wait_s, 3 * self._usual_s))
            since = self._s.now - patience
            for peer in [peer for peer, refused in self._refused.items() if refused.at < since]:
                del self._refused[peer]
        return bool(self._refused)

    def is_slow(self, peer: int) -> bool:
        """Whether a peer took what was sent to it at under half of the usual rate."""
        known = self._s.peers.get(peer)
        return known is not None and 0 < known.drain < self._usual_drain * SLOW_RATIO

    def moves(self, peer: int, index: int) -> bool:
        """Whether this piece is being sent to that peer, or queued for it, and not slowly."""
        place = self._places.get(peer)
        return self.holds(peer, index) and not (place and self._drains_slowly(peer, place))

    def _drains_slowly(self, peer: int, place: Place) -> bool:
        return self._s.now >= self._slow_at(place.current) or self.is_slow(peer)

    def request(self, peer: Peer, blob: Blob, request: Request, first: bool = False) -> None:
        """Take a request whose piece is present, or refuse it.

        `first`: a claimed piece, which nobody else has; it goes before those that have left.
        """
        assert blob.geometry
        length = blob.geometry.length(request.index)
        sending = Sending(peer.number, request.rid, blob.digest, request.index, length, request.linked, first)
        place = self._places.get(peer.number)
        share = 1 / request.sources
        if first and self._claims_of(peer.number) >= self._s.settings.queued_at_place:
            self._refuse(peer, request.rid, request.digest, "busy")
        elif place is not None:
            place.share = share
            if first:
                place.queue.insert(sum(1 for s in place.queue if s.first), sending)
            elif len(place.queue) < self._s.settings.queued_at_place:
                place.queue.append(sending)
            else:
                self._refuse(peer, request.rid, request.digest, "busy")
        elif self._place_for_claim() if first else self._free_place() and not self._waiting:
            self._start(sending, share)
        elif first:
            self._waiting.insert(sum(1 for s in self._waiting if s.first), sending)
        else:
            self._refuse(peer, request.rid, request.digest, "busy")

    def _claims_of(self, peer: int) -> int:
        place = self._places.get(peer)
        queued = place.queue if place else ()
        return sum(1 for s in (*self._waiting, *queued) if s.first and s.peer == peer)

    @property
    def held(self) -> int:
        """Requests that are being sent, queued or waiting."""
        return len(self._all())

    def refuse(self, peer: Peer, request: Request, reason: str) -> None:
        """Say no for another reason than load."""
        self._refuse(peer, request.rid, request.digest, reason)

    def served(self) -> Collection[int]:
        """The peers that have a place."""
        return self._places.keys()

    def holds(self, peer: int, index: int) -> bool:
        """Whether this piece is being sent to that peer, or queued for it."""
        return any(s.peer == peer and s.index == index for s in self._all())

    def _all(self) -> list[Sending]:
        found = list(self._waiting)
        for place in self._places.values():
            found.append(place.current)
            found += place.queue
        return found

    def cancel(self, peer: int, rid: int) -> None:
        """The asker does not want it any more."""
        place = self._places.get(peer)
        if place and place.current.rid == rid:
            self._s.out.append(StopUpload(peer, rid))
            return
        if place:
            place.queue = deque(s for s in place.queue if s.rid != rid)
        self._waiting = deque(s for s in self._waiting if (s.peer, s.rid) != (peer, rid))

    def cancel_pieces(self, digest: bytes, pieces: int) -> None:
        """These pieces are not present any more: stop sending them."""
        for sending in self._all():
            if sending.digest == digest and pieces >> sending.index & 1:
                self.cancel(sending.peer, sending.rid)
                if not self.holds(sending.peer, sending.index):
                    self._s.send(sending.peer, Refuse(sending.rid, "absent", self.load))

    def peer_down(self, peer: int) -> None:
        self._places.pop(peer, None)
        self._refused.pop(peer, None)
        self._waiting = deque(s for s in self._waiting if s.peer != peer)
        self.pump()

    def done(self, peer: int, rid: int, whole: bool) -> Sending | None:
        """An upload is over; what it was, and the next one starts."""
        place = self._places.get(peer)
        if place is None or place.current.rid != rid:
            return None
        sending = place.current
        place.sent += 1
        if whole:
            self._ended += 1
            self._note_rate(sending)
        while place.queue:
            following = place.queue.popleft()
            # What nobody else has goes before; and who was refused gets a turn, sooner if it is far behind.
            turn_is_over = bool(self._waiting) or self._turn_is_over(peer, place)
            if turn_is_over and not following.first:
                for sending_not in (following, *place.queue):
                    self._refuse(self._s.peers[peer], sending_not.rid, sending_not.digest, "busy")
                place.queue.clear()
                break
            if self._start(following, place.share, place):
                return sending
        del self._places[peer]
        self.pump()
        return sending

    def _turn_is_over(self, peer: int, place: Place) -> bool:
        if place.sent < TURN_LEAST or not self._refused:
            return False
        if place.sent >= TURN_PIECES:
            return True
        digest = place.current.digest
        far_behind = self._progress(peer, digest) - self._s.settings.behind_pieces
        return any(
            refused.digest == digest and self._progress(other, digest) < far_behind and not self.is_slow(other)
            for other, refused in self._refused.items()
        )

    def _progress(self, peer: int, digest: bytes) -> int:
        """Pieces of a blob that a peer has."""
        blob = self._s.blobs.get(digest)
        neighbour = blob.neighbours.get(peer) if blob else None
        return neighbour.have.bit_count() if neighbour else 0

    def _refused_first(self, count: int) -> list[int]:
        """Of those that were refused the ones that have least of what they asked for: who ends last is what counts."""

        def share(peer: int) -> float:
            digest = self._refused[peer].digest
            blob = self._s.blobs.get(digest)
            return self._progress(peer, digest) / blob.geometry.count if blob and blob.geometry else 0.0

        return sorted(self._refused, key=share)[:count]

    def pump(self) -> None:
        """Start what waits, while there are places; tell those that were refused and have least, as there is room."""
        while self._waiting and self._place_for_claim():
            sending = self._waiting.popleft()
            place = self._places.get(sending.peer)
            if place:
                place.queue.append(sending)
            else:
                self._start(sending, 0.25)
        if self._notice_at > self._s.now and self._notice_at < NEVER:
            return
        self._notice_at = NEVER
        if not self._still_refused() or not self._free_place():
            return
        self._notice_at = self._s.now + NOTICE_S
        for number in self._refused_first(NOTICES):
            del self._refused[number]
            for digest in self._s.peers[number].blobs:
                self._s.send(number, Have(digest, (), 0, self.load, int(self.rate), 0))
                break

    @property
    def deadline(self) -> float:
        """When what waits may move although nothing is done: the transfer under way counts as slow then."""
        if not (self._waiting or self._refused) or len(self._places) >= self._s.settings.places_most:
            return NEVER
        soonest, now = self._notice_at, self._s.now
        for place in self._places.values():
            at = self._slow_at(place.current)
            if now < at < soonest:
                soonest = at
        return soonest

    def _note_rate(self, sending: Sending) -> None:
        took = self._s.now - sending.started
        self._usual_s += (DRAIN_WEIGHT if self._usual_s else 1.0) * (took - self._usual_s)
        peer = self._s.peers.get(sending.peer)
        if peer:
            peer.drain = blend(peer.drain, sending.length, took, DRAIN_WEIGHT)
        if took > 0 and sending.length >= REACH_LENGTH:
            drain = min(RATE_MAX, sending.length / took)
            weight = (REACH_UP if drain > self._reach else REACH_DOWN) if self._reach else 1.0
            self._reach += weight * (drain - self._reach)
        is_fast = took * self._usual_drain < sending.length
        self._usual_drain = blend(self._usual_drain, sending.length, took, DRAIN_WEIGHT if is_fast else RATE_DOWN)
        self._sent += sending.length
        self._pieces_sent += 1
        self.carried += sending.length
        busy_s = self._s.now - self._sent_since
        if busy_s >= LINE_S and self._pieces_sent >= self._pieces_enough:
            is_fast = busy_s * self.rate < self._sent
            slower = min(RATE_UP, RATE_DOWN * busy_s / LINE_S)
            self.rate = blend(self.rate, self._sent, busy_s, RATE_UP if is_fast else slower)
            self._pieces_enough = min(2 * self._pieces_enough, LINE_PIECES)
            self._look_at_line_anew()

    def _look_at_line_anew(self) -> None:
        self._sent, self._pieces_sent, self._sent_since = 0, 0, self._s.now

    def _free_place(self) -> bool:
        return self.load < FULL

    def _place_for_claim(self) -> bool:
        """What nobody else has yet goes out as soon as there is any place: the whole fleet waits for it."""
        settings = self._s.settings
        if self._ended < FIRST_ONES:  # what ends soon shows how fast our line is
            busy = sum(1 for number, place in self._places.items() if not self._drains_slowly(number, place))
            return busy < min(settings.places_first, settings.places)
        return len(self._places) < settings.places or self._free_place()

    def leaving(self, digest: bytes) -> int:
        """The pieces of a blob that are on their way out."""
        pieces = 0
        for place in self._places.values():
            if place.current.digest == digest:
                pieces |= 1 << place.current.index
        return pieces

    def _slow_at(self, sending: Sending) -> float:
        """When a transfer no longer counts as one that occupies a place.

        Each place that opened beside it takes its share: else one that is slow makes all of them slow.
        """
        places = max(len(self._places), self._s.settings.places)
        late = SLOW_FACTOR * places * sending.length / self.rate if self.rate else SLOW_FIRST_S
        return sending.started + max(SLOW_FLOOR_S, late)

    def _start(self, sending: Sending, share: float, place: Place | None = None) -> bool:
        """Send it, in its peer's place or in a new one; False if it is not here any more."""
        blob = self._s.blobs.get(sending.digest)
        if blob is None or not blob.present >> sending.index & 1:
            self._s.send(sending.peer, Refuse(sending.rid, "absent", self.load))
            return False
        sending.started = self._s.now
        if not self._places:
            self._look_at_line_anew()
        if place:
            place.current = sending
        else:
            self._places[sending.peer] = Place(sending, share)
        vouchers = () if sending.linked else self._s.vouchers_for(blob, sending.index)
        self._s.out.append(Upload(sending.peer, sending.rid, sending.digest, sending.index, vouchers))
        return True

    def _refuse(self, peer: Peer, rid: int, digest: bytes, reason: str) -> None:
        self._s.send(peer.number, Refuse(rid, reason, self.load))
        if reason == "busy":
            self._s.out.append(Count("refused", 1))
            if peer.number in self._refused or len(self._refused) < REFUSED_MAX:
                self._refused[peer.number] = Refused(self._s.now, digest)
