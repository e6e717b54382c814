"""What `status` and `top` show, of whole, partial and strange statuses."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from p2pd.cli import main
from p2pd.cli.view import status_view
from tests.cli.conftest import FakeDaemon

DIGESTS = ["sha256:" + character * 64 for character in "abc"]
STATUS: dict[str, Any] = {
    "node": {"id": "f" * 64, "name": "n1", "zone": "r1", "version": "0.1.0", "uptime_s": 7384.2, "insecure": True},
    "trackers": [{"address": "t1:9590", "state": "connected"}, {"address": "t2:9590", "state": "unreachable"}],
    "mdns": {"enabled": True, "found": 3},
    "peers": [
        {"id": "e" * 64, "name": "n2", "address": "10.0.0.2:9581", "zone": "r1", "up_bps": 2e6, "down_bps": 12.5e6},
        {"id": "d" * 64, "name": "", "address": "10.0.0.3:9581", "zone": "", "up_bps": 0, "down_bps": 0},
    ],
    "blobs": [
        {"digest": DIGESTS[0], "size": 150_000_000, "pieces": 286, "present": 286, "state": "proven", "seeder": None},
        {
            "digest": DIGESTS[1],
            "size": 3_000_000_000,
            "pieces": 750,
            "present": 300,
            "state": "fetching",
            "seeder": "e" * 64,
            "from_peers": 1_200_000_000,
            "from_upstream": 4096,
            "clients": 2,
        },
    ],
    "store": {"used": 3.5e9, "limit": 50e9},
    "warnings": ["the disk is [nearly] full"],
}


def status(daemon: FakeDaemon, *options: str) -> Result:
    return CliRunner().invoke(main, ["status", "--control", str(daemon.path), *options])


def test_status(daemon: FakeDaemon):
    daemon.scripts["status"] = [STATUS]
    result = status(daemon)
    assert result.exit_code == 0
    lines = [re.sub(r"\s{2,}", "  ", line.strip()) for line in result.stdout.splitlines()]
    assert lines == [
        "n1 · zone r1 · p2pd 0.1.0, up 2h 3m · store 3.5 GB of 50.0 GB · peers in 12.5 MB/s, out 2.0 MB/s",
        "warning: peers are insecure: anyone in the network can join, read and answer",
        "warning: the disk is [nearly] full",
        "trackers: t1:9590 connected, t2:9590 unreachable",
        "mDNS: 3 nodes found",
        "",
        "peer  address  zone  in  out",
        "n2  10.0.0.2:9581  r1  12.5 MB/s  2.0 MB/s",
        "dddddddddddd  10.0.0.3:9581  0 B/s  0 B/s",
        "",
        "blob  size  present  state  seeder  from peers  from upstream  clients",
        "sha256:bbbbbbbbbbbb  3.0 GB  40 %  fetching  eeeeeeeeeeee  1.2 GB  4.1 kB  2",
        "sha256:aaaaaaaaaaaa  150.0 MB  100 %  proven  -  0 B  0 B  0",
    ]


def test_status_as_json_is_what_the_daemon_said(daemon: FakeDaemon):
    daemon.scripts["status"] = [STATUS]
    assert json.loads(status(daemon, "--json").stdout) == STATUS


def test_an_empty_node_says_what_to_do(daemon: FakeDaemon):
    daemon.scripts["status"] = [{"node": {"name": "n1"}}]
    assert "p2pd pull IMAGE" in status(daemon).stdout


def test_a_daemon_without_an_answer(daemon: FakeDaemon):
    daemon.scripts["status"] = []
    result = status(daemon)
    assert (result.exit_code, result.stderr) == (1, f"p2pd: p2pd at {daemon.path} gave no status: see its log\n")


def test_a_daemons_error(daemon: FakeDaemon):
    daemon.scripts["status"] = ["the store is broken"]
    assert status(daemon).stderr == "p2pd: the store is broken\n"


def strange(value: Any) -> list[Any]:
    """The same status with every part in turn missing, null or of another type."""
    found = []
    for key in value:
        for other in (None, 5, "x[/]", [], [5], {}):
            found.append({**value, key: other})
        found.append({k: v for k, v in value.items() if k != key})
        if isinstance(value[key], dict):
            found += [{**value, key: inner} for inner in strange(value[key])]
        elif isinstance(value[key], list) and value[key] and isinstance(value[key][0], dict):
            found += [{**value, key: [inner]} for inner in strange(value[key][0])]
    return found


def test_strange_statuses_are_shown_as_far_as_they_go():
    for case in strange(STATUS):
        Console(file=io.StringIO(), width=200).print(status_view(case))


def test_long_tables_are_cut_in_the_live_view():
    blobs = [{"digest": f"sha256:{n:064x}", "state": "idle"} for n in range(100)]
    out = io.StringIO()
    Console(file=out, width=200).print(status_view({"blobs": blobs}, rows_max=10))
    assert "and 90 more" in out.getvalue()
    assert out.getvalue().count("sha256:") == 10


def test_top_needs_a_terminal(daemon: FakeDaemon):
    result = CliRunner().invoke(main, ["top", "--control", str(daemon.path)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_top_shows_and_ends_by_ctrl_c(daemon: FakeDaemon):
    daemon.scripts["status"] = [STATUS]
    controller, terminal = pty.openpty()
    # A run of the tests in a shell's background hands down that SIGINT is to be ignored.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeds}; from p2pd.cli import main; main()", "top", "--interval", "0.2"]
    process = subprocess.Popen(
        [*command, "--control", daemon.path],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(terminal)
    try:
        shown = read_until(controller, lambda text: "fetching" in text and len(daemon.asked) >= 3)
        process.send_signal(signal.SIGINT)
        shown += read_until(controller, lambda text: False)
        assert process.wait(10) == 0
        assert process.stderr and process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
        os.close(controller)
    assert "\x1b[?1049h" in shown and "\x1b[?1049l" in shown  # the alternate screen, entered and left


def read_until(descriptor: int, done: Any, seconds: float = 10) -> str:
    text, deadline = "", time.monotonic() + seconds
    while not done(text):
        assert time.monotonic() < deadline, text
        if not select.select([descriptor], [], [], 0.5)[0]:
            continue
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            break
        text += data.decode(errors="replace")
    return text


def test_control_option_is_a_path(tmp_path: Path):
    result = CliRunner().invoke(main, ["status", "--control", str(tmp_path)])
    assert result.exit_code == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (61, "1m"), (3599, "59m"), (90000, "1d 1h"), (7200, "2h 0m")]
)
def test_uptime(seconds: float, text: str):
    out = io.StringIO()
    Console(file=out, width=200).print(status_view({"node": {"uptime_s": seconds}}))
    assert f"up {text} " in out.getvalue()
