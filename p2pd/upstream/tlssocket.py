"""TLS on a socket that OpenSSL reads and writes itself, driven by trio.

Not trio.SSLStream, which moves each record of 16 KiB through two more buffers and the event loop, at several times the
cost. Not here: HTTP, timeouts, what is trusted (the context is handed in). Imports nothing of p2pd.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

import trio

TURN_BYTES = 256 * 1024  # read before anybody else has a turn: about a quarter of a millisecond


class TlsSocket:
    """The client's side. One task at a time reads or writes. OSError, of which ssl.SSLError is one, from all of it."""

    def __init__(self, sock: trio.socket.SocketType, context: ssl.SSLContext, name: str | None) -> None:
        """Takes the connected socket over; `name` is whom the certificate must be for."""
        plain = socket.socket(fileno=sock.detach())
        plain.setblocking(False)
        try:
            # A server that closes without goodbye is an end like another: HTTP says itself whether a body is whole.
            self.ssl = context.wrap_socket(
                plain, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        except BaseException:
            plain.close()
            raise

    async def start(self) -> None:
        """The handshake; ssl.SSLCertVerificationError among others. Cancelling it breaks the connection."""
        await self._carry_out(self.ssl.do_handshake)

    async def receive_some(self, limit: int) -> bytes:
        """b"" at the end. Cancel-safe."""
        return await self._carry_out(self.ssl.recv, limit)

    def receive_now(self, view: memoryview) -> int:
        """What is there, at most TURN_BYTES; 0 at the end. BlockingIOError if there is nothing yet."""
        count, limit = 0, min(len(view), TURN_BYTES)
        while count < limit:
            try:
                got = self.ssl.recv_into(view[count:limit])
            except ssl.SSLWantReadError:
                if count:
                    break
                raise BlockingIOError from None
            if not got:
                break  # and will be so again
            count += got
        return count

    async def send_all(self, data: bytes) -> None:
        """Cancelling it breaks the connection."""
        view = memoryview(data)
        while view:
            view = view[await self._carry_out(self.ssl.send, view) :]

    def close(self) -> None:
        if self.ssl.fileno() >= 0:
            trio.lowlevel.notify_closing(self.ssl)
        self.ssl.close()

    @property
    def is_readable(self) -> bool:
        """Whether something came that nobody has read: from an idle connection that can only be its end."""
        if self.ssl.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self.ssl, select.POLLIN)
        return bool(poll.poll(0))

    async def _carry_out(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Again with the same arguments, as OpenSSL demands, until it need not wait."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                result = function(*arguments)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.ssl)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.ssl)
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return result
