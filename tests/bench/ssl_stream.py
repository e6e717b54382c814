"""The peers' bytes through trio.SSLStream: what p2pd.peers.tls is measured against, daemon against daemon."""

from __future__ import annotations

import os
import ssl

import trio
from cryptography import x509

from p2pd.fleet.keys import public_bytes
from p2pd.peers import network
from p2pd.peers.tls import FILE_CHUNK, Contexts
from p2pd.peers.transport import ConnectionLost, Transport, connect

ENDS = (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError)


class StreamTransport(Transport):
    """As p2pd's own, on trio's stream: a file is read and sent in as large chunks."""

    def __init__(self, sock: trio.socket.SocketType, context: ssl.SSLContext, *, accepted: bool) -> None:
        super().__init__(sock)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._sock))
        self._stream = trio.SSLStream(stream, context, server_side=accepted)
        self._head = b""

    async def start(self) -> None:
        await self._stream.do_handshake()
        certificate = self._stream.getpeercert(binary_form=True)
        self.peer_key = public_bytes(x509.load_der_x509_certificate(certificate))

    async def receive_into(self, view: memoryview, promised: bool = False) -> int:
        try:
            data = await self._stream.receive_some(len(view))
        except ENDS as error:
            raise ConnectionLost(str(error)) from None
        if not data:
            raise ConnectionLost("closed by the other side")
        view[: len(data)] = data
        return len(data)

    async def send_all(self, data: bytes, more: bool = False) -> None:
        data, self._head = self._head + data, b""
        if more:
            self._head = data
            return
        try:
            await self._stream.send_all(data)
        except ENDS as error:
            raise ConnectionLost(str(error)) from None

    def send_now(self, data: bytes) -> int:
        return 0

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        end = offset + count
        while offset < end:
            data = os.pread(fd, min(FILE_CHUNK, end - offset), offset)
            offset += len(data)
            await self.send_all(data)


async def _call(host: str, port: int, timeout_s: float, contexts: Contexts | None, *, by_name: bool) -> Transport:
    assert contexts
    return StreamTransport(await connect(host, port, timeout_s), contexts.calling, accepted=False)


def _answer(sock: trio.socket.SocketType, contexts: Contexts | None) -> Transport:
    assert contexts
    return StreamTransport(sock, contexts.accepting, accepted=True)


def take_over() -> None:
    """From now on, all that this process's peers send and receive."""
    network.call, network.answer = _call, _answer  # type: ignore[assignment]
