"""The pull category of the OCI distribution-spec's conformance suite: v1.1.1, and the range tests of its main."""

from __future__ import annotations

import json

import pytest

from tests.mirror.conftest import BLOB_SIZE, MANIFEST_TYPE, Mirror

UNKNOWN = "sha256:" + "0" * 64


async def test_ping(mirror: Mirror) -> None:
    for target in ("/v2/", "/v2"):
        for method in ("GET", "HEAD"):
            answer = await mirror.ask(target, method=method)
            assert answer.status == 200
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


async def test_head_of_an_unknown_blob(mirror: Mirror) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{UNKNOWN}", method="HEAD")
    assert answer.status == 404


async def test_head_of_a_blob(mirror: Mirror) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}", method="HEAD")
    assert answer.status == 200
    assert answer.headers["content-length"] == str(BLOB_SIZE)
    assert answer.headers["docker-content-digest"] == mirror.blob.digest
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"


async def test_get_of_an_unknown_blob(mirror: Mirror) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{UNKNOWN}")
    assert (answer.status, answer.error_code) == (404, "BLOB_UNKNOWN")


async def test_get_of_a_blob(mirror: Mirror) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}")
    assert (answer.status, answer.body) == (200, mirror.body)
    assert answer.headers["docker-content-digest"] == mirror.blob.digest
    assert mirror.blob.sent == BLOB_SIZE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_unknown_manifest(mirror: Mirror, method: str) -> None:
    for reference in (UNKNOWN, "unknown", ".INVALID_MANIFEST_NAME"):
        answer = await mirror.ask(f"/v2/library/test/manifests/{reference}", method=method)
        assert answer.status == 404
        if method == "GET":
            assert answer.error_code == "MANIFEST_UNKNOWN"


async def test_a_digest_that_is_none(mirror: Mirror) -> None:
    answer = await mirror.ask("/v2/library/test/manifests/sha256:totallywrong")
    assert (answer.status, answer.error_code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_a_manifest(mirror: Mirror, by: str) -> None:
    reference = "v1" if by == "tag" else mirror.manifest.digest
    for method in ("HEAD", "GET"):
        answer = await mirror.ask(f"/v2/library/test/manifests/{reference}", method=method)
        assert answer.status == 200
        assert answer.headers["content-type"] == MANIFEST_TYPE
        assert answer.headers["content-length"] == str(len(mirror.manifest_body))
        assert answer.headers["docker-content-digest"] == mirror.manifest.digest
        assert answer.body == (mirror.manifest_body if method == "GET" else b"")


async def test_errors_are_the_specs_json(mirror: Mirror) -> None:
    for target in (f"/v2/library/test/blobs/{UNKNOWN}", "/v2/UPPER/manifests/v1", "/v2/_catalog", "/"):
        answer = await mirror.ask(target)
        assert answer.headers["content-type"] == "application/json"
        for error in json.loads(answer.body)["errors"]:
            assert error["code"].isupper() and error["message"]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("500-1499", 500, 1499),
        ("0-0", 0, 0),
        ("500-", 500, BLOB_SIZE - 1),
        ("0-", 0, BLOB_SIZE - 1),
        ("-500", BLOB_SIZE - 500, BLOB_SIZE - 1),
        ("-99999999", 0, BLOB_SIZE - 1),
        (f"{BLOB_SIZE - 48}-{BLOB_SIZE + 5000}", BLOB_SIZE - 48, BLOB_SIZE - 1),
    ],
)
async def test_a_range(mirror: Mirror, asked: str, first: int, last: int) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}", headers=f"Range: bytes={asked}\r\n")
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{BLOB_SIZE}"
    assert answer.body == mirror.body[first : last + 1]
    assert answer.headers["docker-content-digest"] == mirror.blob.digest


@pytest.mark.parametrize("asked", ["500-0", f"{BLOB_SIZE}-", f"{BLOB_SIZE + 5000}-{BLOB_SIZE + 10000}", "-0"])
async def test_a_range_that_cannot_be(mirror: Mirror, asked: str) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}", headers=f"Range: bytes={asked}\r\n")
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{BLOB_SIZE}"


@pytest.mark.parametrize("asked", ["bytes=0-9,50-59", "bytes=", "bytes=a-b", "bytes=5", "lines=0-5", "0-5"])
async def test_ranges_that_get_the_whole_blob(mirror: Mirror, asked: str) -> None:
    answer = await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}", headers=f"Range: {asked}\r\n")
    assert (answer.status, answer.body) == (200, mirror.body)
    assert "content-range" not in answer.headers


async def test_a_range_of_a_manifest(mirror: Mirror) -> None:
    """containerd 2.1.0 to 2.1.2 ask for bytes=0- of everything."""
    answer = await mirror.ask("/v2/library/test/manifests/v1", headers="Range: bytes=0-\r\n")
    size = len(mirror.manifest_body)
    assert (answer.status, answer.body) == (206, mirror.manifest_body)
    assert answer.headers["content-range"] == f"bytes 0-{size - 1}/{size}"
    assert answer.headers["content-type"] == MANIFEST_TYPE


async def test_a_head_ignores_ranges(mirror: Mirror) -> None:
    target = f"/v2/library/test/blobs/{mirror.blob.digest}"
    answer = await mirror.ask(target, method="HEAD", headers="Range: bytes=0-4\r\n")
    assert (answer.status, answer.headers["content-length"]) == (200, str(BLOB_SIZE))


async def test_an_empty_blob(mirror: Mirror) -> None:
    empty = mirror.library.add(b"")
    target = f"/v2/library/test/blobs/{empty.digest}"
    for headers in ("", "Range: bytes=0-\r\n", "Range: bytes=-5\r\n"):
        answer = await mirror.ask(target, headers=headers)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert (await mirror.ask(target, headers="Range: bytes=1-\r\n")).status == 416
    assert empty.waits == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_pushing_is_unsupported(mirror: Mirror, method: str) -> None:
    for target in ("/v2/library/test/blobs/uploads/", "/v2/library/test/manifests/v1"):
        answer = await mirror.ask(target, method=method, headers="Content-Length: 5\r\n\r\nhello")
        assert (answer.status, answer.error_code) == (405, "UNSUPPORTED")
        assert answer.headers["allow"] == "GET, HEAD"
    assert mirror.library.calls == []


async def test_conditional_requests_get_the_content(mirror: Mirror) -> None:
    """304 on resolve aborts containerd's pull."""
    headers = f'If-None-Match: "{mirror.manifest.digest}"\r\nIf-Modified-Since: Tue, 01 Jan 2030 00:00:00 GMT\r\n'
    assert (await mirror.ask("/v2/library/test/manifests/v1", headers=headers)).status == 200


async def test_never_compressed(mirror: Mirror) -> None:
    target = f"/v2/library/test/blobs/{mirror.blob.digest}"
    answer = await mirror.ask(target, headers="Accept-Encoding: zstd;q=1.0, gzip;q=0.8\r\n")
    assert answer.body == mirror.body
    assert "content-encoding" not in answer.headers
