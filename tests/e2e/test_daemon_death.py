"""p2pd itself ends in the middle of a blob: containerd goes on upstream at that byte."""

from __future__ import annotations

import pytest

from tests.e2e.checks import ONE_COPY, assert_pulled, copies, one_layer
from tests.lab import Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("how", ["kill9", "stop"])
def test_ctr_ends_the_pull_from_upstream(warehouse: Warehouse, make_lab: MakeLab, how: str) -> None:
    image = warehouse.image("daemon-death/blob", one_layer(701))
    layer = image.biggest
    lab = make_lab(Plan(nodes=1, rate=8e6))
    (machine,) = lab.machines
    pull = machine.start_pull(reference("daemon-death/blob"))
    lab.front.wait_for_bytes(layer.digest, layer.size // 2)
    getattr(machine.node, how)()
    assert_pulled(lab, image, [pull.wait()])
    own = lab.front.traffic().select(name=layer.digest, client="containerd")
    assert own, "containerd asked upstream for nothing: p2pd was not killed in mid-blob"
    assert all(entry.range for entry in own), "containerd began anew instead of going on"
    assert sum(entry.body_bytes for entry in own) < 0.8 * layer.size


def test_without_p2pd_a_pull_is_as_if_it_had_never_been_there(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("daemon-death/small", one_layer(702, 3_000_000))
    lab = make_lab(Plan(nodes=1))
    (machine,) = lab.machines
    machine.node.stop()
    assert_pulled(lab, image, [machine.pull(reference("daemon-death/small"))])
    assert lab.front.traffic().body_bytes(client="containerd") == image.size


def test_a_node_killed_and_started_again_serves_its_waiting_client(warehouse: Warehouse, make_lab: MakeLab) -> None:
    """Only p2pd dies; its client goes on with whoever answers, and the restarted node still ends well for the next."""
    image = warehouse.image("daemon-death/blob", one_layer(701))
    lab = make_lab(Plan(nodes=2, rate=8e6))
    pulls = [machine.start_pull(reference("daemon-death/blob")) for machine in lab.machines]
    lab.front.wait_for_bytes(image.biggest.digest, image.biggest.size // 3)
    victim = lab.machines[0]
    victim.node.kill9()
    victim.node.restart()
    assert_pulled(lab, image, lab.wait_all(pulls))
    so_far = copies(lab, image)
    victim.containerd.reset()
    assert_pulled(lab, image, [victim.pull(reference("daemon-death/blob"))])
    assert copies(lab, image) - so_far <= ONE_COPY - 1, "the other node has all of it"
