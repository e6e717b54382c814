"""What a configuration is, once read and checked: frozen dataclasses with their defaults.

Knows `p2pd.oci`'s grammar, `p2pd.patterns` and the upstreams' own type, and reads nothing.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p2pd.oci import HOST
from p2pd.patterns import RepositoryPattern
from p2pd.upstream.config import NodeCredentials, UpstreamConfig


class ConfigError(Exception):
    """A configuration that can't be used: `path` is the file or None, `where` the line or variable, and the key."""

    def __init__(self, path: Path | None, where: str, message: str) -> None:
        self.path, self.where, self.message = path, where, message
        super().__init__(": ".join(part for part in (str(path) if path else "", where, message) if part))


@dataclass(frozen=True, order=True)
class Address:
    """A host (name or IP, without brackets) and a TCP port; port 0 lets the system choose one to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def parse(cls, text: str, default_port: int, *, listening: bool = False) -> Address:
        """The address of "10.0.0.1:9590", "[fd00::1]:9590" or "tracker.example". ValueError says what is allowed."""
        example = f"host:port, as in {'0.0.0.0' if listening else 'node1.example'}:{default_port}"
        if text.count(":") > 1 and not text.startswith("["):
            text = f"[{text}]"
        match = re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
        if not match or not HOST.fullmatch(match[1]):
            raise ValueError(f"{text[:80]!r} is not an address: write {example}")
        host = match[1].strip("[]")
        if match[1].startswith("["):
            try:
                host = str(ipaddress.IPv6Address(host))
            except ValueError:
                raise ValueError(f"{text[:80]!r} has no IPv6 address in its brackets: write {example}") from None
        port = int(match[2]) if match[2] else default_port
        if not (0 if listening else 1) <= port <= 65535:
            raise ValueError(f"{text[:80]!r} has port {port}: ports are 1 to 65535")
        if host in ("0.0.0.0", "::") and not listening:
            raise ValueError(f"{text[:80]!r} can be listened on, but nobody can dial it: write {example}")
        return cls(host, port)


@dataclass(frozen=True)
class NodeConfig:
    """Who this node is and where it keeps its state. `zone` is "" when all links are alike."""

    name: str
    zone: str = ""
    state_dir: Path = Path("/var/lib/p2pd")
    control: Path = Path("/run/p2pd/control.sock")


@dataclass(frozen=True)
class MirrorConfig:
    """The registry mirror for this node's clients. `hold_back` and `header_wait` in seconds."""

    listen: Address = Address("127.0.0.1", 9580)
    default_upstream: str = "docker.io"
    hold_back: float = 5.0
    stream: Literal["vouched", "proven"] = "vouched"
    header_wait: float = 20.0
    share_private: bool = False
    private: tuple[RepositoryPattern, ...] = ()


@dataclass(frozen=True)
class PeersConfig:
    """The peer protocol. Limits in bytes a second, None for none; `advertise` is what others dial, if not `listen`."""

    listen: Address = Address("0.0.0.0", 9581)
    advertise: Address | None = None
    insecure: bool = False
    upload_limit: float | None = None
    download_limit: float | None = None


@dataclass(frozen=True)
class FleetConfig:
    """This node's identity: PEM files, all three or none. `ca` may hold several certificates."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class DiscoveryConfig:
    """How nodes find each other, and who may say which digest a tag has: only upstream ("node") or the fleet too."""

    trackers: tuple[Address, ...] = ()
    mdns: bool = True
    tags: Literal["node", "fleet"] = "node"


@dataclass(frozen=True)
class StoreConfig:
    """Blobs on disk; `size_limit` in bytes, over proven and partial blobs together."""

    size_limit: int = 50 * 10**9


@dataclass(frozen=True)
class AdminConfig:
    """The port that metrics, health and status are read from."""

    listen: Address = Address("127.0.0.1", 9582)


@dataclass(frozen=True)
class Config:
    """All settings, checked. `upstreams` by normalised registry host; `warnings` are for the log, one line each."""

    node: NodeConfig
    mirror: MirrorConfig
    peers: PeersConfig
    fleet: FleetConfig
    discovery: DiscoveryConfig
    store: StoreConfig
    admin: AdminConfig
    credentials: NodeCredentials
    upstreams: dict[str, UpstreamConfig]
    warnings: tuple[str, ...] = field(default=())
