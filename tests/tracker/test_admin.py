"""The tracker's own port: what it counts, and when its certificate ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pd.fleet import Membership
from tests.fleet.certificates import Authority
from tracker.admin import Shown
from tracker.cli import main

DAY = 86400.0


def test_what_is_counted(tmp_path: Path) -> None:
    member = Authority.make("ca").member("t", days=10)
    shown = Shown(Membership(member.write(tmp_path)))
    shown.summary = lambda: {"nodes": 3, "blobs": 2, "members": 5, "leases": 1}
    shown.refused("foreign-certificate")
    lines = shown.exposition().decode().splitlines()
    assert {"p2pd_tracker_nodes 3.0", "p2pd_tracker_blobs 2.0", "p2pd_tracker_members 5.0"} < set(lines)
    assert 'p2pd_handshakes_refused_total{reason="foreign-certificate"} 1.0' in lines
    (remaining,) = (line.split()[1] for line in lines if line.startswith("p2pd_certificate_remaining_seconds "))
    assert float(remaining) == pytest.approx(10 * DAY, abs=60)
    status = shown.status()
    assert (status["nodes"], status["insecure"], status["certificate"]["authorities"]) == (3, False, ["CN=ca"])


def test_without_a_certificate() -> None:
    shown = Shown(None)
    assert "p2pd_certificate_remaining_seconds NaN" in shown.exposition().decode().splitlines()
    assert (shown.status()["insecure"], shown.status()["certificate"]) == (True, None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "no fleet identity"),
        (["--ca", "x"], 2, "go together"),
        (["--listen", "nonsense:x"], 2, "--listen"),
        (["--insecure", "--admin", "1:2:3:x"], 2, "--admin"),
        (["--ca", "x", "--certificate", "y", "--key", "z"], 1, "x can't be read: No such file"),
        (["--ca", "x", "--certificate", "y", "--key", "z", "--insecure"], 2, "leave one of them out"),
        (["--insecure", "--listen", "203.0.113.1:1"], 1, "--listen 203.0.113.1:1"),
    ],
)
def test_options_that_do_not_fit(words: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(main, ["run", *words])
    assert (result.exit_code, said in result.output) == (code, True), result.output
