"""Credentials from the configuration and from docker's config.json, as docker, podman and kubelet write it."""

from __future__ import annotations

import base64
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.upstream import Denied, UpstreamConfig
from p2pd.upstream.credentials import (
    FILE_SIZE_MAX,
    RECHECK_S,
    BadCredentialFile,
    CredentialSource,
    IdentityToken,
    Password,
    parse_docker_config,
)

PATH = Path("/etc/p2pd/docker.json")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def entry(host: str, auths: dict) -> object:
    return parse_docker_config(json.dumps({"auths": auths}).encode(), host, PATH)


ALICE = {"auth": encoded("alice:pa:ss")}


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("registry.example", "registry.example"),
        ("Registry.Example:5000", "registry.example:5000"),
        ("https://registry.example", "registry.example"),
        ("https://registry.example/v2/", "registry.example"),
        ("http://registry.example:5000/v1", "registry.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_keys(key: str, host: str) -> None:
    assert entry(host, {key: ALICE}) == Password("alice", "pa:ss")


@pytest.mark.parametrize(
    "key", ["registry.example/team", "https://registry.example/team/", "registry.example:5000", "", "x y"]
)
def test_keys_of_something_else(key: str) -> None:
    assert entry("registry.example", {key: ALICE}) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"username": "alice", "password": "x"}, Password("alice", "x")),
        ({"username": "alice", "password": "x", "auth": encoded("bob:y")}, Password("alice", "x")),
        ({"auth": encoded("alice:x\0\0")}, Password("alice", "x")),
        ({"identitytoken": "refresh", "auth": encoded("00000000:")}, IdentityToken("refresh")),
        ({"auth": ""}, None),
        ({}, None),
        ({"email": "alice@example"}, None),
        ("nonsense", None),
    ],
)
def test_entries(value: object, expected: object) -> None:
    assert entry("registry.example", {"registry.example": value}) == expected


@pytest.mark.parametrize(
    "value",
    [{"auth": "not base64!"}, {"auth": encoded("no colon")}, {"auth": 5}, {"username": ["x"], "password": "y"},
     {"username": "alice", "password": "\ud800"}, {"identitytoken": "alice\udfff"}, {"identitytoken": "alice\r\n"},
     {"auth": encoded("alice:x\r\nX: y")}, {"auth": base64.b64encode(b"\xff:\xff").decode()}],
)  # fmt: skip
def test_broken_entries_are_named_and_not_shown(value: dict) -> None:
    with pytest.raises(BadCredentialFile, match=r"docker\.json: the entry for registry\.example is broken") as caught:
        entry("registry.example", {"registry.example": value})
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"auths": []}', b"[" * 100_000])
def test_files_that_are_something_else(text: bytes) -> None:
    with pytest.raises(BadCredentialFile, match=r"docker\.json is not a docker config"):
        parse_docker_config(text, "registry.example", PATH)


FIELDS = ["auths", "auth", "username", "password", "identitytoken", "credHelpers", "credsStore", "registry.example"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_json_is_survived(document: object) -> None:
    try:
        parse_docker_config(json.dumps(document).encode(), "registry.example", PATH)
    except BadCredentialFile as error:
        assert str(PATH) in str(error)


@pytest.mark.parametrize("more", [{"credsStore": "desktop"}, {"credHelpers": {"registry.example": "ecr-login"}}])
def test_helpers_are_named_in_the_log(more: dict, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_docker_config(json.dumps(more).encode(), "registry.example", PATH) is None
    assert "put an entry for registry.example under auths" in caplog.text


def test_nothing_secret_is_printed() -> None:
    config = UpstreamConfig("registry.example", username="alice", password="hidden", proxy="http://u:hidden@p:1")
    assert "hidden" not in repr(config)
    assert "alice" not in repr(config)
    assert "hidden" not in repr([Password("alice", "hidden"), IdentityToken("hidden")])


def write(path: Path, password: str, when: int) -> None:
    path.write_text(json.dumps({"auths": {"registry.example": {"auth": encoded(f"alice:{password}")}}}))
    os.utime(path, (when, when))


async def test_a_file_that_changes_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, now = tmp_path / "config.json", 0.0
    source = CredentialSource(UpstreamConfig("registry.example", docker_config=path), lambda: now)
    assert source.configured
    write(path, "one", 1)
    assert await source.current() == Password("alice", "one")
    write(path, "two", 2)
    now = RECHECK_S - 1
    assert await source.current() == Password("alice", "one")
    now = RECHECK_S + 1
    assert await source.current() == Password("alice", "two")
    path.write_text('{"auths":')
    now += RECHECK_S
    with caplog.at_level(logging.WARNING):
        assert await source.current() == Password("alice", "two")
    assert "the credentials read before stay in force" in caplog.text
    path.unlink()
    now += RECHECK_S
    assert await source.current() == Password("alice", "two")


async def test_a_file_that_was_never_good(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    source = CredentialSource(UpstreamConfig("registry.example", docker_config=path), lambda: 0.0)
    with pytest.raises(Denied, match=r"registry\.example: can't read .*config\.json: No such file"):
        await source.current()
    path.write_bytes(b" " * (FILE_SIZE_MAX + 1))
    with pytest.raises(Denied, match="at most"):
        await source.current()
    path.write_text("nonsense")
    with pytest.raises(Denied, match="not a docker config"):
        await source.current()
    write(path, "good", 3)
    assert await source.current() == Password("alice", "good")


async def test_the_configuration_goes_before_the_file(tmp_path: Path) -> None:
    config = UpstreamConfig("registry.example", username="bob", password="x", docker_config=tmp_path / "none")
    assert await CredentialSource(config, lambda: 0.0).current() == Password("bob", "x")
    assert not CredentialSource(UpstreamConfig("registry.example"), lambda: 0.0).configured
