"""The admin port: metrics, health and status over HTTP. It only reads, and shows no repository names.

Not the mirror, and no place for commands: those go over the control socket. Each connection has one answer, a time
limit and a limit on its header; a client that breaks the protocol loses its connection. Knows `p2pd.admin.metrics`.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import h11
import trio

from p2pd.admin.metrics import CONTENT_TYPE

CONNECTIONS_MAX = 32  # at once; a scraper and a few people need two or three
HEADER_MAX = 16 << 10  # bytes of a request's header
RECEIVE_SIZE = 4096  # bytes a call: a request is a few hundred
CONNECTION_SECONDS_MAX = 20.0  # for request and answer together
CLOSE_SECONDS_MAX = 1.0  # that the client has to read the answer and close, before we do

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


class Exposition(Protocol):
    """`p2pd.admin.Metrics` is one."""

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""


class AdminState(Protocol):
    """What a daemon shows of itself. None of it may block or wait."""

    @property
    def metrics(self) -> Exposition: ...

    def not_ready(self) -> str | None:
        """Why the mirror can't answer yet (or any more), in a few words; None when it listens."""

    def status(self) -> dict[str, Any]:
        """What /status shows, fit for JSON."""


class _Answer(NamedTuple):
    code: int
    content_type: str
    body: bytes


def _text(code: int, text: str) -> _Answer:
    return _Answer(code, "text/plain; charset=utf-8", f"{text}\n".encode())


async def serve_admin(
    listeners: list[trio.SocketListener],
    state: AdminState,
    *,
    names: Collection[str] = (),
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. `names` are further Host names to answer to, e.g. the node's own.

    Clients' errors end their connection only; an exception of `state` is a bug of ours and goes up.
    """
    allowed = LOOPBACK_NAMES | {name.lower() for name in names}
    active = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal active
        if active >= CONNECTIONS_MAX:
            return
        active += 1
        try:
            with trio.move_on_after(CONNECTION_SECONDS_MAX):
                await _converse(stream, state, allowed)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away
        finally:
            active -= 1

    await trio.serve_listeners(handle, listeners, task_status=task_status)


async def _converse(stream: trio.SocketStream, state: AdminState, names: Collection[str]) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_MAX)
    is_head = False
    try:
        request = await _request(stream, connection)
        if request is None:
            return
        is_head = request.method == b"HEAD"
        answer = _answer(request, state, names, stream.socket.getsockname()[0])
    except h11.RemoteProtocolError as error:
        answer = _text(431 if error.error_status_hint == 431 else 400, f"bad request: {error}")
    await stream.send_all(_bytes_of(connection, answer, is_head=is_head))
    await stream.send_eof()
    with trio.move_on_after(CLOSE_SECONDS_MAX):  # closing with unread bytes would be a reset, and could eat the answer
        while await stream.receive_some(RECEIVE_SIZE):
            pass


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    """The one request of a connection; None if the client closed before it was whole."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(RECEIVE_SIZE)
            if not data:
                return None
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


def _answer(request: h11.Request, state: AdminState, names: Collection[str], local: str) -> _Answer:
    hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
    if len(hosts) != 1 or not _is_ours(hosts[0], names, local):
        return _text(400, "bad request: the Host header does not name this node: use its IP address or localhost")
    path = request.target.decode("latin-1").partition("?")[0]
    if path not in ("/metrics", "/healthz", "/readyz", "/status"):
        return _text(404, "not found: there are /metrics, /healthz, /readyz and /status")
    if request.method not in (b"GET", b"HEAD"):
        return _text(405, "method not allowed: this port only reads")
    if path == "/metrics":
        return _Answer(200, CONTENT_TYPE, state.metrics.exposition())
    if path == "/status":
        return _Answer(200, "application/json", json.dumps(state.status(), indent=2).encode() + b"\n")
    if path == "/readyz" and (reason := state.not_ready()) is not None:
        return _text(503, f"not ready: {reason}")
    return _text(200, "ok")


def _is_ours(header: str, names: Collection[str], local: str) -> bool:
    """Whether a Host header names this node: a page of a rebound DNS name must not read us through a browser."""
    host = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() and not header.endswith("]") else header
    host = host.strip("[]").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in names
    return address.is_loopback or address == _plain_ip(local)


def _plain_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _bytes_of(connection: h11.Connection, answer: _Answer, *, is_head: bool) -> bytes:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if answer.code == 405:
        headers.append(("Allow", "GET, HEAD"))
    head = connection.send(h11.Response(status_code=answer.code, headers=headers)) or b""
    return head if is_head else head + answer.body
