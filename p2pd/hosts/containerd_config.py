"""containerd's own configuration: from which directory, if any, it reads hosts.toml files.

Reads and judges only; p2pd never writes containerd's config.toml, since a change there needs containerd's restart.
Sources: containerd's docs/cri/registry.md and docs/hosts.md, and its source from 1.6 to 2.3: `config_path` together
with `registry.mirrors` keeps the CRI plugin from loading; of several directories joined by ":", the transfer service
(2.1 and later) reads none; unset, 2.2 and later take two directories.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pd import toml
from p2pd.hosts.files import HostsError, read

DEFAULT_CONFIG = Path("/etc/containerd/config.toml")
DEFAULT_CERTS_DIR = Path("/etc/containerd/certs.d")
IMPORTS_MAX = 64  # files that a config.toml may draw in

# Where the registry's settings stand, by the version of the configuration's format.
REGISTRY_TABLES: tuple[tuple[str, ...], ...] = (
    ("plugins", "io.containerd.cri.v1.images", "registry"),  # 3: containerd 2.x
    ("plugins", "io.containerd.grpc.v1.cri", "registry"),  # 2: containerd 1.x
    ("plugins", "cri", "registry"),  # 1: the format of containerd 1.2
)

SNIPPETS = """\
    # containerd 2.x (a file with version = 3):
    [plugins."io.containerd.cri.v1.images".registry]
      config_path = "{directory}"
    # containerd 1.x (a file with version = 2):
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "{directory}\""""


@dataclass(frozen=True)
class Found:
    """The directory that containerd reads hosts.toml files from, None if it has none set; what to tell the operator."""

    certs_dir: Path | None
    warnings: list[str] = field(default_factory=list)


def inspect(config: Path = DEFAULT_CONFIG, wanted: Path = DEFAULT_CERTS_DIR) -> Found:
    """Read containerd's configuration and the files that it imports. HostsError for what hosts.toml can't work with.

    `wanted` is the directory to recommend where none is set.
    """
    directory: str | None = None
    for path, document in _documents(config):
        for keys in REGISTRY_TABLES:
            table = _table(document, keys)
            if table.get("mirrors"):
                raise HostsError(
                    f"{path} sets registry.mirrors, the old form: with it containerd reads no hosts.toml, and with "
                    "config_path beside it the CRI plugin does not load. Move each mirror to a hosts.toml "
                    f'(containerd\'s docs/hosts.md), set config_path = "{DEFAULT_CERTS_DIR}", restart containerd'
                )
            value = table.get("config_path")
            if value is not None and not isinstance(value, str):
                raise HostsError(f"{path}: config_path is {value!r}, and must be a directory in quotes")
            if value and ":" in value:
                raise HostsError(
                    f"{path}: config_path names several directories ({value}), and containerd 2.1 and later then "
                    f'read none of them when the CRI pulls. Set one: config_path = "{value.split(":")[0]}", '
                    "move the other's files there, restart containerd"
                )
            directory = value or directory
    if directory:
        return Found(Path(directory))
    return Found(None, [_unset(config, wanted)])


def _unset(config: Path, wanted: Path) -> str:
    return (
        f"containerd's CRI does not read {wanted} yet: {config} sets no config_path. "
        f"Add this to it, then `systemctl restart containerd`:\n{SNIPPETS.format(directory=wanted)}"
    )


def _documents(config: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The configuration, then its imports, which go over it. Imports of imports are taken too, each file once."""
    found: dict[Path, dict[str, Any]] = {}
    waiting = [config]
    while waiting and len(found) < IMPORTS_MAX:
        path = waiting.pop(0)
        if path in found or (text := read(path)) is None:
            continue
        try:
            found[path] = document = toml.parse(text)
        except toml.NotToml as error:
            raise HostsError(
                f"{path} is not TOML: {error}; containerd can't read it either, so repair it first"
            ) from None
        imports = document.get("imports", [])
        for pattern in imports if isinstance(imports, list) else []:
            if isinstance(pattern, str) and pattern:
                waiting += _matching(path, pattern)
    return list(found.items())


def _matching(path: Path, pattern: str) -> list[Path]:
    """The files that a pattern in `path` names. As to containerd, "**" is no more than "*"."""
    try:
        return [path.parent / name for name in sorted(glob.glob(pattern, root_dir=path.parent))]
    except ValueError:
        raise HostsError(f"{path}: {pattern!r} in its imports can't be a path") from None


def _table(document: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
