"""The units, judged by systemd's own tools: clean, well confined, and fit for a Python that calls C."""

from __future__ import annotations

import configparser
import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
NAMES = ("p2pd.service", "p2pd-tracker.service")
EXPOSURE_MAX = 2.0  # of 10, by systemd-analyze security
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1  # prctl(2), Linux 6.3: what MemoryDenyWriteExecute= does, without systemd


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env={"PATH": os.environ["PATH"]})


@pytest.fixture(params=NAMES)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy whose command exists here."""
    path = tmp_path / request.param
    text, count = re.subn(
        r"^ExecStart=/usr/local/bin/p2pd\S*", "ExecStart=/bin/true", (UNITS / path.name).read_text(), flags=re.M
    )
    assert count == 1
    path.write_text(text)
    return path


def test_verify_says_nothing(unit: Path):
    result = run("systemd-analyze", "verify", str(unit))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_verify_would_say_something(unit: Path):
    """The test above can fail: systemd 252 does not know this key, nor this value."""
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSec=soon\nRestartSteps=5"))
    result = run("systemd-analyze", "verify", str(unit))
    assert "soon" in result.stderr and "RestartSteps" in result.stderr


def test_exposure(unit: Path):
    result = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert match and float(match[1]) <= EXPOSURE_MAX, result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_what_the_daemon_relies_on(name: str):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNITS / name)
    service = parser["Service"]
    assert (service["Type"], service["NotifyAccess"], service["WatchdogSec"]) == ("notify", "main", "30")
    assert (service["Restart"], service["DynamicUser"]) == ("always", "yes")
    assert service["RestartPreventExitStatus"] == "2"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
    assert "AF_UNIX" in service["RestrictAddressFamilies"]  # or READY=1 never arrives
    if name == "p2pd.service":
        assert (service["StateDirectory"], service["RuntimeDirectory"]) == ("p2pd", "p2pd")
        assert "containerd.service" in parser["Unit"]["Before"]
        # A node must never be worse off with p2pd: containerd may not depend on it, nor it on containerd.
        assert not {"Requires", "BindsTo", "RequiredBy", "PartOf"} & {*parser["Unit"], *parser["Install"]}


def test_sysusers(tmp_path: Path):
    result = run("systemd-sysusers", "--dry-run", f"--root={tmp_path}", str(UNITS / "p2pd.sysusers.conf"))
    assert result.returncode == 0, result.stderr
    assert "p2pd" in result.stdout + result.stderr


def test_the_daemons_libraries_run_without_writable_code():
    """MemoryDenyWriteExecute=yes would stop a library that makes code at run time, as ctypes callbacks once did."""
    libc = ctypes.CDLL(None, use_errno=True)

    def deny() -> None:
        if libc.prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
            os._exit(77)

    program = """
import mmap
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    raise SystemExit("not denied")
import ctypes, h11, httpx, msgpack, prometheus_client, rich, trio, zeroconf
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
Ed25519PrivateKey.generate().sign(b"x")
from p2pd.hashing import self_test
print(self_test())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, preexec_fn=deny
    )
    if result.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert result.returncode == 0, result.stderr


def test_the_tools_are_there():
    """Without them the tests above would fail anyway; this says which."""
    assert [tool for tool in ("systemd-analyze", "systemd-sysusers") if not shutil.which(tool)] == []
