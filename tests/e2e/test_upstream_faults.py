"""Upstream misbehaves in every usual way: the swarm finishes where it can, and answers cleanly where it can't."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from tests.e2e.checks import (
    HUNDRED_PIECES,
    ONE_COPY,
    ONE_COPY_AND_A_DEATH,
    SHORT_WAITS,
    assert_pulled,
    copies,
    direct_bytes,
    one_layer,
)
from tests.lab import Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

HALF = HUNDRED_PIECES // 2
ANSWER_S = 6.0 + 6.0  # header_wait of SHORT_WAITS, and as much for ctr's own rounds


@dataclass(frozen=True)
class Fault:
    """Rules at the front for the layer, and the copies that upstream may send in spite of them."""

    name: str
    rules: tuple[dict[str, object], ...]
    copies_max: float = ONE_COPY_AND_A_DEATH


PASSING = (
    Fault("a cut by FIN", ({"cut_after": HALF, "times": 1},)),
    Fault("a cut by RST", ({"cut_after": HALF, "reset": True, "times": 1},)),
    Fault("a cut every 6 MB", ({"cut_after": 6_000_000},)),
    Fault("500 twice", ({"status": 500, "times": 2},)),
    Fault("503 in mid-blob", ({"cut_after": HALF, "times": 1}, {"status": 503, "times": 2})),
    Fault("429 twice", ({"status": 429, "retry_after": 1, "times": 2},)),
    Fault("a short body that looks whole", ({"truncate_to": HALF, "times": 1},)),
    Fault("no ranges after a cut", ({"cut_after": HALF, "times": 1}, {"ignore_range": True}), 1.55),
    Fault("a stall in mid-blob", ({"stall_after": HALF, "times": 1},)),
    Fault("slow headers", ({"latency": 3.0},), ONE_COPY),
)


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name.replace(" ", "-"))
def test_the_swarm_finishes_in_spite_of(warehouse: Warehouse, make_lab: MakeLab, fault: Fault) -> None:
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    lab = make_lab(Plan(nodes=4, rate=15e6))
    for rule in fault.rules:
        lab.front.add_rule(name=image.biggest.digest, **rule)
    pulls = lab.pull_all(reference("upstream-faults/blob"), timeout_s=60)
    assert_pulled(lab, image, pulls)
    assert copies(lab, image) <= fault.copies_max


def test_retry_after_holds_back_the_whole_fleet(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    digest = image.biggest.digest
    lab = make_lab(Plan(nodes=4, rate=30e6))
    lab.front.add_rule(name=digest, status=429, retry_after=3, times=1)
    assert_pulled(lab, image, lab.pull_all(reference("upstream-faults/blob")))
    refused, *others = lab.front.traffic().select(name=digest)
    assert refused.status == 429
    assert min(entry.started for entry in others) - refused.started >= 2.9


def test_a_slow_upstream_is_asked_once(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    lab = make_lab(Plan(nodes=4, rate=2.5e6))
    assert_pulled(lab, image, lab.pull_all(reference("upstream-faults/blob")))
    assert copies(lab, image) <= ONE_COPY
    assert direct_bytes(lab) == 0


def test_upstream_gone_for_seconds_in_mid_blob(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    lab = make_lab(Plan(nodes=4, rate=15e6))
    lab.front.add_rule(name=image.biggest.digest, cut_after=HALF, times=1)
    for machine in lab.machines:
        machine.start_pull(reference("upstream-faults/blob"))
    lab.front.wait_for_bytes(image.biggest.digest, HALF // 2)
    lab.front.refuse()
    lab.front.wait_for_bytes(image.biggest.digest, HALF)
    time.sleep(3)
    lab.front.refuse(False)
    assert_pulled(lab, image, lab.wait_all([machine.pulling for machine in lab.machines if machine.pulling]))
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


@pytest.mark.parametrize("status", [404, 500])
def test_what_upstream_never_gives_is_a_clean_failure(warehouse: Warehouse, make_lab: MakeLab, status: int) -> None:
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    lab = make_lab(Plan(nodes=3, settings=SHORT_WAITS))
    lab.front.add_rule(name=image.biggest.digest, status=status)
    pulls = lab.pull_all(reference("upstream-faults/blob"), timeout_s=60)
    assert [pull.ok for pull in pulls] == [False] * 3
    assert max(pull.seconds for pull in pulls) < ANSWER_S
    lab.front.clear_rules()
    assert_pulled(lab, image, lab.pull_all(reference("upstream-faults/blob")))


def test_what_only_containerd_may_have_it_fetches_itself(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    lab = make_lab(Plan(nodes=2, settings=SHORT_WAITS))
    lab.front.add_rule(name=image.biggest.digest, status=403, client="p2pd")
    pulls = lab.pull_all(reference("upstream-faults/blob"))
    assert_pulled(lab, image, pulls)
    assert max(pull.seconds for pull in pulls) < ANSWER_S
    assert lab.front.traffic().body_bytes(name=image.biggest.digest, client="containerd") == 2 * image.biggest.size


def test_a_silent_upstream_does_not_hang_a_request(warehouse: Warehouse, make_lab: MakeLab) -> None:
    """Not one byte ever: the mirror's answer is a 404 within header_wait, and no headers without bytes."""
    image = warehouse.image("upstream-faults/blob", one_layer(501))
    lab = make_lab(Plan(nodes=2, settings=SHORT_WAITS))
    lab.front.add_rule(name=image.biggest.digest, stall_after=0)
    path = f"/v2/upstream-faults/blob/blobs/{image.biggest.digest}?ns=registry.test%3A5000"
    started = time.monotonic()
    answer = lab.machines[0].node.mirror(path)
    assert answer.status == 404
    assert time.monotonic() - started < 6.0 + 1.5
