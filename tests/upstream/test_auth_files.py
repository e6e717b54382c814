"""Docker's config.json and containers' auth.json, as docker, podman and Kubernetes write them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.upstream.auth_files import AuthFile, Helper
from p2pd.upstream.credentials import BadCredentials, IdentityToken, Password

PATH = Path("/etc/p2pd/docker.json")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def file(**document: object) -> AuthFile:
    return AuthFile(json.dumps(document).encode(), PATH)


def entry(host: str, auths: dict, repository: str = "team/app") -> object:
    return file(auths=auths).find(host, repository)


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
    "key",
    [
        "registry.example/teams",
        "registry.example/team/app/x",
        "https://registry.example/team/",
        "registry.example:5000",
        "",
        "x y",
        "registry.example/Team",
    ],
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
    with pytest.raises(BadCredentials, match=r"docker\.json: the entry for registry\.example is broken") as caught:
        entry("registry.example", {"registry.example": value})
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"auths": []}', b"[" * 100_000])
def test_files_that_are_something_else(text: bytes) -> None:
    with pytest.raises(BadCredentials, match=r"docker\.json is not a docker config"):
        AuthFile(text, PATH)


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
        found = AuthFile(json.dumps(document).encode(), PATH)
        found.find("registry.example", "team/app")
        found.helper("registry.example")
        found.helpers()
    except BadCredentials as error:
        assert str(PATH) in str(error)


def test_the_longest_path_wins() -> None:
    """As in containers-auth.json(5)."""
    auths = {
        "registry.example": {"auth": encoded("all:1")},
        "registry.example/team": {"auth": encoded("team:2")},
        "registry.example/team/app": {"auth": encoded("app:3")},
        "registry.example/team/empty": {},
    }
    users = {"team/app": "app", "team/app/x": "app", "team/other": "team", "team/empty": "team", "teams/x": "all"}
    for repository, user in users.items():
        found = entry("registry.example", auths, repository)
        assert isinstance(found, Password)
        assert found.username == user
    assert entry("other.example", auths) is None


def test_another_s_broken_entry_is_in_nobody_s_way() -> None:
    auths = {"registry.example": ALICE, "other.example": {"auth": "!"}}
    assert entry("registry.example", auths) == Password("alice", "pa:ss")
    with pytest.raises(BadCredentials, match=r"other\.example"):
        entry("other.example", auths)


def test_helpers() -> None:
    both = file(credHelpers={"registry.example": "ecr-login", "https://index.docker.io/v1/": "hub"}, credsStore="pass")
    assert both.helper("registry.example") == Helper("ecr-login", "registry.example")
    assert both.helper("docker.io") == Helper("hub", "https://index.docker.io/v1/")
    assert both.helper("other.example:5000") == Helper("pass", "other.example:5000")
    assert both.helpers() == {f"docker-credential-{name}" for name in ("ecr-login", "hub", "pass")}
    assert file(auths={}).helper("registry.example") is None


@pytest.mark.parametrize("name", ["../evil", "a b", "/", 5, "-x", "x" * 65, "x\n"])
def test_a_helper_is_a_name_and_no_path(name: object) -> None:
    with pytest.raises(BadCredentials, match=r"docker\.json: the credential helper for registry\.example is not"):
        file(credHelpers={"registry.example": name}).helper("registry.example")


def test_nothing_secret_is_printed() -> None:
    assert "hidden" not in repr([Password("alice", "hidden"), IdentityToken("hidden")])
    assert "alice" not in repr(Password("alice", "hidden"))
