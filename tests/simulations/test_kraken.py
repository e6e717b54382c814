"""The published rollout: only the same size stands beside the published times."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from simulations.kraken import PUBLISHED_NODES, SCENARIO, main, rows_of
from simulations.reading import build

TIMES = {"p50_s": 10.5, "p99_s": 11.0, "p999_s": 11.2, "slowest_s": 11.5, "bound_s": 10.0}


def test_the_published_times_stand_beside_ours_at_their_size() -> None:
    rows = rows_of(TIMES | {"nodes": PUBLISHED_NODES})
    assert rows == [
        ["Kraken, published", "10.0 s", "18.0 s", "22.0 s", "-"],
        ["p2pd, simulated", "10.5 s", "11.0 s", "11.2 s", "11.5 s"],
        ["Kraken, published, over the bound", "1.00", "1.80", "2.20", "-"],
        ["p2pd, simulated, over the bound", "1.05", "1.10", "1.12", "1.15"],
    ]
    assert [row[0] for row in rows_of(TIMES | {"nodes": 100})] == ["p2pd, simulated", "p2pd, simulated, over the bound"]


def test_the_scenario_is_what_was_published() -> None:
    scenario = build(SCENARIO)
    assert (scenario.nodes, scenario.total, len(scenario.image), scenario.link) == (2600, 3_000_000_000, 2, 300e6)
    assert scenario.bound_s == pytest.approx(10.08, abs=0.01)


def test_it_prints_the_row_and_the_report_s_path(tmp_path: Path) -> None:
    report = tmp_path / "rollout.html"
    result = CliRunner().invoke(main, ["--nodes", "3", "--report", str(report)])
    assert result.exit_code == 0, result.output
    assert "p2pd, simulated, over the bound" in result.output
    assert f"report: {report}" in result.output
    assert "<svg" in report.read_text()
