"""Blobs that are arriving at this node: their files, what of them is there, and who waits for them.

Carries out the core's commands about pieces (Keep, Drop, Prove, ComputeChain, Failed, SizeHint) and tells it of wishes.
Bytes of peers are written by the connections, bytes from upstream by `pulling`; both through the blob's Partial.

May know p2pd.store, p2pd.swarm, p2pd.engine; not the mirror and not the network.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.records import pack_record, unpack_record
from p2pd.engine import Engine
from p2pd.hashing import Compression
from p2pd.oci import Kind
from p2pd.store import OpenBlob, Partial, Store, StoreError
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.pieces import Geometry, indices, prefix_end

log = logging.getLogger(__name__)

KEEP_WANTING_S = 30.0  # after the last client left: a containerd that lost its connection comes back within seconds
FLUSH_S = 5.0  # a checked piece is on the disk, recorded, after at most so long
FLUSH_BYTES = 64 * 1024 * 1024  # ... or so many bytes
ARRIVING_MAX = 1024  # blobs; a client that asks for more at a time is not an OCI client
READ_SIZE = 4 * 1024 * 1024  # bytes at a time when the states of a stored blob are computed


def raw(digest: str) -> bytes:
    """The 32 bytes of "sha256:<hex>"."""
    return bytes.fromhex(digest[7:])


def text(digest: bytes) -> str:
    return "sha256:" + digest.hex()


@dataclass(eq=False)
class Arrival:
    """One blob on its way. `present`: pieces whose links held; `own_end`: bytes that this node's own pull has written
    from the beginning on without a gap (not yet checked to the end, but exactly what upstream said)."""

    digest: str
    kind: Kind
    upstream: str
    repository: str
    size: int = -1
    size_is_sure: bool = False
    partial: Partial | None = None
    piece_size: int = 1
    present: int = 0
    own_end: int = 0
    proven: bool = False
    failure: str = ""  # one of directory.REASONS, or "storage"
    hold_s: int = 0
    refuted: int = 0  # how often pieces had to be dropped: who has read of them can't go on
    clients: int = 0
    alone: bool = False
    keep_until: float = 0.0
    started_at: float = 0.0
    progress_at: float = 0.0
    flushed_at: float = 0.0
    told_can_pull: bool = False
    pinned: bool = False  # its file is not to be evicted: it is wanted
    opening: trio.Lock = field(default_factory=trio.Lock)
    from_peers: int = 0
    from_upstream: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    def change(self) -> None:
        """Wake whoever waits for something about this blob."""
        self.changed.set()
        self.changed = trio.Event()

    def progress(self) -> None:
        self.progress_at = trio.current_time()
        self.change()

    def present_end(self, offset: int) -> int:
        """The end of what is present from `offset` on, in bytes; `offset` itself if its piece is not."""
        if self.size < 0:
            return offset
        index = prefix_end(self.present, offset // self.piece_size)
        return max(offset, min(self.size, index * self.piece_size))


class Lent:
    """A partial's file, lent to a sender: pinned until closed."""

    def __init__(self, partial: Partial) -> None:
        partial.pin()
        self._partial: Partial | None = partial

    def fileno(self) -> int:
        assert self._partial
        return self._partial.fileno()

    def close(self) -> None:
        if self._partial:
            self._partial.unpin()
            self._partial = None


class Arrivals:
    """All blobs that are arriving, by digest."""

    sink_errors = (StoreError,)

    def __init__(self, store: Store, engine: Engine, metrics: Metrics, nursery: trio.Nursery) -> None:
        self._store = store
        self._engine = engine
        self._metrics = metrics
        self._nursery = nursery
        self._all: dict[str, Arrival] = {}
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
            if partial.size < 0 or Geometry.of(partial.size).piece_size != partial.piece_size:
                continue
            pieces = {i: unpack_record(record) for i, record in partial.present.items()}
            good = {i: record for i, record in pieces.items() if record}
            if not good:
                continue
            arrival = self._all[partial.digest] = Arrival(partial.digest, "blob", "", "")
            self._open(arrival, partial)
            for index in good:
                arrival.present |= 1 << index
            self._engine.post(ev.Resumed(raw(partial.digest), partial.size, good))
            blob = self._engine.node.blob(raw(partial.digest))
            if blob and not arrival.proven:
                arrival.present = blob.present

    # -- wishes -----------------------------------------------------------------------------------------------------

    def get(self, digest: str) -> Arrival | None:
        return self._all.get(digest)

    def all(self) -> list[Arrival]:
        return list(self._all.values())

    def want(
        self, kind: Kind, upstream: str, repository: str, digest: str, size: int, *, keep_s: float = KEEP_WANTING_S
    ) -> Arrival | None:
        """This node wants the blob from now on; None if there is no room for it. `size` is -1 while unknown."""
        arrival = self._all.get(digest)
        if arrival is None or arrival.failure:
            if len(self._all) >= ARRIVING_MAX:
                return None
            now = trio.current_time()
            arrival = self._all[digest] = Arrival(digest, kind, upstream, repository, started_at=now, progress_at=now)
        arrival.kind, arrival.upstream, arrival.repository = kind, upstream, repository
        arrival.keep_until = max(arrival.keep_until, trio.current_time() + keep_s)
        if not arrival.started_at:
            arrival.started_at = arrival.progress_at = trio.current_time()
            self._pin(arrival)
        if size >= 0 and arrival.partial is None:
            self._nursery.start_soon(self.set_size, arrival, size, True)
        elif size >= 0:
            arrival.size_is_sure = True
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
        """Its client has nowhere else to go: get what is missing from upstream, lease or not."""
        if not arrival.alone:
            arrival.alone = True
            log.info("%s: pulling it outside the lease, for a client without fallback", arrival.digest)
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

    async def set_size(self, arrival: Arrival, size: int, sure: bool) -> None:
        """The size is known: open its file, and tell the core. No room for it makes the arrival fail."""
        async with arrival.opening:
            if arrival.partial is None and not arrival.failure:
                piece_size = Geometry.of(size).piece_size
                try:
                    partial = await trio.to_thread.run_sync(
                        functools.partial(self._store.partial, arrival.digest, size, piece_size, pin=True)
                    )
                except (StoreError, ValueError) as error:
                    log.error("%s can't be stored: %s", arrival.digest, error)
                    self.fail(arrival.digest, "storage")
                    return
                self._open(arrival, partial)
                arrival.pinned = True
                self._engine.post(ev.SizeKnown(raw(arrival.digest), size))
        arrival.size_is_sure = arrival.size_is_sure or (sure and size == arrival.size)
        arrival.change()

    def _open(self, arrival: Arrival, partial: Partial) -> None:
        arrival.partial, arrival.size, arrival.piece_size = partial, partial.size, partial.piece_size

    def _pin(self, arrival: Arrival) -> None:
        """A part that was left from before is wanted again."""
        if arrival.partial and not arrival.pinned:
            try:
                arrival.partial.pin()
                arrival.pinned = True
            except StoreError:  # evicted in this moment: begin anew
                arrival.partial, arrival.size, arrival.present = None, -1, 0

    def fail(self, digest: str, reason: str, hold_s: int = 0) -> None:
        """Nobody can get it, or it can't be stored: the clients are told, what is refuted is dropped."""
        arrival = self._all.get(digest)
        if arrival is None or arrival.proven or arrival.failure:
            return
        log.warning("%s: given up: %s", digest, reason)
        arrival.failure, arrival.hold_s = reason, hold_s
        if hold_s:
            self.on_hold(arrival.upstream, hold_s)
        if reason == "wrong-bytes":
            self._engine.execute(self._engine.node.give_up(raw(digest)))
        else:
            self._engine.post(ev.Unwant(raw(digest)))
        del self._all[digest]
        self._let_go(arrival)
        arrival.change()

    def _let_go(self, arrival: Arrival) -> None:
        """Nobody wants it any more. What holds of it stays, to be served and found again, until room is needed."""
        if arrival.partial is None:
            return
        if arrival.present:
            kept = Arrival(arrival.digest, arrival.kind, arrival.upstream, arrival.repository)
            kept.present = arrival.present
            self._open(kept, arrival.partial)
            self._all[arrival.digest] = kept
        self._nursery.start_soon(self._end_partial, arrival.partial, arrival.pinned, not arrival.present)

    async def _end_partial(self, partial: Partial, pinned: bool, empty: bool) -> None:
        await self._flush(partial)
        if pinned:
            partial.unpin()
        if empty:
            await trio.to_thread.run_sync(self._store.discard, partial)

    async def sweep(self) -> None:
        """For ever: end wishes that nobody has any more, record what is checked."""
        while True:
            await trio.sleep(1.0)
            now = trio.current_time()
            for arrival in list(self._all.values()):
                if not arrival.clients and arrival.started_at and now > arrival.keep_until and not arrival.proven:
                    self._end_wish(arrival)
                elif arrival.started_at and arrival.told_can_pull != self.can_pull(arrival.upstream):
                    self.tell(arrival)
                partial = arrival.partial
                if partial is None or arrival.proven or not partial.unflushed_bytes:
                    continue
                if now - arrival.flushed_at >= FLUSH_S or partial.unflushed_bytes >= FLUSH_BYTES:
                    arrival.flushed_at = now
                    await self._flush(partial)

    def _end_wish(self, arrival: Arrival) -> None:
        blob = self._engine.node.blob(raw(arrival.digest))
        if blob and blob.term and any(n.wanting for n in blob.neighbours.values()):
            return  # a peer asks its holder for it
        del self._all[arrival.digest]
        self._engine.post(ev.Unwant(raw(arrival.digest)))
        self._let_go(arrival)

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
        name = text(digest)
        try:
            blob = self._store.open_blob(name)
            if blob:
                return blob, blob.size, Geometry.of(blob.size).piece_size
            arrival = self._all.get(name)
            if arrival and arrival.partial:
                return Lent(arrival.partial), arrival.size, arrival.piece_size
        except StoreError as error:
            log.error("%s can't be sent: %s", name, error)
        return None

    def sink_failed(self, digest: bytes, error: Exception) -> None:
        log.error("%s can't be stored: %s", text(digest), error)
        self.fail(text(digest), "storage")

    # -- commands -----------------------------------------------------------------------------------------------------

    def _keep(self, c: cmd.Keep) -> None:
        arrival = self._all.get(text(c.digest))
        if arrival is None or arrival.partial is None:
            return
        arrival.partial.mark(c.index, pack_record(c.before, c.after, c.voucher))
        arrival.present |= 1 << c.index
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
            return
        arrival.proven = True
        arrival.progress()
        self._nursery.start_soon(self._commit, arrival)

    async def _commit(self, arrival: Arrival) -> None:
        partial = arrival.partial
        assert partial
        try:
            await trio.to_thread.run_sync(partial.commit)
        except StoreError as error:
            log.error("%s is whole, but can't be put in its place: %s", arrival.digest, error)
            self._engine.post(ev.Evicted(raw(arrival.digest)))
        took = trio.current_time() - arrival.started_at if arrival.started_at else 0.0
        log.info(
            "%s: proven, %d bytes in %.1f s (%d from peers, %d from upstream)",
            arrival.digest,
            arrival.size,
            took,
            arrival.from_peers,
            arrival.from_upstream,
        )
        if self._all.get(arrival.digest) is arrival:
            del self._all[arrival.digest]
        if arrival.pinned:
            partial.unpin()
        await trio.to_thread.run_sync(self._store.evict)

    def evicted(self, digest: str) -> None:
        """The store made room: the core is told."""
        arrival = self._all.get(digest)
        if arrival is None or not arrival.started_at:
            self._all.pop(digest, None)
            self._engine.post(ev.Evicted(raw(digest)))

    def _size_hint(self, c: cmd.SizeHint) -> None:
        arrival = self._all.get(text(c.digest))
        if arrival and arrival.partial is None and not arrival.failure:
            self._nursery.start_soon(self.set_size, arrival, c.size, False)

    async def _compute_chain(self, c: cmd.ComputeChain) -> None:
        """Hash a stored blob from end to end: its states for the peers, and a check of the disk at the same time."""
        name = text(c.digest)
        try:
            blob = self._store.open_blob(name)
            states = await trio.to_thread.run_sync(_states_of, blob) if blob else None
        except (StoreError, OSError) as error:
            log.error("%s can't be read: %s", name, error)
            states = None
        if states is not None and states[-1] != c.digest:
            log.error("%s: its file on this disk is not that blob any more: removed", name)
            self._metrics.piece_rejected("disk")
            await trio.to_thread.run_sync(self._store.remove, name)
            states = None
        self._engine.post(ev.ChainComputed(c.digest, states))


def _states_of(blob: OpenBlob) -> tuple[bytes, ...]:
    """The state after each piece, the digest last. In a worker thread."""
    geometry = Geometry.of(blob.size)
    compression, states = Compression(), []
    buffer = memoryview(bytearray(min(READ_SIZE, geometry.piece_size)))
    with blob:
        position = 0
        for index in range(geometry.count):
            end = position + geometry.length(index)
            while position < end:
                count = os.preadv(blob.fileno(), [buffer[: end - position]], position)
                if not count:
                    return (*states, b"")
                compression.update(buffer[:count])
                position += count
            states.append(compression.digest() if index == geometry.count - 1 else compression.state())
    return tuple(states)
