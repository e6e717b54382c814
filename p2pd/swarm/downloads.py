"""Which piece is asked of whom, over all blobs of the node.

1. Blobs: one that a client waits for first, then the one nearest its end.
2. The uploader first: those that serve us already, with the next request there before this one is done. A few at a
   time, as many as its places serve others, so that neither end of a line stands idle; fewer while we pull from
   upstream, more while we are behind our neighbours. Then the least loaded that has something useful and room.
3. Then the piece: the rarest of what that uploader has. A piece that a local client stands still at goes before,
   of whatever blob it is.
4. Late by three times its usual: the next best is asked too, the loser is cancelled, and the late one's rate halved.
5. At the end, when all that is missing is in flight, what is expected later than twice the median is asked twice.
6. In other zones only what is this node's to fetch into its own one (p2pd.swarm.zones), but for hedges.

Pairing comes before choosing: what was tried, with figures, stands in docs/simulator.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pd.swarm.blob import Blob, Neighbour
from p2pd.swarm.commands import Abandon, Count, Fetch
from p2pd.swarm.messages import Cancel, Request
from p2pd.swarm.peer import Peer, blend
from p2pd.swarm.pieces import indices, lowest
from p2pd.swarm.state import NEVER, State
from p2pd.swarm.uploads import FULL

READING_AHEAD: Final = 16  # pieces that a client which stands still is helped with
SLOW_AGAIN_S: Final = 3.0  # who was slow is tried again like any other after this: one bad sample is not for ever
LINES_MAX: Final = 256  # other zones that are told apart
BUSY: Final = 0.7  # of what transfers from other zones usually reach
WEIGHT: Final = 0.3  # of the newest sample in a running mean
TYPICAL_WEIGHT: Final = 0.1  # ... in that over all uploaders


@dataclass(slots=True)
class Asked:
    """One request that is out."""

    rid: int
    peer: int
    digest: bytes
    index: int
    length: int
    sent: float
    late_at: float
    give_up_at: float
    hedge: bool
    started: float = 0.0
    late: bool = False
    has_left: bool = False  # its sender has dropped pieces since, so this one may be of a chain that it has left


@dataclass(slots=True)
class Line:
    """Another zone's line, as far as our transfers show it."""

    rate: float = 0.0  # bytes/s that one of them reaches
    asked_at: float = 0.0


class Downloads:
    """All requests that this node has out."""

    def __init__(self, state: State) -> None:
        self._s = state
        self._asked: dict[int, Asked] = {}
        self._bytes = 0
        self._next_rid = 1
        self._sources: dict[int, Peer] = {}  # uploaders with requests of ours
        self._behind_at = 0.0  # when to look again how far behind we are
        self._behind_by = 0
        self._typical = 0.0  # bytes/s that a transfer usually reaches
        self._usual_s = 0.0
        self._usual_across_s = 0.0  # from request to piece, from other zones
        self._across_rate = 0.0  # bytes/s that a transfer from other zones usually reaches
        self._lines: dict[str, Line] = {}  # of the other zones
        self._again_at = NEVER  # when the first of those that were busy may be asked again
        self._look = False  # something changed that may let us ask: `fill` has to look at everything
        self._soonest = NEVER  # no request is late or given up before this

    @property
    def out(self) -> int:
        """Requests out."""
        return len(self._asked)

    def get(self, peer: int, rid: int) -> Asked | None:
        asked = self._asked.get(rid)
        return asked if asked and asked.peer == peer else None

    def of_blob(self, digest: bytes) -> list[Asked]:
        return [a for a in self._asked.values() if a.digest == digest]

    def of_piece(self, digest: bytes, index: int) -> list[Asked]:
        return [a for a in self._asked.values() if a.digest == digest and a.index == index]

    def sender_left(self, peer: int, digest: bytes, had: int) -> None:
        """A peer drops pieces: what of those that it had is on its way may be of a chain that it has left."""
        for asked in self._asked.values():
            if asked.peer == peer and asked.digest == digest and had >> asked.index & 1:
                asked.has_left = True

    # -- asking -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """There may be something to ask for now: `fill` is to look."""
        self._look = True

    def fill(self) -> None:
        """Ask while the window and the uploaders have room. Costs nothing unless something changed."""
        if not self._look:
            return
        self._look = False
        if not self._room():
            return
        self._again_at = NEVER
        blobs = self._in_order()
        for blob in blobs:
            if blob.crossing.near and blob.missing:
                self._look_across(blob)
            if blob.reading >= 0 and blob.missing >> blob.reading & 1 and self._room():
                self._ask_for_reader(blob)
        for peer in list(self._sources.values()):
            self._ask_source(peer, blobs)
        for blob in blobs:
            while blob.missing and self._room() and self._wants_source():
                found = self._uploader(blob, blob.missing)
                if found is None:
                    blob.crossing.short_since = min(blob.crossing.short_since, self._s.now)
                    break
                peer, useful = found
                self._ask(peer, blob, self._choose(blob, useful), hedge=False)
                self._ask_source(peer, blobs)
            if not blob.missing:
                self._hedge_end(blob)
            if not self._room():
                return

    def _look_across(self, blob: Blob) -> None:
        """See what does not enter this node's zone, although it should."""
        crossing, now = blob.crossing, self._s.now
        if crossing.look_at <= now:
            elsewhere = 0
            for neighbour in blob.neighbours.values():
                if not neighbour.near:
                    elsewhere |= neighbour.have
            usual_s = max(self._usual_s, self._usual_across_s)
            pause = max(self._s.settings.across_late_s, self._s.settings.late_factor * usual_s)
            crossing.look(elsewhere & (blob.missing | blob.flying), now, pause)
        self._again_at = min(self._again_at, crossing.look_at)

    def _ask_for_reader(self, blob: Blob) -> None:
        """A client stands still at this piece: it goes before everything, else a blob that has all of our line for
        longer than a client waits would send the clients of all others to upstream."""
        now, bit = self._s.now, 1 << blob.reading
        serving = [peer for number, peer in self._sources.items() if number in blob.neighbours]
        able = [p for p in serving if blob.neighbours[p.number].have & bit and p.not_before <= now]
        if able:
            self._ask(min(able, key=lambda p: p.asked), blob, blob.reading, hedge=False)
            return
        found = self._uploader(blob, bit, anywhere=not blob.crossing.near_have & bit)
        if found:
            self._ask(found[0], blob, blob.reading, hedge=False)

    def _wants_source(self) -> bool:
        """Whether another uploader is worth asking beside those that we ask already."""
        settings = self._s.settings
        sources = self._sources
        behind = self._behind()
        wanted = settings.sources + behind
        if self._s.pulls:
            # A pull from upstream feeds everybody: peers must not take its share of our line.
            wanted = 1 if behind <= 0 or self._s.pull_slowed else 2
        if len(sources) < wanted:
            return True
        if len(sources) >= settings.sources_most:
            return False
        typical = self._typical
        weight = 0.0
        for peer in sources.values():
            weight += peer.rate / typical if 2 * peer.rate < typical and peer.rate else 1.0
        return weight < wanted - 0.5

    def _is_spare(self, peer: Peer) -> bool:
        """Whether we do without this one of our sources, because the pull from upstream gets too little of our line."""
        return bool(self._s.pulls) and self._s.pull_slowed and peer.number != next(iter(self._sources), peer.number)

    def _behind(self) -> int:
        """Sources more for a node that is behind its neighbours, one less for one that is ahead."""
        if self._behind_at > self._s.now:
            return self._behind_by
        settings = self._s.settings
        self._behind_at = self._s.now + settings.news_s / 4
        self._behind_by = self._how_far_behind()
        return self._behind_by

    def _how_far_behind(self) -> int:
        settings = self._s.settings
        behind = 0.0
        for blob in self._s.blobs.values():
            if blob.usual_count and blob.want and not blob.complete:
                behind += blob.usual_count - blob.present.bit_count()
        if behind > settings.behind_pieces:
            return 2 if behind > 3 * settings.behind_pieces else 1
        return -1 if behind < -settings.behind_pieces else 0

    def _ask_source(self, peer: Peer, blobs: list[Blob]) -> None:
        """Keep the line of an uploader that serves us full."""
        if peer.not_before > self._s.now or self._is_spare(peer):
            return
        for blob in blobs:
            neighbour = blob.neighbours.get(peer.number)
            if neighbour is None:
                continue
            depth = self._depth(peer, blob)
            if peer.asked >= depth and blob is blobs[-1]:
                return
            while (useful := blob.useful(neighbour, blob.missing)) and self._room():
                if peer.asked >= depth:
                    return
                self._ask(peer, blob, self._choose(blob, useful), hedge=False)

    def _depth(self, peer: Peer, blob: Blob) -> int:
        settings = self._s.settings
        assert blob.geometry
        deep = int(peer.rate * settings.pipeline_s / blob.geometry.piece_size) + 1
        return max(settings.at_one_uploader, min(settings.at_one_most, deep))

    def offered(self, peer: Peer, blob: Blob, neighbour: Neighbour) -> None:
        """One neighbour has news. While there is room, all others have been looked at: only it counts."""
        while (useful := blob.useful(neighbour, blob.missing)) and self._room():
            if not peer.asked:
                if not self._wants_source():
                    return
                not_before = self._not_before(peer)
                if not_before > self._s.now:
                    self._again_at = min(self._again_at, not_before)
                    return
            elif peer.not_before > self._s.now or peer.asked >= self._depth(peer, blob) or self._is_spare(peer):
                return
            self._ask(peer, blob, self._choose(blob, useful), hedge=False)

    def claim(self, peer: Peer, blob: Blob, pieces: int) -> None:
        """The seeder shows these pieces to us alone: ask at once, even beside a full set of requests.

        A claim that waits for room leaves the seeder's uplink idle, which everybody pays for.
        """
        settings = self._s.settings
        for index in indices(pieces & (blob.missing | blob.flying)):
            if blob.flying >> index & 1 and not self._waits_for_nobody(blob, index):
                continue
            full = self._bytes >= settings.window_most_bytes
            if full or peer.asked >= settings.at_one_uploader + settings.shown_to_one:
                return
            self._ask(peer, blob, index, hedge=False)

    def _waits_for_nobody(self, blob: Blob, index: int) -> bool:
        """Whether a piece was asked of one only, of whom nothing has ever come: it may have said that it has all."""
        if blob.copies[index] != 1:
            return False
        asked = self.of_piece(blob.digest, index)[0]
        peer = self._s.peers.get(asked.peer)
        return not asked.started and (peer is None or not peer.last_done_at)

    def _in_order(self) -> list[Blob]:
        hungry = [b for b in self._s.blobs.values() if b.want and b.geometry and (b.missing or b.flying)]
        if len(hungry) > 1:
            hungry.sort(key=lambda b: (not b.want or not b.want.clients, b.missing.bit_count()))
        return hungry

    def _room(self) -> bool:
        settings = self._s.settings
        return len(self._asked) < settings.requests_most and self._bytes < settings.window_most_bytes

    def _uploader(
        self, blob: Blob, pieces: int, other_than: int = -1, anywhere: bool = False
    ) -> tuple[Peer, int] | None:
        """The best to ask for some of `pieces`, and what of them. `anywhere`: in other zones as well."""
        best, best_wait, best_useful = None, NEVER, 0
        now, random = self._s.now, self._s.random.random
        half = self._typical / 2
        for neighbour in blob.neighbours.values():
            peer = neighbour.peer
            if peer.asked or peer.number == other_than:
                continue
            not_before = self._not_before(peer)
            if not_before > now and not_before >= self._again_at:
                continue  # before the sets, which cost more
            useful = neighbour.have & pieces if anywhere else blob.useful(neighbour, pieces)
            if not useful:
                continue
            if not_before > now:
                self._again_at = not_before
                continue
            wait = peer.load + 20 * random()
            if peer.rate < half and now - peer.asked_at < SLOW_AGAIN_S:
                wait = (wait + 50) * half / (peer.rate or half)
            if not neighbour.near and self._lines and self._is_busy_line(peer.contact.zone):
                wait += 50
            if wait < best_wait:
                best, best_wait, best_useful = peer, wait, useful
        return (best, best_useful) if best else None

    def _not_before(self, peer: Peer) -> float:
        """When an uploader that was busy may be asked again."""
        if peer.load < FULL:
            return peer.not_before
        return max(peer.not_before, peer.load_at + self._retry_s())

    def _retry_s(self) -> float:
        """How long a busy uploader is left in peace, unless it says that there is room."""
        settings = self._s.settings
        return min(settings.refused_wait_s, max(settings.refused_least_s, self._usual_s))

    def _choose(self, blob: Blob, useful: int) -> int:
        if blob.reading >= 0:
            near = useful >> blob.reading & ((1 << READING_AHEAD) - 1)
            if near:
                return blob.reading + lowest(near)
        return blob.rarest(useful, self._s.random)

    def ask_for_trial(self, peer: Peer, blob: Blob, index: int) -> int:
        """Ask this one for that piece, whatever else is out; the request's number."""
        self._ask(peer, blob, index, hedge=False)
        return self._next_rid - 1

    def _ask(self, peer: Peer, blob: Blob, index: int, hedge: bool) -> None:
        assert blob.geometry and blob.chain
        now, settings = self._s.now, self._s.settings
        rid, self._next_rid = self._next_rid, self._next_rid + 1
        length = blob.geometry.length(index)
        late = self._late_after(peer, length)
        self._asked[rid] = Asked(
            rid,
            peer.number,
            blob.digest,
            index,
            length,
            now,
            now + late,
            now + max(settings.stalled_s, 3 * late),
            hedge,
        )
        self._soonest = min(self._soonest, now + late)
        self._bytes += length
        peer.asked += 1
        peer.asked_at = now
        self._sources[peer.number] = peer
        if self._lines and peer.contact.zone in self._lines:
            self._lines[peer.contact.zone].asked_at = now
        blob.fly(index)
        linked = blob.geometry.count == 1 or index in blob.chain.vouchers
        self._s.out.append(Fetch(peer.number, rid, blob.digest, index))
        self._s.send(peer.number, Request(rid, blob.digest, index, linked, len(self._sources)))
        if hedge:
            self._s.out.append(Count("hedged", 1))

    def _late_after(self, peer: Peer | None, length: int) -> float:
        """Seconds after which a request counts as late."""
        settings = self._s.settings
        usual = max(self._usual_s, peer.usual_s if peer else 0.0)
        if peer and not self._s.is_near(peer.contact):
            usual = max(usual, self._usual_across_s)
        if usual:
            return max(settings.late_least_s, settings.late_factor * usual)
        return max(settings.late_first_s, length / settings.slowest_rate)

    # -- what comes of it -------------------------------------------------------------------------------------------

    def started(self, peer: int, rid: int) -> None:
        asked = self.get(peer, rid)
        if asked and not asked.started:
            asked.started = self._s.now

    def came(self, asked: Asked) -> None:
        """A piece came whole and held. Copies of it that are still out are cancelled."""
        peer = self._s.peers.get(asked.peer)
        now = self._s.now
        took = now - asked.sent
        if peer:
            seconds = now - max(asked.sent, asked.started, peer.last_done_at)
            peer.rate = blend(peer.rate, asked.length, seconds, WEIGHT)
            if self._typical:
                seconds = min(seconds, 3 * asked.length / self._typical)
            self._typical = blend(self._typical, asked.length, seconds, TYPICAL_WEIGHT)
            peer.usual_s = took if not peer.usual_s else (1 - WEIGHT) * peer.usual_s + WEIGHT * took
            peer.last_done_at = now
            peer.silent = False
            if peer.lets_wait:
                self._set_waiting(peer, False)
            if self._s.me.zone and not self._s.is_near(peer.contact):
                self._came_across(peer.contact.zone, asked.length, took)
        self._usual_s = took if not self._usual_s else (1 - WEIGHT) * self._usual_s + WEIGHT * took
        blob = self._s.blobs.get(asked.digest)
        if blob:
            blob.crossing.short_since = NEVER
        self._forget(asked)
        if blob and blob.copies.get(asked.index, 0) > 1:
            for other in self.of_piece(asked.digest, asked.index):
                if other.started:
                    self._s.out.append(Count("duplicate", other.length))
                self.cancel(other)

    def _came_across(self, zone: str, length: int, took: float) -> None:
        """A piece came from another zone; `took` is from request to piece, for its line's queue counts as well."""
        self._usual_across_s = (1 - WEIGHT) * (self._usual_across_s or took) + WEIGHT * took
        self._across_rate = blend(self._across_rate, length, took, TYPICAL_WEIGHT)
        line = self._lines.get(zone)
        if line is None and len(self._lines) < LINES_MAX:
            line = self._lines[zone] = Line(asked_at=self._s.now)
        if line:
            line.rate = blend(line.rate, length, took, WEIGHT)

    def _is_busy_line(self, zone: str) -> bool:
        """Whether transfers from that zone were slow of late, beside those from the others."""
        line = self._lines.get(zone)
        return line is not None and line.rate < BUSY * self._across_rate and self._s.now - line.asked_at < SLOW_AGAIN_S

    def drop(self, asked: Asked) -> None:
        """A request ended without its piece: refused, failed, or its peer is gone."""
        self._forget(asked)
        blob = self._s.blobs.get(asked.digest)
        if blob:
            blob.land(asked.index)

    def cancel(self, asked: Asked) -> None:
        """Take a request back."""
        self._s.send(asked.peer, Cancel(asked.rid))
        self._s.out.append(Abandon(asked.peer, asked.rid))
        self.drop(asked)

    def cancel_blob(self, digest: bytes, pieces: int = -1) -> None:
        for asked in [a for a in self._asked.values() if a.digest == digest and pieces >> a.index & 1]:
            self.cancel(asked)

    def refused(self, peer: Peer, rid: int, reason: str, load: int) -> None:
        asked = self.get(peer.number, rid)
        if asked is None:
            return
        self._s.out.append(Abandon(peer.number, rid))
        self.drop(asked)
        blob = self._s.blobs.get(asked.digest)
        neighbour = blob.neighbours.get(peer.number) if blob else None
        if reason == "busy":
            peer.load, peer.load_at = max(load, FULL), self._s.now
            peer.not_before = self._s.now + self._retry_s()
        elif blob and neighbour:
            blob.neighbour_lacks(neighbour, 1 << asked.index)

    def peer_down(self, peer: int) -> None:
        for asked in [a for a in self._asked.values() if a.peer == peer]:
            self.drop(asked)

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        return min(self._soonest, self._again_at)

    def tick(self) -> None:
        """Hedge what is late, give up what stands still."""
        now = self._s.now
        if self._again_at <= now:
            self._again_at = NEVER
            self._look = True
        if self._soonest > now:
            return
        for asked in list(self._asked.values()):
            if asked.rid not in self._asked:
                continue
            if asked.give_up_at <= now:
                self._slower(asked)
                self._in_vain(asked)
            elif asked.late_at <= now:
                # What was usual when it was asked may not be now: in the beginning lines are empty.
                asked.late_at = asked.sent + self._late_after(self._s.peers.get(asked.peer), asked.length)
                if asked.late_at > now and not asked.late:
                    continue
                asked.late_at = NEVER
                if not asked.late:
                    asked.late = True
                    self._slower(asked)
                    late = self._s.peers.get(asked.peer)
                    if late and not late.lets_wait and self._delivered_nothing(asked):
                        self._set_waiting(late, True)
                self._hedge(asked)
        self._soonest = NEVER
        for asked in self._asked.values():
            self._soonest = min(self._soonest, asked.late_at, asked.give_up_at)

    def _slower(self, asked: Asked) -> None:
        peer = self._s.peers.get(asked.peer)
        if peer:
            peer.rate = (peer.rate or self._s.settings.rate_first) / 2

    def _hedge(self, asked: Asked) -> bool:
        blob = self._s.blobs[asked.digest]
        if blob.copies.get(asked.index, 0) != 1:
            # Two that both let us wait must not hold the piece between them: the one that sends nothing at all goes.
            for other in self.of_piece(asked.digest, asked.index):
                if other is not asked and not other.started and self._delivered_nothing(other):
                    self._in_vain(other)
            if blob.copies.get(asked.index, 0) != 1:
                return False
        bit = 1 << asked.index
        found = self._uploader(blob, bit, asked.peer) or self._uploader(blob, bit, asked.peer, anywhere=True)
        if found is None and not asked.started and self._delivered_nothing(asked):
            self._in_vain(asked)
            return False
        if found is None:
            # nobody else has room for it now: look again soon
            asked.late_at = self._s.now + max(self._s.settings.late_least_s, self._usual_s)
            return False
        self._ask(found[0], blob, asked.index, hedge=True)
        return True

    def _delivered_nothing(self, asked: Asked) -> bool:
        """Whether the peer has sent no piece since it was asked for this one."""
        peer = self._s.peers.get(asked.peer)
        return peer is not None and asked.late and peer.last_done_at < asked.sent

    def _in_vain(self, asked: Asked) -> None:
        """The peer let us wait for nothing: take the request back, and do not build on what it says it has."""
        peer = self._s.peers.get(asked.peer)
        if peer and self._delivered_nothing(asked):
            peer.silent = True
            peer.not_before = self._s.now + self._s.settings.silent_wait_s
        self.cancel(asked)

    def _set_waiting(self, peer: Peer, lets_wait: bool) -> None:
        """While a near peer lets us wait for what it has, that is not in our zone, nor does it bring anything in."""
        peer.lets_wait = lets_wait
        if self._s.is_near(peer.contact):
            for digest in peer.blobs:
                blob = self._s.blobs.get(digest)
                if blob and peer.number in blob.neighbours:
                    blob.neighbours[peer.number].near = not lets_wait
                    blob.near_changed()

    def _hedge_end(self, blob: Blob) -> None:
        """All that is missing is in flight: do not let the last pieces wait for the slowest uploader."""
        mine = self.of_blob(blob.digest)
        if not self._usual_s or not mine:
            return
        for asked in mine:
            if asked.rid not in self._asked:
                continue  # given up for the one before
            peer = self._s.peers[asked.peer]
            expected = asked.length / (peer.rate or self._s.settings.rate_first)
            if asked.started:
                left = abs(expected - (self._s.now - asked.started))
            else:
                left = max(expected, self._s.now - asked.sent)
            if left > self._s.settings.endgame_factor * self._usual_s:
                if not self._room():
                    return
                self._hedge(asked)

    def _forget(self, asked: Asked) -> None:
        self._look = True
        del self._asked[asked.rid]
        self._bytes -= asked.length
        peer = self._s.peers.get(asked.peer)
        if peer:
            peer.asked -= 1
            if not peer.asked:
                self._sources.pop(peer.number, None)
        else:
            self._sources.pop(asked.peer, None)
