"""Redirects, TLS, proxies, and the addresses that a registry must not send us to."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pd.upstream import BadAnswer, Denied, Unreachable, Upstreams
from p2pd.upstream.errors import AddressRefused
from p2pd.upstream.transport import environment_proxy
from tests.upstream.conftest import receive_some, server_context, sha256, upstream
from tests.upstream.scripted import Request, Script, answer, scripted

BODY = b"layer" * 1000
DIGEST = sha256(BODY)
ALICE = {"username": "alice", "password": "open sesame"}


async def fetch(upstreams: Upstreams, host: str, start: int = 0) -> bytes:
    chunks = []
    async with upstreams.get(host).open("blob", "a/b", DIGEST, start) as stream:
        while chunk := await receive_some(stream):
            chunks.append(chunk)
    return b"".join(chunks)


def with_basic(location: str) -> Script:
    """A registry that wants Basic and sends blobs elsewhere."""

    def script(request: Request) -> bytes:
        if "authorization" not in request.headers:
            return answer(401, WWW_Authenticate='Basic realm="x"')
        return answer(307, Location=location) if request.path.startswith("/v2/") else answer(200, BODY)

    return script


async def test_authorization_does_not_go_to_another_port() -> None:
    async with (
        scripted(lambda request: answer(200, BODY)) as cdn,
        scripted(with_basic(f"{cdn.url}/blob?signature=secret")) as server,
    ):
        upstreams, host, calls = upstream(server.url, **ALICE)
        assert await fetch(upstreams, host) == BODY
        assert "authorization" in server.seen[-1].headers
        assert "authorization" not in cdn.seen[0].headers
        assert cdn.seen[0].target == "/blob?signature=secret"
        assert calls.made == [("blob", 401), ("blob", 307), ("blob", 200)]
        await upstreams.aclose()


async def test_authorization_stays_within_the_registry() -> None:
    async with scripted(with_basic("/elsewhere")) as server:
        upstreams, host, _ = upstream(server.url, **ALICE)
        assert await fetch(upstreams, host) == BODY
        assert "authorization" in server.seen[-1].headers
        await upstreams.aclose()


async def test_a_challenge_from_elsewhere_gets_nothing() -> None:
    challenge = answer(401, WWW_Authenticate='Basic realm="x"')
    async with (
        scripted(lambda request: challenge) as cdn,
        scripted(lambda request: answer(302, Location=f"{cdn.url}/")) as server,
    ):
        upstreams, host, _ = upstream(server.url, **ALICE)
        with pytest.raises(Denied):
            await fetch(upstreams, host)
        assert len(cdn.seen) == 1
        assert "authorization" not in cdn.seen[0].headers
        await upstreams.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_ten_redirects_are_followed_and_no_more(status: int) -> None:
    def script(request: Request) -> bytes:
        step = int(request.target[3:]) if request.target.startswith("/r/") else 0
        return answer(200, BODY) if step == length else answer(status, b"moved", Location=f"/r/{step + 1}")

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        length = 10
        assert await fetch(upstreams, host) == BODY
        length = 11
        with pytest.raises(BadAnswer, match="more than 10 redirects"):
            await fetch(upstreams, host)
        assert server.connections == 1
        await upstreams.aclose()


@pytest.mark.parametrize("location", ["", "ftp://cdn.example/x", "http://[::1/", "http://a..b/", "http://127.1/x"])
async def test_redirects_to_nowhere(location: str) -> None:
    async with scripted(lambda request: answer(307, Location=location)) as server:
        upstreams, host, _ = upstream(server.url)
        with pytest.raises(BadAnswer):
            await fetch(upstreams, host)
        await upstreams.aclose()


# Addresses. 127.0.0.1 plays a public address here, and 127.0.0.2 a private one.


def second_is_private(address: str) -> bool:
    return address != "127.0.0.1"


@pytest.mark.parametrize(
    ("values", "refused"),
    [({}, True), ({"allow_private_redirects": True}, False), ({"realm_hosts": frozenset({"127.0.0.2"})}, False)],
)
async def test_a_public_registry_does_not_lead_into_private_networks(values: dict, refused: bool) -> None:
    async with scripted(lambda request: answer(200, BODY), address="127.0.0.2") as inside:
        location = f"http://127.0.0.2:{inside.port}/latest/meta-data"
        async with scripted(lambda request: answer(307, Location=location)) as server:
            upstreams, host, calls = upstream(server.url, private_address=second_is_private, **values)
            if refused:
                with pytest.raises(AddressRefused, match=r"sent to 127\.0\.0\.2, which is at a private address"):
                    await fetch(upstreams, host)
                assert inside.connections == 0
                assert calls.made == [("blob", 307)]
            else:
                assert await fetch(upstreams, host) == BODY
            await upstreams.aclose()


async def test_a_name_is_judged_by_its_address() -> None:
    async with scripted(lambda request: answer(200, BODY)) as inside:
        # "localhost" is at 127.0.0.1, which the registry at 127.0.0.2 may not send us to.
        location = f"http://localhost:{inside.port}/"
        async with scripted(lambda request: answer(307, Location=location), address="127.0.0.2") as server:
            url = f"http://127.0.0.2:{server.port}"
            upstreams, host, _ = upstream(url, private_address=lambda address: address != "127.0.0.2")
            with pytest.raises(AddressRefused, match="sent to localhost"):
                await fetch(upstreams, host)
            assert inside.connections == 0
            await upstreams.aclose()


async def test_a_public_name_elsewhere_is_followed() -> None:
    async with (
        scripted(lambda request: answer(200, BODY)) as cdn,
        scripted(lambda request: answer(307, Location=f"http://localhost:{cdn.port}/")) as server,
    ):
        upstreams, host, _ = upstream(server.url, private_address=second_is_private)
        assert await fetch(upstreams, host) == BODY
        await upstreams.aclose()


async def test_a_private_registry_may_lead_into_private_networks() -> None:
    async with scripted(lambda request: answer(200, BODY), address="127.0.0.2") as storage:
        location = f"http://127.0.0.2:{storage.port}/"
        async with scripted(lambda request: answer(307, Location=location)) as server:
            upstreams, host, _ = upstream(server.url)
            assert await fetch(upstreams, host) == BODY
            await upstreams.aclose()


async def test_a_realm_in_a_private_network_is_not_asked() -> None:
    async with scripted(lambda request: answer(200, b"{}"), address="127.0.0.2") as inside:
        challenge = f'Bearer realm="http://127.0.0.2:{inside.port}/token",service="x"'
        async with scripted(lambda request: answer(401, WWW_Authenticate=challenge)) as server:
            upstreams, host, _ = upstream(server.url, private_address=second_is_private)
            with pytest.raises(AddressRefused):
                await fetch(upstreams, host)
            assert inside.connections == 0
            await upstreams.aclose()


# TLS


async def test_a_certificate_of_a_strange_ca_is_refused_at_once(certificate: Path) -> None:
    async with scripted(lambda request: answer(200, BODY), server_context(certificate)) as server:
        upstreams, host, calls = upstream(server.url)
        with pytest.raises(Unreachable, match="refused: self-signed certificate; if it is right, set ca"):
            await fetch(upstreams, host)
        assert calls.made == [("blob", None)]
        await upstreams.aclose()


async def test_the_configured_ca_and_client_certificate(certificate: Path) -> None:
    async with scripted(lambda request: answer(200, BODY), server_context(certificate, client=True)) as server:
        upstreams, host, _ = upstream(server.url, ca=certificate, client_certificate=certificate)
        assert await fetch(upstreams, host) == BODY
        await upstreams.aclose()
        without, host, _ = upstream(server.url, ca=certificate)
        with pytest.raises(Unreachable):
            await fetch(without, host)
        await without.aclose()


async def test_https_does_not_lead_to_http(certificate: Path) -> None:
    async with scripted(lambda request: answer(200, BODY)) as plain:
        script = lambda request: answer(307, Location=f"{plain.url}/blob?signature=secret")  # noqa: E731
        async with scripted(script, server_context(certificate)) as server:
            upstreams, host, _ = upstream(server.url, ca=certificate)
            with pytest.raises(BadAnswer, match=r"from https to http, at 127\.0\.0\.1$"):
                await fetch(upstreams, host)
            assert not plain.seen
            await upstreams.aclose()


async def test_http_may_lead_to_https(certificate: Path) -> None:
    async with (
        scripted(lambda request: answer(200, BODY), server_context(certificate)) as cdn,
        scripted(lambda request: answer(307, Location=f"{cdn.url}/")) as server,
    ):
        upstreams, host, _ = upstream(server.url, ca=certificate)
        assert await fetch(upstreams, host) == BODY
        await upstreams.aclose()


async def test_a_realm_without_tls_is_not_asked(certificate: Path) -> None:
    async with scripted(lambda request: answer(200, b'{"token": "x"}')) as service:
        challenge = f'Bearer realm="{service.url}/token",service="x"'
        script = lambda request: answer(401, WWW_Authenticate=challenge)  # noqa: E731
        async with scripted(script, server_context(certificate)) as server:
            upstreams, host, _ = upstream(server.url, ca=certificate, **ALICE)
            with pytest.raises(BadAnswer, match="without TLS"):
                await fetch(upstreams, host)
            assert not service.seen
            await upstreams.aclose()


@pytest.mark.parametrize("name", ["ca", "client_certificate"])
def test_a_file_that_is_not_pem_names_itself(tmp_path: Path, name: str) -> None:
    path = tmp_path / "what.pem"
    for content in (None, "nothing"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError, match=f"registry.example: {name} .*what.pem can't be used"):
            upstream("https://registry.example", **{name: path})


# Proxies


async def test_the_proxy_is_used() -> None:
    async with scripted(lambda request: answer(200, BODY)) as proxy:
        upstreams, host, _ = upstream("http://registry.example", proxy=f"http://user:hidden@{proxy.host}")
        assert await fetch(upstreams, host) == BODY
        assert proxy.targets() == [f"GET http://registry.example/v2/a/b/blobs/{DIGEST}"]
        assert "proxy-authorization" in proxy.seen[0].headers
        await upstreams.aclose()


async def test_a_proxy_that_refuses() -> None:
    async with scripted(lambda request: answer(407)) as proxy:
        upstreams, host, _ = upstream("https://registry.example", proxy=f"http://user:hidden@{proxy.host}")
        with pytest.raises(Unreachable, match="the proxy refused") as caught:
            await fetch(upstreams, host)
        assert "hidden" not in str(caught.value)
        await upstreams.aclose()


@pytest.mark.parametrize("place", ["127.0.0.1", "localhost", "169.254.169.254"])
async def test_a_redirect_into_a_private_network_is_not_handed_to_the_proxy(place: str) -> None:
    async with scripted(lambda request: answer(307, Location=f"http://{place}/")) as proxy:
        upstreams, host, _ = upstream("http://registry.example", proxy=proxy.url)
        with pytest.raises(AddressRefused):
            await fetch(upstreams, host)
        assert len(proxy.seen) == 1
        await upstreams.aclose()


def test_the_environment_names_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert environment_proxy("https://registry.example") is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example,10.1.1.1")
    assert environment_proxy("https://registry.example") == "http://proxy.example:3128"
    assert environment_proxy("http://registry.example") is None
    assert environment_proxy("https://a.inside.example") is None
    assert environment_proxy("https://127.0.0.1:5000") is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(ValueError, match="HTTPS_PROXY"):
        environment_proxy("https://registry.example")
