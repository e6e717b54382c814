"""What this node tells its neighbours that it has: all of it to one (Join), and the news in batches (Have, News)."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from p2pd.swarm.blob import Blob
from p2pd.swarm.messages import BLOBS_OF_NEWS_MAX, NEWS_MAX, Have, Join, News
from p2pd.swarm.peer import Peer
from p2pd.swarm.pieces import indices, pack
from p2pd.swarm.state import NEVER, State
from p2pd.swarm.uploads import Uploads


class Teller:
    """The news of all blobs. While a blob is seeded there are none of it: the seeder shows each piece by itself."""

    def __init__(self, state: State, uploads: Uploads) -> None:
        self._s = state
        self._uploads = uploads
        self._waiting: dict[bytes, None] = {}  # blobs of which there is news for the next batch
        self._turn = 0  # of the neighbours whose numbers, divided by `news_turns`, leave this
        self._told_at = 0.0  # when the last batch went out
        self.deadline = NEVER  # when the next one is due

    def arrived(self, blob: Blob) -> None:
        """A piece is new here: tell now, or soon, with others."""
        self._waiting[blob.digest] = None
        if not blob.told:
            blob.told = [0] * self._s.settings.news_turns
        self.deadline = self._told_at + self._s.settings.news_s
        if self.deadline <= self._s.now:
            self._send()
        else:
            self._tell_served(blob)

    def forget(self, digest: bytes) -> None:
        self._waiting.pop(digest, None)

    def tick(self) -> None:
        if self.deadline <= self._s.now:
            self._send()

    # -- all of it --------------------------------------------------------------------------------------------------

    def join_all(self, blob: Blob) -> None:
        """Every connected node hears of the blob and of all that is here of it."""
        self.all_told(blob)
        for peer in self._s.peers.values():
            if peer.tracker < 0:
                self.join(peer, blob)

    def all_told(self, blob: Blob) -> None:
        """Every neighbour hears, now, of all that is shown of the blob."""
        blob.told = [blob.left if blob.seeding else blob.present] * self._s.settings.news_turns

    def join(self, peer: Peer, blob: Blob) -> None:
        neighbour = blob.neighbours.get(peer.number)
        if neighbour:
            neighbour.ahead = blob.left if blob.seeding else blob.present
        self._s.send(peer.number, self._join_message(blob))

    def _join_message(self, blob: Blob) -> Join:
        assert blob.geometry
        told = blob.left if blob.seeding else blob.present
        packed = pack(told, blob.geometry.count)
        return Join(
            blob.digest,
            blob.geometry.size,
            packed,
            blob.hungry,
            blob.term,
            self._uploads.load,
            self._uploads.told_rate,
        )

    # -- news -------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Tell the neighbours whose turn it is, of all blobs at once; most lack the same: all hear the same."""
        state = self._s
        self._told_at, self.deadline = state.now, NEVER
        waiting, self._waiting = self._waiting, {}
        haves: dict[int, list[Have]] = {}
        turns = self._next_turns()
        for digest in waiting:
            blob = state.blobs.get(digest)
            if blob is None or blob.seeding:
                continue
            for turn in turns:
                self._gather(blob, turn, haves)
            if any(blob.present & ~told for told in blob.told):
                self._waiting[digest] = None
                self.deadline = state.now + state.settings.news_s
        messages: dict[tuple[int, ...], News] = {}  # most hear the same
        for number, several in haves.items():
            if len(several) == 1:
                state.send(number, several[0])
                continue
            for start in range(0, len(several), BLOBS_OF_NEWS_MAX):
                part = several[start : start + BLOBS_OF_NEWS_MAX]
                same = tuple(map(id, part))
                if same not in messages:
                    messages[same] = News(tuple(part))
                state.send(number, messages[same])

    def _next_turns(self) -> Collection[int]:
        """Of many neighbours a part hears at a time: who hears of a piece at once comes for it at once, and in vain."""
        turns = range(self._s.settings.news_turns)
        if len(self._s.peers) <= self._s.settings.news_to_all:
            return turns
        self._turn = (self._turn + 1) % len(turns)
        return (self._turn,)

    def _gather(self, blob: Blob, turn: int, haves: dict[int, list[Have]]) -> None:
        """The news of one blob for those whose turn it is."""
        new = blob.present & ~blob.told[turn]
        if not new:
            return
        pieces = tuple(islice(indices(new), NEWS_MAX))
        if len(pieces) == NEWS_MAX:
            new &= (2 << pieces[-1]) - 1
        blob.told[turn] |= new
        uploads = self._uploads
        count = blob.present.bit_count()
        have = Have(blob.digest, pieces, count, uploads.told_load, uploads.told_rate, blob.term)
        turns = len(blob.told)
        for number, neighbour in blob.neighbours.items():
            if number % turns != turn or not neighbour.wanting:
                continue
            if new & ~neighbour.ahead & (-1 if neighbour.term else ~neighbour.have):
                haves.setdefault(number, []).append(have)

    def _tell_served(self, blob: Blob) -> None:
        """Those that are served here hear at once: who has nothing left to ask for leaves its place."""
        new = [blob.present & ~told for told in blob.told]
        if not any(new):
            return
        load, rate = -1, 0
        for number in self._uploads.served():
            neighbour = blob.neighbours.get(number)
            if neighbour is None or not neighbour.wanting:
                continue
            more = new[number % len(new)] & ~(neighbour.ahead | neighbour.have)
            if more:
                if load < 0:
                    load, rate = self._uploads.told_load, self._uploads.told_rate
                pieces = tuple(islice(indices(more), NEWS_MAX))
                more &= (2 << pieces[-1]) - 1
                neighbour.ahead = neighbour.ahead & blob.present | more
                self._s.send(number, Have(blob.digest, pieces, blob.present.bit_count(), load, rate, blob.term))
