"""The three ways in which clients name an upstream, seen from the library; relayed lists; who is refused."""

from __future__ import annotations

import pytest

from tests.mirror.conftest import Mirror
from tests.mirror.fake_library import FakeAnswer

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


async def test_containerd_names_the_upstream_in_the_query(mirror: Mirror) -> None:
    answer = await mirror.ask(f"/v2/a/b/blobs/{mirror.blob.digest}?ns=registry.example%3A5000")
    assert (answer.status, answer.headers["oci-namespace"]) == (200, "registry.example:5000")
    assert mirror.library.calls == [("open", "blob", "registry.example:5000", "a/b", mirror.blob.digest)]
    assert mirror.library.patient == [False]


async def test_skopeo_names_it_in_the_path_and_is_waited_for(mirror: Mirror) -> None:
    answer = await mirror.ask(f"/v2/registry.example:5000/a/b/blobs/{mirror.blob.digest}")
    assert answer.status == 200
    assert "oci-namespace" not in answer.headers
    assert mirror.library.calls == [("open", "blob", "registry.example:5000", "a/b", mirror.blob.digest)]
    assert mirror.library.patient == [True]


async def test_docker_names_none(mirror: Mirror) -> None:
    assert (await mirror.ask("/v2/test/manifests/v1")).status == 200
    assert mirror.library.calls[0] == ("resolve", "docker.io", "library/test", "v1")
    assert mirror.library.patient == [False]


async def test_a_manifest_is_opened_under_the_digest_that_its_tag_named(mirror: Mirror) -> None:
    await mirror.ask("/v2/library/test/manifests/v1?ns=docker.io")
    assert mirror.library.calls[1] == ("open", "manifest", "docker.io", "library/test", mirror.manifest.digest)


async def test_a_head_opens_nothing(mirror: Mirror) -> None:
    await mirror.ask("/v2/library/test/manifests/v1?ns=docker.io", method="HEAD")
    await mirror.ask(f"/v2/library/test/blobs/{mirror.blob.digest}?ns=docker.io", method="HEAD")
    assert [call[0] for call in mirror.library.calls] == ["resolve", "head"]
    assert mirror.blob.waits == mirror.manifest.waits == []


@pytest.mark.parametrize("target", ["/v2/a/b/manifests/v1?ns=quay.io", "/v2/quay.io/a/b/manifests/v1"])
async def test_upstreams_that_are_not_allowed(mirror: Mirror, target: str) -> None:
    answer = await mirror.ask(target)
    assert (answer.status, answer.error_code) == (404, "NAME_UNKNOWN")
    assert '[upstreams."quay.io"]' in answer.error_message
    assert mirror.library.calls == []


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1:9580", "rebound.example:9580"])
async def test_only_loopback_hosts(mirror: Mirror, host: str) -> None:
    answer = await mirror.ask("/v2/library/test/manifests/v1", host=host)
    assert (answer.status, answer.error_code) == (400, "DENIED")
    assert mirror.library.calls == []


async def test_an_absolute_target_is_judged_by_its_own_host(mirror: Mirror) -> None:
    assert (await mirror.ask("http://127.0.0.1/v2/", host="example.com")).status == 200
    assert (await mirror.ask("http://example.com/v2/")).status == 400


async def test_tags_are_relayed(mirror: Mirror) -> None:
    body = b'{"name":"library/test","tags":["v1"]}'
    headers = {
        "content-type": "application/json; charset=utf-8",
        "link": '</v2/library/test/tags/list?n=1&last=v1>; rel="next"',
    }
    mirror.library.relayed["library/test/tags/list?n=1"] = FakeAnswer(200, headers, body)
    answer = await mirror.ask("/v2/library/test/tags/list?n=1&ns=ghcr.io")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["link"] == '</v2/library/test/tags/list?n=1&last=v1&ns=ghcr.io>; rel="next"'
    answer = await mirror.ask("/v2/ghcr.io/library/test/tags/list?n=1")
    assert answer.headers["link"] == '</v2/ghcr.io/library/test/tags/list?n=1&last=v1>; rel="next"'
    answer = await mirror.ask("/v2/test/tags/list?n=1")
    assert answer.headers["link"] == headers["link"]
    assert {call[:2] for call in mirror.library.calls} == {("passthrough", "ghcr.io"), ("passthrough", "docker.io")}


async def test_referrers_are_relayed(mirror: Mirror) -> None:
    path = f"library/test/referrers/{mirror.manifest.digest}?artifactType=application%2Fspdx"
    headers = {"content-type": INDEX_TYPE, "oci-filters-applied": "artifactType", "x-secret": "1"}
    mirror.library.relayed[path] = FakeAnswer(200, headers, b'{"manifests":[]}')
    answer = await mirror.ask(f"/v2/{path}")
    assert (answer.status, answer.body) == (200, b'{"manifests":[]}')
    assert (answer.headers["content-type"], answer.headers["oci-filters-applied"]) == (INDEX_TYPE, "artifactType")
    assert "x-secret" not in answer.headers
    head = await mirror.ask(f"/v2/{path}", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(answer.body)))


@pytest.mark.parametrize("status", [301, 304, 401, 403, 408, 429, 500, 503])
async def test_statuses_that_would_harm_the_client_are_not_relayed(mirror: Mirror, status: int) -> None:
    mirror.library.relayed["library/test/tags/list"] = FakeAnswer(status, {}, b"no")
    answer = await mirror.ask("/v2/library/test/tags/list")
    assert (answer.status, answer.error_code) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize("link", ["<http://[>; rel=next", "a\r\nSet-Cookie: b", "\x00", "<>;"])
async def test_upstreams_broken_headers_break_nothing(mirror: Mirror, link: str) -> None:
    headers = {"content-type": "application/json\r\nX-Evil: 1", "link": link}
    mirror.library.relayed["library/test/tags/list"] = FakeAnswer(200, headers, b"{}")
    answer = await mirror.ask("/v2/library/test/tags/list")
    assert (answer.status, answer.body) == (200, b"{}")
    assert "x-evil" not in answer.headers and "set-cookie" not in answer.headers


async def test_a_blobs_odd_media_type_becomes_octets(mirror: Mirror) -> None:
    odd = mirror.library.add(b"odd", media_type="text/x; a\r\nX-Evil: 1")
    answer = await mirror.ask(f"/v2/library/test/blobs/{odd.digest}")
    assert answer.headers["content-type"] == "text/x"
    odd.media_type = "no type"
    answer = await mirror.ask(f"/v2/library/test/blobs/{odd.digest}")
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_manifest_without_a_media_type_is_not_served(mirror: Mirror) -> None:
    """containerd fails the whole pull on a manifest without one; on 404 it goes to its next host."""
    mirror.manifest.media_type = ""
    for method in ("GET", "HEAD"):
        answer = await mirror.ask(f"/v2/library/test/manifests/{mirror.manifest.digest}", method=method)
        assert answer.status == 404
