"""A piece on its way in: bytes into buffers, which a worker thread hashes and writes while the next one fills.

Two peers may be sending the same piece, so a piece has one writer at a time, from its first byte to its last: else a
wrong byte of one could follow the right ones of the other into the file, after those were checked. Who is not the
writer is `overtaken`, and given up.

May know p2pd.hashing and p2pd.background. The file is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pd.background import give_way
from p2pd.hashing import Compression
from p2pd.peers.buffers import Buffers
from p2pd.peers.frames import FrameReader
from p2pd.swarm.messages import ProtocolError, Run

CHUNKS_MAX = 3  # of one connection, that are being hashed or wait for it: while they are, the next one comes in
STORERS = 3  # of one connection: a thread hashes and writes half a gigabyte a second, less than many links bring
THREADS_MAX = 8  # that hash and write: a disk that hangs must not take all of the process's threads

Key = tuple[bytes, int]  # a piece: its blob's digest, its index


class Sink(Protocol):
    """Where the bytes of a blob go: `p2pd.store.Partial` is one."""

    def write(self, offset: int, data: memoryview) -> None: ...


class Intake:
    """What all pieces that come in share: memory, threads, and who writes which piece."""

    def __init__(self) -> None:
        self.buffers = Buffers()
        self.threads = trio.CapacityLimiter(THREADS_MAX)
        self.writers: dict[Key, Incoming] = {}


@dataclass(slots=True, eq=False)
class Chunk:
    """Bytes of a piece that came in; `offset` within the piece."""

    piece: Incoming
    buffer: bytearray
    size: int
    offset: int


class Incoming:
    """What one request brings. `offset` and `length` in bytes within the blob; `last`: it is the blob's last piece."""

    def __init__(self, rid: int, key: Key, sink: Sink, offset: int, length: int, last: bool, intake: Intake) -> None:
        self.rid = rid
        self.key = key
        self.length = length
        self.received = 0
        self.held = False  # whether compressing the piece took the state before to the state after
        self.is_given_up = False  # abandoned, or overtaken
        self._sink = sink
        self._offset = offset
        self._last = last
        self._intake = intake
        self._buffer: bytearray | None = None
        self._filled = 0
        self._compression: Compression | None = None
        self._after = b""
        self._began = 0.0
        self._stored_at = 0.0
        self._is_storing = False
        self._scope: trio.CancelScope | None = None

    def begin(self, link: tuple[bytes, bytes]) -> None:
        """The piece's link is known now; needed before the first run."""
        self._compression = Compression(link[0], self._offset)
        self._after = link[1]
        self._began = trio.current_time()

    async def take_run(self, run: Run, frames: FrameReader, storing: Storing) -> None:
        """One run's raw bytes; if the piece is given up meanwhile, the rest of the run is thrown away.

        ProtocolError if it is not the next run.
        """
        if run.offset != self.received or run.offset + run.length > self.length:
            raise ProtocolError("a run that does not follow the one before")
        end = run.offset + run.length
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                while self.received < end and not self.is_given_up:
                    await self._take_some(end - self.received, frames, storing)
        finally:
            self._scope = None
            if self.is_given_up:
                self.close()
        if self.received < end:
            await frames.skip(end - self.received)

    def give_up(self) -> None:
        """The piece is not wanted any more, or not from here: let go of its memory, even while a run is coming."""
        self.is_given_up = True
        if self._scope:
            self._scope.cancel()  # the buffer may be filling at this moment: `take_run` gives it back
        else:
            self.close()

    def close(self) -> None:
        """Give the buffer back, and the right to write, unless a thread is writing now: then the storing does so."""
        if self._buffer is not None:
            self._intake.buffers.give_back(self._buffer)
            self._buffer = None
        if not self._is_storing and self._intake.writers.get(self.key) is self:
            del self._intake.writers[self.key]

    async def _take_some(self, most: int, frames: FrameReader, storing: Storing) -> None:
        if self._buffer is None:
            await storing.room()
            self._buffer = await self._intake.buffers.take(self.length - self.received)
            self._filled = 0
        room = memoryview(self._buffer)[self._filled :]
        count = await frames.raw_into(room[:most])
        self._filled += count
        self.received += count
        if self._filled == len(self._buffer) or self.received == self.length:
            storing.put(Chunk(self, self._buffer, self._filled, self.received - self._filled))
            self._buffer = None

    # -- for Storing ------------------------------------------------------------------------------------------------

    def becomes_writer(self, chunk: Chunk) -> bool:
        """Whoever has a chunk first, unless it has stood still ever since another one began."""
        writer = self._intake.writers.get(self.key)
        if writer is self:
            return True
        stands_still = writer is None or (not writer._is_storing and writer._stored_at < self._began)
        if chunk.offset or not stands_still:
            return False
        self._intake.writers[self.key] = self
        return True

    async def store(self, chunk: Chunk) -> None:
        """Hash and write. Raises what the sink raises."""
        self._is_storing = True
        try:
            await trio.to_thread.run_sync(self._hash_and_write, chunk, limiter=self._intake.threads)
        finally:
            self._is_storing = False
            self._stored_at = trio.current_time()
            if self.is_given_up:
                self.close()

    def _hash_and_write(self, chunk: Chunk) -> None:
        """In a worker thread, never abandoned half-way. A bad piece that came in one chunk is not even written."""
        give_way()
        assert self._compression
        data = memoryview(chunk.buffer)[: chunk.size]
        self._compression.update(data)
        is_end = chunk.offset + chunk.size == self.length
        if is_end:
            result = self._compression.digest() if self._last else self._compression.state()
            self.held = result == self._after
        if self.held or not is_end:
            self._sink.write(self._offset + chunk.offset, data)


class Storing:
    """One connection's chunks, hashed and written beside the connection's reading: those of a piece one after another,
    those of two pieces at the same time.

    `on_whole` and `on_overtaken` are told of a piece's end; what the sink raises comes out of `run`, of which there may
    be `STORERS`.
    """

    def __init__(
        self, intake: Intake, on_whole: Callable[[Incoming], None], on_overtaken: Callable[[Incoming], None]
    ) -> None:
        self._intake = intake
        self._on_whole = on_whole
        self._on_overtaken = on_overtaken
        self._chunks: deque[Chunk] = deque()  # in the order in which they came, those under way too
        self._under_way: list[Incoming] = []
        self._moved = trio.lowlevel.ParkingLot()
        self.failing: Incoming | None = None  # whose chunk could not be stored

    async def room(self) -> None:
        """Wait until another chunk may begin to fill."""
        while len(self._chunks) >= CHUNKS_MAX:
            await self._moved.park()

    def put(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._moved.unpark_all()

    async def run(self) -> None:
        """For ever."""
        while True:
            while (chunk := self._next()) is None:
                await self._moved.park()
            self._under_way.append(chunk.piece)
            await self._store(chunk)
            self._under_way.remove(chunk.piece)
            self._chunks.remove(chunk)
            self._intake.buffers.give_back(chunk.buffer)
            self._moved.unpark_all()

    def close(self) -> None:
        """Give back what still waits; `run` has ended."""
        while self._chunks:
            self._intake.buffers.give_back(self._chunks.popleft().buffer)

    def _next(self) -> Chunk | None:
        return next((chunk for chunk in self._chunks if chunk.piece not in self._under_way), None)

    async def _store(self, chunk: Chunk) -> None:
        piece = chunk.piece
        if piece.is_given_up:
            return
        if not piece.becomes_writer(chunk):
            self._on_overtaken(piece)
            return
        try:
            await piece.store(chunk)
        except Exception:
            self.failing = piece
            raise
        if chunk.offset + chunk.size == piece.length and not piece.is_given_up:
            self._on_whole(piece)
            piece.close()
