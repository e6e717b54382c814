"""skopeo, which names upstream in the path and has no way around a mirror once it has the manifest from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.checks import ONE_COPY, ONE_COPY_AND_A_DEATH, assert_pulled, copies, one_layer
from tests.lab import REGISTRY_NAME_PLAIN, Image, Layer, Machine, Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab
from tests.lab.process import environment

pytestmark = pytest.mark.e2e

TIMEOUT_S = 60


def start_skopeo(machine: Machine, repository: str, target: Path) -> subprocess.Popen[bytes]:
    source = f"docker://127.0.0.1:{machine.node.mirror_port}/{REGISTRY_NAME_PLAIN}/{repository}:latest"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]
    return subprocess.Popen([*command, source, f"dir:{target}"], stderr=subprocess.PIPE, env=environment())


def assert_copied(process: subprocess.Popen[bytes], image: Image, target: Path) -> None:
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors.decode()
    for blob in image.blobs[1:]:
        copied = target / blob.digest.removeprefix("sha256:")
        assert copied.read_bytes() == blob.path.read_bytes()
    assert (target / "manifest.json").read_bytes() == image.manifest.path.read_bytes()


def test_the_path_form(warehouse: Warehouse, make_lab: MakeLab, tmp_path: Path) -> None:
    image = warehouse.image("skopeo/two", [Layer(4_000_000, 1001), Layer(3_000_000, 1002, compress=True)])
    lab = make_lab(Plan(nodes=2))
    for machine in lab.machines:
        assert_copied(start_skopeo(machine, "skopeo/two", tmp_path / machine.name), image, tmp_path / machine.name)
    assert copies(lab, image) <= ONE_COPY


def test_its_pull_ends_while_the_seeder_dies(warehouse: Warehouse, make_lab: MakeLab, tmp_path: Path) -> None:
    """The nodes pull by containerd, one of them by skopeo; the lease's holder is killed, with its client."""
    image = warehouse.image("skopeo/blob", one_layer(1003))
    lab = make_lab(Plan(nodes=4, rate=8e6))
    *others, last = lab.machines
    for machine in others:
        machine.start_pull(reference("skopeo/blob"))
    seeder = lab.seeder()
    process = start_skopeo(last, "skopeo/blob", tmp_path / "copy")
    lab.front.wait_for_bytes(image.biggest.digest, image.biggest.size // 2)
    assert seeder is not last
    seeder.crash()
    assert_copied(process, image, tmp_path / "copy")
    alive = [machine for machine in others if machine is not seeder]
    assert_pulled(lab, image, lab.wait_all([machine.pulling for machine in alive if machine.pulling]), alive)
    assert copies(lab, image) <= ONE_COPY_AND_A_DEATH


def test_its_pull_ends_when_every_other_node_dies(warehouse: Warehouse, make_lab: MakeLab, tmp_path: Path) -> None:
    """Nobody is left to get it from, so the node pulls what is missing itself."""
    image = warehouse.image("skopeo/blob", one_layer(1003))
    lab = make_lab(Plan(nodes=2, rate=8e6))
    first, last = lab.machines
    first.start_pull(reference("skopeo/blob"))
    assert lab.seeder() is first
    process = start_skopeo(last, "skopeo/blob", tmp_path / "copy")
    lab.front.wait_for_bytes(image.biggest.digest, image.biggest.size // 2)
    first.crash()
    lab.trackers[0].kill9()
    assert_copied(process, image, tmp_path / "copy")
