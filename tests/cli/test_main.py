"""The entry point: exit codes, one line for what a user can mend, and `run`."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pd import __version__
from p2pd.cli import COMMANDS, main
from p2pd.config import Config


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ)


def test_version():
    assert invoke("--version").output == f"p2pd {__version__}\n"


def test_every_command_has_help():
    assert set(COMMANDS) == {"run", "status", "top", "pull", "hosts", "fleet"}
    for name in COMMANDS:
        assert invoke(name, "--help").exit_code == 0
        assert f"  {name} " in invoke("--help").output
    assert invoke("hosts", "install", "--help").exit_code == 0


def test_the_daemon_keeps_nothing_in_memory_that_only_other_commands_need():
    code = "from p2pd.cli.run import run; import p2pd.daemon, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx" in loaded
    assert not {"rich", "pygments", "p2pd.cli.view", "p2pd.cli.pull"} & set(loaded)


@pytest.mark.parametrize("command", [["run"], ["status"], ["top"], ["pull", "debian"], ["hosts", "install"]])
def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path: Path, command: list[str]):
    path = tmp_path / "p2pd.toml"
    path.write_text("[node]\nnam = 1\n")
    result = invoke(*command, "--config", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"p2pd: {path}: line 2, node.nam: unknown key 'nam' (did you mean 'name'?)")
    assert (result.stderr.count("\n"), result.stdout) == (1, "")


@pytest.mark.parametrize("command", [["run"], ["status"], ["pull", "debian"], ["hosts", "install"]])
def test_a_missing_file_and_a_wrong_set(command: list[str]):
    result = invoke(*command, "--config", "/nonexistent")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "p2pd: /nonexistent: no such file" in result.stderr
    assert invoke(*command, "--set", "mirror.listen").stderr == (
        "p2pd: --set mirror.listen: must be TABLE.KEY=VALUE, as in mirror.hold_back=5s\n"
    )


@pytest.mark.parametrize("command", [["status"], ["pull", "debian"]])
def test_no_daemon_is_one_line_and_exit_code_1(tmp_path: Path, command: list[str]):
    socket = tmp_path / "none.sock"
    for options in (["--control", str(socket)], ["--set", f"node.control={socket}"]):
        result = invoke(*command, *options)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith(f"p2pd: p2pd is not running: nobody serves {socket}. Start it with")


def test_commands_that_need_no_password_do_not_read_it(tmp_path: Path):
    path = tmp_path / "p2pd.toml"
    path.write_text(
        f'[node]\ncontrol = "{tmp_path}/c.sock"\n[upstreams.r]\nusername = "u"\npassword_file = "/nonexistent"\n'
    )
    assert "nobody serves" in invoke("status", "--config", str(path)).stderr
    assert "password_file" in invoke("run", "--config", str(path)).stderr


def test_run_hands_the_configuration_to_the_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    configs: list[Config] = []

    def run_daemon(config: Config) -> int:
        configs.append(config)
        return 7

    monkeypatch.setitem(sys.modules, "p2pd.daemon", types.SimpleNamespace(run_daemon=run_daemon))
    path = tmp_path / "p2pd.toml"
    path.write_text('[node]\nzone = "a"\n')
    options = ["--set", "mirror.listen=127.0.0.1:0", "--set", 'upstreams."r:1".url=http://r:1/x=y']
    result = invoke("run", "--config", str(path), *options, P2PD_PEERS_INSECURE="true")
    assert result.exit_code == 7
    assert (configs[0].node.zone, configs[0].mirror.listen.port, configs[0].peers.insecure) == ("a", 0, True)
    assert configs[0].upstreams["r:1"].url == "http://r:1/x=y"


def test_run_check(tmp_path: Path):
    result = invoke("run", "--check", "--set", "mirror.listen=0.0.0.0:9580")
    assert (result.exit_code, result.stdout) == (0, "the configuration can be used\n")
    assert "p2pd: warning: mirror.listen" in result.stderr


def test_the_installed_command_starts_without_the_daemons_parts():
    """status, pull and hosts must answer at once: neither the daemon, mDNS nor cryptography is loaded for them."""
    program = "import sys, p2pd.cli; print(sorted({'p2pd.daemon', 'zeroconf', 'cryptography'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (result.stdout, result.stderr) == ("[]\n", "")
    command = Path(sys.executable).parent / "p2pd"
    result = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, env=dict(os.environ))
    assert result.stdout == f"p2pd {__version__}\n"
