"""The lab's containerd is the real one: it pulls, checks, falls back past a dead mirror and forgets on demand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.containerd import Containerd, write_hosts
from tests.lab.images import Layer
from tests.lab.lab import REGISTRY_NAME, reference
from tests.lab.process import free_port
from tests.lab.registry import Registry
from tests.lab.upstream import Front
from tests.lab.warehouse import Warehouse

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def front(warehouse: Warehouse) -> Iterator[Front]:
    directory = warehouse.lab_directory()
    with Registry(directory / "r", warehouse.storage) as registry, Front(directory / "f", registry.address) as running:
        yield running


@pytest.fixture
def containerd(warehouse: Warehouse) -> Iterator[Containerd]:
    with Containerd(warehouse.lab_directory()) as running:
        yield running


def test_a_pull_is_byte_for_byte_what_was_built_and_past_a_dead_mirror(
    warehouse: Warehouse, front: Front, containerd: Containerd, tmp_path: Path
) -> None:
    image = warehouse.image("lab/two", [Layer(2_000_000, 21), Layer(1_000_000, 22, compress=True)])
    write_hosts(tmp_path, REGISTRY_NAME, front.url, [f"http://127.0.0.1:{free_port()}"])
    front.reset()
    assert containerd.lacks(image) == [blob.digest for blob in image.blobs]
    pull = containerd.pull(reference("lab/two"), tmp_path)
    assert pull.ok, pull.errors
    assert containerd.lacks(image) == []
    assert front.traffic().body_bytes(client="containerd") == image.size
    containerd.reset()
    assert containerd.lacks(image) == [blob.digest for blob in image.blobs]


def test_wrong_bytes_fail_the_pull_and_stay_in_the_ingest(
    warehouse: Warehouse, front: Front, containerd: Containerd, tmp_path: Path
) -> None:
    image = warehouse.image("lab/wrong", [Layer(2_000_000, 23)])
    write_hosts(tmp_path, REGISTRY_NAME, front.url, [])
    layer = image.layers[0]
    number = front.add_rule(name=layer.digest, flip_at=1_500_000)
    pull = containerd.pull(reference("lab/wrong"), tmp_path)
    front.clear_rules(number)
    assert not pull.ok
    assert "unexpected commit digest" in pull.errors
    assert containerd.lacks(image) == [layer.digest]
    assert containerd.ingested(layer.digest) == layer.size


def test_a_pull_that_hangs_is_ended_and_says_so(
    warehouse: Warehouse, front: Front, containerd: Containerd, tmp_path: Path
) -> None:
    image = warehouse.image("lab/hang", [Layer(2_000_000, 24)])
    write_hosts(tmp_path, REGISTRY_NAME, front.url, [])
    front.add_rule(name=image.layers[0].digest, stall_after=1_000_000)
    pull = containerd.pull(reference("lab/hang"), tmp_path, timeout_s=1.0)
    front.clear_rules()
    assert not pull.ok
    assert "still ran" in pull.errors
