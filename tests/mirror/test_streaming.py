"""Bodies that come while they are sent: the first byte, waiting, cutting off, giving up."""

from __future__ import annotations

import pytest
import trio

from p2pd.mirror import Interrupted, NotAvailable, Refused
from tests.mirror.conftest import BLOB_SIZE, Mirror, Starter
from tests.mirror.wire import until

SILENCE_S = 0.1  # long enough for an answer that should not come yet to come


async def test_no_status_line_before_the_first_byte(mirror: Mirror) -> None:
    mirror.blob.ready = 1000
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}", headers="Range: bytes=1000-\r\n")
        with trio.move_on_after(SILENCE_S) as silence:
            await wire.head()
        assert silence.cancelled_caught
        mirror.blob.make_ready(1001)
        assert (await wire.head()).status == 206
        assert await wire.exactly(1) == mirror.body[1000:1001]


async def test_bytes_go_out_as_they_come(mirror: Mirror) -> None:
    mirror.blob.ready = 1
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        assert (await wire.head()).headers["content-length"] == str(BLOB_SIZE)
        position = 0
        for ready in (1, 70_000, 70_001, BLOB_SIZE):
            mirror.blob.make_ready(ready)
            assert await wire.exactly(ready - position) == mirror.body[position:ready]
            position = ready
        await wire.ask("/v2/")
        assert (await wire.answer()).status == 200


async def test_an_open_range_that_is_closed_early_asks_for_no_more(mirror: Mirror) -> None:
    """containerd 2.1's parallel fetch reads one chunk of an open-ended range and closes."""
    mirror.blob.ready = 150_000
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}", headers="Range: bytes=100000-\r\n")
        await wire.head()
        assert await wire.exactly(50_000) == mirror.body[100_000:150_000]
    await until(lambda: not mirror.blob.open_readers)
    assert mirror.blob.waits[0] == 100_000 and set(mirror.blob.waits) <= {100_000, 150_000}


async def test_a_client_that_leaves_while_it_waits_is_noticed(mirror: Mirror) -> None:
    mirror.blob.ready = 0
    wire = await mirror.connect()
    await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
    await until(lambda: mirror.blob.open_readers)
    await wire.stream.aclose()
    await until(lambda: not mirror.blob.open_readers)


@pytest.mark.parametrize("failure", [Interrupted("no progress"), NotAvailable("BLOB_UNKNOWN", "gone")])
async def test_a_failure_in_mid_body_ends_with_fin(mirror: Mirror, failure: Exception) -> None:
    mirror.blob.ready = 5000
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        await wire.head()
        mirror.blob.fail(failure)
        assert await wire.rest() == mirror.body[:5000]


async def test_it_ends_with_fin_although_the_client_has_sent_more(mirror: Mirror) -> None:
    """Unread input at close() would make Linux send RST, which fails containerd's whole pull."""
    mirror.blob.ready = 5000
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        await wire.head()
        for _ in range(20):
            await wire.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n" + b"X-Padding: " + b"p" * 8000 + b"\r\n\r\n")
        mirror.blob.fail(Interrupted("no progress"))
        await wire.send(b"GET /v2/ HTTP/1.1\r\n\r\n")
        assert await wire.rest() == mirror.body[:5000]


async def test_a_stop_of_the_daemon_ends_with_fin(mirror: Mirror) -> None:
    mirror.blob.ready = 5000
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        await wire.head()
        await wire.exactly(5000)
        await wire.ask("/v2/")
        mirror.scope.cancel()
        assert await wire.rest() == b""
    with pytest.raises(OSError):
        await mirror.connect()


@pytest.mark.parametrize(
    "failure", [NotAvailable("BLOB_UNKNOWN", "nobody has it"), Refused("DENIED", "it is private"), Interrupted("x")]
)
async def test_a_failure_before_the_first_byte_is_404(mirror: Mirror, failure: Exception) -> None:
    mirror.blob.ready = 0
    mirror.blob.fail(failure)
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}?ns=docker.io")
    assert (answer.status, answer.error_code) == (404, getattr(failure, "code", "BLOB_UNKNOWN"))
    assert answer.error_message == str(failure)


async def test_an_answer_within_header_wait(start_mirror: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pd.mirror.service.HEADER_WAIT_SLACK", 0.05)
    mirror = await start_mirror(header_wait=0.1)
    mirror.blob.ready = 0
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
    assert (answer.status, answer.error_code) == (404, "BLOB_UNKNOWN")
    assert mirror.blob.open_readers == 0
    mirror.library.hangs = True
    for target in ("manifests/v1", f"blobs/{mirror.blob.digest}", "tags/list"):
        for method in ("GET", "HEAD"):
            assert (await mirror.ask(f"/v2/library/test/{target}", method=method)).status == 404


async def test_the_time_for_the_first_byte_does_not_bound_the_body(
    start_mirror: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pd.mirror.service.HEADER_WAIT_SLACK", 0.0)
    mirror = await start_mirror(header_wait=0.2)
    mirror.blob.ready = 10
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        await wire.head()
        await trio.sleep(0.3)
        mirror.blob.make_ready(BLOB_SIZE)
        assert await wire.exactly(BLOB_SIZE) == mirror.body


async def test_clients_without_a_fallback_are_waited_for(
    start_mirror: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pd.mirror.service.HEADER_WAIT_SLACK", 0.0)
    mirror = await start_mirror(header_wait=0.1, patience=0.6)
    mirror.blob.ready = 0
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/ghcr.io/a/b/blobs/{mirror.blob.digest}")
        await trio.sleep(0.3)
        mirror.blob.make_ready(BLOB_SIZE)
        assert (await wire.answer()).body == mirror.body
        mirror.library.hangs = True
        await wire.ask(f"/v2/ghcr.io/a/b/blobs/{mirror.blob.digest}")
        assert (await wire.answer()).status == 404


async def test_a_file_that_can_not_be_read_is_a_404_or_a_fin(mirror: Mirror) -> None:
    """The library says that bytes are there, but the file is shorter."""
    with mirror.blob.path.open("r+b") as file:
        file.truncate(1000)
    wire = await mirror.connect()
    async with wire.stream:
        await wire.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
        assert (await wire.head()).status == 200
        assert await wire.rest() == mirror.body[:1000]
