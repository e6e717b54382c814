"""`p2pd-sim fleet`: what it refuses, what it says of measured runs, what it predicts. A real one is in tests/e2e."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from simulations.cli import main
from simulations.fleet import FleetPlan, FleetRun, bound
from simulations.fleet import command as fleet_command
from simulations.fleet.calibration import CHECK_RATE, GOODPUT, LATENCY_S, PIECE_COST_S, SEEDS, SEND_BUFFER, UNFAIR
from simulations.fleet.links import Timeline
from simulations.fleet.predict import predict, scenario_of
from simulations.fleet.report import as_json, failures, show
from simulations.lab import LabError, Layer, build_image, build_index, read_layout
from simulations.scenario import Scenario

MIB = 1 << 20
PLAN = FleetPlan(16, 3.125e6, (32 * MIB,), 3.125e6)
RUN = FleetRun(
    seconds=tuple(11.5 + number / 10 for number in range(16)), bound_s=bound(PLAN), identical=16, upstream_copies=1.0,
    upstream_requests_max=2, duplicate_ratio=0.001, refused_ratio=0.4, cpu_s=0.5, core_wait=0.02, busy=0.6,
    manifest_s=0.2, downlinks_use=0.8, uplinks_use=0.8, timeline=Timeline(),
)  # fmt: skip
PREDICTION = {
    "p50_s": 12.0, "p90_s": 12.5, "p99_s": 13.0, "slowest_s": 13.0, "upstream_copies": 1.0, "duplicate_ratio": 0.001,
    "refused_per_transfer": 0.5, "manifest_s": 0.2,
}  # fmt: skip


def told(runs: list[FleetRun], prediction: dict[str, float] = PREDICTION) -> str:
    text = io.StringIO()
    show(Console(width=120, file=text), PLAN, runs, prediction)
    return text.getvalue()


def test_the_bound() -> None:
    assert bound(PLAN) == pytest.approx(32 * MIB / 3.125e6 * (1 + 4 / 256))
    assert bound(replace(PLAN, upstream_link=1e6)) == pytest.approx(32 * MIB / 1e6)
    assert bound(PLAN) == pytest.approx(Scenario(nodes=16, image=PLAN.layers, link=PLAN.link).bound_s)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--nodes", "0"], "--nodes 0: 1 to 200 are allowed"),
        (["--nodes", "201"], "--nodes 201: 1 to 200 are allowed"),
        (["--link", "0"], "'--link': '0' is not a rate"),
        (["--link", "0.5Mbit"], "--link 0.5 Mbit: at least 1 Mbit is allowed"),
        (["--upstream", "1kbit"], "--upstream 0.001 Mbit: at least 1 Mbit is allowed"),
        (["--image", "nothing"], "'--image': 'nothing' is neither a size nor a file"),
        (["--image", "1KB"], "--image: layers that are made have at least 256KiB each"),
        (["--nodes", "100", "--image", "1GB"], "of memory; at most 4 GiB are allowed"),
        (["--image", "/proc"], "/proc/index.json: No such file or directory"),
        (["--runs", "0"], "'--runs': 0 is not in the range"),
        (["--json", "/no/such/place/x.json"], "there is no directory /no/such/place"),
    ],
)
def test_what_can_t_be_measured_is_an_error_that_names_it(options: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["fleet", *options])
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_machine_without_the_tools_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_command.shutil, "which", lambda tool: None if tool == "skopeo" else f"/bin/{tool}")
    monkeypatch.setattr(fleet_command.os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(main, ["fleet"])
    assert result.exit_code == 1
    assert "a fleet needs root, to make network namespaces, skopeo; `make apt` installs the tools" in result.output


def test_a_busy_machine_gets_no_verdict() -> None:
    busy = replace(RUN, busy=0.86)
    assert "No verdict: the machine was above 85% busy" in told([busy])
    assert as_json(PLAN, [busy], PREDICTION)["verdict"] is None
    assert "1 of 2 runs do not count" in told([RUN, busy])


def test_measured_stands_beside_predicted() -> None:
    text = told([RUN])
    assert "All figures are within what is asked for." in text
    assert "All figures of the median run are within what is asked for." in told([RUN, RUN])
    line = next(line for line in text.splitlines() if "p50 / bound" in line)
    assert f"{RUN.quantile(0.5) / bound(PLAN):.3f}" in line
    assert f"{12.0 / bound(PLAN):.3f}" in line
    about = as_json(PLAN, [RUN], PREDICTION)
    assert about["verdict"] is True
    assert json.loads(json.dumps(about))["runs"][0]["p99_s"] == RUN.slowest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seconds": tuple(14.0 for _ in range(16))}, "slowest over the bound: 1.2"),
        ({"upstream_copies": 1.02}, "upstream copies: 1.020, at most 1.01"),
        ({"duplicate_ratio": 0.02}, "duplicates: 0.020"),
        ({"refused_ratio": 1.1}, "refused a transfer: 1.1"),
        ({"identical": 15}, "nodes with other bytes: 1.000"),
    ],
)
def test_a_missed_figure_is_named(change: dict, says: str) -> None:
    assert says in "\n".join(failures(PLAN, [replace(RUN, **change)], PREDICTION))


def test_a_prediction_that_is_off_is_named() -> None:
    found = failures(PLAN, [RUN], PREDICTION | {"p50_s": 15.0})
    assert found == ["the prediction of p50 is +23% off, at most 10% is asked for"]


def test_the_prediction_is_of_the_same_fleet() -> None:
    plan = FleetPlan(4, 3.125e6, (4 * MIB, 2 * MIB), 2e6)
    scenario = scenario_of(plan, plan.layers, 3)
    assert (scenario.nodes, scenario.image, scenario.seed) == (4, plan.layers, 3)
    assert scenario.link == pytest.approx(plan.link * GOODPUT)
    assert scenario.upstream == pytest.approx(2e6 * GOODPUT)
    assert (scenario.send_buffer, scenario.unfair) == (SEND_BUFFER, UNFAIR)
    assert (scenario.latency, scenario.check_rate, scenario.piece_cost) == (LATENCY_S, CHECK_RATE, PIECE_COST_S)
    prediction = predict(plan)
    assert set(prediction) == set(PREDICTION)
    assert bound(plan) < prediction["p50_s"] <= prediction["p99_s"] <= prediction["slowest_s"] < 3 * bound(plan)
    assert prediction == predict(plan)
    assert len(SEEDS) >= 5


def test_an_image_of_one_s_own_is_read_as_it_is(tmp_path: Path) -> None:
    made = build_image(tmp_path / "layout", [Layer(400_000), Layer(300_000, seed=1)], tag="v1")
    read = read_layout(tmp_path / "layout")
    assert read.tag == "v1"
    assert [(blob.digest, blob.size) for blob in read.blobs] == [(blob.digest, blob.size) for blob in made.blobs]
    assert read.layers == made.layers


def test_a_layout_that_is_none_says_why(tmp_path: Path) -> None:
    build_index(tmp_path / "index", {"amd64": [Layer(300_000)], "arm64": [Layer(300_000, seed=1)]})
    with pytest.raises(LabError, match="an index of several platforms"):
        read_layout(tmp_path / "index")
    layout = build_image(tmp_path / "cut", [Layer(300_000)])
    layout.layers[0].path.unlink()
    with pytest.raises(LabError, match="is not in it"):
        read_layout(tmp_path / "cut")
    for text in ("{", "[]", "{}", '{"manifests": [{}]}', '{"manifests": []}', '{"manifests": 3}'):
        (tmp_path / "cut" / "index.json").write_text(text)
        with pytest.raises(LabError, match=str(tmp_path)):
            read_layout(tmp_path / "cut")
