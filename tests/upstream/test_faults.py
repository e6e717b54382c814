"""Registries that fail, lie, stall and send too much or too little; each answer of ours is one clear error."""

from __future__ import annotations

import gc
import hashlib
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from p2pd.oci import Descriptor
from p2pd.upstream import BadAnswer, NotFound, RateLimited, Unreachable, registry, transport
from tests.upstream.conftest import MANIFEST_TYPE, receive_some, sha256, upstream
from tests.upstream.scripted import FIN, HANG, RESET, Request, Script, answer, scripted

BODY = bytes(range(256)) * 100
DIGEST = sha256(BODY)
MANIFEST = b'{"schemaVersion": 2, "config": {}, "layers": []}'


async def fetch(script: Script, start: int = 0, limit: int = 1 << 20) -> bytes:
    """The blob from a server with this script."""
    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        try:
            async with upstreams.get(host).open("blob", "a/b", DIGEST, start) as stream:
                assert (stream.opened.start, stream.opened.size) == (start, len(BODY))
                chunks = []
                while chunk := await receive_some(stream, limit):
                    assert len(chunk) <= limit
                    chunks.append(chunk)
                assert await receive_some(stream) == b""
                return b"".join(chunks)
        finally:
            await upstreams.aclose()


def always(*steps: object) -> Script:
    return lambda request: list(steps)


# Bodies


@pytest.mark.parametrize("limit", [1, 1000, 1 << 20])
async def test_limit_of_a_read(limit: int) -> None:
    body = BODY[:3000] if limit == 1 else BODY
    received = b""
    async with scripted(always(answer(200, body))) as server:
        upstreams, host, _ = upstream(server.url)
        async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
            while chunk := await receive_some(stream, limit):
                assert len(chunk) <= limit
                received += chunk
        await upstreams.aclose()
    assert received == body


@pytest.mark.parametrize("sent", [0, 1, len(BODY) - 1])
async def test_short_body(sent: int) -> None:
    with pytest.raises(BadAnswer, match="peer closed connection"):
        await fetch(always(answer(200, BODY[:sent], length=len(BODY)), FIN))


async def test_reset_in_mid_body() -> None:
    with pytest.raises(Unreachable, match="the connection broke"):
        await fetch(always(answer(200, BODY[:100], length=len(BODY)), 0.05, RESET))


async def test_silence_in_mid_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.1)
    with pytest.raises(Unreachable, match="silent for"):
        await fetch(always(answer(200, BODY[:100], length=len(BODY)), HANG))


def chunked(body: bytes, *, whole: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n" % len(body) + body + b"\r\n" + (b"0\r\n\r\n" if whole else b"")


async def test_chunked_body_has_its_length_from_head() -> None:
    def script(request: Request) -> bytes:
        return answer(200, length=len(BODY)) if request.method == "HEAD" else chunked(BODY)

    assert await fetch(script) == BODY


@pytest.mark.parametrize(("body", "message"), [(BODY[:-5], "ended 5 bytes short"), (BODY + b"x", "goes on after")])
async def test_chunked_body_of_another_length(body: bytes, message: str) -> None:
    with pytest.raises(BadAnswer, match=message):
        await fetch(lambda request: answer(200, length=len(BODY)) if request.method == "HEAD" else chunked(body))


async def test_body_without_length_or_chunks_that_is_cut() -> None:
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    with pytest.raises(BadAnswer, match="short of"):
        await fetch(lambda r: answer(200, length=len(BODY)) if r.method == "HEAD" else [head + BODY[:-1], FIN])


async def test_encoded_body() -> None:
    with pytest.raises(BadAnswer, match="encoded"):
        await fetch(always(answer(200, BODY, Content_Encoding="gzip")))
    assert await fetch(always(answer(200, BODY, Content_Encoding="identity"))) == BODY


async def test_other_digest_in_the_header() -> None:
    other = "sha256:" + "1" * 64
    with pytest.raises(BadAnswer, match=other):
        await fetch(always(answer(200, BODY, Docker_Content_Digest=other)))


async def test_raw_bytes_are_asked_for() -> None:
    async with scripted(always(answer(200, BODY))) as server:
        upstreams, host, _ = upstream(server.url)
        async with upstreams.get(host).open("blob", "a/b", DIGEST):
            pass
        (request,) = server.seen
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["user-agent"].startswith("p2pd/")
        assert "range" not in request.headers
        await upstreams.aclose()


# Ranges


def ranged(request: Request) -> bytes:
    start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    return answer(206, BODY[start:], Content_Range=f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")


async def test_range() -> None:
    assert await fetch(ranged, 1000) == BODY[1000:]


@pytest.mark.parametrize("start", [1, 5000, len(BODY) - 1])
async def test_200_to_a_range_is_discarded_up_to_the_start(start: int) -> None:
    pieces = [answer(200, b"", length=len(BODY)), *(BODY[i : i + 777] for i in range(0, len(BODY), 777))]
    assert await fetch(always(*pieces), start) == BODY[start:]


@pytest.mark.parametrize(
    "given",
    [f"bytes 999-{len(BODY) - 1}/{len(BODY)}", f"bytes 1000-{len(BODY) - 2}/{len(BODY)}",
     f"bytes 1000-{len(BODY) - 1}/*", "bytes 1000-999/1000", "nonsense"],
)  # fmt: skip
async def test_another_range_than_asked_for(given: str) -> None:
    with pytest.raises(BadAnswer, match="Content-Range"):
        await fetch(always(answer(206, BODY[1000:], Content_Range=given)), 1000)


async def test_206_that_nobody_asked_for_or_that_contradicts_itself() -> None:
    whole = f"bytes 0-{len(BODY) - 1}/{len(BODY)}"
    with pytest.raises(BadAnswer, match="Content-Range"):
        await fetch(always(answer(206, BODY, Content_Range=whole)))
    with pytest.raises(BadAnswer, match="Content-Range"):
        await fetch(always(answer(206, BODY[1000:])), 1000)
    tail = f"bytes 1000-{len(BODY) - 1}/{len(BODY)}"
    with pytest.raises(BadAnswer, match="contradict"):
        await fetch(always(answer(206, BODY, Content_Range=tail)), 1000)


async def test_416_and_a_start_beyond_the_end() -> None:
    with pytest.raises(BadAnswer, match="answered 416"):
        await fetch(always(answer(416, Content_Range=f"bytes */{len(BODY)}")), 1000)
    with pytest.raises(BadAnswer, match="none from byte"):
        await fetch(always(answer(200, BODY)), len(BODY))


async def test_range_is_kept_through_a_redirect() -> None:
    def script(request: Request) -> bytes:
        return ranged(request) if request.path == "/cdn" else answer(307, Location="/cdn?signature=x")

    assert await fetch(script, 1000) == BODY[1000:]


# Retries


async def counted(script: Script, act: Callable[[registry.Registry], object] | None = None) -> tuple[list, object]:
    """What on_request heard, and what `resolve` returned or raised."""
    async with scripted(script) as server:
        upstreams, host, calls = upstream(server.url)
        try:
            result: object = await upstreams.get(host).resolve("a/b", "v1")
        except Exception as error:
            result = error
        await upstreams.aclose()
        return calls.made, result


def in_turn(*answers: object) -> Script:
    left = list(answers)

    def script(request: Request) -> object:
        return left.pop(0) if len(left) > 1 else left[0]

    return script  # type: ignore[return-value]


FOUND = answer(200, length=77, Content_Type=MANIFEST_TYPE, Docker_Content_Digest=DIGEST)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_passing_failure_is_tried_again(status: int) -> None:
    made, found = await counted(in_turn(answer(status), FOUND))
    assert found == Descriptor(DIGEST, 77, MANIFEST_TYPE)
    assert made == [("tag", status), ("tag", 200)]


async def test_a_lasting_failure_is_tried_three_times() -> None:
    made, error = await counted(always(answer(503)))
    assert made == [("tag", 503)] * 3
    assert isinstance(error, BadAnswer)
    assert "a/b v1: answered 503" in str(error)


async def test_a_failure_that_asks_for_patience_is_left_to_the_caller() -> None:
    made, error = await counted(always(answer(503, Retry_After="60")))
    assert made == [("tag", 503)]
    assert isinstance(error, BadAnswer)


@pytest.mark.parametrize("status", [400, 405, 409, 418, 501, 304, 206, 204])
async def test_other_failures_are_not_tried_again(status: int) -> None:
    made, error = await counted(lambda request: answer(status))
    assert isinstance(error, BadAnswer)
    assert len(made) == (2 if status == 405 else 1)  # a HEAD that is not allowed becomes a GET


@pytest.mark.parametrize("end", [RESET, FIN])
async def test_a_connection_that_breaks_before_the_answer_is_tried_again(end: object) -> None:
    made, found = await counted(in_turn([end], [end], FOUND))
    assert found == Descriptor(DIGEST, 77, MANIFEST_TYPE)
    assert made == [("tag", None), ("tag", None), ("tag", 200)]


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    upstreams, host, calls = upstream(f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}: HEAD tag a/b v1: can't connect"):
        await upstreams.get(host).resolve("a/b", "v1")
    assert calls.made == [("tag", None)] * 3
    await upstreams.aclose()


async def test_a_name_that_does_not_exist() -> None:
    upstreams, host, _ = upstream("http://registry.invalid")
    with pytest.raises(Unreachable, match="can't connect"):
        await upstreams.get(host).resolve("a/b", "v1")
    await upstreams.aclose()


async def test_headers_that_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "HEADER_PHASE_S", 0.2)
    for steps in ([HANG], [b"HTTP/1.1 200", HANG]):
        made, error = await counted(always(*steps))
        assert isinstance(error, Unreachable)
        assert "no answer within" in str(error)
        assert made == [("tag", None)]


@pytest.mark.parametrize(
    "garbage", [b"\x15\x03\x01\x00\x02\x02\x16", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 200_000,
                b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"]
)  # fmt: skip
async def test_what_is_not_http(garbage: bytes) -> None:
    _, error = await counted(always(garbage, FIN))
    assert isinstance(error, BadAnswer)
    assert "not proper HTTP" in str(error)


# 429


async def test_429_holds_the_registry_back() -> None:
    now = 1000.0
    async with scripted(in_turn(answer(429, Retry_After="30"), FOUND)) as server:
        upstreams, host, calls = upstream(server.url, clock=lambda: now)
        one = upstreams.get(host)
        with pytest.raises(RateLimited) as caught:
            await one.resolve("a/b", "v1")
        assert (caught.value.retry_after, one.held_until) == (30.0, 1030.0)
        for call in (
            one.resolve("a/b", "v2"),
            one.head("blob", "a/b", DIGEST),
            one.passthrough("a/b/tags/list"),
            one.resolve("a/b", "v3", one.anonymous),
            one.open("blob", "a/b", DIGEST).__aenter__(),
        ):
            with pytest.raises(RateLimited, match="held back for another 30 s"):
                await call
        assert calls.made == [("tag", 429)]
        now = 1030.0
        await one.resolve("a/b", "v1")
        one.hold(5)
        one.hold(2)
        with pytest.raises(RateLimited) as caught:
            await one.resolve("a/b", "v1")
        assert caught.value.retry_after == 5.0
        one.hold(10**9)
        assert one.held_until == 1030.0 + 3600
        await upstreams.aclose()


async def test_429_without_a_time() -> None:
    _, error = await counted(always(answer(429, b"toomanyrequests", Retry_After="later")))
    assert isinstance(error, RateLimited)
    assert error.retry_after == 5.0


async def test_remaining_pulls_are_told() -> None:
    told: list[tuple[str, int]] = []
    script = always(
        answer(200, length=7, Content_Type="a/b", Docker_Content_Digest=DIGEST, ratelimit_remaining="76;w=21600")
    )
    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url, on_rate_limit=lambda *values: told.append(values))
        await upstreams.get(host).resolve("a/b", "v1")
        await upstreams.aclose()
    assert told == [(host, 76)]


# HEADs that say too little


def poor_head(head: bytes, body: bytes = MANIFEST, **headers: str) -> Script:
    return lambda request: head if request.method == "HEAD" else answer(200, body, **headers)


@pytest.mark.parametrize(
    "head",
    [
        answer(200, length=10, Content_Type=MANIFEST_TYPE),
        answer(200, length=10, Docker_Content_Digest=DIGEST),
        answer(200, Content_Type=MANIFEST_TYPE, Docker_Content_Digest=DIGEST),
        answer(200, length=10, Content_Type="nonsense", Docker_Content_Digest=DIGEST),
        answer(200, length=10, Content_Type=MANIFEST_TYPE, Docker_Content_Digest="sha512:" + "0" * 128),
        b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nDocker-Content-Digest: " + DIGEST.encode() + b"\r\n\r\n",
        answer(405),
    ],
)
async def test_a_head_that_lacks_something_becomes_a_get(head: bytes) -> None:
    made, found = await counted(poor_head(head, Content_Type=MANIFEST_TYPE + "; charset=x"))
    digest = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
    assert found == Descriptor(digest, len(MANIFEST), MANIFEST_TYPE)
    assert [kind for kind, _ in made] == ["tag", "manifest"]


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"[]", b"{}"])
async def test_a_page_is_not_a_manifest(body: bytes) -> None:
    _, error = await counted(poor_head(answer(200), body, Content_Type="text/html"))
    assert isinstance(error, BadAnswer)


async def test_manifests_that_are_too_large() -> None:
    large = 4 * 1024 * 1024 + 1
    _, error = await counted(
        always(answer(200, length=large, Content_Type=MANIFEST_TYPE, Docker_Content_Digest=DIGEST))
    )
    assert isinstance(error, BadAnswer)
    _, error = await counted(poor_head(answer(200), b" " * large))
    assert isinstance(error, BadAnswer)
    assert "more than" in str(error)


async def test_a_head_by_digest_is_held_to_it() -> None:
    async with scripted(poor_head(answer(405), MANIFEST)) as server:
        upstreams, host, _ = upstream(server.url)
        with pytest.raises(BadAnswer, match="the body is not"):
            await upstreams.get(host).head("manifest", "a/b", DIGEST)
        assert (await upstreams.get(host).head("manifest", "a/b", sha256(MANIFEST))).size == len(MANIFEST)
        await upstreams.aclose()


async def test_a_blob_without_a_length_is_measured_by_a_range() -> None:
    def script(request: Request) -> bytes:
        if request.method == "HEAD":
            return b"HTTP/1.1 200 OK\r\n\r\n"
        assert request.headers["range"] == "bytes=0-0"
        return answer(206, BODY[:1], Content_Range=f"bytes 0-0/{len(BODY)}")

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        found = await upstreams.get(host).head("blob", "a/b", DIGEST)
        assert found == Descriptor(DIGEST, len(BODY), "application/octet-stream")
        await upstreams.aclose()


# Connections


async def test_a_stream_left_early_leaves_nothing_behind() -> None:
    big = bytes(8 << 20)
    async with scripted(always(answer(200, big))) as server:
        upstreams, host, _ = upstream(server.url)
        for _ in range(3):
            async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
                assert await receive_some(stream)
            async with upstreams.get(host).open("blob", "a/b", DIGEST):
                pass
            with trio.move_on_after(0.02):
                async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
                    await receive_some(stream)
                    await trio.sleep_forever()
        gc.collect()  # a generator that was left hanging would warn now, and warnings are errors
        await trio.testing.wait_all_tasks_blocked()
        assert not upstreams.get(host)._transport._transport._pool.connections
        await upstreams.aclose()


async def test_a_connection_is_used_again() -> None:
    def script(request: Request) -> bytes:
        if request.target.endswith("/gone"):
            return answer(404, b"x" * 1000 if request.method == "GET" else b"")
        return FOUND if request.method == "HEAD" else answer(200, BODY)

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        one = upstreams.get(host)
        for _ in range(3):
            await one.resolve("a/b", "v1")
            async with one.open("blob", "a/b", DIGEST) as stream:
                while await receive_some(stream):
                    pass
            with pytest.raises(NotFound):
                await one.resolve("a/b", "gone")
        assert server.connections == 1
        await upstreams.aclose()


async def test_a_body_that_broke_stays_broken() -> None:
    steps = [answer(200, BODY[:100], length=len(BODY)), HANG]
    async with scripted(always(*steps)) as server:
        upstreams, host, _ = upstream(server.url)
        async with upstreams.get(host).open("blob", "a/b", DIGEST) as stream:
            assert await receive_some(stream) == BODY[:100]
            with trio.move_on_after(0.05):
                await receive_some(stream)
            for _ in range(2):
                with pytest.raises(Unreachable, match="given up in the middle"):
                    await receive_some(stream)
        await upstreams.aclose()


async def test_requests_that_are_given_up_leave_room_for_others() -> None:
    def script(request: Request) -> list:
        return [FOUND] if request.target.endswith("/found") else [HANG]

    async with scripted(script) as server:
        upstreams, host, calls = upstream(server.url)
        one = upstreams.get(host)
        async with trio.open_nursery() as nursery:
            for i in range(transport.CONNECTIONS_MAX + 10):
                nursery.start_soon(one.resolve, "a/b", f"hang{i}")
            await server.has_seen(transport.CONNECTIONS_MAX)
            nursery.cancel_scope.cancel()
        assert server.connections == transport.CONNECTIONS_MAX
        assert calls.made == [("tag", None)] * (transport.CONNECTIONS_MAX + 10)
        with trio.fail_after(2):
            assert (await one.resolve("a/b", "found")).digest == DIGEST
        await upstreams.aclose()


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('</v2/a/b/tags/list?last=x&n=1>; rel="next"', '</v2/a/b/tags/list?last=x&n=1>; rel="next"'),
        ("<list?last=x>; rel=next", "</v2/a/b/tags/list?last=x>; rel=next"),
        ('<HOST/v2/a/b/tags/list?last=x>; rel="next"', '</v2/a/b/tags/list?last=x>; rel="next"'),
        ('<https://elsewhere.example/v2/a/b/tags/list>; rel="next"', None),
        ("nonsense", None),
        ("<http://[>; rel=next", None),
    ],
)
async def test_a_link_leads_back_to_the_mirror(link: str, expected: str | None) -> None:
    def script(request: Request) -> bytes:
        assert request.target == "/v2/a/b/tags/list?n=1&last=a%20b"
        return answer(
            200, b"{}", Link=link.replace("HOST", f"http://{request.headers['host']}"), X_Other="x", Content_Type="a/b"
        )

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        found = await upstreams.get(host).passthrough("a/b/tags/list?n=1&last=a b")
        assert found.body == b"{}"
        assert found.headers == {"content-type": "a/b"} | ({"link": expected} if expected else {})
        await upstreams.aclose()


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_refusals_are_passed_through(status: int) -> None:
    async with scripted(always(answer(status, b'{"errors":[]}', OCI_Filters_Applied="artifactType"))) as server:
        upstreams, host, _ = upstream(server.url)
        found = await upstreams.get(host).passthrough(f"a/b/referrers/{DIGEST}?artifactType=x/y")
        assert (found.status, found.body) == (status, b'{"errors":[]}')
        assert found.headers == {"oci-filters-applied": "artifactType"}
        await upstreams.aclose()


async def test_a_list_that_is_too_long_or_encoded_is_not_passed_through() -> None:
    for bad in (answer(200, b" " * (4 * 1024 * 1024 + 1)), answer(200, b"x", Content_Encoding="gzip"), answer(501)):
        async with scripted(always(bad)) as server:
            upstreams, host, _ = upstream(server.url)
            with pytest.raises(BadAnswer):
                await upstreams.get(host).passthrough("a/b/tags/list")
            await upstreams.aclose()


async def test_cookies_are_not_kept() -> None:
    script = always(
        answer(200, length=7, Content_Type="a/b", Docker_Content_Digest=DIGEST, Set_Cookie="session=1; Path=/")
    )
    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        for _ in range(2):
            await upstreams.get(host).resolve("a/b", "v1")
        assert all("cookie" not in request.headers for request in server.seen)
        await upstreams.aclose()


async def test_a_cancelled_flight_is_taken_over() -> None:
    go_on = trio.Event()
    async with scripted(lambda request: [go_on, FOUND]) as server:
        upstreams, host, _ = upstream(server.url)
        found = []

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await upstreams.get(host).resolve("a/b", "v1"))

        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()
            nursery.start_soon(ask, first)
            await server.has_seen(1)
            for _ in range(5):
                nursery.start_soon(ask, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await server.has_seen(2)
            go_on.set()
        assert len(found) == 5
        assert len(server.seen) == 2
        await upstreams.aclose()
