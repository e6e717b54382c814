"""`p2pd-sim fleet` on a small fleet: real daemons on limited links, an image of one's own, the prediction beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simulations.cli import main
from tests.lab import Layer, build_image

pytestmark = pytest.mark.e2e


def test_a_small_fleet_is_measured_beside_its_prediction(tmp_path: Path) -> None:
    image = build_image(tmp_path / "layout", [Layer(2_000_000), Layer(1_000_000, seed=1)])
    file = tmp_path / "fleet.json"
    words = ["fleet", "--nodes", "4", "--link", "20Mbit", "--image", str(tmp_path / "layout"), "--json", str(file)]
    result = CliRunner().invoke(main, words)
    assert file.exists(), result.output
    about = json.loads(file.read_text())
    (run,) = about["runs"]
    assert about["layers"] == [layer.size for layer in image.layers]
    assert run["identical"] == 4
    assert run["upstream_copies"] <= 1.01
    assert len(run["seconds"]) == 4
    assert about["bound_s"] < run["p50_s"] <= run["p99_s"] <= run["slowest_s"]
    assert sum(map(sum, run["timeline"]["received_bytes"].values())) > 4 * sum(about["layers"])
    assert about["prediction"]["p50_s"] > about["bound_s"]
    assert ("No verdict" in result.output) == (run["machine_busy"] > 0.85)
    assert (result.exit_code == 0) == (about["verdict"] is True)
