"""What a tracker shows of itself on its admin port: counts, and its own certificate; never a node or a blob.

May know p2pd.admin and p2pd.fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, generate_latest

from p2pd import __version__
from p2pd.fleet import Membership


class Shown:
    """The admin port's view. `summary`: the directory's counts; `membership`: None for an insecure tracker."""

    def __init__(self, membership: Membership | None) -> None:
        self.summary: Callable[[], dict[str, int]] = dict
        self._membership = membership
        registry = self._registry = CollectorRegistry()
        Info("p2pd_build", "The version that runs.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)
        self._refused = Counter(
            "p2pd_handshakes_refused", "Connections that were refused, by reason.", ["reason"], registry=registry
        )
        for name, what in (
            ("nodes", "Nodes connected."),
            ("blobs", "Blobs that a node has or wants."),
            ("members", "Nodes that have or want a blob, over all blobs."),
            ("leases", "Blobs that a node pulls from upstream."),
        ):
            gauge = Gauge(f"p2pd_tracker_{name}", what, registry=registry)
            gauge.set_function(partial(self._count, name))
        Gauge(
            "p2pd_certificate_remaining_seconds",
            "Until the tracker's certificate ends; below 0 when it has. NaN without one.",
            registry=registry,
        ).set_function(lambda: membership.remaining() if membership else float("nan"))

    def _count(self, name: str) -> int:
        return self.summary().get(name, 0)

    def refused(self, reason: str) -> None:
        """`reason` is one of a closed set."""
        self._refused.labels(reason).inc()

    # -- p2pd.admin's AdminState ------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Shown:
        return self

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def not_ready(self) -> str | None:
        return None

    def status(self) -> dict[str, Any]:
        identity = self._membership.identity if self._membership else None
        return {
            "version": __version__,
            "insecure": identity is None,
            "certificate": identity
            and {
                "name": identity.chain[0].name,
                "ends_at": datetime.fromtimestamp(identity.ends_at, UTC).isoformat(),
                "authorities": [authority.name for authority in identity.authorities],
            },
            **self.summary(),
            "warnings": self._membership.warnings() if self._membership else [],
        }
