"""Who we are to a registry: a user name and password, or an identity token; from the configuration or a docker
config.json.

Credential helpers (credHelpers, credsStore) are not run: an entry that needs one is named in the log and passed over.
Secrets are never part of a repr or of an error. May know p2pd.oci and this package's config and errors.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trio

from p2pd import oci
from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.errors import Denied

log = logging.getLogger(__name__)

FILE_SIZE_MAX = 1 << 20  # bytes of a docker config.json; real ones have a few KiB
RECHECK_S = 30.0  # how old a read of the file may be: cloud tokens in it are renewed every few hours

# The paths that a key may have and still mean the whole registry; other paths mean a part of it.
_WHOLE_REGISTRY = frozenset({"", "/", "/v1", "/v1/", "/v2", "/v2/"})


@dataclass(frozen=True, slots=True)
class Password:
    """For Basic, and for a token service asked with GET."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617, UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A refresh token for the token service (`docker login` stores it as "identitytoken")."""

    token: str = field(repr=False)


Credentials = Password | IdentityToken


class BadCredentialFile(ValueError):
    """The file is not a docker config.json, or an entry in it is broken; names file and entry, never its content."""


def parse_docker_config(text: bytes, host: str, path: Path) -> Credentials | None:
    """The entry of `auths` for a registry (normalised name), or None. BadCredentialFile if the file is broken."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("auths", {}), dict):
        raise BadCredentialFile(f'{path} is not a docker config.json: expected a JSON object with "auths"')
    for key, entry in document.get("auths", {}).items():
        if _host_of(key) == host and isinstance(entry, dict):
            found = _entry(entry, key, path)
            if found is not None:
                return found
    helpers = document.get("credHelpers")
    if document.get("credsStore") or (isinstance(helpers, dict) and host in {_host_of(key) for key in helpers}):
        log.warning("%s: credential helpers are not run; put an entry for %s under auths", path, host)
    return None


def _host_of(key: str) -> str | None:
    """The registry that a key of `auths` names: "host:port", "https://host/v1/", and Docker Hub's old address."""
    try:
        parts = urlsplit(key if "://" in key else f"//{key}")
        return oci.normal_host(parts.netloc) if parts.path in _WHOLE_REGISTRY else None
    except ValueError:
        return None


def _entry(entry: dict, key: str, path: Path) -> Credentials | None:
    broken = BadCredentialFile(f"{path}: the entry for {_host_of(key)} is broken; log in again, or remove it")
    identity, username, password = entry.get("identitytoken"), entry.get("username"), entry.get("password")
    if isinstance(identity, str) and identity:
        if not _can_be_sent(identity):
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
    if not (isinstance(username, str) and isinstance(password, str)) or not _can_be_sent(username + password):
        raise broken
    return Password(username, password)


def _can_be_sent(text: str) -> bool:
    """JSON can hold halves of characters (lone surrogates), which UTF-8 has not."""
    return not any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in text)


class CredentialSource:
    """The credentials of one registry, as they are now: a docker config.json is read again when it changed."""

    def __init__(self, config: UpstreamConfig, clock: Callable[[], float] = trio.current_time) -> None:
        self._host = config.host
        self._path = config.docker_config
        self._clock = clock
        self._checked_at: float | None = None
        self._stamp: tuple[int, int] | None = None
        self._current: Credentials | None = None
        if config.username is not None and config.password is not None:
            self._current, self._path = Password(config.username, config.password), None

    @property
    def configured(self) -> bool:
        """True if there is any place where credentials may come from."""
        return self._current is not None or self._path is not None

    async def current(self) -> Credentials | None:
        """The credentials, None without. Denied if the file can't be used and never could; a file that breaks later
        leaves the last good ones in force."""
        if self._path is None:
            return self._current
        now = self._clock()
        if self._checked_at is not None and now - self._checked_at < RECHECK_S:
            return self._current
        try:
            await trio.to_thread.run_sync(self._read, self._path)
        except (OSError, BadCredentialFile) as error:
            reason = f"can't read {self._path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if self._checked_at is None:
                raise Denied(f"{self._host}: {reason}") from None
            log.warning("%s: %s; the credentials read before stay in force", self._host, reason)
        self._checked_at = now
        return self._current

    def _read(self, path: Path) -> None:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return
        if status.st_size > FILE_SIZE_MAX:
            raise BadCredentialFile(
                f"{path} has {status.st_size} bytes; a docker config.json has at most {FILE_SIZE_MAX}"
            )
        self._current = parse_docker_config(path.read_bytes(), self._host, path)
        self._stamp = stamp
