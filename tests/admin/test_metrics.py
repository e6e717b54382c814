"""Names and labels that others rely on; what may not grow."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from p2pd.admin.metrics import LABEL_VALUES_MAX, Metrics


def samples(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_closed_label_sets_are_there_as_zero_from_the_start():
    found = samples(Metrics("1.2.3"))
    assert [labels for labels, value in found["p2pd_received_bytes_total"] if value == 0] == [
        {"source": "upstream"},
        {"source": "peer"},
        {"source": "content_store"},
    ]
    assert [labels["to"] for labels, _ in found["p2pd_sent_bytes_total"]] == ["client", "peer"]
    assert [labels["direction"] for labels, _ in found["p2pd_cross_zone_bytes_total"]] == ["in", "out"]
    for name in ("p2pd_peers", "p2pd_leases_held", "p2pd_store_bytes"):
        assert found[name] == [({}, 0.0)]
    for name in ("p2pd_duplicate_bytes_total", "p2pd_refused_requests_total", "p2pd_leases_handed_on_total"):
        assert found[name] == [({}, 0.0)]
    assert found["p2pd_build_info"] == [({"version": "1.2.3"}, 1.0)]
    assert found["process_resident_memory_bytes"][0][1] > 1e6
    assert not [name for name in found if name.endswith("_created")]


def test_counting():
    metrics = Metrics("1")
    metrics.received("upstream", 10)
    metrics.received("upstream", 5)
    metrics.sent("peer", 7)
    metrics.cross_zone("in", 3)
    metrics.duplicate(2)
    metrics.refused_request()
    metrics.lease_handed_on()
    metrics.piece_rejected("wrong hash")
    metrics.piece_rejected("wrong hash")
    metrics.upstream_request("ghcr.io", "blob", 206)
    metrics.upstream_request("ghcr.io", "blob", None)
    metrics.set_peers(4)
    metrics.set_leases_held(1)
    metrics.set_store_bytes(99)
    expected = [
        ("p2pd_received_bytes_total", {"source": "upstream"}, 15),
        ("p2pd_received_bytes_total", {"source": "peer"}, 0),
        ("p2pd_sent_bytes_total", {"to": "peer"}, 7),
        ("p2pd_cross_zone_bytes_total", {"direction": "in"}, 3),
        ("p2pd_duplicate_bytes_total", {}, 2),
        ("p2pd_refused_requests_total", {}, 1),
        ("p2pd_leases_handed_on_total", {}, 1),
        ("p2pd_pieces_rejected_total", {"reason": "wrong hash"}, 2),
        ("p2pd_upstream_requests_total", {"registry": "ghcr.io", "kind": "blob", "code": "206"}, 1),
        ("p2pd_upstream_requests_total", {"registry": "ghcr.io", "kind": "blob", "code": "error"}, 1),
        ("p2pd_peers", {}, 4),
        ("p2pd_leases_held", {}, 1),
        ("p2pd_store_bytes", {}, 99),
    ]
    assert [(n, labels, metrics.value(n, **labels)) for n, labels, _ in expected] == expected


def test_two_nodes_in_one_process_do_not_share_counts():
    one, two = Metrics("1"), Metrics("1")
    one.sent("client", 5)
    assert two.value("p2pd_sent_bytes_total", to="client") == 0


@pytest.mark.parametrize("name", ["registry", "kind", "code", "reason"])
def test_labels_stay_bounded(name: str):
    metrics = Metrics("1")
    for number in range(5 * LABEL_VALUES_MAX):
        metrics.piece_rejected(f"r{number}" if name == "reason" else "x")
        metrics.upstream_request(
            f"host{number}" if name == "registry" else "ghcr.io",
            f"k{number}" if name == "kind" else "blob",
            number * 10 if name == "code" else 200,
        )
    found = samples(metrics)
    assert len(found["p2pd_pieces_rejected_total"]) == (LABEL_VALUES_MAX + 1 if name == "reason" else 1)
    assert len(found["p2pd_upstream_requests_total"]) <= LABEL_VALUES_MAX + 1
    assert sum(v for _, v in found["p2pd_pieces_rejected_total"]) == 5 * LABEL_VALUES_MAX
    assert sum(v for _, v in found["p2pd_upstream_requests_total"]) == 5 * LABEL_VALUES_MAX
