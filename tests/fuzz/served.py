"""One exchange with a real server over loopback: all the bytes at once, then FIN, then what comes until the end.

Not a target itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

WITHIN_S = 30.0  # on a machine that does other things too; the servers have nothing to wait for

Serve = Callable[..., Awaitable[None]]


def exchange_by_tcp(serve: Serve, data: bytes) -> bytes:
    """`serve(listeners, task_status=...)`, asked once."""

    async def run() -> bytes:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(lambda task_status: serve(listeners, task_status=task_status))
            stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
            received = await _all_of(stream, data)
            nursery.cancel_scope.cancel()
        return received

    return trio.run(run)


def exchange_by_unix(serve: Serve, path: str, data: bytes) -> bytes:
    """`serve(task_status=...)` at `path`, asked once."""

    async def run() -> bytes:
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve(task_status=task_status))
            received = await _all_of(await trio.open_unix_socket(path), data)
            nursery.cancel_scope.cancel()
        return received

    return trio.run(run)


async def _all_of(stream: trio.SocketStream, data: bytes) -> bytes:
    received = b""
    with trio.fail_after(WITHIN_S):
        async with stream:
            await stream.send_all(data)
            await stream.send_eof()
            while chunk := await stream.receive_some():
                received += chunk
    return received


def statuses(received: bytes) -> list[int]:
    """The status of each HTTP answer, whose heads must be whole and proper. Bodies may be missing: it may be a HEAD."""
    found = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, "an answer whose head is not whole"
        first, *lines = head.split(b"\r\n")
        version, status, _ = first.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = {}
        for line in lines:
            name, colon, value = line.partition(b": ")
            assert colon and name.replace(b"-", b"").isalnum() and value.isascii() and value.decode().isprintable()
            assert name.lower() not in headers, f"{name.decode()} twice"
            headers[name.lower()] = value
        length = int(headers[b"content-length"])
        found.append(int(status))
        received = rest if rest.startswith(b"HTTP/1.1 ") else rest[length:]
    return found
