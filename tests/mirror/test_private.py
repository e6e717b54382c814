"""Credentials at the mirror: handed to the library, asked for in its words, and never shown."""

from __future__ import annotations

import logging
import traceback

import pytest

from p2pd.mirror import Challenged, Presented
from p2pd.upstream.challenges import Challenge, parse_challenges
from tests.mirror.conftest import Mirror

SECRET = "Basic YWxpY2U6czNjcmV0"
SHOWN = f"Authorization: {SECRET}\r\n"
BLOB = "/v2/library/test/blobs/{digest}"


def challenged(scheme: str = "basic", **parameters: str) -> Challenged:
    return Challenged("library/test is private", scheme, parameters or {"realm": "registry.example"})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target",
    ["/v2/library/test/manifests/v1", BLOB, "/v2/library/test/tags/list", "/v2/docker.io/library/test/manifests/v1"],
)
async def test_a_client_is_asked_and_what_it_shows_is_handed_on(mirror: Mirror, target: str, method: str) -> None:
    target = target.format(digest=mirror.blob.digest)
    mirror.library.challenge, mirror.library.password = challenged(), SECRET
    answer = await mirror.ask(target, method=method)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="registry.example"'
    assert b"private" in answer.body or method == "HEAD"
    answer = await mirror.ask(target, method=method, headers=SHOWN)
    assert answer.status == (404 if "tags" in target else 200)
    assert set(mirror.library.presented) == {None, Presented(SECRET)}


async def test_two_secrets_are_none(mirror: Mirror) -> None:
    mirror.library.challenge, mirror.library.password = challenged(), SECRET
    target = BLOB.format(digest=mirror.blob.digest)
    assert (await mirror.ask(target, headers=SHOWN + "Authorization: Basic eDp5\r\n")).status == 401
    assert mirror.library.presented == [None]


@pytest.mark.parametrize(
    "parameters",
    [
        {"realm": "https://auth.example/token?a=b", "service": "the, service", "scope": "repository:a/b:pull"},
        {"realm": 'quo"ted\\', "error": "invalid_token"},
    ],
)
async def test_a_challenge_reads_as_it_was_meant(mirror: Mirror, parameters: dict[str, str]) -> None:
    mirror.library.challenge = challenged("bearer", **parameters)
    answer = await mirror.ask("/v2/library/test/manifests/v1?ns=docker.io")
    assert parse_challenges([answer.headers["www-authenticate"]]) == [Challenge("bearer", parameters)]
    assert answer.headers["oci-namespace"] == "docker.io"


@pytest.mark.parametrize("service", ["x\r\nSet-Cookie: a=b", "caf\u00e9", "\0"])
async def test_words_that_no_header_can_hold(mirror: Mirror, service: str) -> None:
    """A registry's own words; without a challenge it is a 404, and the client goes there itself."""
    mirror.library.challenge = challenged("bearer", realm="https://auth.example", service=service)
    answer = await mirror.ask("/v2/library/test/manifests/v1")
    assert (answer.status, "www-authenticate" in answer.headers) == (404, False)


async def test_nothing_shows_a_secret(mirror: Mirror, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mirror.library.bug = RuntimeError("a bug")
    mirror.library.password = SECRET
    with pytest.raises(RuntimeError) as caught:
        await mirror.library.resolve("docker.io", "library/test", "v1", presented=Presented(SECRET))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    mirror.library.bug = None
    await mirror.ask("/v2/library/test/manifests/v1", headers=SHOWN)
    await mirror.ask("/v2/library/test/manifests/v2", headers=SHOWN)
    assert "manifests/v1" in caplog.text
    assert SECRET[6:] not in caplog.text
