"""The admin port over real loopback sockets: what it answers, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import pytest
import trio

from p2pd.admin import http as admin_http
from p2pd.admin.http import serve_admin
from p2pd.admin.metrics import Metrics


class State:
    def __init__(self) -> None:
        self.metrics = Metrics("1")
        self.reason: str | None = None

    def not_ready(self) -> str | None:
        return self.reason

    def status(self) -> dict:
        return {"node": {"name": "n1"}}


@asynccontextmanager
async def serving(state: State, **options) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        await nursery.start(lambda task_status: serve_admin(listeners, state, task_status=task_status, **options))
        yield port
        nursery.cancel_scope.cancel()


async def raw(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """Everything that comes back until the other side closes in good order."""
    with trio.fail_after(5):
        stream = await trio.open_tcp_stream(host, port)
        async with stream:
            await stream.send_all(data)
            answer = b""
            while chunk := await stream.receive_some():
                answer += chunk
            return answer


async def ask(port: int, path: str, *, method: str = "GET", host: str = "localhost") -> tuple[int, dict, bytes]:
    answer = await raw(port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=path, headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response = client.next_event()
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    return response.status_code, {k.decode(): v.decode() for k, v in response.headers}, body


async def test_metrics():
    state = State()
    state.metrics.sent("client", 12)
    async with serving(state) as port:
        code, headers, body = await ask(port, "/metrics")
    assert (code, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'p2pd_sent_bytes_total{to="client"} 12.0\n' in body


async def test_health_ready_status():
    state = State()
    async with serving(state) as port:
        assert (await ask(port, "/healthz"))[::2] == (200, b"ok\n")
        assert (await ask(port, "/readyz"))[::2] == (200, b"ok\n")
        state.reason = "the mirror does not listen yet"
        assert (await ask(port, "/readyz"))[::2] == (503, b"not ready: the mirror does not listen yet\n")
        assert (await ask(port, "/healthz"))[0] == 200
        code, headers, body = await ask(port, "/status?pretty")
        assert (code, headers["content-type"], json.loads(body)) == (200, "application/json", state.status())


async def test_head_has_the_length_and_no_body():
    async with serving(State()) as port:
        code, headers, body = await ask(port, "/healthz", method="HEAD")
    assert (code, headers["content-length"], body) == (200, "3", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_only_reads(method: str):
    async with serving(State()) as port:
        code, headers, _ = await ask(port, "/status", method=method)
    assert (code, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../status", "//status", "/v2/"])
async def test_other_paths(path: str):
    async with serving(State()) as port:
        assert (await ask(port, path))[0] == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9582", "LOCALHOST:1", "[::1]:9582", "127.9.9.9", "node1"])
async def test_host_names_of_this_node(host: str):
    async with serving(State(), names=["Node1"]) as port:
        assert (await ask(port, "/healthz", host=host))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1:9582", "localhost.evil.example", "", "[::1", "a:b:c"])
async def test_other_host_names_are_refused(host: str):
    async with serving(State()) as port:
        code, _, body = await ask(port, "/metrics", host=host)
    assert code == 400
    assert b"p2pd_" not in body


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["tls", "no-host", "http-1.0-no-host", "http-0.9", "two-hosts", "bad-header", "not-ascii"],
)
async def test_bad_requests(data: bytes):
    async with serving(State()) as port:
        assert (await raw(port, data)).startswith(b"HTTP/1.1 400 ")
        assert (await ask(port, "/healthz"))[0] == 200


async def test_a_long_header_is_refused_and_its_sender_hears_it():
    async with serving(State()) as port:
        answer = await raw(port, b"GET / HTTP/1.1\r\nX: " + b"a" * (3 * admin_http.HEADER_MAX))
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_silent_clients_lose_their_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin_http, "CONNECTION_SECONDS_MAX", 0.2)
    monkeypatch.setattr(admin_http, "CONNECTIONS_MAX", 3)
    async with serving(State()) as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        await silent[0].send_all(b"GET /heal")
        await trio.testing.wait_all_tasks_blocked(0.02)
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            assert await raw(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for stream in silent:
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
            await stream.aclose()
        assert (await ask(port, "/healthz"))[0] == 200


async def test_a_bug_of_ours_is_not_hidden():
    class Broken(State):
        def status(self) -> dict:
            raise RuntimeError("bug")

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="bug"), flatten_subgroups=True):
        async with serving(Broken()) as port:
            assert await raw(port, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
            await trio.sleep_forever()
