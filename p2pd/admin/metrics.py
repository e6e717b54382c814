"""The node's metrics, by the names that every claim about p2pd is checked with.

Counts and gives out; measures nothing itself. Label values come from sets that are closed or bounded, so neither
memory nor a scrape grows with blobs, peers or repositories, none of which is ever a label. Imports nothing of p2pd.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

Source = Literal["upstream", "peer", "content_store"]
Receiver = Literal["client", "peer"]
Direction = Literal["in", "out"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LABEL_VALUES_MAX = 64  # distinct values of one open label (a registry, a reason); what comes after them is "other"
OTHER = "other"


class Metrics:
    """One node's metrics on a registry of its own. Methods are cheap (about a microsecond) and thread-safe."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        Info("p2pd_build", "The version that runs.", registry=self._registry).info({"version": version})
        ProcessCollector(registry=self._registry)
        self._received = self._closed("p2pd_received_bytes", "Bytes of blobs received.", "source", Source)
        self._sent = self._closed("p2pd_sent_bytes", "Bytes of blobs sent.", "to", Receiver)
        self._cross_zone = self._closed(
            "p2pd_cross_zone_bytes", "Bytes of blobs exchanged with peers in other zones.", "direction", Direction
        )
        self._requests = self._counter(
            "p2pd_upstream_requests", "Requests to registries; code is error without an answer.", "registry kind code"
        )
        self._rejected = self._counter("p2pd_pieces_rejected", "Pieces that did not hold, by reason.", "reason")
        self._duplicate = self._counter("p2pd_duplicate_bytes", "Bytes received that were present already.")
        self._refused = self._counter(
            "p2pd_refused_requests", "Requests to peers that were refused for lack of a place."
        )
        self._handed_on = self._counter(
            "p2pd_leases_handed_on", "Leases given up since the lines of this node's peers are far faster."
        )
        self._handshakes = self._counter(
            "p2pd_handshakes_refused", "Connections with peers and trackers that were refused, by reason.", "reason"
        )
        self._certificate = Gauge(
            "p2pd_certificate_remaining_seconds",
            "Until this node's certificate ends; below 0 when it has. NaN without a certificate.",
            registry=self._registry,
        )
        self._certificate.set(float("nan"))
        self._false_links = self._counter("p2pd_false_links", "Signed links that a proven chain showed to be false.")
        self._refuted_streams = self._counter(
            "p2pd_refuted_streams", "Clients cut off in mid-body because their blob's chain was refuted."
        )
        self._peers = Gauge("p2pd_peers", "Peers connected.", registry=self._registry)
        self._leases = Gauge("p2pd_leases_held", "Blobs that this node pulls from upstream.", registry=self._registry)
        self._store = Gauge("p2pd_store_bytes", "Bytes of disk that blobs take.", registry=self._registry)
        self._names: dict[str, set[str]] = {"registry": set(), "kind": set(), "reason": set(), "handshake": set()}

    def received(self, source: Source, count: int) -> None:
        """`count` bytes of blobs came from `source`."""
        self._received[source].inc(count)

    def sent(self, to: Receiver, count: int) -> None:
        """`count` bytes of blobs went out."""
        self._sent[to].inc(count)

    def cross_zone(self, direction: Direction, count: int) -> None:
        """`count` bytes, counted as received or sent too, crossed a zone's border."""
        self._cross_zone[direction].inc(count)

    def duplicate(self, count: int) -> None:
        """`count` bytes arrived that were here already."""
        self._duplicate.inc(count)

    def refused_request(self) -> None:
        """A peer refused a request of ours for lack of a place."""
        self._refused.inc()

    def lease_handed_on(self) -> None:
        """This node's line is far slower than its peers': one of them pulls a blob in its place."""
        self._handed_on.inc()

    def piece_rejected(self, reason: str) -> None:
        """A piece did not hold."""
        self._rejected.labels(self._bounded("reason", reason)).inc()

    def handshake_refused(self, reason: str) -> None:
        """A peer was refused, or refused us; `reason` is one of a closed set."""
        self._handshakes.labels(self._bounded("handshake", reason)).inc()

    def set_certificate_remaining(self, seconds: float) -> None:
        """Until this node's certificate ends."""
        self._certificate.set(seconds)

    def false_link(self) -> None:
        """A node was convicted of a signed false link."""
        self._false_links.inc()

    def refuted_stream(self) -> None:
        """A client that had got bytes of a refuted chain was cut off."""
        self._refuted_streams.inc()

    def upstream_request(self, registry: str, kind: str, code: int | None) -> None:
        """A request went to a registry; `code` is the HTTP status, None when no answer came."""
        status = str(code) if code is not None and 100 <= code <= 599 else "error"
        self._requests.labels(self._bounded("registry", registry), self._bounded("kind", kind), status).inc()

    def _bounded(self, label: str, value: str) -> str:
        known = self._names[label]
        if value not in known:
            if len(known) >= LABEL_VALUES_MAX:
                return OTHER
            known.add(value)
        return value

    def set_peers(self, count: int) -> None:
        """Peers connected now."""
        self._peers.set(count)

    def set_leases_held(self, count: int) -> None:
        """Leases held now."""
        self._leases.set(count)

    def set_store_bytes(self, count: int) -> None:
        """Bytes that the store's blobs take now."""
        self._store.set(count)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, to be served as CONTENT_TYPE."""
        return generate_latest(self._registry)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, e.g. value("p2pd_sent_bytes_total", to="peer"); None if there is no such sample."""
        return self._registry.get_sample_value(name, labels)

    def _counter(self, name: str, help_text: str, labels: str = "") -> Counter:
        return Counter(name, help_text, labels.split(), registry=self._registry)

    def _closed(self, name: str, help_text: str, label: str, values: object) -> dict[str, Counter]:
        """A counter whose label takes only the values of a Literal type: all are there, as 0, from the start."""
        counter = self._counter(name, help_text, label)
        return {value: counter.labels(value) for value in getattr(values, "__args__", ())}
