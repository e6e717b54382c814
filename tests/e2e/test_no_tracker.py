"""No tracker at all: nodes in network namespaces find each other by mDNS and keep the directory themselves."""

from __future__ import annotations

import pytest

from tests.e2e.checks import ONE_COPY, ONE_COPY_AND_A_DEATH, assert_pulled, copies, one_layer
from tests.lab import Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e


def test_eight_nodes_that_start_at_the_same_moment_take_one_copy(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("no-tracker/blob", one_layer(401))
    lab = make_lab(Plan(nodes=8, trackers=0, mdns=True, namespaces=True, rate=10e6))
    assert_pulled(lab, image, lab.pull_all(reference("no-tracker/blob"), unpack=False))
    assert copies(lab, image) <= ONE_COPY


def test_the_seeder_dies(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("no-tracker/blob", one_layer(401))
    lab = make_lab(Plan(nodes=5, trackers=0, mdns=True, namespaces=True, rate=6e6))
    for machine in lab.machines:
        machine.start_pull(reference("no-tracker/blob"), unpack=False)
    lab.front.wait_for_bytes(image.biggest.digest, image.biggest.size // 2)
    seeder = lab.seeder()
    seeder.crash()
    others = [machine for machine in lab.machines if machine is not seeder]
    pulls = lab.wait_all([machine.pulling for machine in others if machine.pulling])
    assert_pulled(lab, image, pulls, others)
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


def test_most_nodes_lose_their_network(warehouse: Warehouse, make_lab: MakeLab) -> None:
    """Their connections still look alive, and mDNS shows them for minutes: the others are not to wait for either."""
    before = warehouse.image("no-tracker/before", one_layer(403, 5_000_000))
    image = warehouse.image("no-tracker/blob", one_layer(401))
    waits = {"mirror": {"header_wait": "12s"}}  # who waited for longer would go upstream by itself
    lab = make_lab(Plan(nodes=9, trackers=0, mdns=True, namespaces=True, rate=10e6, settings=waits))
    assert_pulled(lab, before, lab.pull_all(reference("no-tracker/before"), unpack=False))
    left, dark = lab.machines[:3], lab.machines[3:]
    lab.cut_off(dark)
    assert_pulled(lab, image, lab.pull_all(reference("no-tracker/blob"), left, unpack=False), left)
    assert copies(lab, image) <= ONE_COPY


def test_a_node_that_knows_nobody_pulls_alone(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("no-tracker/alone", one_layer(402, 5_000_000))
    lab = make_lab(Plan(nodes=1, trackers=0, mdns=True, namespaces=True))
    assert_pulled(lab, image, lab.pull_all(reference("no-tracker/alone")))
    assert copies(lab, image) <= ONE_COPY
