"""What the operator is shown of a running node: `/status`, readiness, and the control socket's commands.

Reads the parts and changes none of them, but for `pull`. No repository names: the admin port's readers may not be
entitled to them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import trio

from p2pd import __version__
from p2pd.admin import CommandFailed, Metrics
from p2pd.config import Config
from p2pd.content.arrival import raw
from p2pd.content.arrivals import Arrivals
from p2pd.content.images import Images
from p2pd.content.verdicts import Verdicts
from p2pd.engine import Engine
from p2pd.fleet import Membership
from p2pd.oci import BadName, normal_host, parse_reference
from p2pd.peers.network import Network
from p2pd.store import Store
from p2pd.swarm.pieces import Geometry

BLOBS_SHOWN_MAX = 200
RATE_GAP_S = 0.5  # two looks closer together give no rate


@dataclass
class Status:
    """The admin port's and the control socket's view of the daemon."""

    config: Config
    metrics: Metrics
    engine: Engine
    network: Network
    arrivals: Arrivals
    store: Store
    images: Images
    verdicts: Verdicts
    warnings: list[str]
    membership: Membership | None = None
    ready: bool = False
    stopping: bool = False
    mdns_found: int = 0
    started_at: float = field(default_factory=trio.current_time)
    _rates: dict[int, tuple[float, int, int, float, float]] = field(default_factory=dict)

    def not_ready(self) -> str | None:
        if self.stopping:
            return "stopping"
        return None if self.ready else "starting"

    def status(self) -> dict[str, Any]:
        me = self.engine.node.state.me
        peers = self.config.peers
        has_peers = peers.insecure or self.membership is not None
        return {
            "node": {
                "id": me.node_id.hex(),
                "name": me.name,
                "zone": me.zone,
                "version": __version__,
                "uptime_s": round(trio.current_time() - self.started_at, 1),
                "insecure": peers.insecure,
            },
            "certificate": self._certificate(),
            "trackers": [{"address": a, "state": s} for a, s in self.network.trackers.items()],
            "mdns": {"enabled": self.config.discovery.mdns and has_peers, "found": self.mdns_found},
            "peers": self._peers(),
            "blobs": self._blobs(),
            "store": {"used": self.store.used, "limit": self.store.size_limit},
            "convicted": self.verdicts.shown(),
            "warnings": self.warnings + (self.membership.warnings() if self.membership else []),
        }

    def refresh(self) -> None:
        """Set the metrics that are looked up rather than counted."""
        state = self.engine.node.state
        self.metrics.set_peers(sum(1 for p in state.peers.values() if p.tracker < 0))
        self.metrics.set_leases_held(sum(1 for b in state.blobs.values() if b.term))
        self.metrics.set_store_bytes(self.store.used)
        if self.membership:
            self.metrics.set_certificate_remaining(self.membership.remaining())

    async def control(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The control socket's commands."""
        match request:
            case {"command": "status"}:
                yield self.status()
            case {"command": "pull", "image": str(image)}:
                try:
                    reference = parse_reference(image, normal_host(self.config.mirror.default_upstream))
                except BadName as error:
                    raise CommandFailed(f"{image[:200]!r} is not an image name: {error}") from None
                async with aclosing(self.images.pull(reference)) as reports:
                    async for report in reports:
                        yield report
            case {"command": str(command)}:
                raise CommandFailed(f"{command[:80]!r} is not a command: status or pull")
            case _:
                raise CommandFailed("a request names its command")

    def _certificate(self) -> dict[str, Any] | None:
        """This node's own, and the names of the CAs that it trusts."""
        if self.membership is None:
            return None
        identity = self.membership.identity
        return {
            "name": identity.chain[0].name,
            "ends_at": datetime.fromtimestamp(identity.ends_at, UTC).isoformat(),
            "remaining_s": round(self.membership.remaining()),
            "authorities": [authority.name for authority in identity.authorities],
        }

    def _peers(self) -> list[dict[str, Any]]:
        shown = []
        for number, peer in self.engine.node.state.peers.items():
            if peer.tracker >= 0:
                continue
            down, up = self._rate(number)
            shown.append(
                {
                    "id": peer.contact.node_id.hex(),
                    "name": peer.contact.name,
                    "address": f"{peer.contact.host}:{peer.contact.port}",
                    "zone": peer.contact.zone,
                    "up_bps": round(up),
                    "down_bps": round(down),
                }
            )
        for gone in set(self._rates) - set(self.engine.node.state.peers):
            del self._rates[gone]
        return shown

    def _rate(self, number: int) -> tuple[float, float]:
        """Bytes a second in and out since the last look that was not just now."""
        now = trio.current_time()
        received, sent = self.network.rates(number)
        at, old_in, old_out, down, up = self._rates.get(number, (now, received, sent, 0.0, 0.0))
        if now - at >= RATE_GAP_S:
            down, up = (received - old_in) / (now - at), (sent - old_out) / (now - at)
            at, old_in, old_out = now, received, sent
        self._rates[number] = (at, old_in, old_out, down, up)
        return down, up

    def _blobs(self) -> list[dict[str, Any]]:
        shown = []
        for arrival in self.arrivals.all()[:BLOBS_SHOWN_MAX]:
            blob = self.engine.node.blob(raw(arrival.digest))
            state = "idle"
            if blob and blob.want:
                state = "seeding" if blob.term or blob.alone else "fetching"
            shown.append(
                {
                    "digest": arrival.digest,
                    "size": arrival.size,
                    "pieces": blob.geometry.count if blob and blob.geometry else 0,
                    "present": arrival.present.bit_count(),
                    "state": "proven" if arrival.proven else state,
                    "seeder": blob.holder.hex() if blob and blob.holder else None,
                    "from_peers": arrival.from_peers,
                    "from_upstream": arrival.from_upstream,
                    "clients": arrival.clients,
                }
            )
        known = {entry["digest"] for entry in shown}
        for digest, size in self.store.digests()[: BLOBS_SHOWN_MAX - len(shown)]:
            if digest not in known:
                pieces = Geometry.of(size).count
                entry = {"digest": digest, "size": size, "pieces": pieces, "present": pieces, "state": "proven"}
                shown.append({**entry, "seeder": None, "from_peers": 0, "from_upstream": 0, "clients": 0})
        return shown
