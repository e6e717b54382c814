"""The disk under p2pd's state directory is full: pulls end all the same, and what was proven stays."""

from __future__ import annotations

import pytest

from tests.e2e.checks import assert_pulled, copies, one_layer
from tests.lab import Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

DISK = 12_000_000


def test_alone(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("disk-full/blob", one_layer(801))
    lab = make_lab(Plan(nodes=1, trackers=0, small_disks={"node1": DISK}))
    assert_pulled(lab, image, lab.pull_all(reference("disk-full/blob"), timeout_s=60))
    assert lab.machines[0].node.admin("/readyz").status == 200


def test_one_of_four(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("disk-full/blob", one_layer(801))
    lab = make_lab(Plan(nodes=4, rate=15e6, small_disks={"node1": DISK}))
    assert_pulled(lab, image, lab.pull_all(reference("disk-full/blob"), timeout_s=60))
    assert copies(lab, image) <= 2.05  # the fleet's one, and at most one more for the node that can't keep it
    assert all(machine.node.process.running for machine in lab.machines)


def test_what_was_proven_before_is_still_there_after(warehouse: Warehouse, make_lab: MakeLab) -> None:
    small = warehouse.image("disk-full/small", one_layer(802, 4_000_000))
    image = warehouse.image("disk-full/blob", one_layer(801))
    lab = make_lab(Plan(nodes=1, trackers=0, small_disks={"node1": DISK}))
    (machine,) = lab.machines
    assert_pulled(lab, small, [machine.pull(reference("disk-full/small"))])
    assert_pulled(lab, image, [machine.pull(reference("disk-full/blob"), timeout_s=60)])
    machine.node.kill9()
    machine.node.restart()
    machine.containerd.reset()
    lab.front.reset()
    assert_pulled(lab, small, [machine.pull(reference("disk-full/small"))])
    assert copies(lab, small) == 0
