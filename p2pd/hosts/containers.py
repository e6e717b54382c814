"""CRI-O, Podman, Buildah and skopeo: one file of p2pd's own in registries.conf.d.

These clients send no `?ns=`, so the registry stands in the mirror's path, where a port is written host_port: a colon is
not allowed in a repository's name ("invalid reference format"), and no host name has an underscore. Source:
containers-registries.conf(5): files are read in the order of their names, and a later [[registry]] with the same prefix
takes an earlier one's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from p2pd import toml
from p2pd.hosts.files import HostsError, Plan, read

DEFAULT_DIRECTORY = Path("/etc/containers")
NAME = "registries.conf.d/50-p2pd.conf"
HEADER = '# Made by "p2pd hosts install": "p2pd hosts remove" takes it away. Changes are lost at the next install.\n'


def plan_install(
    registries: Iterable[str], mirror: str, *, directory: Path = DEFAULT_DIRECTORY, no_fallback: bool = False
) -> Plan:
    """Put `mirror` (http://host:port) before each registry. HostsError if one has an entry of its own already."""
    path = directory / NAME
    before = _ours(path)
    names = sorted(registries)
    for other in [directory / "registries.conf", *sorted(path.parent.glob("*.conf"))]:
        if other == path:
            continue
        for name in sorted(_prefixes(other).intersection(names)):
            raise HostsError(
                f"{other} has its own [[registry]] for {name}, which {path} would override: add p2pd's mirror there, "
                f"and name the other registries in this command:\n{_mirror_table(name, mirror)}"
            )
    plan = Plan()
    text = HEADER + "".join(_registry_table(name, mirror, no_fallback=no_fallback) for name in names)
    toml.parse(text)
    plan.add(path, before, text, f"{mirror} put before {len(names)} registries")
    return plan


def plan_remove(registries: frozenset[str] | None = None, *, directory: Path = DEFAULT_DIRECTORY) -> Plan:
    """Take the file away, or only the tables of `registries`."""
    path = directory / NAME
    plan = Plan()
    before = _ours(path)
    if before is None:
        return plan
    tables = before.removeprefix(HEADER).split("\n[[registry]]\n")[1:]
    kept = [t for t in tables if registries is not None and toml.parse(t)["prefix"] not in registries]
    after = HEADER + "".join(f"\n[[registry]]\n{table}" for table in kept) if kept else None
    plan.add(path, before, after, "p2pd's tables taken out" if kept else "p2pd's file removed")
    return plan


def _ours(path: Path) -> str | None:
    text = read(path)
    if text is not None and not text.startswith(HEADER):
        raise HostsError(f"{path} was not made by p2pd, and is left as it is: rename it, then run the command again")
    return text


def _prefixes(path: Path) -> set[str]:
    text = read(path)
    try:
        document: dict[str, Any] = toml.parse(text or "")
    except toml.NotToml as error:
        raise HostsError(f"{path} is not TOML: {error}; the clients can't read it either, so repair it first") from None
    tables = document.get("registry", [])
    found = (
        [t.get("prefix") or t.get("location") for t in tables if isinstance(t, dict)]
        if isinstance(tables, list)
        else []
    )
    return {prefix for prefix in found if isinstance(prefix, str)}


def _registry_table(name: str, mirror: str, *, no_fallback: bool) -> str:
    place = _place(name, mirror)
    if no_fallback:
        return f'\n[[registry]]\nprefix = "{name}"\nlocation = "{place}"\ninsecure = true\n'
    return f'\n[[registry]]\nprefix = "{name}"\nlocation = "{name}"\n{_mirror_table(name, mirror)}'


def _mirror_table(name: str, mirror: str) -> str:
    return f'[[registry.mirror]]\nlocation = "{_place(name, mirror)}"\ninsecure = true\n'


def _place(name: str, mirror: str) -> str:
    if name.startswith("["):
        raise HostsError(f"{name} can't stand in a mirror's path: give the registry a name, and install for that")
    return f"{mirror.removeprefix('http://')}/{name.replace(':', '_')}"
