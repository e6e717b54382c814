"""Long bodies, which are read off the socket below httpcore and h11: whole, broken off, silent, what comes after."""

from __future__ import annotations

import gc
import os
import random
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from p2pd.upstream import BadAnswer, BlobStream, Unreachable, rawbody, transport
from p2pd.upstream.rawbody import RawBody
from tests.upstream.conftest import receive_some, server_context, sha256, upstream
from tests.upstream.scripted import FIN, HANG, RESET, Request, Script, answer, scripted

BODY = random.Random(1).randbytes(1_000_003)
DIGEST = sha256(BODY)
HALF = len(BODY) // 2


def bypassed(stream: BlobStream) -> bool:
    return stream._answer._bypass is not None


@pytest.fixture(params=["http", "https"])
def certificate_or_none(request: pytest.FixtureRequest, certificate: Path) -> Path | None:
    return certificate if request.param == "https" else None


async def fetch(script: Script, size: int = 1 << 20, certificate: Path | None = None) -> tuple[bytes, bool]:
    """The blob, read `size` bytes at a time, and whether it came the short way."""
    async with scripted(script, certificate and server_context(certificate)) as server:
        upstreams, host, _ = upstream(server.url, ca=certificate)
        try:
            async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
                chunks = []
                while chunk := await receive_some(stream, size):
                    chunks.append(chunk)
                assert await receive_some(stream) == b""
                return b"".join(chunks), bypassed(stream)
        finally:
            await upstreams.aclose()


def always(*steps: object) -> Script:
    return lambda request: list(steps)


@pytest.mark.parametrize("size", [4_999, 65_536, 1 << 20])
async def test_a_long_body_comes_the_short_way(size: int, certificate_or_none: Path | None) -> None:
    assert await fetch(always(answer(200, BODY)), size, certificate_or_none) == (BODY, True)


async def test_in_small_parts(certificate_or_none: Path | None) -> None:
    parts = [answer(200, BODY[:1], length=len(BODY))]
    parts += [BODY[at : at + 10_007] for at in range(1, len(BODY), 10_007)]
    assert await fetch(always(*parts), certificate=certificate_or_none) == (BODY, True)


async def test_a_chunked_body_takes_the_long_way() -> None:
    def script(request: Request) -> bytes:
        if request.method == "HEAD":
            return answer(200, length=len(BODY))
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"

    assert await fetch(script) == (BODY, False)


async def test_libraries_that_are_not_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport._Rest, "of", lambda stream: None)
    assert await fetch(always(answer(200, BODY))) == (BODY, False)


@pytest.mark.parametrize("sent", [HALF, len(BODY) - 1])
async def test_cut_off(sent: int, certificate_or_none: Path | None) -> None:
    with pytest.raises(BadAnswer, match="peer closed connection"):
        await fetch(always(answer(200, BODY[:sent], length=len(BODY)), FIN), certificate=certificate_or_none)


async def test_reset() -> None:
    with pytest.raises(Unreachable, match="the connection broke"):
        await fetch(always(answer(200, BODY[:HALF], length=len(BODY)), 0.05, RESET))


async def test_silence(monkeypatch: pytest.MonkeyPatch, certificate_or_none: Path | None) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.1)
    with pytest.raises(Unreachable, match="silent for"):
        await fetch(always(answer(200, BODY[:HALF], length=len(BODY)), HANG), certificate=certificate_or_none)


async def test_a_few_bytes_do_not_wait_for_more(certificate_or_none: Path | None) -> None:
    tls = certificate_or_none and server_context(certificate_or_none)
    async with scripted(always(answer(200, BODY[:HALF], length=len(BODY)), HANG), tls) as server:
        upstreams, host, _ = upstream(server.url, ca=certificate_or_none)
        async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
            received = b""
            with trio.fail_after(5):
                while len(received) < HALF:
                    received += await receive_some(stream)
        assert received == BODY[:HALF]
        await upstreams.aclose()


async def test_what_is_cancelled_is_broken_and_leaves_nothing_behind(certificate_or_none: Path | None) -> None:
    tls = certificate_or_none and server_context(certificate_or_none)
    async with scripted(always(answer(200, BODY[:HALF], length=len(BODY)), HANG), tls) as server:
        upstreams, host, _ = upstream(server.url, ca=certificate_or_none)
        async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
            with trio.move_on_after(0.2):
                while True:
                    await receive_some(stream)
            assert bypassed(stream)
            for _ in range(2):
                with pytest.raises(Unreachable, match="given up in the middle"):
                    await receive_some(stream)
        gc.collect()  # a generator that was left hanging would warn now, and warnings are errors
        await trio.testing.wait_all_tasks_blocked()
        assert not upstreams.get(host)._transport._transport._pool.connections
        await upstreams.aclose()


async def test_the_connection_is_used_again(certificate_or_none: Path | None) -> None:
    """By the next request, whose answer has fewer bytes than a body waits for."""
    tls = certificate_or_none and server_context(certificate_or_none)

    def script(request: Request) -> list[object]:
        if request.method == "HEAD":
            return [answer(200, length=len(BODY))]
        return [answer(200, BODY[:HALF], length=len(BODY)), 0.05, BODY[HALF:]]

    async with scripted(script, tls) as server:
        upstreams, host, _ = upstream(server.url, ca=certificate_or_none)
        for _ in range(3):
            async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
                received = 0
                while received < len(BODY):  # as a pull does, which does not ask for the end
                    received += len(await receive_some(stream))
                assert bypassed(stream)
            with trio.fail_after(5):
                assert (await upstreams.get(host).head("blob", "a/b", DIGEST)).size == len(BODY)
        assert server.connections == 1
        await upstreams.aclose()


async def test_low_water_follows_what_there_is_room_for_and_ends_with_the_body() -> None:
    ours, theirs = trio.socket.socketpair()

    def low_water() -> int:
        return ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    body = RawBody(ours, lambda view: os.readv(ours.fileno(), [view]))
    view = memoryview(bytearray(1 << 20))
    await theirs.send(b"abc")
    assert await body.receive_into(view, 1.0) == 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(body.receive_into, view[:1000], 1.0)
        await trio.testing.wait_all_tasks_blocked()
        assert low_water() == 1000
        await theirs.send(b"d")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(body.receive_into, view, 1.0)
        await trio.testing.wait_all_tasks_blocked()
        assert low_water() == rawbody.LOW_WATER
        await theirs.send(b"e")
    body.close()
    assert low_water() == 1
    theirs.close()
    assert await body.receive_into(view, 1.0) == 0
    ours.close()
