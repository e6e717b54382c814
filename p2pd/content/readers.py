"""One client reading one blob: from the store, or while it arrives.

When an arriving blob's bytes may go out:
- proven: all of them;
- pulled by this node itself, from the beginning on: as they come, exactly as upstream would have sent them;
- from peers: not before the blob is proven, for `hold_back` seconds; after that as far as the prefix is vouched for and
  holds, unless `stream` is "proven".

A client that asks from the middle on, of a blob whose chain was refuted and which is not proven yet, gets nothing: it
may have the beginning of the false one.

When it is given up: nobody can get it, or nothing came for `header_wait` (before the first byte), or the bytes stood
still for STALL_S (after it). For a client that has nowhere else to go, this node then pulls the rest itself, and the
end comes PATIENT_WAIT_S later.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrival import Arrival, raw
from p2pd.content.arrivals import Arrivals
from p2pd.engine import Engine
from p2pd.mirror import Interrupted, NotAvailable
from p2pd.store import OpenBlob, StoreError
from p2pd.swarm import events as ev

STALL_S = 20.0  # in mid-body: containerd goes on upstream at that byte, so waiting longer costs more than it gains
PATIENT_WAIT_S = 300.0  # for clients without another host
STANDING_STILL_S = 2.0  # then the pieces that this client needs next are asked for first


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. `streams_early`: after hold_back, a vouched prefix may go out."""

    hold_back: float
    header_wait: float
    streams_early: bool


class StoredReader:
    """A proven blob."""

    def __init__(self, blob: OpenBlob, media_type: str | None, metrics: Metrics) -> None:
        self._blob = blob
        self._metrics = metrics
        self.size = blob.size
        self.media_type = media_type

    async def wait(self, offset: int) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self.size

    def fileno(self) -> int:
        return self._blob.fileno()

    def sent(self, count: int) -> None:
        self._metrics.sent("client", count)


class ArrivingReader:
    """A blob on its way. It must have a file, so its size is known."""

    def __init__(
        self,
        arrival: Arrival,
        arrivals: Arrivals,
        engine: Engine,
        metrics: Metrics,
        patience: Patience,
        random: Random,
        *,
        patient: bool,
        media_type: str | None = None,
    ) -> None:
        assert arrival.partial
        self._arrival = arrival
        self._file = arrival.partial
        self._arrivals = arrivals
        self._engine = engine
        self._metrics = metrics
        self._patience = patience
        self._random = random
        self._patient = patient
        self._began = trio.current_time()
        self._refuted = arrival.refuted
        self._started = False
        self.size = arrival.size
        self.media_type = media_type

    async def wait(self, offset: int) -> int:
        await trio.lowlevel.checkpoint()
        arrival = self._arrival
        since = trio.current_time()
        while True:
            if arrival.partial is not self._file:
                raise Interrupted("its size was not what other nodes said")
            if self._started and arrival.refuted != self._refuted:
                self._metrics.refuted_stream()
                raise Interrupted("what was sent rests on a refuted chain")
            if not self._started and offset and arrival.refuted and not arrival.proven:
                # Whoever goes on from there may have begun on the chain that fell: what comes now would be in vain.
                raise NotAvailable("BLOB_UNKNOWN", f"a chain of {arrival.digest} was refuted: begin anew")
            end = self._may_send(offset)
            if end > offset:
                self._started = True
                return end
            if arrival.failure:
                await self._fail()
            now = trio.current_time()
            give_up_at = self._gives_up_at(since)
            if now >= give_up_at:
                if not self._patient or now >= give_up_at + PATIENT_WAIT_S:
                    self._give_up()
                self._arrivals.pull_alone(arrival)
            if self._wants_help(since, now) and arrival.size > 0:
                self._engine.post(ev.Reading(raw(arrival.digest), offset // arrival.piece_size))
            await self._changed(give_up_at)

    def _may_send(self, offset: int) -> int:
        arrival = self._arrival
        if arrival.proven:
            return self.size
        if offset < arrival.own_end:
            return arrival.own_end
        early = self._patience.streams_early and arrival.size_is_sure
        if early and (self._started or trio.current_time() >= self._began + self._patience.hold_back):
            return arrival.present_end(offset)
        return offset

    def _gives_up_at(self, since: float) -> float:
        if self._started or not self._patience.streams_early:
            # In mid-body, and where only proven bytes may go out: as long as the blob comes nearer.
            wait = STALL_S if self._started else self._patience.header_wait
            return max(since, self._arrival.progress_at) + wait
        return self._began + self._patience.header_wait

    def _wants_help(self, since: float, now: float) -> bool:
        """Whether the next pieces for this client should come first: nothing comes at all, or all but these do. The
        swarm brings the rarest first, so on a slow line a large blob comes nearer for long without its beginning."""
        if now - max(since, self._arrival.progress_at) > STANDING_STILL_S:
            return True
        wait = STALL_S if self._started else self._patience.header_wait
        return self._patience.streams_early and now - since > wait / 2

    async def _changed(self, give_up_at: float) -> None:
        """Wait for news of the blob, or the next moment at which something may be decided."""
        now = trio.current_time()
        hold_back_ends = self._began + self._patience.hold_back
        moments = [now + 1.0]
        if hold_back_ends > now:
            moments.append(hold_back_ends)
        if give_up_at > now:
            moments.append(give_up_at)
        with trio.move_on_at(min(moments)):
            await self._arrival.changed.wait()

    async def _fail(self) -> None:
        arrival = self._arrival
        if self._started:
            raise Interrupted(f"given up: {arrival.failure}")
        if arrival.failure == "limited":
            # The registry asked everybody to wait: do not send all containerds there in the same second.
            left = self._began + self._patience.header_wait - trio.current_time()
            await trio.sleep(max(0.0, left) * self._random.random())
        raise NotAvailable("BLOB_UNKNOWN", f"no node can get {arrival.digest}: {arrival.failure}")

    def _give_up(self) -> None:
        if self._started:
            raise Interrupted(f"no byte for {STALL_S:g} s")
        raise NotAvailable(
            "BLOB_UNKNOWN", f"{self._arrival.digest} did not come within {self._patience.header_wait:g} s"
        )

    def fileno(self) -> int:
        try:
            return self._file.fileno()
        except StoreError as error:
            raise Interrupted(f"this node's disk: {error}") from None

    def sent(self, count: int) -> None:
        self._metrics.sent("client", count)
