"""This node's own pull: a range of pieces from upstream, hashed and written as it streams, no further than allowed.

Two tasks for one pull: one receives, one hashes and writes (in a worker thread), with a few chunks between them. What
the core allows (`Allow`) is how far ahead of the swarm the pull may run.

May know p2pd.upstream, p2pd.hashing, p2pd.background and `arrivals`.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from p2pd.admin.metrics import Metrics
from p2pd.background import give_way
from p2pd.content.arrival import Arrival, raw, text
from p2pd.content.arrivals import Arrivals
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

PULLS_MAX = 6  # at a time, before this node says that it has no room for another
CHUNK_SIZE_MAX = 1024 * 1024  # bytes in one worker-thread hop, where upstream is fast
CHUNK_SIZE_MIN = 64 * 1024  # ... and where many pulls share the memory
CHUNK_S = 0.05  # how long a slow upstream's bytes wait for company
CHUNKS_WAITING = 1  # between the two tasks; each of them has one more in hand
BUFFERS_EACH = CHUNKS_WAITING + 2  # of one pull
BUFFERS_SIZE = 8 * 1024 * 1024  # bytes in the chunks of all pulls: of the 32 MiB that a node's buffers may take
THREADS_MAX = 8  # that hash and write: a disk that hangs must not take all of the process's threads
BREAKS_MAX = 5  # bodies that broke off in a row without a new piece, before the lease is handed back


@dataclass(eq=False)
class Pulling:
    """One pull under way. `allowed`: pieces below it may be received; `before`: an earlier pull of the same blob that
    has not come to its end yet."""

    arrival: Arrival
    first: int
    end: int
    state: bytes
    allowed: int
    before: Pulling | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    moved: trio.Event = field(default_factory=trio.Event)

    def move(self) -> None:
        self.moved.set()
        self.moved = trio.Event()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that came one after the other, and the time that they took."""

    buffer: bytearray
    count: int
    seconds: float


class Buffers:
    """The memory of one pull: BUFFERS_EACH buffers, used again and again. `size` of the next new one, in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[bytearray] = []
        self._room = trio.Semaphore(BUFFERS_EACH)

    async def take(self) -> bytearray:
        await self._room.acquire()
        while self._free:
            buffer = self._free.pop()
            if len(buffer) == self.size:
                return buffer
        return bytearray(self.size)

    def give_back(self, buffer: bytearray) -> None:
        self._free.append(buffer)
        self._room.release()


class _OtherSize(BadAnswer):
    """Upstream contradicts the manifest, or itself. Asking again would not help."""


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
        self._threads = trio.CapacityLimiter(THREADS_MAX)

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
        if arrival is None:  # given up in the same moment: the core is to forget it, too
            self._engine.post(ev.Evicted(c.digest))
            return
        earlier = self._pulls.get(c.digest)
        if earlier:
            earlier.scope.cancel()  # the core has forgotten it, and hears of the new one's end only
        pulling = Pulling(arrival, c.first, c.end, c.before or INITIAL_STATE, c.first, earlier)
        self._pulls[c.digest] = pulling
        self._nursery.start_soon(self._pull, pulling)

    def _allow(self, c: cmd.Allow) -> None:
        pulling = self._pulls.get(c.digest)
        if pulling:
            pulling.allowed = c.end
            pulling.move()

    def _stop(self, c: cmd.StopPull) -> None:
        """At once, not at the next byte of an upstream that may be silent for long."""
        pulling = self._pulls.get(c.digest)
        if pulling:
            pulling.scope.cancel()

    # -- one pull ---------------------------------------------------------------------------------------------------

    async def _pull(self, pulling: Pulling) -> None:
        digest = raw(pulling.arrival.digest)
        reason, retry_s = "stopped", 0
        try:
            with pulling.scope:
                if pulling.before:
                    await pulling.before.ended.wait()
                    pulling.before = None
                reason, retry_s = await self._outcome(pulling)
        finally:
            pulling.ended.set()
            is_last = self._pulls.get(digest) is pulling
            if is_last:
                del self._pulls[digest]
        # Not in `finally`: when the node stops, the core would begin the next pull at once, to be stopped in its turn.
        if is_last:
            self._engine.post(ev.PullEnded(digest, reason, retry_s))

    async def _outcome(self, pulling: Pulling) -> tuple[str, int]:
        """Pull; how it ended, and for how many seconds upstream wants no more."""
        arrival = pulling.arrival
        try:
            registry = self._upstreams.get(arrival.upstream)
            await self._persist(registry, pulling)
        except UpstreamError as error:
            log.warning("%s: upstream: %s", arrival.digest, error)
            return _reason_of(error)
        except StoreError as error:
            self._arrivals.sink_failed(raw(arrival.digest), error)
            return "bad-answer", 0
        return "end", 0

    async def _persist(self, registry: Registry, pulling: Pulling) -> None:
        """Go on where a body broke off, as long as it leads anywhere."""
        arrival = pulling.arrival
        breaks = 0
        while True:
            begun = pulling.first
            try:
                await self._stream(registry, pulling)
                return
            except (BadAnswer, Unreachable) as error:
                # The body broke off, or the request failed after its own retries.
                breaks = 1 if pulling.first > begun else breaks + 1
                may_break = 0 if isinstance(error, _OtherSize) or not arrival.from_upstream else BREAKS_MAX
                if breaks > may_break:
                    raise
                log.info("%s: upstream broke off, going on at piece %d: %s", arrival.digest, pulling.first, error)
                await trio.sleep(0.1 * 2**breaks)

    async def _stream(self, registry: Registry, pulling: Pulling) -> None:
        """One request, from the first piece that is still to come. Raises what ends it early."""
        arrival = pulling.arrival
        start = pulling.first * arrival.piece_size if pulling.first else 0
        stop = None
        if arrival.size >= 0 and 0 <= pulling.end * arrival.piece_size < arrival.size:
            stop = pulling.end * arrival.piece_size
        if arrival.size >= 0:
            await self._allowed(pulling, pulling.first)
        identity = arrival.identity
        async with registry.open(arrival.kind, arrival.repository, arrival.digest, start, stop, identity) as stream:
            size = stream.opened.size
            await self._arrivals.set_size(arrival, size, True)
            await trio.lowlevel.checkpoint()  # what was wrong about its size or its file has stopped this pull by now
            if arrival.partial is None or arrival.size != size:
                raise _OtherSize(f"upstream says {size} bytes, the manifest or an earlier answer {arrival.size}")
            if pulling.end < 0:
                pulling.end = math.ceil(size / arrival.piece_size)
            await self._take(stream, pulling)

    async def _take(self, stream: BlobStream, pulling: Pulling) -> None:
        send, receive = trio.open_memory_channel[Chunk](CHUNKS_WAITING)
        buffers = Buffers(self._chunk_size())
        problem: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def receiving() -> None:
                # A channel that broke is the other task's failure, which it tells itself.
                with contextlib.suppress(trio.BrokenResourceError):
                    try:
                        async with send:
                            await self._receive(stream, pulling, buffers, send)
                    except UpstreamError as error:
                        problem.append(error)  # what came before it is still hashed and kept

            nursery.start_soon(receiving)
            try:
                await self._hash_and_write(pulling, buffers, receive)
            except StoreError as error:
                problem.insert(0, error)
                nursery.cancel_scope.cancel()
        if problem:
            raise problem[0]

    async def _receive(
        self, stream: BlobStream, pulling: Pulling, buffers: Buffers, send: trio.MemorySendChannel[Chunk]
    ) -> None:
        """Bytes up to what is allowed, in chunks; each with the time that it took to come."""
        arrival = pulling.arrival
        position = stream.opened.start
        end = min(arrival.size, pulling.end * arrival.piece_size)
        while position < end:
            await self._allowed(pulling, position // arrival.piece_size)
            buffers.size = self._chunk_size()
            buffer = await buffers.take()
            room = memoryview(buffer)[: min(end, pulling.allowed * arrival.piece_size) - position]
            count, begun = 0, trio.current_time()
            piece_end = arrival.piece_size - position % arrival.piece_size  # a whole piece does not wait for company
            while count < len(room):
                asked = len(room) - count
                received = await stream.receive_into(room[count:])
                if not received:
                    raise BadAnswer("upstream's body ended early")
                count += received
                arrival.from_upstream += received
                self._metrics.received("upstream", received)
                if trio.current_time() - begun > CHUNK_S or (count >= piece_end and received < asked):
                    break
            position += count
            await send.send(Chunk(buffer, count, trio.current_time() - begun))

    def _chunk_size(self) -> int:
        share = BUFFERS_SIZE // (len(self._pulls) * BUFFERS_EACH)
        return max(CHUNK_SIZE_MIN, min(CHUNK_SIZE_MAX, share))

    async def _hash_and_write(
        self, pulling: Pulling, buffers: Buffers, receive: trio.MemoryReceiveChannel[Chunk]
    ) -> None:
        arrival = pulling.arrival
        partial, digest = arrival.partial, raw(arrival.digest)
        assert partial
        offset = pulling.first * arrival.piece_size
        compression = Compression(pulling.state, offset)
        seconds = 0.0

        def work(data: memoryview, at: int) -> list[bytes]:
            """The states after the pieces that end in `data`."""
            give_way()
            states, done = [], 0
            while done < len(data):
                part = data[done : done + arrival.piece_size - (at + done) % arrival.piece_size]
                compression.update(part)
                done += len(part)
                if at + done == arrival.size:
                    states.append(compression.digest())
                elif (at + done) % arrival.piece_size == 0:
                    states.append(compression.state())
            partial.write(at, data)
            return states

        async with receive:
            async for chunk in receive:
                data = memoryview(chunk.buffer)[: chunk.count]
                states = await trio.to_thread.run_sync(work, data, offset, limiter=self._threads)
                buffers.give_back(chunk.buffer)
                if arrival.own_end == offset:
                    arrival.own_end = offset + chunk.count
                    arrival.progress()
                offset += chunk.count
                seconds += chunk.seconds
                for state in states:
                    pulling.state = state
                    pulling.first += 1
                    self._engine.post(ev.PieceStored(digest, pulling.first - 1, state, seconds / len(states)))
                if states:
                    seconds = 0.0

    async def _allowed(self, pulling: Pulling, index: int) -> None:
        """Wait until piece `index` may be received."""
        while index >= pulling.allowed:
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
