"""One node of the fleet means harm. The others' pulls end right, upstream is asked for little more than one copy."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.checks import one_layer
from tests.e2e.hostile import NAME
from tests.lab import Answer, Lab, Machine, Plan, Process, Warehouse
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
COPIES_MAX = 1.1  # what the liar brought to nothing is pulled again
SECONDS_MAX = 40.0  # of a pull; a client waits 20 s for the first byte
REPOSITORY = "bad-peer/blob"

# What is done to each node at once; the others wait to be asked for something.
WHEN_THEY_MEET = {"unasked", "forged-signature", "false-chain", "false-answer", "false-grant", "stolen-lease"}

# What the honest nodes say of it, where they can know.
NAMED = {
    "flips": "a piece that does not fit its link",
    "garbage": "broke the protocol",
    "huge": "broke the protocol",
    "unasked": "broke the protocol",
    "forged-signature": "a voucher whose signature is wrong",
}


@contextlib.contextmanager
def hostile(lab: Lab, harm: str, file: Path) -> Iterator[Process]:
    """The hostile node, known to the tracker."""
    process = Process(
        NAME,
        [
            sys.executable,
            "-m",
            "tests.e2e.hostile",
            "--tracker",
            lab.trackers[0].address,
            "--harm",
            harm,
            "--file",
            file,
        ],
        lab.directory / "hostile.log",
        env={"PYTHONPATH": str(ROOT)},
    )
    process.start()
    try:
        process.wait_ready(lambda: "ready" in process.tail())
        yield process
    finally:
        process.stop()


def get_from_all(lab: Lab, digest: str) -> list[Answer]:
    """The blob asked of every honest node's mirror at once."""

    def get(machine: Machine) -> Answer:
        path = f"/v2/{REPOSITORY}/blobs/{digest}?ns=registry.test%3A5000"
        return machine.node.mirror(path, timeout_s=SECONDS_MAX)

    with ThreadPoolExecutor(len(lab.machines)) as pool:
        return list(pool.map(get, lab.machines))


def logs(lab: Lab) -> str:
    return "\n".join(machine.node.process.log.read_text(errors="replace") for machine in lab.machines)


@pytest.mark.parametrize(
    "harm",
    [
        "flips",
        "garbage",
        "huge",
        "silence",
        "stops-short",
        "reads-nothing",
        "unasked",
        "forged-signature",
        "false-answer",
        "false-grant",
        "stolen-lease",
    ],
)
def test_the_others_get_the_blob(warehouse: Warehouse, make_lab: MakeLab, harm: str) -> None:
    image = warehouse.image(REPOSITORY, one_layer(901))
    layer = image.biggest
    lab = make_lab(Plan(nodes=3, rate=15e6, containerd=False, tls=False))  # the hostile node speaks the wire by hand
    with hostile(lab, harm, layer.path) as process:
        answers = get_from_all(lab, layer.digest)
        assert process.running, process.tail()
        assert ("met" if harm in WHEN_THEY_MEET else "harm done") in process.tail()
    wrong = [
        a.status for a in answers if a.status != 200 or f"sha256:{hashlib.sha256(a.body).hexdigest()}" != layer.digest
    ]
    assert wrong == []
    assert all(machine.node.process.running for machine in lab.machines)
    assert lab.front.traffic().body_bytes(name=layer.digest) <= COPIES_MAX * layer.size
    if harm in NAMED:
        said = [line for line in logs(lab).splitlines() if NAMED[harm] in line and NAME in line]
        assert said, f"nobody says of {NAME}: {NAMED[harm]}"
        assert len(said) <= 3 * len(lab.machines)  # once it is known, it is avoided
    if harm in ("flips", "forged-signature"):
        assert sum(m.node.metrics().total("p2pd_pieces_rejected_total") for m in lab.machines) >= 1
