"""One live connection: a task that reads, one that writes, one that watches them, and some that store what came.

Frames go out in order of being queued, before the next run of a piece; pieces go out one after another in runs, so that
a cancelled one stops at the next run. Errors of the other side end the connection and nothing else.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pd.peers.frames import FrameReader
from p2pd.peers.incoming import STORERS, Incoming, Intake, Storing
from p2pd.peers.transport import ConnectionLost, Transport
from p2pd.ratelimit import RateLimit
from p2pd.swarm.messages import RUN_SIZE_MAX, Hello, Message, Ping, ProtocolError, Run, encode

WATCH_S = 5.0  # look so often whether the other side moves, and whether there is something to say
QUIET_S = 7.5  # said nothing for so long: a word is due; with WATCH_S it comes within 12.5 s
SILENCE_S = 20.0  # nothing heard for so long: the other side is dead
DRAIN_MIN = 64 * 1024  # bytes that the other side takes within WATCH_S while it is sent something: slower ones are cut
QUEUE_BYTES_MAX = 4 * 1024 * 1024  # of frames waiting to go out: a peer that does not read them is cut
ABANDONED_MAX = 1024  # requests of which something may still come, oldest forgotten first
MESSAGES_PER_S = 2000  # that are taken from one peer, more have to wait; ...
RUN_PAID = RUN_SIZE_MAX // 2  # ... but of runs that bring so much, which their bytes pay for: 4000 of them are 1 GB/s
MESSAGES_TURN = 32  # taken without letting the others have their turn: some milliseconds
FRAMES_WAIT_S = 0.1  # while the rate limit holds back the next run, frames wait no longer than this


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

    def on_message(self, message: Message) -> None:
        """Anything but Hello, Ping and Run."""
        ...

    def on_piece_started(self, rid: int) -> None: ...

    def on_piece(self, rid: int, held: bool) -> None:
        """The piece is whole, and on the disk if its link held."""
        ...

    def on_overtaken(self, rid: int) -> None:
        """Given up here, since another request brings the same piece."""
        ...

    def on_sink_failed(self, rid: int, error: Exception) -> None: ...

    def on_received(self, rid: int, count: int) -> None: ...

    def on_sent(self, outgoing: Outgoing, whole: bool) -> None:
        """An upload is over; it may well be after the connection's end."""
        ...

    def link_of(self, rid: int) -> tuple[bytes, bytes] | None: ...


class Connection:
    """After the handshake."""

    def __init__(
        self,
        transport: Transport,
        frames: FrameReader,
        handler: Handler,
        *,
        intake: Intake,
        up: RateLimit,
        down: RateLimit,
        sink_errors: tuple[type[Exception], ...],
    ) -> None:
        self._transport = transport
        self._frames = frames
        self._handler = handler
        self._storing = Storing(intake, self._piece_came, self._piece_overtaken)
        self._up, self._down = up, down
        self._sink_errors = sink_errors
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._uploads: deque[Outgoing] = deque()
        self._leaving: deque[Outgoing] = deque()  # the kernel has all of them, and more than little is on its way
        self._leaving_since: float | None = None
        self._expected: dict[int, Incoming] = {}
        self._abandoned: dict[int, int] = {}  # rid -> bytes that may still come of it
        self._wake = trio.Event()
        self._is_resting = False  # the writer, for want of work
        self._is_handling = False  # a message: what that leads to goes out when the handler is done
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None  # of the connection's tasks, while it runs
        self._is_storing = False
        self._why = ""
        self._is_over = False
        self._spoke_at = float("-inf")  # when a frame was queued last
        self.has_broken_protocol = False  # the reason for its end
        self.bytes_in = 0
        self.bytes_out = 0

    # -- what the owner says ----------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a frame."""
        frame = encode(message)
        self._spoke_at = trio.current_time()
        self._queue.append(frame)
        self._queued += len(frame)
        if self._queued > QUEUE_BYTES_MAX:
            self.close("does not read what it is sent")
        if not self._is_handling:
            self._wake.set()

    def expect(self, incoming: Incoming) -> None:
        """A request is about to go out: this is where its piece goes."""
        self._expected[incoming.rid] = incoming
        if self._nursery:
            self._begin_storing()

    def abandon(self, rid: int, length: int = 0) -> None:
        """Throw away what still comes of a request; `length`: at most so many bytes, of one that is not expected."""
        incoming = self._expected.pop(rid, None)
        if incoming:
            length = incoming.length - incoming.received
            incoming.give_up()
        if length:
            self._abandoned[rid] = length
            if len(self._abandoned) > ABANDONED_MAX:
                del self._abandoned[next(iter(self._abandoned))]

    def upload(self, outgoing: Outgoing) -> None:
        self._uploads.append(outgoing)
        self._wake.set()
        if self._is_over:
            self._end_uploads()

    def stop_upload(self, rid: int) -> None:
        for outgoing in self._uploads:
            if outgoing.rid == rid:
                outgoing.stopped = True
        self._wake.set()

    def close(self, why: str) -> None:
        """End it, from whatever task; `run` returns soon after."""
        self._why = self._why or why
        self._scope.cancel()

    # -- the tasks --------------------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Until the connection ends; says why it did. Never raises for what the other side did."""
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    for task in (self._read, self._write, self._watch):
                        self._nursery.start_soon(self._guarded, task)
                    if self._expected:
                        self._begin_storing()
        finally:
            self._nursery = None
            self._is_over = True
            for incoming in self._expected.values():
                incoming.close()
            self._expected.clear()
            self._storing.close()
            self._transport.close()
            self._end_uploads()
        return self._why or "closed"

    def _begin_storing(self) -> None:
        """With the first request: a tracker's ten thousand connections never make one."""
        assert self._nursery
        if not self._is_storing:
            self._is_storing = True
            for _ in range(STORERS):
                self._nursery.start_soon(self._guarded, self._store)

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except ConnectionLost as error:
            self.close(str(error))
        except ProtocolError as error:
            self.has_broken_protocol = not self._why
            self.close(str(error))

    def _end_uploads(self) -> None:
        self._finish_leaving()
        while self._uploads:  # telling the owner of one may bring another
            self._finish(self._uploads.popleft())

    def _finish(self, outgoing: Outgoing) -> None:
        outgoing.source.close()
        self._handler.on_sent(outgoing, outgoing.sent == outgoing.length)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        pace, taken = RateLimit(MESSAGES_PER_S), 0
        while not self._scope.cancel_called:  # what came before the end counts, what is only buffered does not
            message = await self._frames.message()
            taken += 1
            if taken % MESSAGES_TURN == 0:
                self._wake.set()
                await trio.lowlevel.checkpoint()
                await pace.ready()
            if not isinstance(message, Run) or message.length < RUN_PAID:
                pace.spend(1)
            if isinstance(message, Run):
                self._wake.set()
                await self._run_came(message)
            elif isinstance(message, Hello):
                raise ProtocolError("Hello twice")
            elif not isinstance(message, Ping):
                self._handle(message)
            if self._queue and not self._frames.has_message():
                self._answer()

    def _handle(self, message: Message) -> None:
        self._is_handling = True
        try:
            self._handler.on_message(message)
        finally:
            self._is_handling = False

    def _answer(self) -> None:
        """What the messages that were read have led to goes out together, and from here if nothing else is on its way:
        waking the writer for it would cost a directory as much as the answer itself.
        """
        if self._is_resting and not self._uploads:
            data = b"".join(self._queue)
            rest = data[self._transport.send_now(data) :]
            self._queue.clear()
            self._queued = len(rest)
            if rest:
                self._queue.append(rest)
        if self._queue:
            self._wake.set()

    async def _run_came(self, run: Run) -> None:
        await self._down.ready()
        incoming = self._expected.get(run.rid)
        if incoming is None:
            self._charge(run)
        self.bytes_in += run.length
        self._handler.on_received(run.rid, run.length)
        self._down.spend(run.length)
        if incoming is None:
            await self._frames.skip(run.length)
            return
        if incoming.received == 0:
            link = self._handler.link_of(run.rid)
            if link is None:
                raise ProtocolError("a piece whose link no voucher covers")
            incoming.begin(link)
            self._handler.on_piece_started(run.rid)
        await incoming.take_run(run, self._frames, self._storing)

    def _charge(self, run: Run) -> None:
        """A run of something that was asked for once, and is not wanted any more: no more of it than was asked for."""
        left = self._abandoned.get(run.rid, 0) - run.length
        if left < 0:
            raise ProtocolError("a piece that nobody asked for")
        self._abandoned[run.rid] = left
        if not left:
            del self._abandoned[run.rid]

    # -- storing ----------------------------------------------------------------------------------------------------

    async def _store(self) -> None:
        try:
            await self._storing.run()
        except self._sink_errors as error:
            assert self._storing.failing
            self._handler.on_sink_failed(self._storing.failing.rid, error)
            raise ConnectionLost("this node can't store the piece") from None

    def _piece_came(self, incoming: Incoming) -> None:
        del self._expected[incoming.rid]
        self._handler.on_piece(incoming.rid, incoming.held)

    def _piece_overtaken(self, incoming: Incoming) -> None:
        self.abandon(incoming.rid)
        self._handler.on_overtaken(incoming.rid)

    # -- writing ----------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        self._transport.hold_little()
        while not self._scope.cancel_called:
            if self._leaving and not self._transport.leaves_in():
                self._finish_leaving()
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
                    self._transport.hold_little()
                    self._leaving.append(outgoing)
                    self._leaving_since = trio.current_time()
            else:
                self._transport.flush()
                self._wake = trio.Event()
                self._is_resting = True
                with trio.move_on_after(self._transport.leaves_in() if self._leaving else math.inf):
                    await self._wake.wait()
                self._is_resting = False

    def _finish_leaving(self) -> None:
        self._leaving_since = None
        while self._leaving:  # telling the owner of one may bring another
            self._finish(self._leaving.popleft())

    async def _send_run(self, outgoing: Outgoing) -> None:
        if self._up.debt() > 0:
            with trio.move_on_after(FRAMES_WAIT_S) as waiting:
                await self._up.ready()
            if waiting.cancelled_caught:
                self._transport.flush()
                return
        count = min(RUN_SIZE_MAX, outgoing.length - outgoing.sent)
        self._up.spend(count)
        await self._transport.send_all(encode(Run(outgoing.rid, outgoing.sent, count)), more=True)
        await self._transport.send_file(outgoing.source.fileno(), outgoing.offset + outgoing.sent, count)
        outgoing.sent += count
        self.bytes_out += count

    # -- watching ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        transport, acknowledged = self._transport, 0
        while True:
            await trio.sleep(WATCH_S)
            transport.check()
            now = trio.current_time()
            if transport.receiving_since is not None and now - transport.receiving_since >= SILENCE_S:
                raise ConnectionLost(f"silent for {SILENCE_S:g} s")
            before, acknowledged = acknowledged, transport.acknowledged()
            since = self._leaving_since if transport.sending_since is None else transport.sending_since
            is_blocked = since is not None and now - since >= WATCH_S
            if is_blocked and acknowledged - before < DRAIN_MIN:
                raise ConnectionLost(f"took less than {DRAIN_MIN // 1024} KiB in {WATCH_S:g} s")
            if now - self._spoke_at >= QUIET_S and not self._queue:
                self.send(Ping())
