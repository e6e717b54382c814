"""Where a registry may send us, and whom it may show our credentials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.upstream import BadAnswer, UpstreamConfig
from p2pd.upstream.realms import check_realm, may_see_credentials
from p2pd.upstream.urls import is_private_address, names_private_host, origin, redirect_target, same_site


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Registry.Example/v2/", ("https", "registry.example", 443)),
        ("http://registry.example:80", ("http", "registry.example", 80)),
        ("https://user:pass@registry.example:5000/x?y", ("https", "registry.example", 5000)),
        ("http://[::1]:5000/", ("http", "::1", 5000)),
        ("https://cdn_1.example/", ("https", "cdn_1.example", 443)),
    ],
)
def test_origin(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "/v2/", "ftp://a.example/", "https://", "https://a.example:99999/", "https://a..example/", "https://a b/",
     "https://127.1/", "https://0x7f.1/", "https://2130706433/", "https://" + "a" * 64 + ".example/", "file:///etc/passwd",
     "https://[::1/", "https://a.example/\r\nx", "https://a.example/" + "x" * 20000, "https://ex\u00e4mple.example/",
     "https://a.example:0/"],
)  # fmt: skip
def test_not_a_url_to_follow(url: str) -> None:
    with pytest.raises(BadAnswer):
        origin(url)


@given(st.text(max_size=80))
def test_any_location_is_survived(location: str) -> None:
    try:
        target = redirect_target("https://registry.example/v2/a/blobs/x", location)
    except BadAnswer as error:
        assert str(error)
    else:
        assert origin(target).scheme == "https"


def test_redirects() -> None:
    here = "https://registry.example/v2/a/blobs/x?y"
    assert redirect_target(here, "/other?sig=1#part") == "https://registry.example/other?sig=1"
    assert redirect_target(here, "https://cdn.example/b%2Fc?d=%20e+f") == "https://cdn.example/b%2Fc?d=%20e+f"
    assert redirect_target(here, "//cdn.example/b") == "https://cdn.example/b"
    assert redirect_target("http://a.example/", "https://b.example/") == "https://b.example/"
    for bad in (None, "", "http://registry.example/x", "ftp://cdn.example/", "https://[/"):
        with pytest.raises(BadAnswer):
            redirect_target(here, bad)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert is_private_address(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert not is_private_address(address)


def test_private_names() -> None:
    assert names_private_host("localhost")
    assert names_private_host("a.localhost")
    assert names_private_host("10.0.0.1")
    assert not names_private_host("registry.example")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("docker.elastic.co", "docker-auth.elastic.co", True),
        ("registry.example.co.uk", "auth.example.co.uk", True),
        ("registry.co.uk", "thief.co.uk", False),
        ("one.azurecr.io", "two.azurecr.io", False),
        ("one.azurecr.io", "one.azurecr.io", True),
        ("1.dkr.ecr.us-east-1.amazonaws.com", "thief.s3.us-east-1.amazonaws.com", False),
        ("docker.io", "docker.io.thief.example", False),
        ("docker.io", "mydocker.io", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("1.10.0.1", "2.10.0.1", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("localhost", "localhost", True),
        ("registry", "auth", False),
        ("::1", "::2", False),
    ],
)
def test_same_site(one: str, other: str, same: bool) -> None:
    assert same_site(one, other) == same_site(other, one) == same


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("docker.io", "https://auth.docker.io/token"),
        ("ghcr.io", "https://ghcr.io/token"),
        ("quay.io", "https://quay.io/v2/auth"),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("nvcr.io", "https://nvcr.io/proxy_auth"),
        ("icr.io", "https://iam.cloud.ibm.com/oauth2/token"),
        ("us.gcr.io", "https://gcr.io/v2/token"),
        ("lscr.io", "https://ghcr.io/token"),
        ("registry.example:5000", "https://registry.example:5001/auth"),
    ],
)
def test_realms_that_may_see_credentials(host: str, realm: str) -> None:
    config = UpstreamConfig(host)
    check_realm(config, realm)
    assert may_see_credentials(config, realm)


def test_a_strange_realm_may_not() -> None:
    assert not may_see_credentials(UpstreamConfig("quay.io"), "https://auth.docker.io/token")
    listed = UpstreamConfig("quay.io", realm_hosts=frozenset({"auth.docker.io"}))
    assert may_see_credentials(listed, "https://auth.docker.io/token")


def test_realm_needs_tls_unless_the_registry_has_none() -> None:
    with pytest.raises(BadAnswer, match=r"without TLS, at quay\.io"):
        check_realm(UpstreamConfig("quay.io"), "http://quay.io/v2/auth")
    check_realm(UpstreamConfig("quay.io", allow_insecure_realm=True), "http://quay.io/v2/auth")
    check_realm(UpstreamConfig("lab:5000", url="http://lab:5000"), "http://lab:5001/token")
    with pytest.raises(BadAnswer, match="not a usable URL"):
        check_realm(UpstreamConfig("quay.io"), "token")
