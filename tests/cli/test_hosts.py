"""`p2pd hosts`: options, defaults, and what is printed. What is written: tests/hosts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pd.cli import main
from p2pd.upstream.config import WELL_KNOWN

CONFIG = """
[mirror]
listen = "127.0.0.1:1580"
[upstreams."r.example:5000"]
url = "http://r.internal:5000"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "p2pd.toml").write_text(CONFIG)
    (tmp_path / "containerd.toml").write_text(
        f'[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "{tmp_path}/certs.d"\n'
    )
    return tmp_path


def hosts(place: Path, command: str, *arguments: str, certs: bool = True) -> Result:
    options = {
        "--config": place / "p2pd.toml",
        "--containerd-config": place / "containerd.toml",
        "--containers-dir": place / "containers",
        "--docker-config": place / "docker" / "daemon.json",
        **({"--certs-dir": place / "certs.d"} if certs else {}),
    }
    flat = [str(item) for pair in options.items() for item in pair]
    return CliRunner().invoke(main, ["hosts", command, *flat, *arguments])


def written(place: Path) -> list[str]:
    return sorted(p.parent.name for p in (place / "certs.d").glob("*/hosts.toml"))


def test_all_registries_of_the_configuration_by_default(place: Path):
    result = hosts(place, "install")
    assert (result.exit_code, result.stderr) == (0, "")
    assert written(place) == sorted({*(h for h in WELL_KNOWN if "*" not in h), "r.example:5000"})
    document = tomllib.loads((place / "certs.d" / "r.example:5000" / "hosts.toml").read_text())
    assert document["server"] == "http://r.internal:5000"
    assert list(document["host"]) == ["http://127.0.0.1:1580"]
    assert hosts(place, "install").stdout == "nothing to change: p2pd is the first mirror already\n"
    assert hosts(place, "remove").exit_code == 0
    assert written(place) == []
    assert hosts(place, "remove").stdout == "nothing to remove: p2pd's lines are nowhere\n"


def test_containerds_own_config_path_is_used(place: Path):
    (place / "containerd.toml").write_text(
        f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{place}/elsewhere"\n'
    )
    result = hosts(place, "install", "ghcr.io", certs=False)
    assert result.exit_code == 0, result.output
    assert (place / "elsewhere" / "ghcr.io" / "hosts.toml").exists()
    assert "containerd's CRI reads" in hosts(place, "install", "ghcr.io").stderr
    assert hosts(place, "remove", "ghcr.io", certs=False).exit_code == 0
    assert list((place / "elsewhere").iterdir()) == []


def test_dry_run_shows_and_writes_nothing(place: Path):
    result = hosts(place, "install", "docker.io", "--dry-run")
    assert result.exit_code == 0
    assert '+[host."http://127.0.0.1:1580"]\n' in result.stdout
    assert not (place / "certs.d").exists()
    hosts(place, "install", "docker.io")
    assert '-[host."http://127.0.0.1:1580"]\n' in hosts(place, "remove", "--dry-run").stdout
    assert written(place) == ["docker.io"]


def test_names_that_people_write(place: Path):
    hosts(place, "install", "https://index.docker.io/", "us-docker.pkg.dev")
    assert written(place) == ["docker.io", "us-docker.pkg.dev"]
    document = tomllib.loads((place / "certs.d" / "us-docker.pkg.dev" / "hosts.toml").read_text())
    assert document["server"] == "https://us-docker.pkg.dev"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["other.example"], 1, 'add [upstreams."other.example"]'),
        (["a b"], 2, "'a b' is not a registry host"),
        (["--mirror", "https://127.0.0.1:1"], 2, "write http://host:port"),
        (["--mirror", "http://127.0.0.1"], 2, "write http://host:port"),
        (["--mirror", 'http://127.0.0.1:1"'], 2, "write http://host:port"),
        (["--client", "docker", "ghcr.io"], 2, "Docker Hub only"),
        (["--client", "docker", "--no-fallback"], 2, "leave --no-fallback out"),
        (["--client", "podman"], 2, "podman"),
    ],
)
def test_wrong_usage(place: Path, arguments: list[str], code: int, words: str):
    result = hosts(place, "install", *arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (place / "certs.d").exists()


def test_nothing_is_written_when_one_file_is_refused(place: Path):
    path = place / "certs.d" / "quay.io" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[[")
    result = hosts(place, "install")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"{path}: it is not TOML" in result.stderr
    assert written(place) == ["quay.io"]


def test_several_directories_are_refused(place: Path):
    (place / "containerd.toml").write_text(
        '[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/etc/a/certs.d:/etc/b/certs.d"\n'
    )
    for certs in (True, False):
        result = hosts(place, "install", certs=certs)
        assert result.exit_code == 1
        assert "several directories" in result.stderr
    assert hosts(place, "remove").exit_code == 0


def test_no_config_path_is_a_warning(place: Path):
    (place / "containerd.toml").unlink()
    result = hosts(place, "install", "docker.io")
    assert result.exit_code == 0
    assert f'config_path = "{place}/certs.d"' in result.stderr
    assert written(place) == ["docker.io"]


def test_a_mirror_that_listens_everywhere_is_reached_on_loopback(place: Path):
    result = hosts(place, "install", "docker.io", "--dry-run", "--set", "mirror.listen=0.0.0.0:1580")
    assert '+[host."http://127.0.0.1:1580"]' in result.stdout


def test_a_backup_is_named(place: Path):
    path = place / "certs.d" / "docker.io" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    assert f"what was there: {path}.p2pd-backup" in hosts(place, "install", "docker.io").stdout


def test_other_clients(place: Path):
    assert hosts(place, "install", "--client", "containers", "docker.io").exit_code == 0
    text = (place / "containers" / "registries.conf.d" / "50-p2pd.conf").read_text()
    assert 'location = "127.0.0.1:1580/docker.io"' in text
    assert hosts(place, "install", "--client", "docker").exit_code == 0
    daemon_json = place / "docker" / "daemon.json"
    assert json.loads(daemon_json.read_text()) == {"registry-mirrors": ["http://127.0.0.1:1580"]}
    for client in ("containers", "docker"):
        assert hosts(place, "remove", "--client", client).exit_code == 0
    assert not [p for p in (place / "containers").rglob("*") if p.is_file()] and not daemon_json.exists()


def test_what_may_not_be_written(place: Path, monkeypatch: pytest.MonkeyPatch):
    (place / "certs.d").write_text("a file, not a directory")
    result = hosts(place, "install", "docker.io")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "hosts.toml can't be" in result.stderr
