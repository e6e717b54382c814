"""A run of a file's bytes to a socket with sendfile(2), without the disk ever holding up the event loop.

Not a protocol: whoever calls writes headers and frames. Used by the mirror and by the peers' connections; imports
nothing of p2pd.

sendfile(2) on a non-blocking socket still blocks on the *file*: a page that is not in the page cache is read from the
disk inside the call. So what the event loop is to send is first probed with preadv2(2) and RWF_NOWAIT, and read ahead
in a worker thread if it is not resident.

All but the beginning of a long run goes out from a worker thread, while one is free and the receiver keeps up: there a
full socket costs a poll(2) and not a turn of the event loop, so that it is filled again before the receiver has to
wait; the other tasks have the event loop; and the disk may take its time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from functools import lru_cache

import trio

WINDOW = 8 << 20  # bytes read ahead at a time: a spinning disk reads them in about 50 ms
PROBE_STRIDE = 256 << 10  # bytes between probes: twice the kernel's usual readahead, and 0.5 % of the time on loopback
CALL_MAX = 1 << 20  # bytes in one sendfile call of the event loop: about 0.3 ms, during which the other tasks wait
SCRATCH = 256 << 10  # bytes of a worker thread's buffer
READERS_MAX = 8  # worker threads that read ahead: a disk that hangs must not take all of the process's threads
PUMPS_MAX = 4  # worker threads that send: more than a machine with many cores needs for its own clients
PUMP_MIN = 2 << 20  # bytes still to go from which on a thread is worth its hop of some 150 us
PUMP_S = 0.5  # how long a thread sends before it reports, so that a socket which was closed is noticed
PUMP_PATIENCE_S = 0.01  # a receiver that makes no room for so long is waited for in the event loop

_GONE = frozenset(
    {
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)
_SOURCE_FAILED = frozenset({errno.EIO, errno.ESTALE, errno.EUCLEAN, errno.ENODATA, errno.ENXIO, errno.EREMOTEIO})
_NO_PROBE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

_readers: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("p2pd_filesend_readers")
_pumps: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("p2pd_filesend_pumps")


class SendError(Exception):
    """A run that did not go out whole. `sent` is the number of its bytes that the socket did take."""

    def __init__(self, message: str, sent: int = 0) -> None:
        super().__init__(message)
        self.sent = sent


class ReceiverGone(SendError):
    """The receiver closed or reset the connection, or it was closed on this side: an everyday event."""


class ReceiverStalled(SendError):
    """The receiver took nothing for the whole stall timeout."""


class SourceFailed(SendError):
    """The file could not be read, or ends before the run does."""


async def send_file_range(
    sock: trio.socket.SocketType | socket.socket, fd: int, offset: int, count: int, *, stall_timeout: float
) -> None:
    """Send `count` bytes of `fd` from `offset` on; at least one checkpoint a call.

    `sock` is non-blocking and nobody else writes to it meanwhile. `stall_timeout` in seconds. Raises ReceiverGone,
    ReceiverStalled or SourceFailed. If cancelled, an unknown part has been sent, but not all: the stream can't be used
    further. Once the last byte is handed over it returns at once, so that a receiver which leaves then is no failure.
    """
    position, end, keeps_up, is_full = offset, offset + count, True, False
    pumps = _limiter(_pumps, PUMPS_MAX)
    await trio.lowlevel.checkpoint()
    _set_cork(sock, True)
    try:
        while position < end:
            goes_on_in_thread = keeps_up and end - position >= PUMP_MIN and pumps.available_tokens >= 1
            if is_full and not goes_on_in_thread:
                await _wait_writable(sock, stall_timeout)
            if position > offset and goes_on_in_thread:
                _set_cork(sock, False)
                pump = await _pump_in_thread(sock, fd, position, end - position, pumps)
                _set_cork(sock, True)
                position += pump.sent
                if pump.error:
                    raise pump.error
                is_full, keeps_up = pump.is_slow, not pump.is_slow
            else:
                if position > offset:
                    await trio.lowlevel.checkpoint()
                asked = min(CALL_MAX, end - position)
                await warm(fd, position, asked)
                sent = _send_some(sock.fileno(), fd, position, asked)
                position += sent
                is_full = sent < asked
                keeps_up = keeps_up or not is_full
    except SendError as error:
        error.sent = position - offset
        raise
    finally:
        _set_cork(sock, False)


async def warm(fd: int, offset: int, count: int) -> None:
    """Return when `count` bytes from `offset` on are, very likely, in the page cache. Raises SourceFailed.

    No checkpoint when they are there already. Meant for at most a WINDOW; the kernel is asked for one more behind it.
    Cancel-safe: an abandoned read ends by itself.
    """
    if _is_resident(fd, offset, count):
        return
    limiter = _limiter(_readers, READERS_MAX)
    # The thread works on its own descriptor: when the wait is abandoned, the caller may close `fd`, and another file
    # may get its number. Whoever pops the loan closes it: the thread, or this task if the thread never began.
    try:
        loan = [os.dup(fd)]
    except OSError as error:  # too many are open
        raise SourceFailed(f"reading at byte {offset}: {error.strerror}") from error
    try:
        await trio.to_thread.run_sync(_read_through, loan, offset, count, abandon_on_cancel=True, limiter=limiter)
    finally:
        with contextlib.suppress(IndexError):
            os.close(loan.pop())


def _limiter(variable: trio.lowlevel.RunVar[trio.CapacityLimiter], size: int) -> trio.CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = trio.CapacityLimiter(size)
        variable.set(limiter)
        return limiter


def _is_resident(fd: int, offset: int, count: int) -> bool:
    """False if any probed page is not in the page cache, or if this file system can't tell."""
    buffers = [bytearray(1)]
    try:
        for position in range(offset, offset + count, PROBE_STRIDE):
            os.preadv(fd, buffers, position, os.RWF_NOWAIT)
        os.preadv(fd, buffers, offset + max(count - 1, 0), os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_PROBE:
            return _is_in_memory(os.fstat(fd).st_dev)
        if error.errno in _SOURCE_FAILED:
            return False  # the worker finds out what is wrong
        raise
    return True


@lru_cache(maxsize=64)
def _is_in_memory(device: int) -> bool:
    """Whether this is a file system of the page cache alone, which has no probe since it needs none."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    return any(fields[2] == name and fields[fields.index("-") + 1] == "tmpfs" for fields in mounts)


def _read_through(loan: list[int], offset: int, count: int) -> None:
    """Read the run for its effect on the page cache, from a descriptor on loan. In a worker thread."""
    try:
        fd = loan.pop()
    except IndexError:
        return  # nobody waits any more
    try:
        os.posix_fadvise(fd, offset, count + WINDOW, os.POSIX_FADV_WILLNEED)
        buffer = memoryview(bytearray(min(SCRATCH, count)))
        position, end = offset, offset + count
        while position < end:
            got = os.preadv(fd, [buffer[: end - position]], position)
            if got == 0:
                return  # shorter than asked: sendfile finds out where
            position += got
    except OSError as error:
        raise SourceFailed(f"reading at byte {offset}: {error.strerror}") from error
    finally:
        os.close(fd)


class _Pump:
    """A part of a run on its way out in a worker thread: what became of it, and the descriptors on loan to it (see
    `warm`). A thread that nobody waits for any more stops at its next call; what it sends until then are the right
    bytes, and nobody else writes to that connection.
    """

    def __init__(self, sock: int, fd: int) -> None:
        self.sent = 0
        self.is_slow = False  # the receiver did not make room in time
        self.error: SendError | None = None
        self.is_abandoned = False
        self._loans: list[tuple[int, int]] = []
        with contextlib.suppress(OSError):  # too many are open: the event loop sends it
            loan = os.dup(sock)
            try:
                self._loans.append((loan, os.dup(fd)))
            except OSError:
                os.close(loan)

    def run(self, offset: int, count: int) -> None:
        try:
            sock, fd = self._loans.pop()
        except IndexError:  # nobody waits any more, or there was none
            self.is_slow = True
            return
        try:
            self._send(sock, fd, offset, count)
        except SendError as error:
            self.error = error
        finally:
            os.close(sock)
            os.close(fd)

    def _send(self, sock: int, fd: int, offset: int, count: int) -> None:
        room = select.poll()
        room.register(sock, select.POLLOUT)
        ends_at = time.monotonic() + PUMP_S
        while self.sent < count and not self.is_abandoned and time.monotonic() < ends_at:
            asked = min(WINDOW, count - self.sent)
            sent = _send_some(sock, fd, offset + self.sent, asked)
            self.sent += sent
            if sent < asked and not room.poll(PUMP_PATIENCE_S * 1000):
                self.is_slow = True
                return

    def close(self) -> None:
        self.is_abandoned = True
        with contextlib.suppress(IndexError):
            for number in self._loans.pop():
                os.close(number)


async def _pump_in_thread(
    sock: trio.socket.SocketType | socket.socket, fd: int, offset: int, count: int, limiter: trio.CapacityLimiter
) -> _Pump:
    if sock.fileno() < 0:
        raise ReceiverGone("the connection was closed on this side")
    pump = _Pump(sock.fileno(), fd)
    try:
        await trio.to_thread.run_sync(pump.run, offset, count, abandon_on_cancel=True, limiter=limiter)
    finally:
        pump.close()
    return pump


def _set_cork(sock: trio.socket.SocketType | socket.socket, corked: bool) -> None:
    """Let only full segments out while the event loop sends a run; uncorking sends the rest at once.

    Worth a third on loopback: without it each 64 KiB that sendfile moves end in a segment of a few dozen bytes. Not for
    a thread, whose calls end when the socket is full: corked, the last segment is then held back until there is room
    for the next call, and one client gets 1.2 GB/s instead of 1.9.
    """
    with contextlib.suppress(OSError):  # not TCP, or gone: sendfile finds that out
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, corked)


def _send_some(sock: int, fd: int, offset: int, count: int) -> int:
    """One sendfile call; 0 if the socket's buffer is full."""
    if sock < 0:
        raise ReceiverGone("the connection was closed on this side")
    try:
        sent = os.sendfile(sock, fd, offset, count)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno in _GONE:
            raise ReceiverGone(f"the receiver went away: {error.strerror}") from error
        if error.errno in _SOURCE_FAILED:
            raise SourceFailed(f"reading at byte {offset}: {error.strerror}") from error
        raise
    if sent == 0:
        raise SourceFailed(f"the file ends at byte {offset}, {count} bytes before the end of the run")
    return sent


async def _wait_writable(sock: trio.socket.SocketType | socket.socket, stall_timeout: float) -> None:
    with trio.move_on_after(stall_timeout) as scope:
        try:
            await trio.lowlevel.wait_writable(sock)
        except trio.ClosedResourceError as error:
            raise ReceiverGone("the connection was closed on this side") from error
    if scope.cancelled_caught:
        raise ReceiverStalled(f"the receiver took nothing for {stall_timeout:g} s")
