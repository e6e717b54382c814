"""The node that asks first, and so pulls from upstream, sends over a line of a tenth of the others'."""

from __future__ import annotations

import time

import pytest

from tests.e2e.checks import ONE_COPY_AND_A_DEATH, assert_pulled, copies, one_layer
from tests.lab import Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

LINK, SLOW = 20e6, 2e6  # bytes/s

# When the pull is cut, what upstream has sent into kernels' and the daemon's buffers is in vain: 1 to 16 MB were seen,
# however large the blob is.
SIZE = 400_000_000


def test_it_hands_the_lease_on(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("slow-holder/blob", one_layer(207, SIZE))
    lab = make_lab(Plan(nodes=4, namespaces=True, link=LINK, upstream_link=LINK, slow_uplinks={"node1": SLOW}))
    slow, *others = lab.machines
    slow.start_pull(reference("slow-holder/blob"))
    lab.front.wait_for_bytes(image.biggest.digest, 100_000)
    started = time.monotonic()
    for machine in others:
        machine.start_pull(reference("slow-holder/blob"))
    pulls = lab.wait_all([machine.pulling for machine in lab.machines if machine.pulling])
    took = time.monotonic() - started
    assert_pulled(lab, image, pulls)
    assert slow.node.metrics().total("p2pd_leases_handed_on_total") == 1
    assert [m.node.metrics().total("p2pd_leases_handed_on_total") for m in others] == [0] * 3
    assert took < image.size / SLOW / 2, f"{took:.1f} s; over the slow line alone it takes {image.size / SLOW:.0f} s"
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH
