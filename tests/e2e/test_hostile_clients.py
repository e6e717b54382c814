"""Everybody who means harm at once, with nothing wrong on the wire: an honest client's pulls end right all the same.

How much slower, measures `python -m tests.bench.hostile_clients`.
"""

from __future__ import annotations

import contextlib
import hashlib

import pytest

from tests.bench.attacks import ATTACKS
from tests.bench.hostile_clients import DESCRIPTORS_MAX, REPOSITORY, RESIDENT_MAX, attack, blob_path, observe
from tests.lab import Layer, Plan, Warehouse
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

WATCHED_S = 4.0
LAYERS = ((6_000_000, 981), (3_000_000, 982))  # the one that is fought over, and one that is pulled meanwhile


def test_an_honest_client_gets_what_it_asks(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image(REPOSITORY, [Layer(size, seed) for size, seed in LAYERS])
    lab = make_lab(Plan(nodes=2, containerd=False))
    victim, other = lab.machines
    known, new = (layer.digest for layer in sorted(image.layers, key=lambda layer: -layer.size))
    assert victim.node.mirror(blob_path(known)).status == 200
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(attack(lab, victim, name, known)) for name in ATTACKS]
        seen = observe(victim, known, WATCHED_S)
        pulled = [machine.node.mirror(blob_path(new), timeout_s=60) for machine in (victim, other)]
        assert all(process.running for process in attackers)
    assert [f"sha256:{hashlib.sha256(answer.body).hexdigest()}" for answer in pulled] == [new, new]
    assert seen.bytes > 0
    assert seen.resident <= RESIDENT_MAX
    assert seen.descriptors <= DESCRIPTORS_MAX
    assert victim.node.process.running
    assert lab.front.traffic().body_bytes(name=new) <= 1.1 * LAYERS[1][0]
