"""Layers have their size and stay the same; layouts are what umoci and the spec say they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.lab.images import Layer, build_image, build_index, build_layer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PD_LAB_CACHE", str(tmp_path / "cache"))


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("compress", [False, True])
def test_a_layer_has_about_its_size_and_its_own_digest(compress: bool) -> None:
    blob, diff_id = build_layer(Layer(3_000_000, seed=7, compress=compress))
    assert 2_800_000 < blob.size <= 3_000_000
    assert blob.size == blob.path.stat().st_size
    assert blob.digest == sha256(blob.path)
    plain = gzip.decompress(blob.path.read_bytes()) if compress else blob.path.read_bytes()
    assert diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with tarfile.open(blob.path) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)) > 3


def test_a_layer_of_the_same_spec_is_the_same_and_of_another_seed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = build_layer(Layer(1_000_000, seed=1))
    other, _ = build_layer(Layer(1_000_000, seed=2))
    monkeypatch.setenv("P2PD_LAB_CACHE", str(tmp_path / "elsewhere"))
    again, _ = build_layer(Layer(1_000_000, seed=1))
    assert one.digest == again.digest != other.digest
    assert one.path != again.path


def test_an_image_is_a_layout_that_umoci_reads_and_unpacks(tmp_path: Path) -> None:
    if shutil.which("umoci") is None:
        pytest.skip("needs umoci (`make apt`)")
    image = build_image(tmp_path / "layout", [Layer(400_000, 1), Layer(500_000, 2, compress=True)])
    bundle = tmp_path / "bundle"
    command = ["umoci", "unpack", "--rootless", "--image", f"{image.layout}:{image.tag}", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    assert any((bundle / "rootfs").rglob("*"))
    for blob in image.blobs:
        assert sha256(blob.path) == blob.digest


def test_an_index_names_one_manifest_for_each_platform(tmp_path: Path) -> None:
    top, image = build_index(tmp_path / "layout", {"amd64": [Layer(300_000, 1)], "arm64": [Layer(300_000, 2)]})
    entries = json.loads(top.path.read_bytes())["manifests"]
    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64"]
    assert image.blobs[0] == top
    assert image.blobs[1].digest == entries[0]["digest"]
