"""What an operator can say of one registry, and the registries that are known without being told.

Not the reader of the configuration file: it gives the values, this checks what only this package can judge.
May know p2pd.oci.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from p2pd import oci

# Registries whose API is not at their own name.
DEFAULT_URLS: Mapping[str, str] = MappingProxyType({oci.DOCKER_HUB: "https://registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class NodeCredentials:
    """Where this node's credentials are, for all registries that have none of their own. Looked through in this order.

    `well_known`: also where docker, podman and systemd would have them for this user. `kubelet_config` is a
    CredentialProviderConfig, `kubelet_plugins` the directory of its programs; both or neither.
    """

    files: tuple[Path, ...] = ()
    well_known: bool = False
    kubelet_config: Path | None = None
    kubelet_plugins: Path | None = None


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One registry. ValueError for values that can't work; its text says which, and what would.

    `host` is the name in image references ("docker.io", "registry.example:5000"), or "*" and the rest of a host name
    for all hosts one label below it that end so. `url` is where the API is, without /v2/; https://<host> if empty.
    """

    host: str
    url: str = ""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    docker_config: Path | None = None  # or a containers auth.json; `username` and `password` go before it
    ca: Path | None = None  # PEM, trusted besides the system's
    client_certificate: Path | None = None  # PEM with the certificate and its key
    proxy: str | None = field(default=None, repr=False)  # http(s)://...; None: as the environment says; "": none
    download_limit: float | None = None  # bytes/s over all streams of this registry
    realm_hosts: frozenset[str] = frozenset()  # further hosts whose token service may have the credentials
    allow_insecure_realm: bool = False  # a token service without TLS although the registry has it
    allow_private_redirects: bool = False  # redirects from a public registry into private networks

    def __post_init__(self) -> None:
        url = self.url or DEFAULT_URLS.get(self.host, f"https://{self.host}")
        object.__setattr__(self, "url", url.rstrip("/"))
        oci.normal_host(self.host.replace("*", "x", 1))
        _check_url(self.url.replace("*", "x", 1), "url")
        if self.proxy:
            _check_url(self.proxy, "proxy", user_allowed=True)
        if (self.username is None) != (self.password is None):
            raise ValueError(f"{self.host}: username and password go together; give both or neither")
        if self.username is not None and (":" in self.username or not _printable(self.username)):
            raise ValueError(f"{self.host}: a username has no colon and no control characters (RFC 7617)")
        if self.password is not None and not _printable(self.password):
            raise ValueError(f"{self.host}: the password has a line break or another control character; remove it")
        if self.download_limit is not None and not self.download_limit > 0:
            raise ValueError(f"{self.host}: download_limit is a rate above 0, or none")

    def for_host(self, host: str) -> UpstreamConfig:
        """The same for one host, of a pattern ("*-docker.pkg.dev")."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return UpstreamConfig(**(values | {"host": host, "url": self.url.replace(self.host, host)}))


def _printable(text: str) -> bool:
    return not any(ord(c) < 32 or ord(c) == 127 for c in text)


def _check_url(url: str, name: str, *, user_allowed: bool = False) -> None:
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{name} is not a URL: it has a bad host or port") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{name} must begin with http:// or https:// and a host")
    if not user_allowed and parts.username is not None:
        raise ValueError(f"{name} must not hold credentials: use username and password_file")
    if parts.query or parts.fragment:
        raise ValueError(f"{name} must not have a ? or # part")


# Public registries that pods commonly name. Exact hosts; regional Artifact Registry hosts share one pattern.
_HOSTS = (
    oci.DOCKER_HUB,
    "ghcr.io",
    "quay.io",
    "registry.k8s.io",
    "gcr.io",
    "us.gcr.io",
    "eu.gcr.io",
    "asia.gcr.io",
    "*-docker.pkg.dev",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "registry.gitlab.com",
    "nvcr.io",
    "lscr.io",
    "registry.access.redhat.com",
    "docker.elastic.co",
    "cgr.dev",
    "icr.io",
)
WELL_KNOWN: Mapping[str, UpstreamConfig] = MappingProxyType({host: UpstreamConfig(host) for host in _HOSTS})
