"""`p2pd pull`: progress for people, for logs and for programs; exit codes."""

from __future__ import annotations

import importlib
import json
import os
import pty
import subprocess
import sys
import threading
from typing import Any

import pytest
from click.testing import CliRunner, Result

from p2pd.cli import main
from tests.cli.conftest import FakeDaemon
from tests.cli.test_status import read_until

pull_module = importlib.import_module("p2pd.cli.pull")  # p2pd.cli.pull itself is the command
IMAGE = "docker.io/library/debian:12"
DIGEST = "sha256:" + "a" * 64


def progress(done: int, total: int | None = 1000) -> dict[str, Any]:
    return {
        "event": "progress",
        "total": total,
        "done_bytes": done,
        "from_peers": done - 100,
        "from_upstream": 100,
        "blobs": [],
    }


FINISHED = {"event": "finished", "digest": DIGEST, "from_peers": 9e6, "from_upstream": 1e6, "seconds": 2.5}


def pull(daemon: FakeDaemon, *options: str, image: str = IMAGE) -> Result:
    return CliRunner().invoke(main, ["pull", "--control", str(daemon.path), *options, image])


def test_a_pull_in_a_log(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pull_module, "LINE_SECONDS", 0.0)
    daemon.scripts["pull"] = [progress(100, None), progress(500), FINISHED]
    result = pull(daemon)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{IMAGE}: 100 B, 0 B from peers, 100 B from upstream",
        f"{IMAGE}: 500 B of 1.0 kB (50 %), 400 B from peers, 100 B from upstream",
        f"{IMAGE} is here: {DIGEST}",
        "9.0 MB from peers, 1.0 MB from upstream, in 2.5s, 4.0 MB/s",
    ]
    assert daemon.asked == [{"command": "pull", "image": IMAGE}]


def test_a_log_is_not_flooded(daemon: FakeDaemon):
    daemon.scripts["pull"] = [*(progress(n) for n in range(100, 1000)), FINISHED]
    assert len(pull(daemon).stdout.splitlines()) == 2


def test_an_image_that_is_here(daemon: FakeDaemon):
    daemon.scripts["pull"] = [{**FINISHED, "from_peers": 0, "from_upstream": 0, "seconds": 0.0}]
    assert pull(daemon).stdout == f"{IMAGE} is here: {DIGEST}\nall of it was here already\n"


def test_json_is_what_the_daemon_said(daemon: FakeDaemon):
    daemon.scripts["pull"] = [progress(100), FINISHED]
    result = pull(daemon, "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [progress(100), FINISHED]


def test_a_failed_pull(daemon: FakeDaemon):
    daemon.scripts["pull"] = [progress(100), f"{IMAGE}: no such image at docker.io"]
    for options in ((), ("--json",)):
        result = pull(daemon, *options)
        assert (result.exit_code, result.stderr) == (1, f"p2pd: {IMAGE}: no such image at docker.io\n")


def test_an_end_without_a_result_is_a_failure(daemon: FakeDaemon):
    daemon.scripts["pull"] = [progress(100)]
    for options in ((), ("--json",)):
        result = pull(daemon, *options)
        assert result.exit_code == 1
        assert "ended the pull without saying how" in result.stderr


@pytest.mark.parametrize("image", ["", "A B", "docker.io/x@sha256:abc", "https://docker.io/x", "x:"])
def test_names_that_are_none(daemon: FakeDaemon, image: str):
    result = pull(daemon, image=image)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"p2pd: {image!r} is not an image name")
    assert daemon.asked == []


def test_strange_events_do_not_stop_it(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pull_module, "LINE_SECONDS", 0.0)
    daemon.scripts["pull"] = [{}, {"event": "news"}, {"event": "progress", "total": "x", "done_bytes": None}, FINISHED]
    assert pull(daemon).exit_code == 0


@pytest.mark.parametrize(("script_end", "code"), [(FINISHED, 0), ("it broke", 1)])
def test_a_progress_bar_on_a_terminal(daemon: FakeDaemon, script_end: dict[str, Any] | str, code: int):
    steps = [item for n in (200, 500, 900) for item in (progress(n), 0.15)]
    daemon.scripts["pull"] = [progress(150, None), *steps, script_end]
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", "from p2pd.cli import main; main()", "pull", IMAGE, "--control", daemon.path]
    process = subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(terminal)
    timer = threading.Timer(15, process.kill)
    timer.start()
    try:
        shown = read_until(controller, lambda text: False)
        assert process.wait(10) == code
        assert process.stderr
        errors = process.stderr.read().decode()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
        os.close(controller)
    assert "━" in shown and "400 B from peers, 100 B from upstream" in shown
    assert ("is here" in shown) == (code == 0)
    assert errors == ("" if code == 0 else "p2pd: it broke\n")
