"""The node that pulls from upstream dies, with its client, in the middle of a blob."""

from __future__ import annotations

import time

import pytest

from tests.e2e.checks import ONE_COPY_AND_A_DEATH, assert_pulled, copies, one_layer
from tests.lab import Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

RECORDED_WITHIN_S = 6.0  # checked pieces are recorded at least every 5 s; one more for the disk


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7])
def test_the_others_end_and_upstream_sends_no_second_copy(warehouse: Warehouse, make_lab: MakeLab, part: float) -> None:
    image = warehouse.image("seeder-death/blob", one_layer(201, 40_000_000))
    lab = make_lab(Plan(nodes=4, rate=10e6))
    for machine in lab.machines:
        machine.start_pull(reference("seeder-death/blob"))
    lab.front.wait_for_bytes(image.biggest.digest, int(part * image.biggest.size))
    seeder = lab.seeder()
    seeder.crash()
    others = [machine for machine in lab.machines if machine is not seeder]
    pulls = lab.wait_all([machine.pulling for machine in others if machine.pulling])
    assert_pulled(lab, image, pulls, others)
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


def test_the_killed_node_goes_on_with_what_it_had(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("seeder-death/blob", one_layer(201, 40_000_000))
    layer = image.biggest
    lab = make_lab(Plan(nodes=3, rate=4e6))
    for machine in lab.machines:
        machine.start_pull(reference("seeder-death/blob"))
    lab.front.wait_for_bytes(layer.digest, int(0.2 * layer.size))
    recorded = lab.front.traffic().body_bytes(name=layer.digest)
    time.sleep(RECORDED_WITHIN_S)
    seeder = lab.seeder()
    seeder.crash()
    assert lab.front.traffic().body_bytes(name=layer.digest) < 0.9 * layer.size, "too late for a kill in mid-blob"
    lab.front.set_rate(20e6)
    seeder.node.restart()
    seeder.start_pull(reference("seeder-death/blob"))
    assert_pulled(lab, image, lab.wait_all([machine.pulling for machine in lab.machines if machine.pulling]))
    after = seeder.node.metrics()
    assert after.received("upstream") + after.received("peer") <= image.size - 0.95 * recorded
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


def test_two_seeders_in_a_row(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("seeder-death/blob", one_layer(201, 40_000_000))
    lab = make_lab(Plan(nodes=5, rate=8e6))
    for machine in lab.machines:
        machine.start_pull(reference("seeder-death/blob"))
    alive = list(lab.machines)
    for part in (0.3, 0.7):
        lab.front.wait_for_bytes(image.biggest.digest, int(part * image.biggest.size))
        seeder = lab.seeder()
        seeder.crash()
        alive.remove(seeder)
    pulls = lab.wait_all([machine.pulling for machine in alive if machine.pulling])
    assert_pulled(lab, image, pulls, alive)
    assert copies(lab, image) <= 2 * (ONE_COPY_AND_A_DEATH - 1) + 1
