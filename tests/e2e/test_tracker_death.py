"""Trackers die and come back in the middle of a blob: pulls go on, and nobody storms upstream."""

from __future__ import annotations

import pytest

from tests.e2e.checks import ONE_COPY, ONE_COPY_AND_A_DEATH, assert_pulled, copies, one_layer
from tests.lab import Lab, Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e


def start_and_wait_for_half(lab: Lab, repository: str, digest: str, size: int) -> None:
    for machine in lab.machines:
        machine.start_pull(reference(repository))
    lab.front.wait_for_bytes(digest, size // 2)


@pytest.mark.parametrize(
    ("trackers", "victims"), [(1, [0]), (2, [0]), (2, [1]), (2, [0, 1])], ids=["only", "first", "second", "both"]
)
def test_killed_in_mid_blob(warehouse: Warehouse, make_lab: MakeLab, trackers: int, victims: list[int]) -> None:
    image = warehouse.image("tracker-death/blob", one_layer(301))
    lab = make_lab(Plan(nodes=4, trackers=trackers, rate=8e6))
    start_and_wait_for_half(lab, "tracker-death/blob", image.biggest.digest, image.biggest.size)
    for place in victims:
        lab.trackers[place].kill9()
    pulls = lab.wait_all([machine.pulling for machine in lab.machines if machine.pulling])
    assert_pulled(lab, image, pulls)
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


def test_killed_and_started_again(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("tracker-death/blob", one_layer(301))
    later = warehouse.image("tracker-death/later", one_layer(302))
    lab = make_lab(Plan(nodes=4, rate=8e6))
    start_and_wait_for_half(lab, "tracker-death/blob", image.biggest.digest, image.biggest.size)
    lab.trackers[0].kill9()
    lab.trackers[0].start()
    pulls = lab.wait_all([machine.pulling for machine in lab.machines if machine.pulling])
    assert_pulled(lab, image, pulls)
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH
    lab.front.set_rate(20e6)
    assert_pulled(lab, later, lab.pull_all(reference("tracker-death/later")))
    assert copies(lab, later) <= ONE_COPY


def test_a_new_pull_while_the_only_tracker_is_gone(warehouse: Warehouse, make_lab: MakeLab) -> None:
    """The nodes know each other from before, and one of them pulls."""
    first = warehouse.image("tracker-death/small", one_layer(303, 3_000_000))
    image = warehouse.image("tracker-death/blob", one_layer(301))
    lab = make_lab(Plan(nodes=4, rate=20e6))
    assert_pulled(lab, first, lab.pull_all(reference("tracker-death/small")))
    lab.trackers[0].kill9()
    assert_pulled(lab, image, lab.pull_all(reference("tracker-death/blob")))
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


@pytest.mark.parametrize("trackers", [1, 2], ids=["only", "first"])
def test_its_machine_loses_the_network(warehouse: Warehouse, make_lab: MakeLab, trackers: int) -> None:
    """Its connections look alive for 20 s, which is longer than these clients wait before they go upstream."""
    first = warehouse.image("tracker-death/small", one_layer(303, 3_000_000))
    image = warehouse.image("tracker-death/blob", one_layer(301))
    waits = {"mirror": {"header_wait": "16s"}}
    lab = make_lab(Plan(nodes=3, trackers=trackers, rate=20e6, namespaces=True, settings=waits))
    assert_pulled(lab, first, lab.pull_all(reference("tracker-death/small")))
    lab.cut_off(lab.trackers[:1])
    assert_pulled(lab, image, lab.pull_all(reference("tracker-death/blob")))
    assert copies(lab, image) <= ONE_COPY


def test_the_tracker_and_the_seeder_at_once(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("tracker-death/blob", one_layer(301))
    lab = make_lab(Plan(nodes=4, rate=8e6))
    start_and_wait_for_half(lab, "tracker-death/blob", image.biggest.digest, image.biggest.size)
    lab.trackers[0].kill9()
    seeder = lab.seeder()
    seeder.crash()
    others = [machine for machine in lab.machines if machine is not seeder]
    pulls = lab.wait_all([machine.pulling for machine in others if machine.pulling])
    assert_pulled(lab, image, pulls, others)
    assert copies(lab, image) <= 2 * (ONE_COPY_AND_A_DEATH - 1) + 1
