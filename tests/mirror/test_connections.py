"""Connections as hostile or clumsy clients use them."""

from __future__ import annotations

import logging
import socket
import struct

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mirror.conftest import BLOB_SIZE, Mirror, Starter
from tests.mirror.wire import ANSWER_WITHIN_S, Wire, until

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)


async def test_a_tls_hello_is_answered_in_plain_http_at_once(mirror: Mirror) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        await wire.send(CLIENT_HELLO)
        with trio.fail_after(1):
            answer = await wire.answer()
            assert await wire.rest() == b""
    assert answer.status == 400
    assert "plain HTTP, not TLS" in answer.error_message


async def test_even_its_first_byte_alone(mirror: Mirror) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        await wire.send(CLIENT_HELLO[:1])
        assert (await wire.answer()).status == 400


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02",
        b"HELO example\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /v2/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_garbage_is_400_and_fin(mirror: Mirror, garbage: bytes) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        await wire.send(garbage)
        assert (await wire.answer()).status == 400
        assert await wire.rest() == b""


async def test_too_long_a_head_is_431_and_fin(start_mirror: Starter) -> None:
    mirror = await start_mirror(header_size_max=2000)
    wire = await mirror.connect()
    async with wire.stream:
        await wire.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 4000)
        assert (await wire.answer()).status == 431
        assert await wire.rest() == b""


async def test_too_long_a_head_that_comes_whole_is_431_too(start_mirror: Starter) -> None:
    mirror = await start_mirror(header_size_max=2000)
    head = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: "
    for length, status in ((2000, 200), (2001, 431)):
        wire = await mirror.connect()
        async with wire.stream:
            await wire.send(head + b"x" * (length - len(head) - 4) + b"\r\n\r\n")
            assert (await wire.answer()).status == status
    wire = await mirror.connect()
    async with wire.stream:
        await wire.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n" + head + b"x" * 4000 + b"\r\n\r\n")
        assert (await wire.answer()).status == 200
        assert (await wire.answer()).status == 431
        assert await wire.rest() == b""


async def test_keep_alive(mirror: Mirror) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        for _ in range(3):
            await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
            assert (await wire.answer()).body == mirror.body
            await wire.ask("/v2/library/test/manifests/v1", method="HEAD")
            assert (await wire.answer(to_head=True)).status == 200
            await wire.ask("/v2/library/test/manifests/none")
            assert (await wire.answer()).status == 404
            await wire.ask("/v2/library/test/manifests/v1", method="DELETE")
            assert (await wire.answer()).status == 405


async def test_pipelined_requests_are_answered_in_order(mirror: Mirror) -> None:
    mirror.blob.ready = 10
    blob = f"GET /v2/library/test/blobs/{mirror.blob.digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    manifest = b"GET /v2/library/test/manifests/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wire = await mirror.connect()
    async with wire.stream:
        await wire.send(blob + manifest)
        await trio.sleep(0.05)
        await wire.send(manifest)
        mirror.blob.make_ready(BLOB_SIZE)
        bodies = [(await wire.answer()).body for _ in range(3)]
    assert bodies == [mirror.body, mirror.manifest_body, mirror.manifest_body]


async def test_many_pipelined_requests_are_all_answered(mirror: Mirror) -> None:
    """More than is kept while another one is answered: the client's TCP window makes it wait."""
    request = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"p" * 4000 + b"\r\n\r\n"
    wire = await mirror.connect()
    async with wire.stream, trio.open_nursery() as nursery:
        nursery.start_soon(wire.send, request * 100)
        for _ in range(100):
            assert (await wire.answer()).status == 200


async def test_connection_close_is_kept_to(mirror: Mirror) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask("/v2/", headers="Connection: close\r\n")
        answer = await wire.answer()
        assert answer.headers["connection"] == "close"
        assert await wire.rest() == b""


async def test_http_1_0(mirror: Mirror) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        target = f"/v2/library/test/blobs/{mirror.blob.digest}"
        await wire.send(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert (await wire.answer()).body == mirror.body
        assert await wire.rest() == b""


@pytest.mark.parametrize(
    "framing", ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"]
)
async def test_a_get_with_a_body_is_refused_and_the_connection_ends(mirror: Mirror, framing: str) -> None:
    """Else the body's bytes would be read as the next request."""
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask("/v2/", headers=framing)
        assert (await wire.answer()).status == 400
        assert await wire.rest() == b""


async def test_an_upgrade_is_declined(mirror: Mirror) -> None:
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(
            "/v2/", headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        )
        assert (await wire.answer()).status == 200
        await wire.ask("/v2/")
        assert (await wire.answer()).status == 200
        await wire.ask("127.0.0.1:80", method="CONNECT")
        assert (await wire.answer()).status == 405


async def test_a_slow_head_is_cut_off(start_mirror: Starter) -> None:
    mirror = await start_mirror(header_timeout=0.3)
    wire = await mirror.connect()
    async with wire.stream:
        began = trio.current_time()
        await wire.send(b"GET /v2/ HT")
        for _ in range(2):
            await trio.sleep(0.1)
            await wire.send(b"T")
        assert await wire.rest() == b""
        assert 0.25 < trio.current_time() - began < 3


async def test_an_idle_connection_is_closed(start_mirror: Starter) -> None:
    mirror = await start_mirror(idle_timeout=0.2)
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask("/v2/")
        await wire.answer()
        assert await wire.rest() == b""


async def test_the_longest_idle_makes_room(start_mirror: Starter) -> None:
    mirror = await start_mirror(connections_max=2)
    silent, honest = await mirror.connect(), await mirror.connect()
    await silent.send(b"GET /v2/ HTTP/1.1\r\nX: ")  # a head that never ends counts as idle too
    await honest.ask("/v2/")
    assert (await honest.answer()).status == 200
    third = await mirror.connect()
    await third.ask("/v2/")
    assert (await third.answer()).status == 200
    assert await silent.rest() == b""
    await honest.ask("/v2/")
    assert (await honest.answer()).status == 200
    for wire in (silent, honest, third):
        await wire.stream.aclose()


async def answered_at_last(mirror: Mirror) -> None:
    """As soon as there is a place."""
    with trio.fail_after(ANSWER_WITHIN_S):
        while True:
            wire = await mirror.connect()
            async with wire.stream:
                try:
                    await wire.ask("/v2/")
                    assert (await wire.answer()).status == 200
                    return
                except (AssertionError, trio.BrokenResourceError):
                    await trio.sleep(0.05)


async def test_where_all_are_busy_one_more_is_closed_at_once(start_mirror: Starter) -> None:
    mirror = await start_mirror(connections_max=2, unread_max=0.01)
    mirror.blob.ready = 1000
    busy = [await mirror.connect(), await mirror.connect()]
    for wire in busy:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        assert (await wire.head()).status == 200
        await wire.exactly(1000)
    third = await mirror.connect()
    assert await third.rest() == b""
    mirror.blob.make_ready(BLOB_SIZE)
    for wire in busy:
        assert await wire.exactly(BLOB_SIZE - 1000) == mirror.body[1000:]
    await busy[0].stream.aclose()
    await answered_at_last(mirror)
    for wire in (busy[1], third):
        await wire.stream.aclose()


async def test_who_does_not_read_makes_room_and_who_reads_does_not(start_mirror: Starter) -> None:
    mirror = await start_mirror(connections_max=2, unread_max=0.3)
    big = mirror.library.add(bytes(16 << 20))
    mirror.blob.ready = 1000
    reader, deaf = await mirror.connect(), await mirror.connect()
    await deaf.ask(f"/v2/library/test/blobs/{big.digest}")
    await reader.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
    assert (await reader.head()).status == 200
    await answered_at_last(mirror)
    mirror.blob.make_ready(BLOB_SIZE)
    assert await reader.exactly(BLOB_SIZE) == mirror.body
    assert len(await deaf.rest()) < big.size
    for wire in (reader, deaf):
        await wire.stream.aclose()


async def test_so_many_requests_on_one_connection(start_mirror: Starter) -> None:
    mirror = await start_mirror(requests_max=3)
    wire = await mirror.connect()
    async with wire.stream:
        for number in range(3):
            await wire.ask("/v2/")
            assert ("connection" in (await wire.answer()).headers) == (number == 2)
        assert await wire.rest() == b""


async def test_a_client_that_takes_nothing_is_dropped(start_mirror: Starter) -> None:
    mirror = await start_mirror(stall_timeout=0.3)
    big = mirror.library.add(bytes(16 << 20))
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{big.digest}")
        await until(lambda: big.open_readers)
        await until(lambda: not big.open_readers)
        received = await wire.rest()
        assert 0 < len(received) < big.size


@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_leaves_in_mid_body_makes_no_noise(
    mirror: Mirror, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "p2pd.mirror")
    big = mirror.library.add(bytes(16 << 20))
    wire = await mirror.connect()
    await wire.ask(f"/v2/library/test/blobs/{big.digest}")
    await wire.head()
    if reset:
        wire.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await wire.stream.aclose()
    await until(lambda: caplog.records and not big.open_readers)
    assert (await mirror.ask("/v2/")).status == 200
    assert all(record.levelno <= logging.INFO and record.exc_info is None for record in caplog.records)


async def test_one_log_line_for_each_request(mirror: Mirror, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "p2pd.mirror")
    await mirror.ask("/v2/library/test/manifests/v1?ns=docker.io&token=secret")
    await until(lambda: caplog.records)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f"mirror: GET /v2/library/test/manifests/v1 200 {len(mirror.manifest_body)} bytes ")
    assert "secret" not in line


async def test_a_bug_in_the_library_ends_the_daemon(nursery: trio.Nursery, start_mirror: Starter) -> None:
    async def serve_until_it_crashes() -> None:
        async with trio.open_nursery() as inner:
            mirror = await Starter(inner, start_mirror.folder)()
            mirror.library.bug = ZeroDivisionError("a bug")
            wire = await mirror.connect()
            async with wire.stream:
                await wire.ask("/v2/library/test/manifests/v1")
                assert await wire.rest() == b""

    with pytest.raises(ExceptionGroup) as caught:
        await serve_until_it_crashes()
    assert caught.value.split(ZeroDivisionError)[0] is not None


@given(
    st.one_of(
        st.binary(min_size=1, max_size=300),
        st.binary(max_size=100).map(lambda noise: b"GET /v2/" + noise + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        st.binary(max_size=100).map(lambda noise: b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n" + noise + b"\r\n\r\n"),
    )
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_get_a_valid_answer_or_fin(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    async def send_them() -> bytes:
        async with trio.open_nursery() as nursery:
            mirror = await Starter(nursery, tmp_path_factory.getbasetemp())()
            wire: Wire = await mirror.connect()
            async with wire.stream:
                await wire.send(data)
                await trio.sleep(0.002)
                await wire.stream.send_eof()
                received = await wire.rest()
            nursery.cancel_scope.cancel()
        return received

    received = trio.run(send_them)
    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    assert not received or int(received.split()[1]) in (200, 400, 404, 405, 416, 431)
