"""Bytes to and from one socket. The one place that knows whether they are plain (or, one day, encrypted).

May know p2pd.filesend.
"""

from __future__ import annotations

import contextlib
import errno
import socket

import trio

from p2pd.filesend import SendError, send_file_range

SEND_STALL_S = 15.0  # a receiver that takes nothing for so long is cut


class ConnectionLost(Exception):
    """The other side is gone, or as good as gone. The message says how."""


class PlainTransport:
    """TCP without encryption: piece bytes go out by sendfile and come in by recv_into."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def remote_host(self) -> str:
        """The address that the connection comes from."""
        return str(self._sock.getpeername()[0])

    async def receive_into(self, view: memoryview) -> int:
        """At least one byte; ConnectionLost at the end."""
        try:
            count = await self._sock.recv_into(view)
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None
        if count == 0:
            raise ConnectionLost("closed by the other side")
        return count

    async def send_all(self, data: bytes, more: bool = False) -> None:
        """All of `data`; `more`: the piece's bytes follow at once, so the kernel may wait for them."""
        view = memoryview(data)
        flags = socket.MSG_MORE if more else 0
        try:
            with trio.fail_after(SEND_STALL_S + len(data) / 65536):
                while view:
                    view = view[await self._sock.send(view, flags) :]
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None
        except trio.TooSlowError:
            raise ConnectionLost(f"took nothing for {SEND_STALL_S:g} s") from None

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        try:
            await send_file_range(self._sock, fd, offset, count, stall_timeout=SEND_STALL_S)
        except SendError as error:
            raise ConnectionLost(str(error)) from None

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
        reason = errno.errorcode.get(error.errno or 0, "") or str(error)
        raise ConnectionLost(f"can't reach {host}:{port}: {reason}") from None
    except trio.TooSlowError:
        raise ConnectionLost(f"can't reach {host}:{port} within {timeout_s:g} s") from None
    return PlainTransport(stream.socket)
