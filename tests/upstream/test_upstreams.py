"""Which registry a host stands for, and what a configuration must not say."""

from __future__ import annotations

import pytest

from p2pd.upstream import WELL_KNOWN, UnknownUpstream, UpstreamConfig, Upstreams
from p2pd.upstream.upstreams import PATTERN_HOSTS_MAX


def ignore(registry: str, kind: str, code: int | None) -> None:
    pass


@pytest.fixture
async def known():
    upstreams = Upstreams(WELL_KNOWN, on_request=ignore)
    yield upstreams
    await upstreams.aclose()


@pytest.mark.parametrize("alias", ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"])
async def test_docker_hub(known: Upstreams, alias: str) -> None:
    registry = known.get(alias)
    assert registry.name == "docker.io"
    assert registry is known.get("docker.io")
    assert registry._base == "https://registry-1.docker.io/v2"
    assert repr(registry) == "<Registry docker.io>"


@pytest.mark.parametrize(
    "host",
    ["ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io", "mcr.microsoft.com",
     "public.ecr.aws", "registry.gitlab.com", "nvcr.io", "lscr.io", "registry.access.redhat.com", "docker.elastic.co",
     "cgr.dev", "icr.io", "us-docker.pkg.dev", "europe-west4-docker.pkg.dev"],
)  # fmt: skip
async def test_well_known(known: Upstreams, host: str) -> None:
    assert known.is_known(host)
    assert known.get(host).name == host
    assert known.get(host)._base == f"https://{host}/v2"


@pytest.mark.parametrize(
    "host",
    ["registry.example", "evil.ghcr.io", "ghcr.io:443", "ghcr.io.example", "-docker.pkg.dev", "a.b-docker.pkg.dev",
     "docker.pkg.dev", "*-docker.pkg.dev", "x-docker.pkg.dev:80", "", "a b", "../x", "127.0.0.1", "localhost:5000",
     "a" * 64 + "-docker.pkg.dev"],
)  # fmt: skip
async def test_all_others_are_unknown(known: Upstreams, host: str) -> None:
    assert not known.is_known(host)
    with pytest.raises(UnknownUpstream):
        known.get(host)


async def test_a_pattern_has_an_end(known: Upstreams) -> None:
    known._registries.update({f"r{i}-docker.pkg.dev": known.get("us-docker.pkg.dev") for i in range(PATTERN_HOSTS_MAX)})
    assert not known.is_known("one-more-docker.pkg.dev")
    assert known.is_known("us-docker.pkg.dev")
    assert known.is_known("ghcr.io")
    for name in [name for name in known._registries if name.startswith("r")]:
        del known._registries[name]


def test_urls() -> None:
    assert UpstreamConfig("docker.io", username="a", password="b").url == "https://registry-1.docker.io"
    assert UpstreamConfig("registry.example:5000").url == "https://registry.example:5000"
    assert UpstreamConfig("r.example", url="http://r.example/artifactory/").url == "http://r.example/artifactory"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "registry.example"}, "must begin with http"),
        ({"url": "ftp://registry.example"}, "must begin with http"),
        ({"url": "https://"}, "must begin with http"),
        ({"url": "https://a:b@registry.example"}, "must not hold credentials"),
        ({"url": "https://registry.example/?x"}, "must not have a"),
        ({"url": "https://registry.example:x"}, "bad host or port"),
        ({"username": "alice"}, "go together"),
        ({"password": "x"}, "go together"),
        ({"username": "al:ice", "password": "x"}, "no colon"),
        ({"username": "alice", "password": "x\n"}, "line break"),
        ({"proxy": "socks5://p:1"}, "proxy must begin with http"),
        ({"download_limit": 0.0}, "above 0"),
        ({"download_limit": float("nan")}, "above 0"),
    ],
)
def test_what_can_not_work(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UpstreamConfig("registry.example", **values)
