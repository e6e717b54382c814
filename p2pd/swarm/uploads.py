"""Who gets a piece from this node, and when: the node-wide upload places.

One transfer at a time keeps each piece's time short, which is what makes a swarm double quickly; a second opens only
beside a receiver that drains at under half of our free rate, so that a slow one does not occupy the place. A few
requests queue; more are refused at once, with the load, so that the asker looks elsewhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from p2pd.swarm.blob import Blob
from p2pd.swarm.commands import Count, StopUpload, Upload
from p2pd.swarm.messages import Have, Refuse, Request
from p2pd.swarm.state import NEVER, Peer, State

SLOW_FLOOR_S = 0.25  # a transfer is never called slow before this
RATE_WEIGHT = 0.3  # of the newest transfer in the estimate of our own rate


@dataclass(slots=True)
class Sending:
    peer: int
    rid: int
    digest: bytes
    index: int
    length: int
    linked: bool
    started: float = 0.0
    first: bool = False  # the only copy outside this node


class Uploads:
    """The places and the queue. `busy` and `rate` are what the news advertise."""

    def __init__(self, state: State) -> None:
        self._s = state
        self._active: dict[tuple[int, int], Sending] = {}
        self._queue: deque[Sending] = deque()
        self._refused: deque[int] = deque(maxlen=64)
        self.rate = 0.0  # bytes/s of one transfer when it had the link to itself

    @property
    def load(self) -> int:
        return len(self._active) + len(self._queue)

    def request(self, peer: Peer, blob: Blob, request: Request, first: bool = False) -> None:
        """Take a request whose piece is present, or refuse it.

        `first`: a claimed piece, which nobody else has; it goes before those that have left, even beside a full queue.
        """
        assert blob.geometry
        sending = Sending(
            peer.number,
            request.rid,
            blob.digest,
            request.index,
            blob.geometry.length(request.index),
            request.linked,
        )
        if self._free_place():
            self._start(sending)
        elif first and self._first_of(peer.number) < self._s.settings.shown_to_one:
            sending.first = True
            self._queue.insert(sum(1 for s in self._queue if s.first), sending)
        elif len(self._queue) < self._queue_bound(peer):
            self._queue.append(sending)
        else:
            self._refuse(peer, request.rid, "busy")

    def refuse(self, peer: Peer, rid: int, reason: str) -> None:
        """Say no for another reason than load."""
        self._refuse(peer, rid, reason)

    def holds(self, peer: int, index: int) -> bool:
        """Whether this piece is being sent to that peer, or queued for it."""
        return any(s.peer == peer and s.index == index for s in (*self._active.values(), *self._queue))

    def _first_of(self, peer: int) -> int:
        return sum(1 for s in self._queue if s.first and s.peer == peer)

    def cancel(self, peer: int, rid: int) -> None:
        """The asker does not want it any more."""
        if (peer, rid) in self._active:
            self._s.out.append(StopUpload(peer, rid))
        else:
            self._queue = deque(s for s in self._queue if (s.peer, s.rid) != (peer, rid))

    def cancel_pieces(self, digest: bytes, pieces: int) -> None:
        """These pieces are not present any more: stop sending them."""
        for sending in [*self._active.values(), *self._queue]:
            if sending.digest == digest and pieces >> sending.index & 1:
                self.cancel(sending.peer, sending.rid)
                if (sending.peer, sending.rid) not in self._active:
                    self._s.send(sending.peer, Refuse(sending.rid, "absent", self.load))

    def peer_down(self, peer: int) -> None:
        for key in [key for key in self._active if key[0] == peer]:
            del self._active[key]
        self._queue = deque(s for s in self._queue if s.peer != peer)
        self.pump()

    def done(self, peer: int, rid: int, whole: bool) -> Sending | None:
        """An upload is over; what it was, and the next one starts."""
        sending = self._active.pop((peer, rid), None)
        if sending is None:
            return None
        took = self._s.now - sending.started
        if whole and took > 0 and not self._active:
            sample = sending.length / took
            self.rate = sample if not self.rate else (1 - RATE_WEIGHT) * self.rate + RATE_WEIGHT * sample
        self.pump()
        return sending

    def pump(self) -> None:
        """Start what waits, while there are places; tell as many that were refused as there is room for."""
        while self._queue and self._free_place():
            self._start(self._queue.popleft())
        room = self._s.settings.places + 1 - self.load
        while self._refused and room > 0:
            peer = self._s.peers.get(self._refused.popleft())
            if peer and peer.refused:
                peer.refused = False
                room -= 1
                for digest in peer.blobs:
                    self._s.send(peer.number, Have(digest, (), self.load, int(self.rate), 0))
                    break

    @property
    def deadline(self) -> float:
        """When the queue may move although nothing is done: the transfer under way counts as slow then."""
        if not self._queue or len(self._active) >= self._s.settings.places_most:
            return NEVER
        slow_at = (self._slow_at(s) for s in self._active.values())
        return min((at for at in slow_at if at > self._s.now), default=NEVER)

    def _queue_bound(self, peer: Peer) -> int:
        settings = self._s.settings
        if any(blob.hungry for blob in self._s.blobs.values()):
            return settings.queued_most
        return settings.queued_whole_most

    def _free_place(self) -> bool:
        if len(self._active) >= self._s.settings.places_most:
            return False
        now = self._s.now
        taken = sum(1 for s in self._active.values() if now < self._slow_at(s))
        return taken < self._s.settings.places

    def _slow_at(self, sending: Sending) -> float:
        """When a transfer no longer counts as one that occupies a place."""
        return sending.started + (max(SLOW_FLOOR_S, 2 * sending.length / self.rate) if self.rate else SLOW_FLOOR_S)

    def _start(self, sending: Sending) -> None:
        blob = self._s.blobs.get(sending.digest)
        if blob is None or not blob.present >> sending.index & 1:
            self._s.send(sending.peer, Refuse(sending.rid, "absent", self.load))
            return
        assert blob.chain
        sending.started = self._s.now
        self._active[(sending.peer, sending.rid)] = sending
        vouchers = ()
        if not sending.linked:
            vouchers = self._s.vouchers_for(blob, sending.index)
        self._s.out.append(Upload(sending.peer, sending.rid, sending.digest, sending.index, vouchers))

    def _refuse(self, peer: Peer, rid: int, reason: str) -> None:
        self._s.send(peer.number, Refuse(rid, reason, self.load))
        if reason == "busy":
            self._s.out.append(Count("refused", 1))
            if not peer.refused:
                peer.refused = True
                self._refused.append(peer.number)
