"""containerd's hosts.toml, config.toml and registries.conf as operators have them: refused, or changed and put back."""

from __future__ import annotations

import tempfile
from pathlib import Path

from p2pd.hosts import containerd_config, containers, docker
from p2pd.hosts.files import HostsError
from p2pd.hosts.hosts_toml import BadText, has_mark, host_names, install, relative_files, remove

MIRROR = "http://127.0.0.1:9580"
_DIRECTORY = tempfile.TemporaryDirectory(prefix="p2pd-fuzz-")


def check(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    for no_fallback in (False, True):
        _install(text, no_fallback)
    path = Path(_DIRECTORY.name) / "file"
    path.write_bytes(data)
    (other := Path(_DIRECTORY.name) / "registries.conf").write_bytes(data)
    for plan in (
        lambda: containerd_config.inspect(path),
        lambda: containers.plan_install(["docker.io"], MIRROR, directory=other.parent),
        lambda: docker.plan_install(MIRROR, path=path),
        lambda: docker.plan_remove(MIRROR, path=path),
    ):
        try:
            plan()
        except HostsError as error:
            assert str(path.parent) in str(error)


def _install(text: str, no_fallback: bool) -> None:
    try:
        relative_files(text)
        installed = install(text, MIRROR, "https://r.example", no_fallback=no_fallback)
    except BadText:
        return
    assert host_names(installed)[0] == MIRROR
    assert install(installed, MIRROR, "https://r.example", no_fallback=no_fallback) == installed
    if not has_mark(text) and "# p2pd replaced: " not in text and (not text or text.endswith("\n")):
        assert remove(installed) == text
