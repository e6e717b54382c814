"""A grid loses nothing that it had finished: not by an interruption, a kill, a cut line or another sweep beside it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simulations.cli import main
from simulations.sweep import code_version, gather, parse_seeds, parse_vary

ROOT = Path(__file__).parents[2]
GRID = ["--image", "2MB", "--link", "10MB/s", "--jobs", "1"]
DEADLINE_S = 60


def sweep(*words: str) -> Result:
    return CliRunner().invoke(main, ["sweep", *words])


def test_axes_and_seeds() -> None:
    assert parse_vary(["nodes=2,4", "image=1MB,2MB;3MB"]) == {"nodes": ["2", "4"], "image": ["1MB,2MB", "3MB"]}
    assert parse_seeds("1-3,7,2") == [1, 2, 3, 7]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--vary", "nodes"], "vary: 'nodes'; allowed: NAME=VALUE,VALUE"),
        (["--vary", "nodes=2,"], "vary: 'nodes=2,'; allowed"),
        (["--vary", "nodes=0"], "nodes: 0; allowed: 1 to"),
        (["--vary", "nodez=1"], "nodez: no such parameter; did you mean 'nodes'?"),
        (["--vary", "nodes=2", "--vary", "nodes=3"], "nodes stands twice"),
        (["--vary", "seed=1,2"], "allowed: --seeds 1-5"),
        (["--vary", "nodes=2", "--seeds", "5-1"], "seeds: '5-1'; allowed: 1-5"),
        (["--vary", "nodes=2", "--plot", "x.doc"], "--plot x.doc: allowed: a name that ends in .svg, .png, .pdf"),
        (["--vary", "nodes=2", "--out", "/no/such/place"], "there is no directory /no/such"),
    ],
)
def test_what_can_t_be_is_an_error_that_names_it(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = sweep(*words)
    assert list(tmp_path.iterdir()) == []
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_grid_is_one_table_and_one_plot_of_the_worst_seeds(tmp_path: Path) -> None:
    out, plot = tmp_path / "out.jsonl", tmp_path / "plot.svg"
    words = ["--vary", "nodes=2,5", "--vary", "link=5MB/s,10MB/s", "--seeds", "1-2", "--image", "2MB", "--jobs", "2"]
    result = sweep(*words, "--out", str(out), "--plot", str(plot))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8
    assert "<svg" in plot.read_text()
    points = gather(rows)
    assert [point["seeds"] for point in points] == [2] * 4
    for point in points:
        slowest = max(row["slowest_over_bound"] for row in rows if row["point"] == point["point"])
        assert point["slowest_over_bound"] == slowest
        assert f"{slowest:.3f}" in result.output


def test_a_killed_sweep_loses_nothing_that_it_had_finished(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--vary", f"nodes={','.join(map(str, range(2, 30)))}", "--seeds", "1-2", *GRID, "--out", str(out)]
    command = [sys.executable, "-m", "simulations.cli", "sweep", *words]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + DEADLINE_S
    while not out.exists() or out.read_bytes().count(b"\n") < 3:
        assert running.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    whole = out.read_bytes()[: out.read_bytes().rfind(b"\n") + 1]
    count = whole.count(b"\n")
    assert 3 <= count < 56
    out.write_bytes(whole + b'{"key": "half a li')  # what a full disk or a power cut may leave

    result = sweep(*words)
    assert result.exit_code == 0, result.output
    assert f"{count} of 56 runs are in" in " ".join(result.stderr.split())
    assert out.read_bytes().startswith(whole)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len({row["key"] for row in rows}) == 56

    again = sweep(*words)
    assert again.stdout == result.stdout
    assert len(out.read_text().splitlines()) == 56


def test_runs_of_other_code_are_run_again(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--vary", "nodes=2", "--seeds", "1", *GRID, "--out", str(out)]
    assert sweep(*words).exit_code == 0
    out.write_text(out.read_text().replace(code_version(), "0" * 12))
    assert sweep(*words).exit_code == 0
    assert len(out.read_text().splitlines()) == 2


def test_a_file_that_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("dear diary\n")
    result = sweep("--vary", "nodes=2", *GRID, "--out", str(out))
    assert result.exit_code == 1
    assert "notes.txt, line 1: not a line of a sweep" in " ".join(result.output.split())
    assert out.read_text() == "dear diary\n"


def test_two_sweeps_do_not_share_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with out.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = sweep("--vary", "nodes=2", *GRID, "--out", str(out))
    assert result.exit_code == 1
    assert "another sweep is writing there" in result.output


def test_a_run_that_does_not_end_is_an_exit_code(tmp_path: Path) -> None:
    result = sweep("--vary", "nodes=3", "--seeds", "1", *GRID, "--seconds-most", "0.05", "--out", str(tmp_path / "o"))
    assert result.exit_code == 1
    assert "not ended" in result.output
