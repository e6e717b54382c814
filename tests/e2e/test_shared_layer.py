"""Two images of two repositories share a layer: it travels once."""

from __future__ import annotations

import pytest

from tests.e2e.checks import HUNDRED_PIECES, ONE_COPY, assert_pulled
from tests.lab import Layer, Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

SHARED = Layer(HUNDRED_PIECES, 901)


@pytest.mark.parametrize("together", [False, True], ids=["one-after-the-other", "at-once"])
def test_the_layer_travels_once(warehouse: Warehouse, make_lab: MakeLab, together: bool) -> None:
    one = warehouse.image("shared/one", [SHARED, Layer(2_000_000, 902)])
    two = warehouse.image("shared/two", [SHARED, Layer(3_000_000, 903)])
    shared = one.biggest
    assert shared.digest == two.biggest.digest
    lab = make_lab(Plan(nodes=4, rate=12e6))
    first, second = lab.machines[:2], lab.machines[2:]
    if together:
        pulls = [machine.start_pull(reference("shared/one")) for machine in first]
        pulls += [machine.start_pull(reference("shared/two")) for machine in second]
        done = lab.wait_all(pulls)
    else:
        done = lab.pull_all(reference("shared/one"), first) + lab.pull_all(reference("shared/two"), second)
    assert_pulled(lab, one, done[:2], first)
    assert_pulled(lab, two, done[2:], second)
    assert lab.front.traffic().body_bytes(name=shared.digest) <= ONE_COPY * shared.size
