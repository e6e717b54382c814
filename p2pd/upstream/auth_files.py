"""Files of credentials as `docker login`, `podman login` and Kubernetes write them: config.json and auth.json.

    auths         {place: {auth | username, password | identitytoken}}; in containers' files a place may be a repository
    credHelpers   {host: helper}, before `auths`
    credsStore    the helper for all other hosts, before `auths` as well

Sources: docker's cli/config, containers-auth.json(5). Reads text; opens and runs nothing. May know p2pd.oci and this
package's credentials.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from p2pd import oci
from p2pd.upstream.credentials import BadCredentials, Credentials, IdentityToken, Password, is_plain

# The paths that a key may have and still mean the whole registry.
_WHOLE_REGISTRY = frozenset({"", "/", "/v1", "/v1/", "/v2", "/v2/"})
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # the end of a program's name, and never a path
_HUB_SERVER = "https://index.docker.io/v1/"  # what docker's helpers know Docker Hub by


@dataclass(frozen=True, slots=True)
class Helper:
    """`docker-credential-NAME get`, asked for `server`."""

    name: str
    server: str


class AuthFile:
    """One file's content. BadCredentials if it is not such a file; an entry's faults come to light when it is asked
    for, so that they are in nobody else's way."""

    def __init__(self, text: bytes, path: Path) -> None:
        self._path = path
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise BadCredentials(
                f'{path} is not a docker config.json or containers auth.json: expected a JSON object with "auths"'
            )
        self._auths: dict[tuple[str, str], tuple[str, object]] = {}
        for key, entry in self._table(document, "auths").items():
            place = _place_of(key)
            if place is not None:
                self._auths.setdefault(place, (key, entry))
        self._helpers = {}
        for key, name in self._table(document, "credHelpers").items():
            place = _place_of(key)
            if place is not None and not place[1]:
                self._helpers[place[0]] = name
        self._store = document.get("credsStore") or None

    def _table(self, document: Mapping[str, object], name: str) -> Mapping[str, object]:
        table = document.get(name)
        if table is not None and not isinstance(table, dict):
            raise BadCredentials(f'{self._path} is not a docker config.json: "{name}" must be a JSON object')
        return table or {}

    def helper(self, host: str) -> Helper | None:
        """Whom to ask about a registry before `auths`."""
        name = self._helpers.get(host) or self._store
        if name is None:
            return None
        if not isinstance(name, str) or not _HELPER.fullmatch(name):
            raise BadCredentials(
                f"{self._path}: the credential helper for {host} is not the name of one: "
                "write what follows docker-credential-"
            )
        return Helper(name, _HUB_SERVER if host == oci.DOCKER_HUB else host)

    def helpers(self) -> set[str]:
        """The programs that it names."""
        names = [*self._helpers.values(), self._store]
        return {f"docker-credential-{name}" for name in names if isinstance(name, str) and _HELPER.fullmatch(name)}

    def find(self, host: str, repository: str) -> Credentials | None:
        """The entry of `auths` with the longest path that the repository is at or below (normal names), or None."""
        path = repository
        while True:
            if (host, path) in self._auths:
                found = self._entry(*self._auths[host, path])
                if found is not None:
                    return found
            if not path:
                return None
            path = path.rpartition("/")[0]

    def _entry(self, key: str, entry: object) -> Credentials | None:
        if not isinstance(entry, dict):
            return None
        place = _place_of(key)
        named = "/".join(part for part in place if part) if place else ""
        broken = BadCredentials(f"{self._path}: the entry for {named} is broken; log in again, or remove it")
        identity, username, password = entry.get("identitytoken"), entry.get("username"), entry.get("password")
        if isinstance(identity, str) and identity:
            if not is_plain(identity):
                raise broken
            return IdentityToken(identity)
        if not (username and password) and entry.get("auth"):
            try:
                username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except (TypeError, ValueError, binascii.Error):
                raise broken from None
            if not colon:
                raise broken
            password = password.rstrip("\0")  # old docker versions padded with NUL
        if not username and not password:
            return None
        if not (isinstance(username, str) and isinstance(password, str) and is_plain(username, password)):
            raise broken
        return Password(username, password)


def _place_of(key: str) -> tuple[str, str] | None:
    """The registry that a key names, and the repository or what is above some, "" for all: "host:port",
    "https://host/v1/", "host/team/app", and Docker Hub's old address."""
    try:
        parts = urlsplit(key if "://" in key else f"//{key}")
        host = oci.normal_host(parts.netloc)
        if parts.path in _WHOLE_REGISTRY:
            return host, ""
        if "://" in key or parts.query or parts.fragment:
            return None
        return host, oci.check_repository(parts.path.strip("/"))
    except ValueError:
        return None
