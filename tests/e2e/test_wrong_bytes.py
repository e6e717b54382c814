"""Upstream sends a wrong byte: nobody finishes that blob, nothing that rests on it stays, a healed upstream heals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.checks import SHORT_WAITS, assert_pulled, one_layer
from tests.lab import Answer, Lab, Machine, Plan, Warehouse, reference, wait_until
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

DROPPED_WITHIN_S = 8.0
SMALL_CHANGE = 1_000_000  # manifests and configs


def get_from_all(lab: Lab, repository: str, digest: str) -> list[Answer]:
    """The blob asked of every node's mirror at once, by clients that have nowhere else to go."""
    path = f"/v2/{repository}/blobs/{digest}?ns=registry.test%3A5000"

    def get(machine: Machine) -> Answer:
        return machine.node.mirror(path, timeout_s=40.0)

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        return list(pool.map(get, lab.machines))


def test_nobody_finishes_the_blob_and_no_held_back_client_gets_a_byte(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("wrong-bytes/blob", one_layer(601))
    layer = image.biggest
    lab = make_lab(Plan(nodes=4, rate=20e6, settings=SHORT_WAITS))
    lab.front.add_rule(name=layer.digest, flip_at=layer.size // 2)
    answers = get_from_all(lab, "wrong-bytes/blob", layer.digest)
    assert lab.front.traffic().body_bytes(name=layer.digest, client="p2pd") >= layer.size // 2
    for machine, answer in zip(lab.machines, answers, strict=True):
        assert not (answer.status == 200 and answer.whole), f"{machine.name} gave out a whole wrong blob"
        if answer.status == 200 and answer.body:  # only a seeder's own client sees what upstream sends
            assert machine.node.metrics().received("upstream") >= len(answer.body)
    seeders = [name for name, count in lab.received("upstream").items() if count > SMALL_CHANGE]
    assert len([answer for answer in answers if answer.status == 200 and answer.body]) <= len(seeders)


def test_every_node_drops_what_rests_on_it_and_a_healed_upstream_heals(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("wrong-bytes/blob", one_layer(601))
    layer = image.biggest
    lab = make_lab(Plan(nodes=4, rate=20e6, settings=SHORT_WAITS))
    lab.front.add_rule(name=layer.digest, flip_at=layer.size - 1)
    pulls = lab.pull_all(reference("wrong-bytes/blob"))
    assert [pull.ok for pull in pulls] == [False] * 4
    assert lab.front.traffic().body_bytes(name=layer.digest, client="p2pd") >= layer.size
    wait_until(
        lambda: all(m.node.metrics().total("p2pd_store_bytes") < SMALL_CHANGE for m in lab.machines),
        "all nodes to drop the wrong blob",
        DROPPED_WITHIN_S,
    )
    lab.front.clear_rules()
    for machine in lab.machines:  # what containerd itself keeps of a wrong blob is its own garbage collector's matter
        machine.containerd.reset()
    assert_pulled(lab, image, lab.pull_all(reference("wrong-bytes/blob")))


def test_a_blob_that_healed_in_between_is_pulled_within_the_same_request(
    warehouse: Warehouse, make_lab: MakeLab
) -> None:
    image = warehouse.image("wrong-bytes/blob", one_layer(601))
    layer = image.biggest
    lab = make_lab(Plan(nodes=4, rate=30e6))
    lab.front.add_rule(name=layer.digest, flip_at=layer.size // 2, times=1)
    answers = get_from_all(lab, "wrong-bytes/blob", layer.digest)
    true = layer.path.read_bytes()
    whole = [answer for answer in answers if answer.status == 200 and answer.whole]
    assert len(whole) >= len(lab.machines) - 1  # all but the first seeder's own client
    assert all(answer.body == true for answer in whole)
