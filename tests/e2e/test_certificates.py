"""A fleet with certificates, while it runs: a stranger stays outside, keys are renewed, one CA replaces another."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from simulations.lab.certificates import Certificates, Papers
from tests.e2e.checks import ONE_COPY, one_layer
from tests.lab import REGISTRY_NAME, Answer, Blob, Node, Plan, Tracker, Warehouse, wait_until
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

REPOSITORY = "certificates/blob"
RENEWED_S = 20.0  # two looks at the files, on a busy machine

# The real programs, which look at the files more often than every 5 s: the test has three times to wait for that.
HURRIED = "from p2pd.fleet import membership; membership.LOOK_S = 0.3; from {} import main; main()"
NODE = (sys.executable, "-c", HURRIED.format("p2pd.cli"))
TRACKER = (sys.executable, "-c", HURRIED.format("tracker.cli"))


def get(node: Node, blob: Blob) -> Answer:
    return node.mirror(f"/v2/{REPOSITORY}/blobs/{blob.digest}?ns={REGISTRY_NAME.replace(':', '%3A')}", timeout_s=60)


def get_from_all(nodes: list[Node], blob: Blob) -> None:
    """All at once, and every byte is right."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        answers = list(pool.map(lambda node: get(node, blob), nodes))
    found = [(a.status, f"sha256:{hashlib.sha256(a.body).hexdigest()}") for a in answers]
    assert found == [(200, blob.digest)] * len(nodes)


def put(papers: Papers, ca: bytes, new: Papers | None = None) -> None:
    """Over the files that a node reads, each at once, the certificate before its key."""
    parts = [(papers.ca, ca)]
    if new:
        parts += [(papers.certificate, new.certificate.read_bytes()), (papers.key, new.key.read_bytes())]
    for path, data in parts:
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        os.replace(beside, path)


def own(directory: Path, papers: Papers) -> Papers:
    """A copy that is one machine's own."""
    directory.mkdir()
    mine = Papers(directory / "ca.crt", directory / "node.crt", directory / "node.key")
    for here, there in zip(
        (papers.ca, papers.certificate, papers.key), (mine.ca, mine.certificate, mine.key), strict=True
    ):
        shutil.copy(here, there)
    return mine


def test_a_stranger_stays_outside(warehouse: Warehouse, make_lab: MakeLab) -> None:
    """A node of another fleet that was given this one's tracker. It mirrors for itself, and gets nothing from us."""
    blob = warehouse.image(REPOSITORY, one_layer(951)).biggest
    lab = make_lab(Plan(nodes=2, containerd=False))
    other = Certificates(lab.directory / "other")
    stranger = Node(
        lab.directory / "stranger",
        "stranger",
        upstreams={REGISTRY_NAME: lab.front.url},
        trackers=[lab.trackers[0].address],
        papers=other.issue("stranger"),
    )
    stranger.start()
    try:
        wait_until(lambda: refused(stranger, "foreign-certificate") > 0, "the tracker to be refused")
        nodes = [machine.node for machine in lab.machines]
        get_from_all(nodes, blob)
        assert lab.front.traffic().body_bytes(name=blob.digest) <= ONE_COPY * blob.size
        get_from_all([stranger], blob)
        assert stranger.metrics().received("peer") == 0
        assert lab.front.traffic().body_bytes(name=blob.digest) >= 2 * blob.size
        assert stranger.status()["peers"] == []
        assert "no CA of this fleet signed" in stranger.status()["trackers"][0]["state"]
        log = lab.trackers[0].process.log.read_text()
        assert log.count("refused 127.0.0.1: refuses this side: unknown ca") == 1  # told once, of many calls
    finally:
        stranger.stop()


def refused(node: Node, reason: str) -> float:
    return node.metrics().total("p2pd_handshakes_refused_total", reason=reason)


def authorities(node: Node) -> list[str]:
    return node.status()["certificate"]["authorities"]


def peers_of(node: Node) -> set[str]:
    return {peer["name"] for peer in node.status()["peers"]}


def test_one_ca_replaces_another_without_a_restart(warehouse: Warehouse, make_lab: MakeLab) -> None:
    """As the operations page says: trust both, new certificates (with new keys), trust the new one alone."""
    first, second, third = (warehouse.image(REPOSITORY, one_layer(seed)).biggest for seed in (961, 962, 963))
    lab = make_lab(Plan(nodes=0, trackers=0, containerd=False))
    assert lab.certificates
    tracker1 = Tracker(lab.directory, "tracker1", certificates=lab.certificates, program=TRACKER)
    old, new = lab.certificates, Certificates(lab.directory / "new")
    names = ["node1", "node2", "late"]
    papers = {name: own(lab.directory / f"papers-{name}", old.issue(name)) for name in names}
    nodes = {
        name: Node(
            lab.directory / name,
            name,
            upstreams={REGISTRY_NAME: lab.front.url},
            trackers=[tracker1.address],
            papers=papers[name],
            program=NODE,
        )
        for name in names
    }
    tracker = Papers(old.ca, old.directory / "tracker1.crt", old.directory / "tracker1.key")
    both = old.ca.read_bytes() + new.ca.read_bytes()
    only_new = new.ca.read_bytes()
    try:
        tracker1.start()
        for node in nodes.values():
            node.start()
        ids = {name: node.status()["node"]["id"] for name, node in nodes.items()}
        get_from_all(list(nodes.values()), first)

        for each in (*papers.values(), tracker):
            put(each, both)
        for node in nodes.values():
            wait_until(lambda node=node: len(authorities(node)) == 2, "both CAs to be trusted", RENEWED_S)
        for name in ("node1", "node2"):
            put(papers[name], both, new.issue(name))
        put(tracker, both, new.issue("tracker1", "127.0.0.1"))
        for name in ("node1", "node2"):
            wait_until(lambda name=name: nodes[name].status()["node"]["id"] != ids[name], "a new key", RENEWED_S)
        get_from_all(list(nodes.values()), second)
        assert lab.front.traffic().body_bytes(name=second.digest) <= ONE_COPY * second.size

        for each in (papers["node1"], papers["node2"], tracker):
            put(each, only_new)
        for name in ("node1", "node2"):
            wait_until(lambda name=name: len(authorities(nodes[name])) == 1, "the old CA to go", RENEWED_S)
            wait_until(lambda name=name: "late" not in peers_of(nodes[name]), "the late one to be cut off", RENEWED_S)
        wait_until(lambda: refused(nodes["late"], "refused-there") > 0, "the late one to be refused", RENEWED_S)
        get_from_all([nodes["node1"], nodes["node2"]], third)
        assert lab.front.traffic().body_bytes(name=third.digest) <= ONE_COPY * third.size
        assert nodes["late"].metrics().total("p2pd_certificate_remaining_seconds") > 0
        assert [node.process.running for node in nodes.values()] == [True] * 3
    finally:
        for node in nodes.values():
            node.stop()
        tracker1.stop()
