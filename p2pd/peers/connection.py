"""One live connection: a task that reads, a task that writes, and a word now and then so that silence means death.

Frames go out in order of being queued, before the next run of a piece; pieces go out one after another in runs, so that
a cancelled one stops at the next run. Errors of the other side end the connection and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pd.peers.frames import FrameReader
from p2pd.peers.incoming import Incoming
from p2pd.peers.transport import ConnectionLost, PlainTransport
from p2pd.ratelimit import RateLimit
from p2pd.swarm.messages import RUN_SIZE_MAX, Message, Ping, ProtocolError, Run, encode

PING_S = 5.0  # say something at least this often
SILENCE_S = 20.0  # nothing heard for so long: the other side is dead
QUEUE_BYTES_MAX = 4 * 1024 * 1024  # of frames waiting to go out: a peer that does not read them is cut
EXPECTED_MAX = 256  # requests out at one peer


class Source(Protocol):
    """An open file to send from."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Outgoing:
    """One piece to send. `offset`: of the piece in the file."""

    rid: int
    source: Source
    offset: int
    length: int
    sent: int = 0
    stopped: bool = False


class Handler(Protocol):
    """What a connection tells its owner. Synchronous: the owner's task is the connection's own."""

    def on_message(self, message: Message) -> None: ...
    def on_piece_started(self, rid: int) -> None: ...
    def on_piece(self, rid: int, held: bool) -> None: ...
    def on_sink_failed(self, rid: int, error: Exception) -> None: ...
    def on_received(self, count: int) -> None: ...
    def on_sent(self, outgoing: Outgoing, whole: bool) -> None: ...
    def link_of(self, rid: int) -> tuple[bytes, bytes] | None: ...


class Connection:
    """After the handshake."""

    def __init__(
        self,
        transport: PlainTransport,
        frames: FrameReader,
        handler: Handler,
        *,
        up: RateLimit,
        down: RateLimit,
        sink_errors: tuple[type[Exception], ...],
    ) -> None:
        self._transport = transport
        self._frames = frames
        self._handler = handler
        self._up, self._down = up, down
        self._sink_errors = sink_errors
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._uploads: deque[Outgoing] = deque()
        self._expected: dict[int, Incoming | None] = {}  # None: abandoned, its runs are thrown away
        self._wake = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._why = ""
        self.bytes_in = 0
        self.bytes_out = 0

    # -- what the owner says ----------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a frame."""
        frame = encode(message)
        self._queue.append(frame)
        self._queued += len(frame)
        if self._queued > QUEUE_BYTES_MAX:
            self.close("does not read what it is sent")
        self._wake.set()

    def expect(self, incoming: Incoming) -> None:
        """A request is about to go out: this is where its piece goes."""
        if len(self._expected) >= EXPECTED_MAX:
            for rid in [rid for rid, entry in self._expected.items() if entry is None]:
                del self._expected[rid]
        self._expected[incoming.rid] = incoming

    def abandon(self, rid: int) -> None:
        """Throw away what still comes of a request."""
        if rid in self._expected:
            self._expected[rid] = None

    def upload(self, outgoing: Outgoing) -> None:
        self._uploads.append(outgoing)
        self._wake.set()

    def stop_upload(self, rid: int) -> None:
        for outgoing in self._uploads:
            if outgoing.rid == rid:
                outgoing.stopped = True
        self._wake.set()

    def close(self, why: str) -> None:
        """End it, from whatever task; `run` returns soon after."""
        self._why = self._why or why
        if self._scope:
            self._scope.cancel()

    # -- the tasks --------------------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Until the connection ends; says why it did. Never raises for what the other side did."""
        with trio.CancelScope() as self._scope:
            if self._why:
                self._scope.cancel()
            async with trio.open_nursery() as nursery:
                for task in (self._read, self._write, self._ping):
                    nursery.start_soon(self._guarded, task, nursery.cancel_scope)
        for incoming in self._expected.values():
            if incoming:
                incoming.close()
        for outgoing in self._uploads:
            self._finish(outgoing)
        self._uploads.clear()
        self._transport.close()
        return self._why or "closed"

    async def _guarded(self, task: Callable, scope: trio.CancelScope) -> None:
        try:
            await task()
        except (ConnectionLost, ProtocolError) as error:
            self._why = self._why or str(error)
            scope.cancel()

    async def _read(self) -> None:
        heard = trio.CancelScope(deadline=trio.current_time() + SILENCE_S)
        with heard:
            while True:
                message = await self._frames.message()
                if isinstance(message, Run):
                    await self._run_came(message)
                elif not isinstance(message, Ping):
                    self._handler.on_message(message)
                heard.deadline = trio.current_time() + SILENCE_S
        raise ConnectionLost(f"silent for {SILENCE_S:g} s")

    async def _run_came(self, run: Run) -> None:
        await self._down.ready()
        self.bytes_in += run.length
        self._handler.on_received(run.length)
        self._down.spend(run.length)
        if run.rid not in self._expected:
            raise ProtocolError("a piece that nobody asked for")
        incoming = self._expected[run.rid]
        if incoming is None:
            await self._frames.skip(run.length)
            return
        if incoming.received == 0:
            link = self._handler.link_of(run.rid)
            if link is None:
                raise ProtocolError("a piece whose link no voucher covers")
            incoming.begin(link)
            self._handler.on_piece_started(run.rid)
        try:
            await incoming.take_run(run, self._frames)
        except self._sink_errors as error:
            incoming.close()
            self._expected[run.rid] = None
            self._handler.on_sink_failed(run.rid, error)
            raise ConnectionLost("this node can't store the piece") from None
        if self._expected.get(run.rid) is None:
            incoming.close()  # abandoned meanwhile
        elif incoming.whole:
            del self._expected[run.rid]
            self._handler.on_piece(run.rid, incoming.holds())

    async def _write(self) -> None:
        while True:
            if self._queue:
                data = b"".join(self._queue)
                self._queue.clear()
                self._queued = 0
                await self._transport.send_all(data)
            elif self._uploads:
                outgoing = self._uploads[0]
                if not outgoing.stopped and outgoing.sent < outgoing.length:
                    await self._send_run(outgoing)
                if outgoing.stopped or outgoing.sent == outgoing.length:
                    self._uploads.popleft()
                    self._finish(outgoing)
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _send_run(self, outgoing: Outgoing) -> None:
        count = min(RUN_SIZE_MAX, outgoing.length - outgoing.sent)
        await self._up.ready()
        await self._transport.send_all(encode(Run(outgoing.rid, outgoing.sent, count)), more=True)
        await self._transport.send_file(outgoing.source.fileno(), outgoing.offset + outgoing.sent, count)
        self._up.spend(count)
        outgoing.sent += count
        self.bytes_out += count

    def _finish(self, outgoing: Outgoing) -> None:
        outgoing.source.close()
        self._handler.on_sent(outgoing, outgoing.sent == outgoing.length)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(PING_S)
            if not self._queue:
                self.send(Ping())
