"""CRI-O, Podman and skopeo; Docker."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from p2pd.hosts import HostsError, Plan, apply, containers, docker

MIRROR = "http://127.0.0.1:9580"


def carry_out(plan: Plan) -> Plan:
    for change in plan.changes:
        apply(change)
    return plan


def test_containers_install_and_remove(tmp_path: Path):
    path = tmp_path / "registries.conf.d" / "50-p2pd.conf"
    carry_out(containers.plan_install(["r.example:5000", "docker.io"], MIRROR, directory=tmp_path))
    assert tomllib.loads(path.read_text())["registry"] == [
        {"prefix": name, "location": name, "mirror": [{"location": f"127.0.0.1:9580/{place}", "insecure": True}]}
        for name, place in (("docker.io", "docker.io"), ("r.example:5000", "r.example_5000"))
    ]
    assert containers.plan_install(["r.example:5000", "docker.io"], MIRROR, directory=tmp_path).changes == []
    carry_out(containers.plan_remove(frozenset({"docker.io"}), directory=tmp_path))
    assert [t["prefix"] for t in tomllib.loads(path.read_text())["registry"]] == ["r.example:5000"]
    carry_out(containers.plan_remove(directory=tmp_path))
    assert not path.exists()
    assert containers.plan_remove(directory=tmp_path).changes == []


def test_containers_without_fallback(tmp_path: Path):
    carry_out(containers.plan_install(["docker.io"], MIRROR, directory=tmp_path, no_fallback=True))
    document = tomllib.loads((tmp_path / containers.NAME).read_text())
    assert document["registry"] == [{"prefix": "docker.io", "location": "127.0.0.1:9580/docker.io", "insecure": True}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("registries.conf", '[[registry]]\nprefix = "docker.io"\n', r"registries\.conf has its own .* for docker\.io"),
        ("registries.conf.d/99.conf", '[[registry]]\nlocation = "docker.io"\n', r"99\.conf has its own"),
        ("registries.conf.d/01.conf", "[[registry", r"01\.conf is not TOML"),
        (containers.NAME, "# mine\n", "was not made by p2pd"),
    ],
)
def test_containers_refuses_what_it_would_override(tmp_path: Path, name: str, text: str, words: str):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(HostsError, match=words):
        containers.plan_install(["docker.io"], MIRROR, directory=tmp_path)


DOCKER = '{\n\t"log-driver": "journald",\n\t"registry-mirrors": ["https://cache.example"],\n\t"dns": ["1.1.1.1"]\n}'


def test_docker_keeps_the_rest(tmp_path: Path):
    path = tmp_path / "daemon.json"
    path.write_text(DOCKER)
    carry_out(docker.plan_install(MIRROR, path=path))
    document = json.loads(path.read_text())
    assert document["registry-mirrors"] == [MIRROR, "https://cache.example"]
    assert list(document) == ["log-driver", "registry-mirrors", "dns"]
    assert path.with_name("daemon.json.p2pd-backup").read_text() == DOCKER
    assert docker.plan_install(MIRROR, path=path).changes == []
    carry_out(docker.plan_remove(MIRROR, path=path))
    assert json.loads(path.read_text()) == json.loads(DOCKER)


@pytest.mark.parametrize("before", [None, "", "{}"])
def test_docker_without_settings(tmp_path: Path, before: str | None):
    path = tmp_path / "daemon.json"
    if before is not None:
        path.write_text(before)
    carry_out(docker.plan_install(MIRROR, path=path))
    assert json.loads(path.read_text()) == {"registry-mirrors": [MIRROR]}
    carry_out(docker.plan_remove(MIRROR, path=path))
    assert path.exists() == (before is not None)
    assert docker.plan_remove(MIRROR, path=path).changes == []


@pytest.mark.parametrize("text", ["{", "[]", '{"registry-mirrors": "x"}', '{"registry-mirrors": [1]}', "\xff"])
def test_docker_refuses_what_it_can_not_read(tmp_path: Path, text: str):
    path = tmp_path / "daemon.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HostsError, match=r"daemon\.json"):
        docker.plan_install(MIRROR, path=path)
    assert path.read_bytes() == text.encode("latin-1")
