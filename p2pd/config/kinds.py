"""The kinds of values in a configuration: how each is read from TOML or from text, and what is said when it is wrong.

Each `read` gives the checked value or raises ValueError with a message that names the value and what is allowed. Knows
`p2pd.oci` and `p2pd.units` only; which key has which kind stands in `p2pd.config.load`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from p2pd.config.model import Address
from p2pd.oci import HOST, normal_host
from p2pd.patterns import RepositoryPattern
from p2pd.units import parse_duration, parse_rate, parse_size

TRACKER_PORT = 9590
TRACKERS_MAX = 16  # addresses; a fleet has two or three, each is dialled in turn
FILES_MAX = 16  # files of credentials, or hosts of token services: each is looked at in turn
PATTERNS_MAX = 64  # each is tried for each request
TEXT_MAX = 1024  # characters of any one value; names, paths and URLs are far below
QUANTITY_MAX = 32  # characters of a size, rate or duration
SIZE_MAX = 1 << 60  # bytes; beyond any disk, below what a float would round
SECRET_MAX = 64 << 10  # bytes of a password file; tokens are a few KiB
SOCKET_PATH_MAX = 107  # bytes; sun_path of Linux's sockaddr_un, without the final zero
CREDENTIALS = "${CREDENTIALS_DIRECTORY}"  # where systemd's LoadCredential= puts files for a service


@dataclass(frozen=True)
class Context:
    """What reading a value may need: the directory that relative paths start from, the environment, a place to warn."""

    base: Path
    environ: Mapping[str, str]
    warnings: list[str]


@dataclass(frozen=True)
class Kind:
    """One kind of value. `from_text` turns an environment or command line text into what TOML would have given."""

    read: Callable[[Any, Context], Any]
    from_text: Callable[[str], Any] = str


def _text(value: Any, what: str, length_max: int = TEXT_MAX) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not {what}: write it in quotes")
    if len(value) > length_max or any(ord(c) < 32 for c in value):
        raise ValueError(
            f"{value[:80]!r}... is not {what}: at most {length_max} characters, none of them control characters"
        )
    return value


def _shown(value: Any) -> str:
    """A value as TOML writes it, shortened."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def address(default_port: int, *, listening: bool = False) -> Kind:
    """An Address; without a port it gets `default_port`."""
    return Kind(lambda value, _: Address.parse(_text(value, "an address"), default_port, listening=listening))


def tracker_list() -> Kind:
    """A list of tracker addresses without repeats, as a tuple of Address; in text, separated by commas."""

    def read(value: Any, _: Context) -> tuple[Address, ...]:
        if not isinstance(value, list):
            raise ValueError(f'{_shown(value)} is not a list: write ["tracker1.example:9590", "tracker2.example:9590"]')
        found = [Address.parse(_text(item, "a tracker's address"), TRACKER_PORT) for item in value]
        if len(found) > TRACKERS_MAX:
            raise ValueError(f"{len(found)} trackers are too many: at most {TRACKERS_MAX}")
        return tuple(dict.fromkeys(found))

    return Kind(read, lambda text: [part.strip() for part in text.split(",") if part.strip()])


def path_list() -> Kind:
    """A list of readable files, as a tuple of absolute paths; in text, separated by commas."""

    def read(value: Any, context: Context) -> tuple[Path, ...]:
        if not isinstance(value, list):
            raise ValueError(f'{_shown(value)} is not a list: write ["/etc/p2pd/auth.json"]')
        if len(value) > FILES_MAX:
            raise ValueError(f"{len(value)} files are too many: at most {FILES_MAX}")
        return tuple(path(exists=True).read(item, context) for item in value)

    return Kind(read, lambda text: [part.strip() for part in text.split(",") if part.strip()])


def host_list() -> Kind:
    """A list of host names without ports, as a frozenset; in text, separated by commas."""

    def read(value: Any, _: Context) -> frozenset[str]:
        if not isinstance(value, list):
            raise ValueError(f'{_shown(value)} is not a list: write ["auth.example"]')
        if len(value) > FILES_MAX:
            raise ValueError(f"{len(value)} hosts are too many: at most {FILES_MAX}")
        hosts = frozenset(_text(item, "a host").lower() for item in value)
        for host in hosts:
            if ":" in host or not HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host: write its name alone, without https:// and without a port")
        return hosts

    return Kind(read, lambda text: [part.strip() for part in text.split(",") if part.strip()])


def pattern_list() -> Kind:
    """A list of patterns of repositories, as a tuple; in text, separated by commas."""

    def read(value: Any, _: Context) -> tuple[RepositoryPattern, ...]:
        if not isinstance(value, list):
            raise ValueError(f'{_shown(value)} is not a list: write ["registry.example/secret/*"]')
        if len(value) > PATTERNS_MAX:
            raise ValueError(f"{len(value)} patterns are too many: at most {PATTERNS_MAX}")
        return tuple(RepositoryPattern.parse(_text(item, "a pattern of repositories")) for item in value)

    return Kind(read, lambda text: [part.strip() for part in text.split(",") if part.strip()])


def boolean() -> Kind:
    """true or false."""

    def read(value: Any, _: Context) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{_shown(value)} is not true or false (without quotes)")
        return value

    return Kind(read, lambda text: {"true": True, "false": False}.get(text.strip().lower(), text))


def choice(*allowed: str) -> Kind:
    """One of a few words."""

    def read(value: Any, _: Context) -> str:
        if value not in allowed:
            raise ValueError(f"{_shown(value)} is not one of " + ", ".join(f'"{word}"' for word in allowed))
        return value

    return Kind(read)


def duration(low: float, high: float) -> Kind:
    """Seconds as a float, from `low` to `high`; written with a unit."""

    def read(value: Any, _: Context) -> float:
        seconds = parse_duration(_text(value, 'a duration, as in "5s"', QUANTITY_MAX))
        if not low <= seconds <= high:
            raise ValueError(f"{value!r} is out of range: from {low:g}s to {high:g}s")
        return seconds

    return Kind(read)


def rate() -> Kind:
    """Bytes a second as a float, or None for "none"."""
    return Kind(lambda value, _: parse_rate(_text(value, 'a rate, as in "100MB/s"', QUANTITY_MAX)))


def size(low: int) -> Kind:
    """Bytes as an int, at least `low`; written with a unit, or as a plain number of bytes."""

    def read(value: Any, _: Context) -> int:
        if type(value) is not int:
            value = parse_size(_text(value, 'a size, as in "50GB"', QUANTITY_MAX))
        if not low <= value <= SIZE_MAX:
            raise ValueError(f"{value} bytes is out of range: from {low} to {SIZE_MAX} bytes")
        return value

    return Kind(read)


def label(*, required: bool) -> Kind:
    """A node's or a zone's name: it goes into announcements and logs of other nodes."""

    def read(value: Any, _: Context) -> str:
        text = _text(value, "a name")
        if (required or text) and not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", text):
            raise ValueError(
                f"{text[:80]!r} is not a name: up to 63 letters, digits, dots, dashes and underscores, "
                "the first and the last a letter or digit"
            )
        return text

    return Kind(read)


def host_name() -> Kind:
    """A registry's host, normalised."""
    return Kind(lambda value, _: normal_host(_text(value, "a registry host")))


def path(*, exists: bool = False, socket: bool = False) -> Kind:
    """A path, absolute. `exists`: it must be a readable file; `socket`: short enough for a Unix socket."""

    def read(value: Any, context: Context) -> Path:
        text = _text(value, "a path")
        if not text:
            raise ValueError("'' is not a path")
        if text.startswith(CREDENTIALS):
            directory = context.environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                raise ValueError(
                    f"{text!r}: CREDENTIALS_DIRECTORY is not set; systemd sets it when LoadCredential= is used"
                )
            text = directory + text.removeprefix(CREDENTIALS)
        found = context.base / text
        if socket and len(str(found).encode()) > SOCKET_PATH_MAX:
            raise ValueError(f"{str(found)!r} is too long for a socket: at most {SOCKET_PATH_MAX} bytes")
        if exists:
            _open_check(found)
        return found

    return Kind(read)


def _open_check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"'{path}' can't be read: {error.strerror}") from None


def secret_file() -> Kind:
    """The one line of a file: a password. It is never shown; a file that everyone may read is warned about."""

    def read(value: Any, context: Context) -> str:
        found: Path = path().read(value, context)
        try:
            with found.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                secret = file.read(SECRET_MAX + 1).decode().rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"'{found}' can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"'{found}' is not UTF-8 text") from None
        if not secret or len(secret) >= SECRET_MAX or any(ord(c) < 32 for c in secret):
            raise ValueError(f"'{found}' must hold one line with the password, and nothing else")
        if mode & 0o004:
            context.warnings.append(f"password file '{found}' is readable by everyone on this machine: chmod o-rwx it")
        return secret

    return Kind(read)


def url(*schemes: str, user_allowed: bool = False) -> Kind:
    """A URL without query and fragment, and without a user unless `user_allowed`; no slash at its end."""

    def read(value: Any, _: Context) -> str:
        text = _text(value, "a URL")
        try:
            parts = urlsplit(text)
            usable = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            usable = usable and not (parts.query or parts.fragment) and (user_allowed or "@" not in parts.netloc)
        except ValueError:
            usable = False
        if not usable:
            shown = "what is set" if "@" in text else repr(text)  # it may hold a password
            raise ValueError(
                f"{shown} is not a URL that can be used: write {' or '.join(f'{s}://host[:port]' for s in schemes)}, "
                "without a query" + ("" if user_allowed else " and without a user")
            )
        return text.rstrip("/")

    return Kind(read)


def optional(kind: Kind) -> Kind:
    """The same kind, or None for "none"."""
    return Kind(lambda value, context: None if value == "none" else kind.read(value, context), kind.from_text)


def no_or(kind: Kind) -> Kind:
    """The same kind, or "" for "none": not even what the environment says."""
    return Kind(lambda value, context: "" if value == "none" else kind.read(value, context), kind.from_text)


KINDS_OF_UPSTREAM: dict[str, Kind] = {
    "url": url("https", "http"),
    "username": Kind(lambda value, _: _text(value, "a user name")),
    "password_file": secret_file(),
    "docker_config": path(exists=True),
    "realm_hosts": host_list(),
    "ca": path(exists=True),
    "client_certificate": path(exists=True),
    "proxy": no_or(url("http", "https", user_allowed=True)),
    "download_limit": rate(),
}
