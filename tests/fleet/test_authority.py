"""`p2pd fleet`: what it makes is an identity, and openssl agrees; what is there is never overwritten."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from p2pd.cli import main
from p2pd.fleet import FleetFiles, Identity


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Result:
        return CliRunner().invoke(main, ["fleet", *shlex.split(line)])

    return run


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_init_and_issue_make_an_identity(fleet, tmp_path: Path) -> None:
    old = os.umask(0)  # the worst one
    try:
        made = fleet("init")
        issued = fleet("issue tracker1 --address 10.0.0.10 --address fd00::1 --address t1.example")
    finally:
        os.umask(old)
    assert (made.exit_code, issued.exit_code) == (0, 0), made.output + issued.output
    directory = tmp_path / "p2pd-fleet"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "tracker1.crt": 0o644, "tracker1.key": 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = FleetFiles(directory / "ca.crt", directory / "tracker1.crt", directory / "tracker1.key")
    assert Identity.load(files).chain[0].name == "CN=tracker1"
    names = certificate(files.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["tracker1", "t1.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.10", "fd00::1"]
    for word in ("ca.crt", "ca.key", "p2pd fleet issue"):
        assert word in made.output
    for word in ("ca.crt", "tracker1.crt", "tracker1.key", "/etc/p2pd/fleet"):
        assert word in issued.output
    checked = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", files.ca, files.certificate]
    subprocess.run(checked, check=True, capture_output=True)
    checked[4] = "sslserver"
    subprocess.run(checked, check=True, capture_output=True)


def test_lifetimes_are_options_and_no_certificate_outlives_its_ca(fleet, tmp_path: Path) -> None:
    fleet("init --dir a --days 30")
    fleet("issue --dir a short --days 7")
    fleet("issue --dir a long --days 400 --out elsewhere")
    now = datetime.now(UTC)
    ends = {
        name: certificate(tmp_path / name).not_valid_after_utc
        for name in ("a/ca.crt", "a/short.crt", "elsewhere/long.crt")
    }
    assert abs(ends["a/short.crt"] - now - timedelta(days=7)) < timedelta(hours=1)
    assert ends["elsewhere/long.crt"] == ends["a/ca.crt"]


@pytest.mark.parametrize("line", ["init", "issue node1"])
def test_nothing_is_overwritten(fleet, tmp_path: Path, line: str) -> None:
    fleet("init")
    fleet("issue node1")
    before = {path: path.read_bytes() for path in (tmp_path / "p2pd-fleet").iterdir()}
    result = fleet(line)
    assert result.exit_code == 1
    assert "exists, and is not overwritten" in result.output
    assert {path: path.read_bytes() for path in (tmp_path / "p2pd-fleet").iterdir()} == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("issue node1 --dir nowhere", "there is no CA in nowhere: `p2pd fleet init --dir nowhere` makes one"),
        ("issue ../node1", "is not a name"),
        ("issue ''", "is not a name"),
        ("issue node1 --address 10.0.0.1:9590", "neither an IP address nor a DNS name"),
        ("issue node1 --address 10.0.0.300", "neither an IP address nor a DNS name"),
        ("issue node1 --address 'a b'", "neither an IP address nor a DNS name"),
        ("issue node1 " + "--address 10.0.0.1 " * 33, "at most 32"),
        ("issue node1 --out ca.txt/x", "can't be made: Not a directory"),
    ],
)
def test_what_can_not_be_issued(fleet, tmp_path: Path, line: str, words: str) -> None:
    fleet("init")
    (tmp_path / "ca.txt").touch()
    result = fleet(line)
    assert result.exit_code == 1
    assert words in result.output
    assert len(list((tmp_path / "p2pd-fleet").iterdir())) == 2


def test_a_cas_key_that_is_not_its_own(fleet, tmp_path: Path) -> None:
    fleet("init --dir a")
    fleet("init --dir b")
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    assert "is not the key of" in fleet("issue --dir a node1").output
