"""containerd: a hosts.toml for each registry in the directory that containerd's `config_path` names.

Which directory and whether containerd reads it at all is for `p2pd.hosts.containerd_config`; the text of a hosts.toml
for `p2pd.hosts.hosts_toml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from p2pd.hosts import hosts_toml
from p2pd.hosts.files import HostsError, Plan, read
from p2pd.hosts.hosts_toml import BadText

CERTIFICATES = ("*.crt", "*.cert", "*.key")  # what containerd reads from a directory without a hosts.toml


def plan_install(certs_dir: Path, registries: Mapping[str, str], mirror: str, *, no_fallback: bool = False) -> Plan:
    """Put `mirror` before the other hosts of each registry; `registries` maps its host to its own URL."""
    plan = Plan()
    for host, url in registries.items():
        _plan_one(plan, certs_dir, host, url, mirror, no_fallback=no_fallback)
    return plan


def plan_remove(certs_dir: Path, registries: frozenset[str] | None = None) -> Plan:
    """Take p2pd's lines out of the hosts.toml of `registries`, None for all; a file that p2pd made goes with them."""
    plan = Plan()
    wanted = None if registries is None else {name for host in registries for name in _names(host)}
    for path in sorted(certs_dir.glob("*/hosts.toml")):
        if wanted is not None and path.parent.name not in wanted:
            continue
        text = read(path)
        if text is None or not hosts_toml.has_mark(text):
            continue
        try:
            rest = hosts_toml.remove(text)
        except BadText as error:
            raise HostsError(f"{path}: {error}") from None
        inherited = _read_inherited(certs_dir, path.parent.name)
        empty = hosts_toml.has_created_mark(text) and (not rest.strip() or rest == inherited)
        plan.add(path, text, None if empty else rest, "p2pd's file removed" if empty else "p2pd's lines taken out")
    return plan


def _plan_one(plan: Plan, certs_dir: Path, host: str, url: str, mirror: str, *, no_fallback: bool) -> None:
    directory = next((certs_dir / name for name in _names(host) if (certs_dir / name).is_dir()), certs_dir / host)
    path = directory / "hosts.toml"
    text = read(path)
    try:
        base = _first_text(certs_dir, directory) if text is None else text
        after = hosts_toml.install(base, mirror, url, created=text is None, no_fallback=no_fallback)
    except BadText as error:
        raise HostsError(f"{path}: {error}") from None
    plan.add(path, text, after, f"{mirror} put before {url}", backup=not hosts_toml.has_mark(text or ""))
    if no_fallback and len(hosts := hosts_toml.host_names(after)) > 1:
        plan.warnings.append(f"{path}: containerd still falls back to {', '.join(hosts[1:])}, which are in this file")


def _first_text(certs_dir: Path, directory: Path) -> str:
    """What a new hosts.toml begins with: what has served this host so far, since the new one will hide that."""
    if directory.is_dir():
        _refuse_certificates(directory)
        return ""
    inherited = _read_inherited(certs_dir, directory.name) or ""
    if names := hosts_toml.relative_files(inherited):
        raise BadText(
            f"it would hide the hosts.toml in {certs_dir} that serves this registry now, and that one names "
            f"{names[0]} by a relative path: make the path absolute, then install again"
        )
    return inherited


def _names(host: str) -> list[str]:
    """The directories in which containerd looks for exactly this host, in its order."""
    name, colon, port = host.rpartition(":")
    return [f"{name}_{port}_", host] if colon and port.isdigit() else [host]


def _read_inherited(certs_dir: Path, directory: str) -> str | None:
    """The hosts.toml that serves a host without a directory of its own: a directory of its own hides that one."""
    with_port = re.fullmatch(r"(.+)(?:_[0-9]+_|:[0-9]+)", directory)
    for candidate in (with_port[1], "_default") if with_port else ("_default",):
        if candidate != directory and (certs_dir / candidate).is_dir():
            text = read(certs_dir / candidate / "hosts.toml")
            return None if text is None else _without_ours(text)
    return None


def _without_ours(text: str) -> str:
    try:
        return hosts_toml.remove(text)
    except BadText:
        return text


def _refuse_certificates(directory: Path) -> None:
    found = sorted(path.name for pattern in CERTIFICATES for path in directory.glob(pattern))
    if found:
        raise HostsError(
            f"{directory} has {found[0]}, which containerd stops reading once there is a hosts.toml: "
            f'write one that names it (server = "https://...", ca = "{directory}/{found[0]}"), then install again'
        )
