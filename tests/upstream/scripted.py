"""An HTTP server that does what a test's script says, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

FIN = object()  # close the connection properly
RESET = object()  # close it with RST
HANG = object()  # say nothing more until the client goes away


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Step = bytes | float | object
Script = Callable[[Request], "bytes | Iterable[Step]"]


@dataclass
class Scripted:
    """`script` gives the steps of each answer: bytes to send, seconds or an event to wait for, or a mark."""

    script: Script
    port: int = 0
    scheme: str = "http"
    seen: list[Request] = field(default_factory=list)
    connections: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def targets(self) -> list[str]:
        return [f"{request.method} {request.target}" for request in self.seen]

    async def has_seen(self, count: int) -> None:
        """Wait until so many requests have come."""
        with trio.fail_after(5):
            while len(self.seen) < count:
                await self._news.wait()

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        try:
            async with stream:
                while (request := await _read_request(stream)) is not None:
                    self.seen.append(request)
                    self._news.set()
                    self._news = trio.Event()
                    if not await self._answer(stream, request):
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            pass  # the client went away, as some tests want

    async def _answer(self, stream: trio.abc.Stream, request: Request) -> bool:
        steps = self.script(request)
        for step in [steps] if isinstance(steps, bytes) else steps:
            if isinstance(step, bytes):
                await stream.send_all(step)
            elif isinstance(step, float):
                await trio.sleep(step)
            elif isinstance(step, trio.Event):
                await step.wait()
            elif step is HANG:
                await stream.receive_some(1)
                return False
            elif step is RESET:
                assert isinstance(stream, trio.SocketStream)
                stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return False
            else:
                return False
        return True


@asynccontextmanager
async def scripted(
    script: Script, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Scripted]:
    server = Scripted(script, scheme="https" if tls else "http")
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=address)
        server.port = listeners[0].socket.getsockname()[1]
        wrapped = [trio.SSLListener(one, tls, https_compatible=True) for one in listeners] if tls else listeners
        nursery.start_soon(trio.serve_listeners, server.serve, wrapped)
        try:
            yield server
        except Exception as error:
            failure = error  # raised below as it is, not in the nursery's group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def answer(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """A whole answer. Names in `headers` have "_" for "-". `length`: another Content-Length than the true one."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read_request(stream: trio.abc.Stream) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some()
        if not chunk:
            return None
        data += chunk
    head, body = data.split(b"\r\n\r\n", 1)
    first, *lines = head.decode().split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive_some()
    method, target, _ = first.split(" ")
    return Request(method, target, headers, body)
