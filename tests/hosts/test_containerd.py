"""containerd's directories and its own configuration: which file is written, and when none may be."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from p2pd.hosts import HostsError, Plan, apply, containerd, refuse_generated
from p2pd.hosts.containerd_config import inspect

MIRROR = "http://127.0.0.1:9580"
HUB = {"docker.io": "https://registry-1.docker.io"}
V2 = '[plugins."io.containerd.grpc.v1.cri".registry]\n'
V3 = '[plugins."io.containerd.cri.v1.images".registry]\n'


def carry_out(plan: Plan) -> Plan:
    for change in plan.changes:
        apply(change)
    return plan


def install(certs: Path, registries: dict[str, str] = HUB, **options: bool) -> Plan:
    return carry_out(containerd.plan_install(certs, registries, MIRROR, **options))


def tree(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_new_directories_and_back(tmp_path: Path):
    certs = tmp_path / "certs.d"
    install(certs, {**HUB, "r.example:5000": "http://r.example:5000"})
    assert list(tree(certs)) == ["docker.io/hosts.toml", "r.example:5000/hosts.toml"]
    assert tomllib.loads(tree(certs)["r.example:5000/hosts.toml"])["server"] == "http://r.example:5000"
    assert install(certs).changes == []
    carry_out(containerd.plan_remove(certs))
    assert list(certs.iterdir()) == []


@pytest.mark.parametrize("directory", ["r.example_5000_", "r.example:5000"])
def test_the_directory_that_containerd_reads_is_the_one_that_is_written(tmp_path: Path, directory: str):
    put(tmp_path / directory / "hosts.toml", '[host."https://cache"]\n')
    install(tmp_path, {"r.example:5000": "https://r.example:5000"})
    assert MIRROR in tree(tmp_path)[f"{directory}/hosts.toml"]
    assert not [name for name in tree(tmp_path) if "5000" in name and not name.startswith(directory)]


def test_a_backup_is_made_once_and_later_edits_outlive_it(tmp_path: Path):
    path = put(tmp_path / "docker.io" / "hosts.toml", '[host."https://a"]\n')
    path.chmod(0o640)
    install(tmp_path)
    backup = path.with_name("hosts.toml.p2pd-backup")
    assert backup.read_text() == '[host."https://a"]\n'
    assert path.stat().st_mode & 0o777 == backup.stat().st_mode & 0o777 == 0o640
    path.write_text(path.read_text() + '[host."https://b"]\n')
    install(tmp_path, no_fallback=True)
    carry_out(containerd.plan_remove(tmp_path))
    assert path.read_text() == '[host."https://a"]\n[host."https://b"]\n'
    install(tmp_path)
    assert tree(tmp_path).keys() == {f"docker.io/hosts.toml{end}" for end in ("", ".p2pd-backup", ".p2pd-backup.1")}
    assert backup.read_text() == '[host."https://a"]\n'


def test_the_same_text_is_copied_once(tmp_path: Path):
    put(tmp_path / "docker.io" / "hosts.toml", '[host."https://a"]\n')
    for _ in range(3):
        install(tmp_path)
        carry_out(containerd.plan_remove(tmp_path))
    assert list(tree(tmp_path)) == ["docker.io/hosts.toml", "docker.io/hosts.toml.p2pd-backup"]


def test_remove_of_one_registry(tmp_path: Path):
    install(tmp_path, {**HUB, "r.example:5000": "https://r.example:5000"})
    carry_out(containerd.plan_remove(tmp_path, frozenset({"r.example:5000"})))
    assert list(tree(tmp_path)) == ["docker.io/hosts.toml"]


def test_remove_leaves_others_files_alone(tmp_path: Path):
    put(tmp_path / "ghcr.io" / "hosts.toml", "not [ TOML")
    install(tmp_path)
    put(tmp_path / "docker.io" / "notes.txt", "mine")
    carry_out(containerd.plan_remove(tmp_path))
    assert tree(tmp_path) == {"ghcr.io/hosts.toml": "not [ TOML", "docker.io/notes.txt": "mine"}


def test_what_served_the_registry_so_far_is_not_hidden(tmp_path: Path):
    """A host with a directory of its own never sees _default: its mirrors must go on to be tried."""
    default = '# ours\n[host."https://cache.example"]\n  capabilities = ["pull"]\n'
    put(tmp_path / "_default" / "hosts.toml", default)
    install(tmp_path)
    text = tree(tmp_path)["docker.io/hosts.toml"]
    assert list(tomllib.loads(text)["host"]) == [MIRROR, "https://cache.example"]
    assert install(tmp_path).changes == []
    carry_out(containerd.plan_remove(tmp_path))
    assert tree(tmp_path) == {"_default/hosts.toml": default}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"docker.io/hosts.toml": "[host"}, r"docker\.io/hosts\.toml: it is not TOML.*repair it"),
        ({"docker.io/ca.crt": "x"}, r"ca\.crt, which containerd stops reading"),
        ({"_default/hosts.toml": 'ca = "ca.pem"\n'}, r"ca\.pem by a relative path"),
        ({"_default/hosts.toml": '[host."https://a"]\nclient = [["/a", "b.key"]]\n'}, r"b\.key by a relative path"),
    ],
)
def test_refused_and_nothing_written(tmp_path: Path, files: dict[str, str], words: str):
    for name, text in files.items():
        put(tmp_path / name, text)
    with pytest.raises(HostsError, match=words):
        install(tmp_path, {"ghcr.io": "https://ghcr.io", **HUB} if "_default/hosts.toml" not in files else HUB)
    assert tree(tmp_path) == files


def test_no_fallback_names_what_is_still_fallen_back_to(tmp_path: Path):
    put(tmp_path / "docker.io" / "hosts.toml", '[host."https://cache.example"]\n')
    plan = install(tmp_path, no_fallback=True)
    assert "https://cache.example" in plan.warnings[0]


def test_a_symbolic_link_stays_one(tmp_path: Path):
    target = put(tmp_path / "managed" / "hub.toml", '[host."https://a"]\n')
    (tmp_path / "certs" / "docker.io").mkdir(parents=True)
    (tmp_path / "certs" / "docker.io" / "hosts.toml").symlink_to(target)
    install(tmp_path / "certs")
    assert (tmp_path / "certs" / "docker.io" / "hosts.toml").is_symlink()
    assert MIRROR in target.read_text()


def test_a_file_that_changes_meanwhile_is_left_alone(tmp_path: Path):
    path = put(tmp_path / "docker.io" / "hosts.toml", "")
    plan = containerd.plan_install(tmp_path, HUB, MIRROR)
    path.write_text("# edited")
    with pytest.raises(HostsError, match="changed meanwhile"):
        carry_out(plan)
    assert tree(tmp_path) == {"docker.io/hosts.toml": "# edited"}


@pytest.mark.parametrize("table", [V2, V3, "[plugins.cri.registry]\n"])
def test_config_path_is_found(tmp_path: Path, table: str):
    config = put(
        tmp_path / "config.toml", f'{table}config_path = "/srv/certs.d"\n[plugins.x.registry]\nmirrors.a = 1\n'
    )
    assert (inspect(config).certs_dir, inspect(config).warnings) == (Path("/srv/certs.d"), [])


def test_config_path_in_an_import(tmp_path: Path):
    put(tmp_path / "conf.d" / "registry.toml", f'{V2}config_path = "/srv/certs.d"\n')
    config = put(tmp_path / "config.toml", f'version = 2\nimports = ["{tmp_path}/conf.d/*.toml", "conf.d/none", 5]\n')
    assert inspect(config).certs_dir == Path("/srv/certs.d")


@pytest.mark.parametrize("text", [None, "", "version = 3\n", f'{V2}config_path = ""\n[{V2[1:-2]}.mirrors]\n'])
def test_no_config_path_is_a_warning_with_the_lines_to_add(tmp_path: Path, text: str | None):
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    found = inspect(config, Path("/srv/certs.d"))
    assert found.certs_dir is None
    snippet = found.warnings[0].partition("\n")[2]
    assert f"{config} sets no config_path" in found.warnings[0]
    assert tomllib.loads(snippet)["plugins"] == {
        "io.containerd.cri.v1.images": {"registry": {"config_path": "/srv/certs.d"}},
        "io.containerd.grpc.v1.cri": {"registry": {"config_path": "/srv/certs.d"}},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'{V3}config_path = "/a:/b"\n', r"several directories \(/a:/b\).*config_path = \"/a\""),
        (
            f'{V2}config_path = "/a"\n[{V2[1:-2]}.mirrors."docker.io"]\nendpoint = []\n',
            r"registry\.mirrors.*hosts\.toml",
        ),
        (f'[{V2[1:-2]}.mirrors."docker.io"]\nendpoint = []\n', r"registry\.mirrors"),
        (f"{V2}config_path = 5\n", "config_path is 5"),
        ("[plugins", "is not TOML"),
    ],
)
def test_configurations_that_hosts_toml_can_not_work_with(tmp_path: Path, text: str, words: str):
    config = put(tmp_path / "config.toml", text)
    with pytest.raises(HostsError, match=words) as caught:
        inspect(config)
    assert str(config) in str(caught.value)


@pytest.mark.parametrize(
    ("place", "name"), [("etc/rancher/k3s", "k3s"), ("var/lib/rancher/rke2/agent/containerd", "rke2")]
)
def test_distributions_that_write_the_files_themselves(tmp_path: Path, place: str, name: str):
    refuse_generated(MIRROR, tmp_path)
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(HostsError, match=rf"/etc/rancher/{name}/registries\.yaml(?s:.*){MIRROR}"):
        refuse_generated(MIRROR, tmp_path)
