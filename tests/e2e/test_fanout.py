"""Calm: a fleet pulls at once, and each byte leaves upstream once."""

from __future__ import annotations

import pytest

from tests.e2e.checks import ONE_COPY, REQUESTS_PER_BLOB, assert_pulled, copies, direct_bytes, one_layer
from tests.lab import Layer, Plan, Warehouse, reference, wait_until
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

DUPLICATES = 1.01  # bytes received by all nodes over what they needed


def test_eight_nodes_take_each_byte_from_upstream_once(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("fanout/eight", [Layer(28_000_000, 101), Layer(18_000_000, 102), Layer(9_000_000, 103)])
    lab = make_lab(Plan(nodes=8, rate=20e6))
    pulls = lab.pull_all(reference("fanout/eight"))
    assert_pulled(lab, image, pulls)
    assert copies(lab, image) <= ONE_COPY
    traffic = lab.front.traffic()
    assert direct_bytes(lab) == 0
    requests = traffic.requests_by_name(blob.digest for blob in image.blobs)
    assert max(requests.values()) <= REQUESTS_PER_BLOB, requests
    assert traffic.requests(kind="tag", method="GET") == 0  # Docker Hub counts them, HEADs it does not
    received = sum(lab.received("upstream").values()) + sum(lab.received("peer").values())
    assert 8 * image.size * 0.99 <= received <= 8 * image.size * DUPLICATES
    assert image.size * 0.99 <= sum(lab.received("upstream").values()) <= traffic.body_bytes(client="p2pd")


def test_the_first_piece_reaches_another_node_before_the_seeder_has_a_tenth(
    warehouse: Warehouse, make_lab: MakeLab
) -> None:
    image = warehouse.image("fanout/first", one_layer(111, 40_000_000))
    layer = image.biggest
    lab = make_lab(Plan(nodes=3, rate=8e6))
    pulls = [machine.start_pull(reference("fanout/first"), unpack=False) for machine in lab.machines]
    wait_until(lambda: max(lab.received("peer").values()) >= 256 * 1024, "a piece at a second node")
    assert lab.front.traffic().body_bytes(name=layer.digest) < layer.size / 10
    assert_pulled(lab, image, lab.wait_all(pulls))


def test_what_the_fleet_has_is_not_asked_of_upstream_again(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("fanout/again", one_layer(121))
    lab = make_lab(Plan(nodes=3, rate=40e6))
    early, late = lab.machines[:2], lab.machines[2:]
    assert_pulled(lab, image, lab.pull_all(reference("fanout/again"), early), early)
    lab.front.reset()
    assert_pulled(lab, image, lab.pull_all(reference("fanout/again"), late))
    early[0].containerd.reset()
    assert_pulled(lab, image, [early[0].pull(reference("fanout/again"))])
    assert copies(lab, image) == 0
    assert lab.front.traffic().requests(client="containerd") == 0


def test_a_node_alone_is_a_cache(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("fanout/alone", [Layer(6_000_000, 131), Layer(5_000_000, 132, compress=True)])
    lab = make_lab(Plan(nodes=1, trackers=0, tls=False, settings={"peers": {"insecure": False}}))
    (machine,) = lab.machines
    assert_pulled(lab, image, [machine.pull(reference("fanout/alone"))])
    assert copies(lab, image) <= ONE_COPY
    lab.front.reset()
    machine.node.stop()
    machine.node.restart()
    machine.containerd.reset()
    assert_pulled(lab, image, [machine.pull(reference("fanout/alone"))])
    assert copies(lab, image) == 0
