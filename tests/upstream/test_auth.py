"""Tokens: one for each scope, fetched once, renewed in time, dropped when refused; credentials kept from thieves."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from p2pd.upstream import BadAnswer, Denied, RateLimited, Unreachable, UpstreamConfig
from p2pd.upstream.auth import Authenticator, Nobody, parse_token
from p2pd.upstream.challenges import Challenge, parse_challenges
from p2pd.upstream.credentials import Credentials, IdentityToken, Password
from tests.upstream.conftest import MANIFEST_TYPE, sha256, upstream
from tests.upstream.scripted import Request, Script, answer, scripted
from tests.upstream.token_service import self_signed

BEARER = 'Bearer realm="https://auth.registry.example/token?a=b",service="the registry, yes"'
DIGEST = sha256(b"x")
FOUND = answer(200, length=7, Content_Type=MANIFEST_TYPE, Docker_Content_Digest=DIGEST)


class Has:
    """A source with fixed credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    async def current(self, repository: str) -> Credentials:
        return self.credentials


class FakeService:
    """A token service without HTTP: counts its tokens, fails when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, str, str | None, bytes | None]] = []
        self.document: dict = {"expires_in": 100}
        self.status = 200
        self.failure: Exception | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None, body: bytes | None
    ) -> tuple[int, bytes]:
        self.asked.append((method, url, authorization, body))
        await trio.lowlevel.checkpoint()
        if self.failure:
            raise self.failure
        return self.status, json.dumps({"token": f"t{len(self.asked)}"} | self.document).encode()

    def authenticator(self, credentials: Credentials | None = None, **values: object) -> Authenticator:
        config = UpstreamConfig("registry.example", **values)  # type: ignore[arg-type]
        source = Has(credentials) if credentials else Nobody()
        return Authenticator(config, source, self.send, lambda: self.now)


async def test_nothing_is_sent_before_the_first_challenge() -> None:
    service = FakeService()
    assert await service.authenticator(Password("alice", "x")).authorization("a/b") is None
    assert not service.asked


async def test_the_question() -> None:
    service = FakeService()
    one = service.authenticator(Password("alice", "pass"))
    assert await one.answer(parse_challenges([BEARER]), "a/b", None) == "Bearer t1"
    ((method, url, authorization, body),) = service.asked
    assert (method, body) == ("GET", None)
    assert url.startswith("https://auth.registry.example/token?")
    expected = {"a": ["b"], "service": ["the registry, yes"], "scope": ["repository:a/b:pull"]}
    assert parse_qs(urlsplit(url).query) == expected
    assert authorization == "Basic " + base64.b64encode(b"alice:pass").decode()


async def test_the_scope_of_the_challenge_is_used_and_remembered() -> None:
    service = FakeService()
    one = service.authenticator()
    await one.answer(parse_challenges([BEARER + ',scope="repository:a/b:pull repository:base:pull"']), "a/b", None)
    assert parse_qs(urlsplit(service.asked[0][1]).query)["scope"] == ["repository:a/b:pull", "repository:base:pull"]
    assert await one.authorization("a/b") == "Bearer t1"
    assert await one.authorization("c/d") == "Bearer t2"
    assert parse_qs(urlsplit(service.asked[1][1]).query)["scope"] == ["repository:c/d:pull"]


async def test_an_identity_token_goes_by_post() -> None:
    service = FakeService()
    one = service.authenticator(IdentityToken("refresh me"))
    await one.answer(parse_challenges([BEARER]), "a/b", None)
    ((method, url, authorization, body),) = service.asked
    assert (method, url, authorization) == ("POST", "https://auth.registry.example/token?a=b", None)
    form = parse_qs((body or b"").decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["refresh me"]
    assert form["scope"] == ["repository:a/b:pull"]


@pytest.mark.parametrize(
    ("expires_in", "lifetime"), [(100, 100.0), (None, 60.0), (0, 60.0), ("soon", 60.0), (True, 60.0)]
)
async def test_a_token_is_renewed_at_four_fifths_of_its_life(expires_in: object, lifetime: float) -> None:
    service = FakeService()
    service.document = {} if expires_in is None else {"expires_in": expires_in}
    one = service.authenticator()
    await one.answer(parse_challenges([BEARER]), "a/b", None)
    service.now = lifetime * 0.79
    assert await one.authorization("a/b") == "Bearer t1"
    service.now = lifetime * 0.81
    assert await one.authorization("a/b") == "Bearer t2"


@pytest.mark.parametrize("failure", [BadAnswer("x"), Unreachable("x"), RateLimited("x")])
async def test_the_old_token_serves_while_the_service_is_down(failure: Exception) -> None:
    service = FakeService()
    one = service.authenticator()
    await one.answer(parse_challenges([BEARER]), "a/b", None)
    service.now, service.failure = 90.0, failure
    assert await one.authorization("a/b") == "Bearer t1"
    service.now = 101.0
    with pytest.raises(type(failure)):
        await one.authorization("a/b")


async def test_a_refused_token_is_dropped() -> None:
    service = FakeService()
    one = service.authenticator()
    assert await one.answer(parse_challenges([BEARER]), "a/b", None) == "Bearer t1"
    assert await one.answer(parse_challenges([BEARER]), "a/b", "Bearer t1") == "Bearer t2"
    # Somebody else's refusal, of a token that was replaced since, drops nothing.
    assert await one.answer(parse_challenges([BEARER]), "a/b", "Bearer t1") == "Bearer t2"


async def test_many_ask_once_and_share_the_refusal() -> None:
    service = FakeService()
    one = service.authenticator()
    await one.answer(parse_challenges([BEARER]), "a/b", None)
    service.status = 403
    refused = []

    async def ask() -> None:
        with pytest.raises(Denied) as caught:
            await one.authorization("c/d")
        refused.append(caught.value.status)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert refused == [403] * 20
    assert len(service.asked) == 2


async def test_basic_needs_a_password() -> None:
    service = FakeService()
    challenge = parse_challenges(['Basic realm="x"'])
    assert await service.authenticator().answer(challenge, "a/b", None) is None
    assert await service.authenticator(IdentityToken("x")).answer(challenge, "a/b", None) is None
    one = service.authenticator(Password("alice", "pä:ss"))
    header = await one.answer(challenge, "a/b", None)
    assert header == "Basic " + base64.b64encode("alice:pä:ss".encode()).decode()
    assert await one.authorization("c/d") == header
    assert await one.answer(challenge, "a/b", header) is None
    assert not service.asked


async def test_bearer_goes_before_basic_unless_its_realm_is_unfit() -> None:
    service = FakeService()
    one = service.authenticator(Password("alice", "pass"))
    assert await one.answer(parse_challenges(['Basic realm="x"', BEARER]), "a/b", None) == "Bearer t1"
    unfit = ['Bearer realm="http://auth.registry.example/",service="x"', 'Basic realm="x"']
    assert (await one.answer(parse_challenges(unfit), "a/b", None) or "").startswith("Basic ")
    with pytest.raises(BadAnswer, match="without TLS"):
        await one.answer(parse_challenges(unfit[:1]), "a/b", None)


async def test_unknown_schemes_are_no_way_in() -> None:
    one = FakeService().authenticator(Password("alice", "pass"))
    assert await one.answer(parse_challenges(["Negotiate abc", "Bearer service=x"]), "a/b", None) is None


@pytest.mark.parametrize("credentials", [Password("alice", "pass"), IdentityToken("refresh")])
async def test_credentials_do_not_go_to_a_thief(credentials: Credentials, caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    thief = parse_challenges(['Bearer realm="https://thief.example/token",service="x"'])
    one = service.authenticator(credentials, url="https://registry.good.example")
    service.status = 401
    with pytest.raises(Denied, match=r"without credentials.*list it in realm_hosts"):
        await one.answer(thief, "a/b", None)
    ((method, _, authorization, body),) = service.asked
    assert (method, authorization, body) == ("GET", None, None)
    assert "thief.example" in caplog.text


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b'{"token": ""}', b'{"token": 5}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}',
     b'{"token": "\\u00e4"}', b"[" * 100_000, b"\xff", json.dumps({"token": "x" * 20_000}).encode()],
)  # fmt: skip
def test_answers_that_hold_no_token(body: bytes) -> None:
    with pytest.raises(BadAnswer, match=r"^the service answered"):
        parse_token(body, "the service")


@pytest.mark.parametrize(
    ("document", "lifetime"),
    [('{"token":"x","expires_in":1e999}', 86400.0), ('{"access_token":"x","expires_in":NaN}', 60.0),
     ('{"token":"x","expires_in":-5}', 60.0), ('{"token":null,"access_token":"x"}', 60.0)],
)  # fmt: skip
def test_lifetimes_without_sense(document: str, lifetime: float) -> None:
    assert parse_token(document.encode(), "the service") == ("x", lifetime)


# Over HTTP


def registry_with_tokens(valid: set[str], **document: object) -> Script:
    """A registry and its token service in one: takes the tokens in `valid`, hands out t1, t2, ..."""
    count = 0

    def script(request: Request) -> bytes:
        nonlocal count
        if request.path == "/token":
            count += 1
            return answer(200, json.dumps({"token": f"t{count}"} | document).encode())
        if request.headers.get("authorization", "").removeprefix("Bearer ") in valid:
            return FOUND
        realm = f"http://{request.headers['host']}/token"
        return answer(401, WWW_Authenticate=f'Bearer realm="{realm}",service="s",error="invalid_token"')

    return script


async def test_a_token_that_went_bad_is_replaced_once() -> None:
    valid = {"t1"}
    async with scripted(registry_with_tokens(valid)) as server:
        upstreams, host, calls = upstream(server.url)
        one = upstreams.get(host)
        await one.resolve("a/b", "v1")
        valid.clear()
        valid.add("t2")
        calls.made.clear()
        await one.resolve("a/b", "v1")
        assert calls.made == [("tag", 401), ("token", 200), ("tag", 200)]
        valid.clear()
        calls.made.clear()
        with pytest.raises(Denied):
            await one.resolve("a/b", "v1")
        assert calls.made == [("tag", 401), ("token", 200), ("tag", 401)]
        await upstreams.aclose()


async def test_a_token_service_that_fails() -> None:
    results = [
        (answer(404), BadAnswer),
        (answer(200, b"<html>"), BadAnswer),
        (answer(200, b" " * 100_000), BadAnswer),
        (answer(403), Denied),
        (answer(429), RateLimited),
    ]

    def script(request: Request) -> bytes:
        if request.path == "/token":
            return results[0][0]
        return answer(401, WWW_Authenticate=f'Bearer realm="http://{request.headers["host"]}/token"')

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url, username="alice", password="x")
        while results:
            with pytest.raises(results[0][1]):
                await upstreams.get(host).resolve("a/b", "v1")
            del results[0]
        await upstreams.aclose()


async def test_a_refresh_token_is_not_carried_through_a_redirect(tmp_path) -> None:
    def script(request: Request) -> bytes:
        if request.path == "/token":
            return answer(307, Location="/elsewhere")
        return answer(401, WWW_Authenticate=f'Bearer realm="http://{request.headers["host"]}/token"')

    async with scripted(script) as server:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"auths": {server.host: {"identitytoken": "refresh"}}}))
        upstreams, host, _ = upstream(server.url, docker_config=path)
        with pytest.raises(BadAnswer, match="carries a secret"):
            await upstreams.get(host).resolve("a/b", "v1")
        assert "/elsewhere" not in {request.path for request in server.seen}
        await upstreams.aclose()


# Private repositories


# Clients, and how they are asked


async def test_a_client_s_token_is_tried_as_it_is() -> None:
    def script(request: Request) -> bytes:
        if request.headers.get("authorization") == "Bearer given":
            return FOUND
        return answer(401, WWW_Authenticate='Bearer realm="http://127.0.0.1:9/token"')

    async with scripted(script) as server:
        upstreams, host, calls = upstream(server.url, username="alice", password="x")
        registry = upstreams.get(host)
        await registry.resolve("a/b", "v1", registry.client("given"))
        with pytest.raises(Denied, match="with the credentials of a client"):
            await registry.resolve("a/b", "v1", registry.client("other"))
        assert [kind for kind, _ in calls.made] == ["tag", "tag"]
        await upstreams.aclose()


async def test_tasks_share_a_look_only_as_the_same_identity() -> None:
    def script(request: Request) -> bytes:
        known = request.headers.get("authorization") == Password("alice", "x").basic()
        return FOUND if known else answer(401, WWW_Authenticate='Basic realm="r"')

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url)
        registry = upstreams.get(host)
        results: list[str] = []

        async def look(password: str) -> None:
            try:
                await registry.head("manifest", "a/b", DIGEST, registry.client(Password("alice", password)))
                results.append("found")
            except Denied:
                results.append("denied")

        async with trio.open_nursery() as nursery:
            for password in ("x", "y", "x"):
                nursery.start_soon(look, password)
        assert sorted(results) == ["denied", "found", "found"]
        await upstreams.aclose()


@pytest.mark.parametrize(
    ("header", "values", "asked"),
    [
        ('Basic realm="their own words"', {}, ("basic", ["realm"])),
        ('Bearer realm="{url}/token",service="s"', {}, ("bearer", ["realm", "service", "scope"])),
        ('Bearer realm="http://elsewhere.example/token"', {}, None),
        (
            'Bearer realm="http://elsewhere.example/token"',
            {"realm_hosts": frozenset({"elsewhere.example"})},
            ("bearer", ["realm", "scope"]),
        ),
        ("Negotiate", {}, None),
        (None, {}, None),
    ],
)
async def test_the_challenge_for_clients(header: str | None, values: dict, asked: tuple | None) -> None:
    """As the registry asks; but never for secrets that would go to another host."""

    def script(request: Request) -> bytes:
        assert request.target == "/v2/"
        return answer(401, WWW_Authenticate=header.format(url=server.url)) if header else answer(200)

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url, **values)
        challenge = await upstreams.get(host).challenge("a/b")
        assert (challenge and (challenge.scheme, list(challenge.parameters))) == asked
        await upstreams.aclose()


async def test_clients_are_asked_for_a_password_where_only_this_node_knows_the_ca(tmp_path: Path) -> None:
    """containerd knows it for the registry's own host at most, and could not ask the token service."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ca.pem").write_bytes(self_signed(key).public_bytes(serialization.Encoding.PEM))

    def script(request: Request) -> bytes:
        return answer(401, WWW_Authenticate=f'Bearer realm="{server.url}/token"')

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url, ca=tmp_path / "ca.pem")
        assert await upstreams.get(host).challenge("a/b") == Challenge("basic", {"realm": host})
        await upstreams.aclose()


async def test_bytes_come_as_this_node_and_else_as_the_client() -> None:
    ours, theirs = Password("node", "x").basic(), Password("alice", "y").basic()
    allowed = {ours, theirs}

    def script(request: Request) -> bytes:
        if request.headers.get("authorization") in allowed:
            return answer(200, b"abc")
        return answer(401, WWW_Authenticate='Basic realm="r"')

    async with scripted(script) as server:
        upstreams, host, _ = upstream(server.url, username="node", password="x")
        registry = upstreams.get(host)
        client = registry.client(Password("alice", "y"))
        for whom in (ours, theirs):
            async with registry.open("blob", "a/b", DIGEST, client=client) as stream:
                assert stream.opened.size == 3
            assert server.seen[-1].headers["authorization"] == whom
            allowed.discard(whom)
        with pytest.raises(Denied):
            async with registry.open("blob", "a/b", DIGEST, client=client):
                pass
        await upstreams.aclose()


# Secrets


async def test_no_secret_is_ever_told(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["pass-in-clear", base64.b64encode(b"alice:pass-in-clear").decode(), "tok-en", "sig-nature", "coo-kie"]

    def script(request: Request) -> object:
        if request.path == "/token":
            return answer(200, b'{"token": "tok-en"}', Set_Cookie="coo-kie")
        if "authorization" not in request.headers:
            return answer(401, WWW_Authenticate=f'Bearer realm="http://{request.headers["host"]}/token"')
        return outcomes[0]

    outcomes = [
        answer(307, Location=f"http://127.0.0.1:1/x?sig-nature={'y' * 10}"),
        answer(307, Location="http://[sig-nature"),
        answer(403, b"tok-en"),
        answer(500, b"tok-en"),
        answer(429),
        b"HTTP/1.1 tok-en sig-nature\r\nX: coo-kie\r\n\r\n",
    ]
    told = []
    async with scripted(script) as server:  # type: ignore[arg-type]
        upstreams, host, _ = upstream(server.url, username="alice", password="pass-in-clear")
        one = upstreams.get(host)
        told.append(repr(one) + repr(vars(one)) + repr(upstreams._exact) + repr(vars(one._ours)))
        while outcomes:
            one._exchange.held_until = 0.0
            with pytest.raises(Exception) as caught:
                async with one.open("blob", "a/b", DIGEST):
                    pass
            told += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
            del outcomes[0]
        told.append(repr(one._ours._tokens._entries))
        await upstreams.aclose()
    assert len(told) == 20
    for secret in secrets:
        assert secret not in caplog.text
        for text in told:
            assert secret not in text
