"""What a request's target and Host name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.mirror.targets import BadTarget, Target, is_loopback, parse_target, split_authority
from p2pd.oci import NAME, TAG

DIGEST = "sha256:" + "ab" * 32
ALLOWED = frozenset({"docker.io", "registry.example:5000", "localhost", "ghcr.io"})


def parse(target: str) -> Target:
    return parse_target(target, "docker.io", ALLOWED.__contains__)


@pytest.mark.parametrize(
    ("target", "upstream", "repository", "patient"),
    [
        # containerd and BuildKit: the namespace in the query, the port's colon encoded
        ("/v2/library/test/manifests/v1?ns=docker.io", "docker.io", "library/test", False),
        ("/v2/a/b/c/manifests/v1?ns=registry.example%3A5000", "registry.example:5000", "a/b/c", False),
        ("/v2/a/manifests/v1?ns=registry-1.docker.io", "docker.io", "library/a", False),
        ("/v2/docker.io/library/x/manifests/v1?ns=ghcr.io", "ghcr.io", "docker.io/library/x", False),
        # CRI-O, Podman, skopeo: the upstream in the path
        ("/v2/docker.io/library/test/manifests/v1", "docker.io", "library/test", True),
        ("/v2/index.docker.io/test/manifests/v1", "docker.io", "library/test", True),
        ("/v2/registry.example:5000/a/b/manifests/v1", "registry.example:5000", "a/b", True),
        ("/v2/registry.example_5000/a/b/manifests/v1", "registry.example:5000", "a/b", True),
        ("/v2/localhost/a/manifests/v1", "localhost", "a", True),
        # Docker Engine: neither
        ("/v2/library/test/manifests/v1", "docker.io", "library/test", False),
        ("/v2/test/manifests/v1", "docker.io", "library/test", False),
        ("/v2/my.app/manifests/v1", "docker.io", "library/my.app", False),
    ],
)
def test_upstream_and_repository(target: str, upstream: str, repository: str, patient: bool) -> None:
    parsed = parse(target)
    assert (parsed.form, parsed.reference, parsed.is_tag) == ("manifest", "v1", True)
    assert (parsed.upstream, parsed.repository, parsed.patient) == (upstream, repository, patient)


@pytest.mark.parametrize(
    ("target", "form", "reference"),
    [
        (f"/v2/a/b/blobs/{DIGEST}", "blob", DIGEST),
        (f"/v2/a/b/blobs/{DIGEST.replace(':', '%3A')}", "blob", DIGEST),
        (f"/v2/a/b/manifests/{DIGEST}", "manifest", DIGEST),
        (f"/v2/a/b/referrers/{DIGEST}", "referrers", DIGEST),
        ("/v2/a/b/tags/list", "tags", ""),
        ("/v2/manifests/blobs/manifests/list", "manifest", "list"),
        ("/v2/", "ping", ""),
        ("/v2", "ping", ""),
    ],
)
def test_forms(target: str, form: str, reference: str) -> None:
    parsed = parse(target)
    assert (parsed.form, parsed.reference, parsed.is_tag) == (form, reference, reference == "list")


def test_relayed_fields_are_the_specs() -> None:
    parsed = parse("/v2/a/b/tags/list?n=5&last=a%26b&ns=ghcr.io&token=secret")
    assert (parsed.query, parsed.ns) == ("n=5&last=a%26b", "ghcr.io")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v2/a/b/manifests/v1?ns=evil.example", 404, "NAME_UNKNOWN"),
        ("/v2/evil.example/b/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/a/b/manifests/v1?ns=", 400, "NAME_INVALID"),
        ("/v2/a/b/manifests/v1?ns=a/b", 400, "NAME_INVALID"),
        ("/v2/a/b/manifests/v1?ns=docker.io&ns=ghcr.io", 400, "NAME_INVALID"),
        ("/v2/UPPER/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/a/%2e%2e/%2e%2e/etc/manifests/v1", 400, "NAME_INVALID"),
        (f"/v2/{'a/' * 200}a/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/a%0a/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/%ff/manifests/v1", 400, "UNSUPPORTED"),
        ("/v2/a/manifests/v1?" + "n=1&" * 50, 400, "UNSUPPORTED"),
        ("/v2/a/manifests/.v1", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        (f"/v2/a/manifests/{DIGEST.upper()}", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/v1", 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/v1", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha512:" + "ab" * 64, 404, "BLOB_UNKNOWN"),
        ("/v2/a/manifests/sha512:" + "ab" * 64, 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/blobs/sha512:abcd", 400, "DIGEST_INVALID"),
        ("/v2/_catalog", 404, "UNSUPPORTED"),
        ("/v2/a/blobs/uploads/", 404, "UNSUPPORTED"),
        ("/v1/search", 404, "UNSUPPORTED"),
        ("*", 404, "UNSUPPORTED"),
    ],
)
def test_targets_that_are_not_served(target: str, status: int, code: str) -> None:
    with pytest.raises(BadTarget) as caught:
        parse(target)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_the_message_says_how_to_allow_an_upstream() -> None:
    with pytest.raises(BadTarget, match=r'add \[upstreams\."quay\.io"\] to p2pd'):
        parse("/v2/quay.io/a/b/manifests/v1")


PATHS = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)),
    st.lists(
        st.sampled_from(
            ["v2", "manifests", "blobs", "tags", "list", "referrers", "docker.io", "a", "", "..", DIGEST, "?ns="]
        )
        | st.from_regex(NAME, fullmatch=True)
        | st.from_regex(TAG, fullmatch=True)
    ).map("/".join),
)


@given(PATHS, st.booleans())
def test_any_target_is_in_the_grammar_or_refused(path: str, prefixed: bool) -> None:
    try:
        parsed = parse("/v2/" + path if prefixed else path)
    except BadTarget as error:
        assert error.status in (400, 404) and error.code.isupper() and error.message
        return
    if parsed.form != "ping":
        assert parsed.upstream in ALLOWED
        assert NAME.fullmatch(parsed.repository)
        assert parsed.form == "tags" or TAG.fullmatch(parsed.reference) or parsed.reference == DIGEST


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9580", "127.3.2.1:1", "[::1]", "[::1]:9580", "localhost", "LocalHost:80", " localhost "],
)
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "[::2]:80", "::1", "0.0.0.0",
     "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:80:80", "localhost@example.com", "127.1", "[127.0.0.1",
     "localhost:999999"],
)  # fmt: skip
def test_other_hosts(host: str) -> None:
    assert not is_loopback(host)


@given(st.text())
def test_any_host_is_loopback_or_not(host: str) -> None:
    assert is_loopback(host) in (True, False)


def test_absolute_form() -> None:
    assert split_authority("http://127.0.0.1:1/v2/?n=5") == ("127.0.0.1:1", "/v2/?n=5")
    assert split_authority("/v2/http://x") == (None, "/v2/http://x")
