"""Every kind of manifest that registries hold, through containerd: OCI and Docker, images and indexes, by digest."""

from __future__ import annotations

import http.client

import pytest

from tests.e2e.checks import ONE_COPY, assert_pulled, copies
from tests.lab import REGISTRY_NAME, Blob, Image, Lab, Layer, Plan, Warehouse, reference
from tests.lab.fixtures import MakeLab

pytestmark = pytest.mark.e2e

LAYERS = [Layer(3_000_000, 1101, compress=True), Layer(2_000_000, 1102, compress=True)]
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def media_type_upstream(lab: Lab, repository: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", lab.front.port, timeout=10)
    accept = f"{DOCKER_MANIFEST}, {DOCKER_LIST}, application/vnd.oci.image.manifest.v1+json"
    connection.request("HEAD", f"/v2/{repository}/manifests/latest", headers={"Accept": accept})
    with connection.getresponse() as answer:
        media_type = answer.headers["Content-Type"]
    connection.close()
    return media_type


def assert_layers_everywhere(lab: Lab, blobs: list[Blob]) -> None:
    for machine in lab.machines:
        assert [blob.digest for blob in blobs if not machine.containerd.has(blob)] == [], machine.name


def test_dockers_manifest(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image = warehouse.image("kinds/docker", LAYERS, manifest_type="v2s2")
    lab = make_lab(Plan(nodes=2))
    assert media_type_upstream(lab, "kinds/docker") == DOCKER_MANIFEST
    pulls = lab.pull_all(reference("kinds/docker"))
    assert all(pull.ok for pull in pulls), pulls
    assert_layers_everywhere(lab, list(image.layers))
    assert lab.front.traffic().requests(client="containerd") == 0


def test_an_index_of_two_platforms_moves_only_what_is_wanted(warehouse: Warehouse, make_lab: MakeLab) -> None:
    top, image = warehouse.index("kinds/index", {"amd64": LAYERS, "arm64": [Layer(2_500_000, 1103)]})
    lab = make_lab(Plan(nodes=2))
    assert_pulled(lab, image, lab.pull_all(reference("kinds/index")))
    assert image.blobs[0] == top
    assert copies(lab, image) <= ONE_COPY
    assert lab.front.traffic().body_bytes() < image.size * ONE_COPY + 100_000  # no layer of the other platform
    assert lab.front.traffic().requests(client="containerd") == 0


def test_a_reference_by_digest(warehouse: Warehouse, make_lab: MakeLab) -> None:
    image: Image = warehouse.image("kinds/digest", LAYERS)
    lab = make_lab(Plan(nodes=2))
    assert_pulled(lab, image, lab.pull_all(f"{REGISTRY_NAME}/kinds/digest@{image.manifest.digest}"))
    assert lab.front.traffic().requests(kind="tag") == 0
    assert lab.front.traffic().requests(client="containerd") == 0
    assert copies(lab, image) <= ONE_COPY


def test_a_repository_that_is_not_there(make_lab: MakeLab) -> None:
    lab = make_lab(Plan(nodes=1))
    pull = lab.machines[0].pull(reference("kinds/nothing"))
    assert not pull.ok
    assert "not found" in pull.errors
    assert pull.seconds < 10
