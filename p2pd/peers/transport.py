"""Bytes to and from one socket: what plain and encrypted connections share, and the plain kind; TLS is p2pd.peers.tls.

Works on the non-blocking socket itself: a call that finds bytes or room does not go through the event loop, which costs
more than the bytes do; only now and then it lets the others have their turn. Keeps no time limits: it says since when
it waits for the other side, and the connection judges. May know p2pd.filesend.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios

import trio

from p2pd.filesend import SendError, warm

# In struct tcp_info of linux/tcp.h, 8 bytes each: tcpi_bytes_acked (Linux 4.1), tcpi_delivery_rate (Linux 4.9).
TCP_INFO_BYTES_ACKED = 120
TCP_INFO_DELIVERY_RATE = 160
TURN_BYTES = 1024 * 1024  # moved without letting the others have their turn: well under a millisecond
UNSENT_S = 0.02  # of sending that the kernel holds ahead of the wire: longer than this loop's turns
UNSENT_LEAST = 64 * 1024  # bytes; with less an uplink idles between two turns
UNSENT_MOST = 4 * 1024 * 1024  # bytes; the most that Linux gives a socket by itself
WAKE_BYTES = 32 * 1024  # of a piece, before the loop wakes, which costs more than the few KiB of a slow line
LOOK_LEAST_S = 0.002  # between two looks at what is still on its way
LOOK_MOST_S = 0.05
CALL_BYTES = 32 * 1024  # what a call counts beside its bytes, so that small frames count too


class ConnectionLost(Exception):
    """The other side is gone, or as good as gone. The message says how."""


class Transport:
    """One TCP connection. Takes the socket over.

    `receiving_since`, `sending_since`: when the call under way began to wait for the other side; None without one.
    `peer_key`: the raw Ed25519 key that the other side has proved to hold; None where nothing is proved.
    """

    turn_bytes = TURN_BYTES
    peer_key: bytes | None = None

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = socket.socket(fileno=sock.detach())
        self._sock.setblocking(False)
        self._moved = 0  # bytes since the last turn of the others
        self._is_corked = False
        self._unsent = 0
        self._wakes_at = 1
        self.receiving_since: float | None = None
        self.sending_since: float | None = None
        self._set(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def remote_host(self) -> str:
        """The address that the connection comes from. ConnectionLost if it is gone already."""
        try:
            return str(self._sock.getpeername()[0])
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None

    async def start(self) -> None:
        """What comes before the first byte: nothing, here."""

    def check(self) -> None:
        """ConnectionLost if the other side must not be spoken with any longer."""

    async def receive_into(self, view: memoryview, promised: bool = False) -> int:
        """At least one byte; ConnectionLost at the end. If it is cancelled, no byte is lost.

        `promised`: the other side has said that all of `view` will come, so that waiting for WAKE_BYTES of it is safe.
        """
        raise NotImplementedError

    async def send_all(self, data: bytes, more: bool = False) -> None:
        """All of `data`; `more`: the piece's bytes follow at once, so the kernel may wait for them.

        After it was cancelled nothing more can be sent.
        """
        raise NotImplementedError

    def send_now(self, data: bytes) -> int:
        """How much of `data` goes out without waiting; what is left must be what is sent next. ConnectionLost."""
        raise NotImplementedError

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of a file. Its last bytes may wait in the kernel until `flush`."""
        raise NotImplementedError

    def acknowledged(self) -> int:
        """Bytes that have reached the other side's kernel since the connection began; 0 where that can't be told."""
        return self._tcp_info(TCP_INFO_BYTES_ACKED)

    def _tcp_info(self, offset: int) -> int:
        """One of its 8-byte numbers; 0 where there is none."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, offset + 8)
        except OSError:
            return 0
        return struct.unpack_from("=Q", info, offset)[0] if len(info) >= offset + 8 else 0

    def flush(self) -> None:
        """Nothing more to be sent for now."""
        self._cork(False)

    def hold_little(self) -> None:
        """Let the kernel take no more ahead of the wire than that sends in UNSENT_S.

        Else it swallows whole pieces on a slow line: then a place counts as free while its piece is still to be sent,
        and a message waits behind all of it. How fast the wire is only the acknowledgements tell: what the kernel has
        taken says nothing, least of all after it swallowed a piece.
        """
        unsent = int(max(UNSENT_LEAST, min(UNSENT_MOST, self._tcp_info(TCP_INFO_DELIVERY_RATE) * UNSENT_S)))
        if not self._unsent or not self._unsent / 2 < unsent < self._unsent * 2:
            self._unsent = unsent
            self._set(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)

    def leaves_in(self) -> float:
        """Seconds until no more is on its way than `hold_little` lets wait, about; 0.0 if that is so now."""
        try:
            waiting = struct.unpack("=i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0]
        except OSError:
            return 0.0
        if waiting <= self._unsent:
            return 0.0
        rate = self._tcp_info(TCP_INFO_DELIVERY_RATE)
        return min(LOOK_MOST_S, max(LOOK_LEAST_S, (waiting - self._unsent) / rate)) if rate else LOOK_MOST_S

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    async def _turn(self) -> None:
        if self._moved >= self.turn_bytes:
            self._moved = 0
            await trio.lowlevel.checkpoint()

    async def _readable(self, least: int) -> None:
        """Until `least` bytes are there, WAKE_BYTES, or the end: a slow line brings a few KiB at a time."""
        self._wake_at(max(1, min(least, WAKE_BYTES)))
        self.receiving_since = trio.current_time()
        try:
            await trio.lowlevel.wait_readable(self._sock)
        finally:
            self.receiving_since = None

    def _wake_at(self, least: int) -> None:
        if least != self._wakes_at:
            self._wakes_at = least
            self._set(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    def _cork(self, corked: bool) -> None:
        """Let only full segments out: worth a third on loopback, where sendfile moves 64 KiB at a time."""
        if corked != self._is_corked:
            self._is_corked = corked
            self._set(socket.IPPROTO_TCP, socket.TCP_CORK, int(corked))

    def _set(self, level: int, option: int, value: int) -> None:
        with contextlib.suppress(OSError):  # not TCP, or gone: the next call finds that out
            self._sock.setsockopt(level, option, value)


class PlainTransport(Transport):
    """TCP without encryption: piece bytes go out by sendfile and come in by recv_into."""

    async def receive_into(self, view: memoryview, promised: bool = False) -> int:
        await self._turn()
        try:
            while True:
                try:
                    count = self._sock.recv_into(view)
                    break
                except BlockingIOError:
                    await self._readable(len(view) if promised else 1)
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None
        if count == 0:
            raise ConnectionLost("closed by the other side")
        self._moved += count + CALL_BYTES
        return count

    async def send_all(self, data: bytes, more: bool = False) -> None:
        view = memoryview(data)
        flags = socket.MSG_MORE if more else 0
        await self._turn()
        self.sending_since = trio.current_time()
        try:
            while view:
                try:
                    view = view[self._sock.send(view, flags) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None
        finally:
            self.sending_since = None
        self._moved += len(data) + CALL_BYTES

    def send_now(self, data: bytes) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        await self._turn()
        self._cork(True)
        end = offset + count
        self.sending_since = trio.current_time()
        try:
            await warm(fd, offset, count)
            while offset < end:
                try:
                    sent = os.sendfile(self._sock.fileno(), fd, offset, end - offset)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
                    continue
                if not sent:
                    raise ConnectionLost(f"the file to be sent ends at byte {offset}")
                offset += sent
        except (OSError, SendError) as error:
            raise ConnectionLost(str(error)) from None
        finally:
            self.sending_since = None
        self._cork(False)
        self._moved += count + CALL_BYTES


async def connect(host: str, port: int, timeout_s: float) -> trio.socket.SocketType:
    """A connection to (host, port). ConnectionLost if there is none in time."""
    try:
        with trio.fail_after(timeout_s):
            stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise ConnectionLost(f"can't reach {host}:{port}: {_reason(error)}") from None
    except ValueError as error:  # UnicodeError: other nodes' names for themselves need not be names at all
        raise ConnectionLost(f"{host!r} is no host: {error}") from None
    except trio.TooSlowError:
        raise ConnectionLost(f"can't reach {host}:{port} within {timeout_s:g} s") from None
    return stream.socket


async def dial(host: str, port: int, timeout_s: float) -> PlainTransport:
    """A connection without encryption. ConnectionLost if there is none in time."""
    return PlainTransport(await connect(host, port, timeout_s))


def _reason(error: OSError) -> str:
    """The system's word; trio's own error only says that all addresses failed, and each one's error is its cause."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)
