"""A pull from docker-registry: open, behind Basic, behind a token service that signs what it verifies."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import trio

from p2pd.oci import Descriptor
from p2pd.upstream import BlobStream, Denied, NotFound, Registry, Upstreams
from tests.upstream.conftest import MANIFEST_TYPE, RealRegistries, receive_some, upstream
from tests.upstream.token_service import SERVICE

ALICE = {"username": "alice", "password": "s3cret, with a comma"}


async def read_all(stream: BlobStream) -> bytes:
    chunks = []
    while chunk := await receive_some(stream):
        chunks.append(chunk)
    return b"".join(chunks)


async def pull(upstreams: Upstreams, host: str, repository: str, real: RealRegistries) -> None:
    """What a node does for an image; all bytes compared."""
    registry = upstreams.get(host)
    described = Descriptor(real.manifest_digest, len(real.manifest), MANIFEST_TYPE)
    assert await registry.resolve(repository, "v1") == described
    async with registry.open("manifest", repository, real.manifest_digest) as stream:
        assert stream.opened.size == len(real.manifest)
        assert stream.opened.media_type == MANIFEST_TYPE
        assert await read_all(stream) == real.manifest
    assert (await registry.head("blob", repository, real.blob_digest)).size == len(real.blob)
    async with registry.open("blob", repository, real.blob_digest) as stream:
        assert (stream.opened.size, stream.opened.start) == (len(real.blob), 0)
        assert await read_all(stream) == real.blob
        assert stream.received == len(real.blob)


async def refuses_everybody(registry: Registry, repository: str) -> bool:
    try:
        await registry.resolve(repository, "v1", registry.anonymous)
    except Denied:
        return True
    return False


async def test_open(real: RealRegistries) -> None:
    upstreams, host, calls = upstream(f"http://{real.open}")
    await pull(upstreams, host, "public/image", real)
    assert calls.made == [("tag", 200), ("manifest", 200), ("blob", 200), ("blob", 200)]
    assert not await refuses_everybody(upstreams.get(host), "public/image")
    await upstreams.aclose()


@pytest.mark.parametrize("start", [1, 65536, 2_999_999, 3_000_000])
async def test_ranges(real: RealRegistries, start: int) -> None:
    upstreams, host, calls = upstream(f"http://{real.open}")
    async with upstreams.get(host).open("blob", "public/image", real.blob_digest, start) as stream:
        assert (stream.opened.size, stream.opened.start) == (len(real.blob), start)
        assert await read_all(stream) == real.blob[start:]
        assert stream.received == len(real.blob) - start
    assert calls.made == [("blob", 206)]
    await upstreams.aclose()


async def test_not_there(real: RealRegistries) -> None:
    upstreams, host, _ = upstream(f"http://{real.open}")
    registry = upstreams.get(host)
    absent = "sha256:" + "0" * 64
    for repository, tag in (("public/image", "v2"), ("no/such", "v1")):
        with pytest.raises(NotFound, match=f"{repository} {tag}: not there"):
            await registry.resolve(repository, tag)
    for kind in ("manifest", "blob"):
        with pytest.raises(NotFound):
            await registry.head(kind, "public/image", absent)
        with pytest.raises(NotFound):
            async with registry.open(kind, "public/image", absent):
                pass
    await upstreams.aclose()


async def test_passthrough(real: RealRegistries) -> None:
    upstreams, host, calls = upstream(f"http://{real.open}")
    registry = upstreams.get(host)
    answer = await registry.passthrough("public/image/tags/list")
    assert answer.status == 200
    assert json.loads(answer.body) == {"name": "public/image", "tags": ["latest", "v1"]}
    assert answer.headers["content-type"].startswith("application/json")
    first = await registry.passthrough("public/image/tags/list?n=1")
    if "link" in first.headers:
        assert first.headers["link"].startswith("</v2/public/image/tags/list?")
    assert (await registry.passthrough(f"public/image/referrers/{real.manifest_digest}")).status == 404
    assert (await registry.passthrough("no/such/tags/list")).status == 404
    assert {kind for kind, _ in calls.made} == {"passthrough"}
    for bad in ("public/image/manifests/v1", "../etc/tags/list", "http://x/tags/list", "a/tags/list#x", "_catalog"):
        with pytest.raises(NotFound):
            await registry.passthrough(bad)
    await upstreams.aclose()


async def test_basic(real: RealRegistries) -> None:
    upstreams, host, calls = upstream(f"http://{real.basic}", **ALICE)
    await pull(upstreams, host, "secret/image", real)
    # Only the first request has to be told.
    assert [code for _, code in calls.made] == [401, 200, 200, 200, 200]
    assert await refuses_everybody(upstreams.get(host), "secret/image")
    await upstreams.aclose()


@pytest.mark.parametrize("values", [{}, {"username": "alice", "password": "wrong"}])
async def test_basic_refused(real: RealRegistries, values: dict[str, str]) -> None:
    upstreams, host, _ = upstream(f"http://{real.basic}", **values)
    with pytest.raises(Denied) as caught:
        await upstreams.get(host).resolve("secret/image", "v1")
    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)
    assert await refuses_everybody(upstreams.get(host), "secret/image")
    await upstreams.aclose()


async def test_anonymous_token(real: RealRegistries) -> None:
    upstreams, host, calls = upstream(f"http://{real.token}")
    real.service.asked.clear()
    await pull(upstreams, host, "public/image", real)
    assert calls.made[:3] == [("tag", 401), ("token", 200), ("tag", 200)]
    assert [code for _, code in calls.made[3:]] == [200, 200, 200]
    assert [(a.scopes, a.service, a.authorization) for a in real.service.asked] == [
        (["repository:public/image:pull"], SERVICE, None)
    ]
    assert not await refuses_everybody(upstreams.get(host), "public/image")
    await upstreams.aclose()


async def test_anonymous_token_does_not_open_a_private_repository(real: RealRegistries) -> None:
    upstreams, host, _ = upstream(f"http://{real.token}")
    registry = upstreams.get(host)
    with pytest.raises(Denied, match="without credentials"):
        await registry.resolve("secret/image", "v1")
    assert await refuses_everybody(registry, "secret/image")
    assert await refuses_everybody(registry, "no/such")
    await upstreams.aclose()


async def test_token_for_a_user(real: RealRegistries) -> None:
    upstreams, host, _ = upstream(f"http://{real.token}", **ALICE)
    real.service.asked.clear()
    await pull(upstreams, host, "secret/image", real)
    assert [asked.method for asked in real.service.asked] == ["GET"]
    registry = upstreams.get(host)
    assert await refuses_everybody(registry, "secret/image")
    assert real.service.asked[-1].authorization is None
    await pull(upstreams, host, "public/image", real)
    assert not await refuses_everybody(registry, "public/image")
    await upstreams.aclose()


async def test_token_for_an_identity_token(real: RealRegistries, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {f"http://{real.token}/v1/": {"identitytoken": "refresh-me"}}}))
    upstreams, host, _ = upstream(f"http://{real.token}", docker_config=path)
    real.service.asked.clear()
    await pull(upstreams, host, "secret/image", real)
    (asked,) = real.service.asked
    assert (asked.method, asked.form["grant_type"], asked.form["service"]) == ("POST", ["refresh_token"], [SERVICE])
    await upstreams.aclose()


async def test_token_for_a_docker_config(real: RealRegistries, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    auth = base64.b64encode(b"alice:s3cret, with a comma").decode()
    path.write_text(json.dumps({"auths": {real.token: {"auth": auth}}}))
    upstreams, host, _ = upstream(f"http://{real.token}", docker_config=path)
    await pull(upstreams, host, "secret/image", real)
    await upstreams.aclose()


async def test_one_flight(real: RealRegistries) -> None:
    upstreams, host, calls = upstream(f"http://{real.token}", **ALICE)
    real.service.asked.clear()
    registry = upstreams.get(host)
    await registry.resolve("public/image", "v1")
    calls.made.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(registry.resolve, "secret/image", "v1")
            nursery.start_soon(registry.head, "blob", "secret/image", real.blob_digest)
    assert [kind for kind, _ in calls.made].count("token") == 1
    assert sorted(calls.made) == [("blob", 200), ("tag", 200), ("token", 200)]
    await upstreams.aclose()
