"""Docker Engine: `registry-mirrors` in its daemon.json, which serve Docker Hub and no other registry.

Source: Docker's dockerd reference ("registry-mirrors": plain HTTP is allowed on loopback; a reload is enough).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from p2pd.hosts.files import BACKUP, HostsError, Plan, read

DEFAULT_FILE = Path("/etc/docker/daemon.json")
KEY = "registry-mirrors"
RELOAD = "Docker reads it after `systemctl reload docker`."


def plan_install(mirror: str, *, path: Path = DEFAULT_FILE) -> Plan:
    """Put `mirror` before Docker's other mirrors; the rest of the file keeps its meaning and order."""
    plan = Plan()
    before, document, mirrors = _read(path)
    if mirrors[:1] == [mirror]:
        return plan
    document[KEY] = [mirror, *(other for other in mirrors if other.rstrip("/") != mirror)]
    plan.add(path, before, _written(document), f"{mirror} put before Docker Hub", backup=True)
    plan.notes.append(RELOAD)
    return plan


def plan_remove(mirror: str, *, path: Path = DEFAULT_FILE) -> Plan:
    """Take `mirror` out; a file that holds nothing else and had nothing before p2pd is removed."""
    plan = Plan()
    before, document, mirrors = _read(path)
    if mirror not in [other.rstrip("/") for other in mirrors]:
        return plan
    document[KEY] = [other for other in mirrors if other.rstrip("/") != mirror]
    if not document[KEY]:
        del document[KEY]
    made_by_us = not document and not path.with_name(path.name + BACKUP).exists()
    plan.add(path, before, None if made_by_us else _written(document), "p2pd's mirror taken out")
    plan.notes.append(RELOAD)
    return plan


def _read(path: Path) -> tuple[str | None, dict[str, Any], list[str]]:
    text = read(path)
    try:
        document = json.loads(text) if text is not None and text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise HostsError(f"{path} is not JSON: {error}; Docker can't read it either, so repair it first") from None
    mirrors = document.get(KEY, []) if isinstance(document, dict) else None
    if not isinstance(mirrors, list) or not all(isinstance(mirror, str) for mirror in mirrors):
        raise HostsError(f'{path} must be an object whose "{KEY}" is a list of URLs: repair it first')
    return text, document, mirrors


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
