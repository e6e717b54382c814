"""All blobs that are arriving at this node: their files, and what the core and the clients are told of them.

Carries out the core's commands about pieces (Keep, Drop, Prove, ComputeChain, Failed, SizeHint) and tells it of wishes.
Bytes of peers are written by the connections, bytes from upstream by `pulling`; both through the blob's Partial.

The rule that everything rests on: what the core takes for present, the file has, and is marked to have. A file never
overwrites a piece that is marked, so a mark which the core knows nothing of would keep wrong bytes in a proven blob.

May know p2pd.store, p2pd.swarm, p2pd.engine; not the mirror and not the network.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrival import Arrival, Lent, raw, text
from p2pd.content.chains import states_of
from p2pd.content.records import pack_record, unpack_record
from p2pd.engine import Engine
from p2pd.oci import MANIFEST_SIZE_MAX, Kind
from p2pd.store import OpenBlob, Partial, Store, StoreError, StoreFull
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.pieces import BLOB_SIZE_MAX, Geometry, indices
from p2pd.upstream import Identity

log = logging.getLogger(__name__)

KEEP_WANTING_S = 30.0  # after the last client left: a containerd that lost its connection comes back within seconds
SWEEP_S = 1.0  # how often wishes are looked through
FLUSH_S = 5.0  # a checked piece is on the disk, recorded, after at most so long
FLUSH_BYTES = 64 * 1024 * 1024  # ... or so many bytes
ARRIVING_MAX = 1024  # blobs; a client that asks for more at a time is not an OCI client
CHAINS_MAX = 2  # stored blobs hashed at a time, for peers: a warm node that many ask must keep threads for the rest


class Arrivals:
    """All blobs that are arriving, by digest."""

    sink_errors: tuple[type[Exception], ...] = (StoreError,)

    def __init__(self, store: Store, engine: Engine, metrics: Metrics, nursery: trio.Nursery) -> None:
        self._store = store
        self._engine = engine
        self._metrics = metrics
        self._nursery = nursery
        self._all: dict[str, Arrival] = {}
        self._much = trio.Event()  # more than FLUSH_BYTES wait to be recorded
        self._chains = trio.CapacityLimiter(CHAINS_MAX)
        self.can_pull: Callable[[str], bool] = lambda upstream: False
        self.on_hold: Callable[[str, int], None] = lambda upstream, seconds: None

    def commands(self) -> dict[type, Callable]:
        return {
            cmd.Keep: self._keep,
            cmd.Drop: self._drop,
            cmd.Prove: self._prove,
            cmd.ComputeChain: lambda c: self._nursery.start_soon(self._compute_chain, c),
            cmd.Failed: lambda c: self.fail(text(c.digest), c.reason, c.hold_s),
            cmd.SizeHint: self._size_hint,
        }

    def load(self) -> None:
        """Tell the core what the store has: proven blobs, and pieces that were recorded."""
        for digest, size in self._store.digests():
            self._engine.post(ev.Stored(raw(digest), size))
        for partial in self._store.partials():
            if _is_ours(partial):
                arrival = self._all[partial.digest] = Arrival(partial.digest, "blob", "", "")
                self._adopt(arrival, partial)
                if not arrival.present and not arrival.proven:
                    del self._all[partial.digest]

    # -- wishes -----------------------------------------------------------------------------------------------------

    def get(self, digest: str) -> Arrival | None:
        return self._all.get(digest)

    def all(self) -> list[Arrival]:
        return list(self._all.values())

    def want(
        self,
        kind: Kind,
        upstream: str,
        repository: str,
        digest: str,
        size: int,
        *,
        identity: Identity | None = None,
        keep_s: float = KEEP_WANTING_S,
    ) -> Arrival | None:
        """This node wants the blob from now on; None if there is no room for it. `size` is -1 while unknown.

        `identity`: as whom it may be pulled from there, if this node itself may not.

        Not for a blob that the store has.
        """
        now = trio.current_time()
        arrival = self._all.get(digest)
        if arrival is None:
            if len(self._all) >= ARRIVING_MAX:
                return None
            arrival = self._all[digest] = Arrival(digest, kind, upstream, repository)
        arrival.kind, arrival.upstream, arrival.repository, arrival.identity = kind, upstream, repository, identity
        arrival.keep_until = max(arrival.keep_until, now + keep_s)
        if arrival.proven:
            return arrival
        if arrival.started_at is None:
            arrival.started_at = arrival.progress_at = now
            self._pin(arrival)
        if raw(digest) in self._engine.node.state.stored and self._store.proven(digest) is None:
            # Evicted, or removed by hand, and the core has not heard of it: it would take the wish for fulfilled.
            self._engine.post(ev.Evicted(raw(digest)))
        if size >= 0 and not (arrival.partial and arrival.size_is_sure):
            self._nursery.start_soon(self.set_size, arrival, size, True)
        self.tell(arrival)
        return arrival

    @contextmanager
    def client(self, arrival: Arrival) -> Iterator[None]:
        """A client waits for it or reads it."""
        arrival.clients += 1
        if arrival.clients == 1:
            self.tell(arrival)
        try:
            yield
        finally:
            arrival.clients -= 1
            arrival.keep_until = max(arrival.keep_until, trio.current_time() + KEEP_WANTING_S)
            if not arrival.clients:
                self.tell(arrival)

    def pull_alone(self, arrival: Arrival) -> None:
        """Its client has nowhere else to go: get what is missing from upstream, lease or not. May be repeated."""
        if not arrival.alone:
            arrival.alone = True
            log.info("%s: pulling it outside the lease, for a client without fallback", arrival.digest)
        blob = self._engine.node.blob(raw(arrival.digest))
        if blob is None or not (blob.alone or blob.term):
            self.tell(arrival)

    def tell(self, arrival: Arrival) -> None:
        """Say to the core what is wanted now."""
        if arrival.proven or arrival.failure:
            return
        arrival.told_can_pull = self.can_pull(arrival.upstream)
        self._engine.post(
            ev.Want(
                raw(arrival.digest),
                arrival.size if arrival.partial else -1,
                arrival.kind,
                arrival.upstream,
                arrival.repository,
                arrival.clients,
                arrival.told_can_pull,
                arrival.alone,
            )
        )

    def fail(self, digest: str, reason: str, hold_s: int = 0) -> None:
        """Nobody can get it, or it can't be stored: the clients are told, what is refuted is dropped."""
        arrival = self._all.get(digest)
        if arrival is None or arrival.proven or arrival.failure:
            return
        log.warning("%s: given up: %s", digest, reason)
        arrival.failure = reason
        if hold_s and arrival.upstream:
            self.on_hold(arrival.upstream, hold_s)
        if reason == "wrong-bytes":
            self._engine.execute(self._engine.node.give_up(raw(digest)))
        else:
            if reason == "storage":  # if it is here, the lease goes to a node that has room
                self._engine.post(ev.PullEnded(raw(digest), "bad-answer"))
            self._engine.post(ev.Unwant(raw(digest)) if arrival.present else ev.Evicted(raw(digest)))
        del self._all[digest]
        self._let_go(arrival)
        arrival.change()

    async def sweep(self) -> None:
        """For ever: end wishes that nobody has any more, record what is checked."""
        while True:
            with trio.move_on_after(SWEEP_S):
                await self._much.wait()
            self._much = trio.Event()
            for arrival in self.all():
                if arrival.started_at is not None and not arrival.proven:
                    self._look_after(arrival)
            for arrival in self.all():
                if self._flush_is_due(arrival):
                    arrival.flushed_at = trio.current_time()
                    assert arrival.partial
                    await self._flush(arrival.partial)

    def _look_after(self, arrival: Arrival) -> None:
        if not arrival.clients and trio.current_time() > arrival.keep_until:
            self._end_wish(arrival)
        elif arrival.told_can_pull != self.can_pull(arrival.upstream):
            self.tell(arrival)

    def _end_wish(self, arrival: Arrival) -> None:
        blob = self._engine.node.blob(raw(arrival.digest))
        if blob and blob.term and any(n.wanting for n in blob.neighbours.values()):
            return  # a peer asks its holder for it
        del self._all[arrival.digest]
        self._engine.post(ev.Unwant(raw(arrival.digest)))
        self._let_go(arrival)

    # -- their files --------------------------------------------------------------------------------------------------

    async def set_size(self, arrival: Arrival, size: int, sure: bool) -> None:
        """The size is known: open its file, and tell the core. No room for it makes the arrival fail.

        `sure`: upstream or a proven manifest says so. Then it goes before what only other nodes said.
        """
        async with arrival.opening:
            if arrival.failure or self._all.get(arrival.digest) is not arrival:
                return
            if sure and arrival.partial and not arrival.size_is_sure and arrival.size != size:
                self._begin_anew(arrival, size)
            if arrival.partial is None:
                await self._open(arrival, size)
        if arrival.partial:
            arrival.size_is_sure = arrival.size_is_sure or (sure and size == arrival.size)
        arrival.change()

    async def _open(self, arrival: Arrival, size: int) -> None:
        if not is_possible(arrival.kind, size):
            log.error("%s: no %s has %d bytes", arrival.digest, arrival.kind, size)
            self.fail(arrival.digest, "bad-answer")
            return
        piece_size = Geometry.of(size).piece_size
        try:
            partial = await trio.to_thread.run_sync(
                functools.partial(self._store.partial, arrival.digest, size, piece_size, pin=True)
            )
        except (StoreError, ValueError) as error:
            log.error("%s can't be stored: %s", arrival.digest, error)
            self.fail(arrival.digest, "storage")
            return
        if self._all.get(arrival.digest) is not arrival:  # given up meanwhile
            self._nursery.start_soon(self._end_partial, partial, True, not partial.present)
            return
        arrival.pinned = True
        self._adopt(arrival, partial)
        self._engine.post(ev.SizeKnown(raw(arrival.digest), size))

    def _adopt(self, arrival: Arrival, partial: Partial) -> None:
        """It has this file from now on. The core hears which pieces of it hold, and may know better."""
        arrival.opened(partial)
        if not partial.present:
            return
        pieces = {index: unpack_record(record) for index, record in partial.present.items()}
        held = {index: record for index, record in pieces.items() if record}
        if held:
            self._engine.post(ev.Resumed(raw(arrival.digest), partial.size, held))
        blob = self._engine.node.blob(raw(arrival.digest))
        arrival.present = blob.present if blob else 0
        if arrival.proven:
            return
        lost = [index for index in pieces if not arrival.present >> index & 1]
        if lost:
            log.warning("%s: %d pieces that were recorded do not hold any more", arrival.digest, len(lost))
            partial.drop(lost)
            self._nursery.start_soon(self._flush, partial)

    def _begin_anew(self, arrival: Arrival, size: int) -> None:
        """Others were wrong about the size: nothing that came of such a blob can hold."""
        log.warning("%s has %d bytes, not %d as other nodes said", arrival.digest, size, arrival.size)
        partial, pinned = arrival.partial, arrival.pinned
        assert partial
        arrival.closed()
        self._engine.post(ev.Evicted(raw(arrival.digest)))
        if pinned:
            partial.unpin()  # so that the store may replace it
        self.tell(arrival)

    def _pin(self, arrival: Arrival) -> None:
        """A part that was left from before is wanted again."""
        if arrival.partial and not arrival.pinned:
            try:
                arrival.partial.pin()
                arrival.pinned = True
            except StoreError:  # evicted in this moment: begin anew
                arrival.closed()
                self._engine.post(ev.Evicted(raw(arrival.digest)))

    def _let_go(self, arrival: Arrival) -> None:
        """Nobody wants it any more. What holds of it stays, to be served and found again, until room is needed."""
        if arrival.partial is None:
            return
        if arrival.present:
            kept = Arrival(arrival.digest, arrival.kind, arrival.upstream, arrival.repository)
            kept.opened(arrival.partial)
            kept.present, kept.size_is_sure = arrival.present, arrival.size_is_sure
            self._all[arrival.digest] = kept
        self._nursery.start_soon(self._end_partial, arrival.partial, arrival.pinned, not arrival.present)

    async def _end_partial(self, partial: Partial, pinned: bool, empty: bool) -> None:
        await self._flush(partial)
        if pinned:
            partial.unpin()
        if empty:
            try:
                await trio.to_thread.run_sync(self._store.discard, partial)
            except StoreError as error:
                log.error("%s: what is left of it can't be removed: %s", partial.digest, error)

    def _flush_is_due(self, arrival: Arrival) -> bool:
        partial = arrival.partial
        if partial is None or arrival.proven:
            return False
        waiting = partial.unflushed_bytes
        is_old = trio.current_time() - arrival.flushed_at >= FLUSH_S
        return waiting >= FLUSH_BYTES or (waiting > 0 and is_old)

    async def _flush(self, partial: Partial) -> None:
        try:
            await trio.to_thread.run_sync(partial.flush)
        except StoreError as error:
            log.error("%s: what is checked could not be recorded: %s", partial.digest, error)

    # -- files for the network ----------------------------------------------------------------------------------------

    def sink(self, digest: bytes) -> tuple[Partial, int, int] | None:
        arrival = self._all.get(text(digest))
        if arrival is None or arrival.partial is None:
            return None
        return arrival.partial, arrival.size, arrival.piece_size

    def source(self, digest: bytes) -> tuple[OpenBlob | Lent, int, int] | None:
        """Opens a blob of the store at once: a lock may be waited for, but no data of the disk."""
        name = text(digest)
        arrival = self._all.get(name)
        try:
            if arrival and arrival.partial:
                return Lent(arrival.partial), arrival.size, arrival.piece_size
            blob = self._store.open_blob(name) if self._store.proven(name) is not None else None
        except StoreError as error:
            log.error("%s can't be sent: %s", name, error)
            return None
        return (blob, blob.size, Geometry.of(blob.size).piece_size) if blob else None

    def sink_failed(self, digest: bytes, error: Exception) -> None:
        log.error("%s can't be stored: %s", text(digest), error)
        self.fail(text(digest), "storage")

    # -- commands -----------------------------------------------------------------------------------------------------

    def _keep(self, c: cmd.Keep) -> None:
        arrival = self._all.get(text(c.digest))
        if arrival is None or arrival.partial is None:  # given up in the same moment: the core is to forget it, too
            self._engine.post(ev.Evicted(c.digest))
            return
        arrival.partial.mark(c.index, pack_record(c.before, c.after, c.voucher))
        arrival.present |= 1 << c.index
        if arrival.partial.unflushed_bytes >= FLUSH_BYTES:
            self._much.set()
        arrival.progress()

    def _drop(self, c: cmd.Drop) -> None:
        arrival = self._all.get(text(c.digest))
        if arrival is None or arrival.partial is None:
            return
        log.warning("%s: %d pieces rest on a refuted chain: dropped", arrival.digest, c.pieces.bit_count())
        self._metrics.piece_rejected("refuted")
        arrival.partial.drop(indices(c.pieces))
        arrival.present &= ~c.pieces
        arrival.own_end = 0
        arrival.refuted += 1
        arrival.change()
        self._nursery.start_soon(self._flush, arrival.partial)

    def _prove(self, c: cmd.Prove) -> None:
        arrival = self._all.get(text(c.digest))
        if arrival is None or arrival.partial is None:
            self._engine.post(ev.Evicted(c.digest))
            return
        arrival.proven = True
        arrival.progress()
        self._nursery.start_soon(self._commit, arrival, arrival.partial)

    async def _commit(self, arrival: Arrival, partial: Partial) -> None:
        try:
            await trio.to_thread.run_sync(partial.commit)
        except (StoreError, ValueError) as error:
            log.error("%s is whole, but can't be put in its place: %s", arrival.digest, error)
            await self._not_committed(arrival, partial, keep=isinstance(error, StoreFull))
            return
        took = trio.current_time() - arrival.started_at if arrival.started_at is not None else 0.0
        log.info(
            "%s: proven, %d bytes in %.1f s (%d from peers, %d from upstream)",
            arrival.digest,
            arrival.size,
            took,
            arrival.from_peers,
            arrival.from_upstream,
        )
        self._remove(arrival)
        if arrival.pinned:
            partial.unpin()
        try:
            await trio.to_thread.run_sync(self._store.evict)
        except StoreError as error:
            log.error("the store can't be brought under its limit: %s", error)

    async def _not_committed(self, arrival: Arrival, partial: Partial, *, keep: bool) -> None:
        """Whoever reads it now may go on. A full disk keeps its bytes, and the next wish tries again; of a file with
        which the disk failed nothing counts."""
        arrival.failure = "storage"
        if not keep:
            try:
                await trio.to_thread.run_sync(self._store.remove, arrival.digest)
            except StoreError as error:
                log.error("%s: what is left of it can't be removed: %s", arrival.digest, error)
        self._remove(arrival)
        self._engine.post(ev.Evicted(raw(arrival.digest)))
        if arrival.pinned:
            partial.unpin()
        arrival.change()

    def _remove(self, arrival: Arrival) -> None:
        if self._all.get(arrival.digest) is arrival:
            del self._all[arrival.digest]

    def evicted(self, digest: str) -> None:
        """The store made room: the core is told."""
        arrival = self._all.get(digest)
        if arrival is None or arrival.started_at is None:  # else `want` has told it
            self._all.pop(digest, None)
            self._engine.post(ev.Evicted(raw(digest)))

    def _size_hint(self, c: cmd.SizeHint) -> None:
        """Other nodes say how long it is. No reason to make much room for it, or to call it impossible."""
        arrival = self._all.get(text(c.digest))
        if arrival and arrival.partial is None and is_possible(arrival.kind, c.size):
            self._nursery.start_soon(self.set_size, arrival, c.size, False)

    async def _compute_chain(self, c: cmd.ComputeChain) -> None:
        name, states = text(c.digest), None
        try:
            states = await trio.to_thread.run_sync(
                states_of, self._store, name, limiter=self._chains, abandon_on_cancel=True
            )
            if states is not None and states[-1] != c.digest:
                log.error("%s: its file on this disk is not that blob any more: removed", name)
                self._metrics.piece_rejected("disk")
                await trio.to_thread.run_sync(self._store.remove, name)
                states = None
        except (StoreError, OSError) as error:
            log.error("%s can't be read: %s", name, error)
            states = None
        self._engine.post(ev.ChainComputed(c.digest, states))


def is_possible(kind: Kind, size: int) -> bool:
    """Whether a blob may have that size. The empty one is not among them: it is nothing that could arrive."""
    return 0 < size <= (MANIFEST_SIZE_MAX if kind == "manifest" else BLOB_SIZE_MAX)


def _is_ours(partial: Partial) -> bool:
    """Whether it is cut as this version cuts it."""
    return 0 < partial.size <= BLOB_SIZE_MAX and Geometry.of(partial.size).piece_size == partial.piece_size
