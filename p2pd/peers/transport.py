"""Bytes to and from one socket. The one place that knows whether they are plain (or, one day, encrypted).

Keeps no time limits: it says since when it waits for the other side, and the connection judges. May know p2pd.filesend.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct

import trio

from p2pd.filesend import SendError, send_file_range

TCP_INFO_BYTES_ACKED = 120  # tcpi_bytes_acked, 8 bytes, in struct tcp_info of linux/tcp.h (Linux 4.1)


class ConnectionLost(Exception):
    """The other side is gone, or as good as gone. The message says how."""


class PlainTransport:
    """TCP without encryption: piece bytes go out by sendfile and come in by recv_into.

    `receiving_since`, `sending_since`: when the call under way began to wait for the other side; None without one.
    """

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self.receiving_since: float | None = None
        self.sending_since: float | None = None
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def remote_host(self) -> str:
        """The address that the connection comes from. ConnectionLost if it is gone already."""
        try:
            return str(self._sock.getpeername()[0])
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None

    def acknowledged(self) -> int:
        """Bytes that have reached the other side's kernel since the connection began; 0 where that can't be told."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES_ACKED + 8)
        except OSError:
            return 0
        if len(info) < TCP_INFO_BYTES_ACKED + 8:
            return 0
        return struct.unpack_from("=Q", info, TCP_INFO_BYTES_ACKED)[0]

    async def receive_into(self, view: memoryview) -> int:
        """At least one byte; ConnectionLost at the end. If it is cancelled, no byte is lost."""
        self.receiving_since = trio.current_time()
        try:
            count = await self._sock.recv_into(view)
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None
        finally:
            self.receiving_since = None
        if count == 0:
            raise ConnectionLost("closed by the other side")
        return count

    async def send_all(self, data: bytes, more: bool = False) -> None:
        """All of `data`; `more`: the piece's bytes follow at once, so the kernel may wait for them."""
        view = memoryview(data)
        flags = socket.MSG_MORE if more else 0
        self.sending_since = trio.current_time()
        try:
            while view:
                view = view[await self._sock.send(view, flags) :]
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None
        finally:
            self.sending_since = None

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of a file."""
        self.sending_since = trio.current_time()
        try:
            await send_file_range(self._sock, fd, offset, count, stall_timeout=math.inf)
        except SendError as error:
            raise ConnectionLost(str(error)) from None
        finally:
            self.sending_since = None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


async def dial(host: str, port: int, timeout_s: float) -> PlainTransport:
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
    return PlainTransport(stream.socket)


def _reason(error: OSError) -> str:
    """The system's word; trio's own error only says that all addresses failed, and each one's error is its cause."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)
