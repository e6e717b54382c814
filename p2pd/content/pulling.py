"""This node's own pull: a range of pieces from upstream, hashed and written as it streams, no further than allowed.

Two tasks for one pull: one receives, one hashes and writes (in a worker thread), with a few chunks between them. What
the core allows (`Allow`) is how far ahead of the swarm the pull may run.

May know p2pd.upstream, p2pd.hashing and `arrivals`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrivals import Arrival, Arrivals, raw, text
from p2pd.engine import Engine
from p2pd.hashing import Compression
from p2pd.store import StoreError
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.chain import INITIAL_STATE
from p2pd.upstream import (
    BadAnswer,
    BlobStream,
    Denied,
    NotFound,
    RateLimited,
    Registry,
    UnknownUpstream,
    Unreachable,
    UpstreamError,
    Upstreams,
)

log = logging.getLogger(__name__)

PULLS_MAX = 6  # at a time: their buffers count in the node's 32 MiB
CHUNK_SIZE = 512 * 1024  # bytes in one worker-thread hop, where upstream is fast
CHUNK_S = 0.05  # ... and how long a slow upstream's bytes wait for company
CHUNKS_WAITING = 2  # between the two tasks
BREAKS_MAX = 5  # bodies that broke off in a row without a new piece, before the lease is handed back


@dataclass(eq=False)
class Pulling:
    """One pull under way. `allowed`: pieces below it may be received."""

    arrival: Arrival
    first: int
    end: int
    before: bytes
    allowed: int = 0
    stop: bool = False
    moved: trio.Event = field(default_factory=trio.Event)

    def move(self) -> None:
        self.moved.set()
        self.moved = trio.Event()


class _Stopped(Exception):
    """The core wants no more of it."""


class Puller:
    """All pulls of this node."""

    def __init__(
        self, upstreams: Upstreams, arrivals: Arrivals, engine: Engine, metrics: Metrics, nursery: trio.Nursery
    ) -> None:
        self._upstreams = upstreams
        self._arrivals = arrivals
        self._engine = engine
        self._metrics = metrics
        self._nursery = nursery
        self._pulls: dict[bytes, Pulling] = {}
        self.may_share: Callable = _always

    def commands(self) -> dict[type, Callable]:
        return {cmd.Pull: self._start, cmd.Allow: self._allow, cmd.StopPull: self._stop}

    def can_pull(self, upstream: str) -> bool:
        """Whether this node could pull from there now."""
        if len(self._pulls) >= PULLS_MAX:
            return False
        try:
            return self._upstreams.get(upstream).held_until <= trio.current_time()
        except UnknownUpstream:
            return False

    # -- commands ---------------------------------------------------------------------------------------------------

    def _start(self, c: cmd.Pull) -> None:
        arrival = self._arrivals.get(text(c.digest))
        if arrival is None or c.digest in self._pulls:
            self._engine.post(ev.PullEnded(c.digest, "busy"))
            return
        pulling = self._pulls[c.digest] = Pulling(arrival, c.first, c.end, c.before or INITIAL_STATE, c.first)
        self._nursery.start_soon(self._pull, pulling)

    def _allow(self, c: cmd.Allow) -> None:
        pulling = self._pulls.get(c.digest)
        if pulling:
            pulling.allowed = c.end
            pulling.move()

    def _stop(self, c: cmd.StopPull) -> None:
        pulling = self._pulls.get(c.digest)
        if pulling:
            pulling.stop = True
            pulling.move()

    # -- one pull ---------------------------------------------------------------------------------------------------

    async def _pull(self, pulling: Pulling) -> None:
        reason, retry_s = "end", 0
        arrival = pulling.arrival
        breaks = 0
        try:
            registry = self._upstreams.get(arrival.upstream)
            if not await self.may_share(registry, arrival.repository):
                reason = "denied"
                return
            while True:
                begun = pulling.first
                try:
                    await self._stream(registry, pulling)
                    break
                except (BadAnswer, Unreachable) as error:
                    # The body broke off, or the request failed after its own retries: go on where it stopped.
                    breaks = 1 if pulling.first > begun else breaks + 1
                    if breaks > (BREAKS_MAX if pulling.first > begun or arrival.from_upstream else 0):
                        raise
                    log.info("%s: upstream broke off, going on at piece %d: %s", arrival.digest, pulling.first, error)
                    await trio.sleep(0.1 * 2**breaks)
        except _Stopped:
            reason = "stopped"
        except UpstreamError as error:
            reason, retry_s = _reason_of(error)
            log.warning("%s: upstream: %s", arrival.digest, error)
        except StoreError as error:
            reason = "bad-answer"
            self._arrivals.sink_failed(raw(arrival.digest), error)
        finally:
            del self._pulls[raw(arrival.digest)]
            self._engine.post(ev.PullEnded(raw(arrival.digest), reason, retry_s))

    async def _stream(self, registry: Registry, pulling: Pulling) -> None:
        """One request, from the first piece that is still to come. Raises what ends it early."""
        arrival = pulling.arrival
        start = pulling.first * arrival.piece_size if pulling.first else 0
        stop = None
        if arrival.size >= 0 and 0 <= pulling.end * arrival.piece_size < arrival.size:
            stop = pulling.end * arrival.piece_size
        await self._allowed(pulling, pulling.first, known=arrival.size >= 0)
        async with registry.open(arrival.kind, arrival.repository, arrival.digest, start, stop) as stream:
            size = stream.opened.size
            if arrival.partial is None:
                await self._arrivals.set_size(arrival, size, True)
            if arrival.failure:
                raise _Stopped
            if arrival.size != size:
                if not arrival.size_is_sure or pulling.first == 0:
                    raise BadAnswer(f"upstream says {size} bytes, the manifest or an earlier answer {arrival.size}")
                raise BadAnswer(f"upstream's size changed from {arrival.size} to {size} bytes")
            if pulling.end < 0:
                pulling.end = math.ceil(size / arrival.piece_size) or 1
            await self._take(stream, pulling)

    async def _take(self, stream: BlobStream, pulling: Pulling) -> None:
        send, receive = trio.open_memory_channel[tuple[bytes, float]](CHUNKS_WAITING)
        problem: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def receiving() -> None:
                try:
                    async with send:
                        await self._receive(stream, pulling, send)
                except (UpstreamError, _Stopped) as error:
                    problem.append(error)  # what came before it is still hashed and kept

            nursery.start_soon(receiving)
            try:
                await self._hash_and_write(pulling, receive)
            except StoreError as error:
                problem.insert(0, error)
                nursery.cancel_scope.cancel()
        if problem:
            raise problem[0]

    async def _receive(self, stream: BlobStream, pulling: Pulling, send: trio.MemorySendChannel) -> None:
        """Bytes up to what is allowed, in chunks that end where pieces end; each with the time that it took to come."""
        arrival = pulling.arrival
        position = stream.opened.start
        end = min(arrival.size, pulling.end * arrival.piece_size)
        while position < end:
            await self._allowed(pulling, position // arrival.piece_size)
            border = min(end, (position // arrival.piece_size + 1) * arrival.piece_size, position + CHUNK_SIZE)
            parts, begun = [], trio.current_time()
            while position < border:
                data = await stream.receive_some(border - position)
                if not data:
                    raise BadAnswer("upstream's body ended early")
                parts.append(data)
                position += len(data)
                arrival.from_upstream += len(data)
                self._metrics.received("upstream", len(data))
                if trio.current_time() - begun > CHUNK_S:
                    break
            await send.send((b"".join(parts) if len(parts) > 1 else parts[0], trio.current_time() - begun))
        if arrival.size == 0:
            await send.send((b"", 0.0))

    async def _hash_and_write(self, pulling: Pulling, receive: trio.MemoryReceiveChannel) -> None:
        arrival = pulling.arrival
        partial, digest = arrival.partial, raw(arrival.digest)
        assert partial
        offset = pulling.first * arrival.piece_size
        compression = Compression(pulling.before, offset)
        seconds = 0.0

        def work(data: bytes, at: int) -> None:
            compression.update(data)
            partial.write(at, data)

        async with receive:
            async for data, took in receive:
                await trio.to_thread.run_sync(work, data, offset)
                if arrival.own_end == offset:
                    arrival.own_end = offset + len(data)
                    arrival.progress()
                offset += len(data)
                seconds += took
                ends_blob = offset == arrival.size
                if ends_blob or offset % arrival.piece_size == 0:
                    after = compression.digest() if ends_blob else compression.state()
                    index = pulling.first
                    pulling.first, pulling.before = index + 1, after
                    self._engine.post(ev.PieceStored(digest, index, after, seconds))
                    seconds = 0.0

    async def _allowed(self, pulling: Pulling, index: int, known: bool = True) -> None:
        """Wait until piece `index` may be received."""
        while True:
            if pulling.stop:
                raise _Stopped
            if not known or index < pulling.allowed:
                return
            await pulling.moved.wait()


def _reason_of(error: UpstreamError) -> tuple[str, int]:
    """As the directory names it."""
    match error:
        case RateLimited():
            return "limited", math.ceil(error.retry_after)
        case Denied():
            return "denied", 0
        case NotFound():
            return "missing", 0
        case Unreachable():
            return "unreachable", 0
    return "bad-answer", 0


async def _always(registry: Registry, repository: str) -> bool:
    return True
