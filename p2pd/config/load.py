"""From a TOML file, the environment and `--set` to a checked Config.

Each setting keeps the place it came from, so that an error can name it, also one that joins two keys. Knows `p2pd.oci`,
`p2pd.toml`, `p2pd.units` and the upstreams' own type.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from p2pd import toml
from p2pd.config.kinds import (
    KINDS_OF_UPSTREAM,
    Context,
    Kind,
    address,
    boolean,
    choice,
    duration,
    host_name,
    label,
    optional,
    path,
    path_list,
    pattern_list,
    rate,
    size,
    tracker_list,
)
from p2pd.config.model import (
    AdminConfig,
    Config,
    ConfigError,
    DiscoveryConfig,
    FleetConfig,
    MirrorConfig,
    NodeConfig,
    PeersConfig,
    StoreConfig,
)
from p2pd.config.place import Keys, dotted, line_of
from p2pd.oci import BadName, normal_host
from p2pd.upstream.config import WELL_KNOWN, NodeCredentials, UpstreamConfig

DEFAULT_PATH = Path("/etc/p2pd/p2pd.toml")
FILE_SIZE_MAX = 1 << 20  # bytes; a configuration is a few hundred, so a larger file is some other file
HEADER_WAIT_MAX = 28.0  # seconds; containerd 2.3 gives up on a mirror that sends no headers for 30


TABLES: dict[str, type] = {
    "node": NodeConfig,
    "mirror": MirrorConfig,
    "peers": PeersConfig,
    "fleet": FleetConfig,
    "discovery": DiscoveryConfig,
    "store": StoreConfig,
    "admin": AdminConfig,
    "credentials": NodeCredentials,
}

KINDS: dict[str, dict[str, Kind]] = {
    "node": {
        "name": label(required=True),
        "zone": label(required=False),
        "state_dir": path(),
        "control": path(socket=True),
    },
    "mirror": {
        "listen": address(9580, listening=True),
        "default_upstream": host_name(),
        "hold_back": duration(0.0, HEADER_WAIT_MAX),
        "stream": choice("vouched", "proven"),
        "header_wait": duration(0.1, HEADER_WAIT_MAX),
        "share_private": boolean(),
        "private": pattern_list(),
    },
    "peers": {
        "listen": address(9581, listening=True),
        "advertise": optional(address(9581)),
        "insecure": boolean(),
        "upload_limit": rate(),
        "download_limit": rate(),
    },
    "fleet": {"ca": optional(path()), "certificate": optional(path()), "key": optional(path())},
    "discovery": {"trackers": tracker_list(), "mdns": boolean(), "tags": choice("node", "fleet")},
    "store": {"size_limit": size(10**6)},
    "admin": {"listen": address(9582, listening=True)},
    "credentials": {
        "files": path_list(),
        "well_known": boolean(),
        "kubelet_config": optional(path(exists=True)),
        "kubelet_plugins": optional(path()),
    },
}


def load_config(path: Path | None, overrides: Mapping[str, str], *, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration of `path` (None: DEFAULT_PATH, which may be missing), the environment and `--set` overrides.

    Override keys are dotted TOML keys ("mirror.listen", 'upstreams."registry.example:5000".url'). Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    reader = _Reader(environ)
    reader.read_file(path if path is not None else DEFAULT_PATH, may_be_missing=path is None)
    reader.read_environment()
    for key, text in overrides.items():
        reader.read_override(key, text)
    return _build(reader)


def load_node(
    path: Path | None, overrides: Mapping[str, str], *, environ: Mapping[str, str] | None = None
) -> NodeConfig:
    """Only [node], for commands that need no more: they work where a registry's password can't be read.

    Other tables are not looked at. Raises ConfigError.
    """
    reader = _Reader(os.environ if environ is None else environ, only="node")
    reader.read_file(path if path is not None else DEFAULT_PATH, may_be_missing=path is None)
    reader.read_environment()
    for key, text in overrides.items():
        reader.read_override(key, text)
    return _build_table("node", reader)


def env_name(table: str, key: str) -> str:
    """The environment form of a key: ("mirror", "listen") is P2PD_MIRROR_LISTEN."""
    return f"P2PD_{table}_{key}".upper()


@dataclass(frozen=True)
class _Setting:
    value: Any
    path: Path | None
    place: str  # what stands before the message: the line or variable, and the key

    def error(self, message: str) -> ConfigError:
        return ConfigError(self.path, self.place, message)


class _Reader:
    """Collects settings, later ones over earlier ones, each with the place it came from."""

    def __init__(self, environ: Mapping[str, str], only: str | None = None) -> None:
        self.environ = environ
        self.only = only
        self.settings: dict[Keys, _Setting] = {}
        self.hosts: dict[str, _Setting] = {}  # every upstream named, also one whose table is empty
        self.warnings: list[str] = []

    def read_file(self, path: Path, *, may_be_missing: bool) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(FILE_SIZE_MAX + 1)
            if len(data) > FILE_SIZE_MAX:
                raise ConfigError(path, "", f"is larger than {FILE_SIZE_MAX} bytes; is it a p2pd configuration?")
            text = data.decode()
            document = toml.parse(text)
        except FileNotFoundError:
            if may_be_missing:
                return
            raise ConfigError(path, "", "no such file; leave --config out to run with the defaults") from None
        except OSError as error:
            raise ConfigError(path, "", f"can't be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(path, f"byte {error.start}", "is not UTF-8 text, as TOML must be") from None
        except toml.NotToml as error:
            raise ConfigError(path, "", f"is not TOML: {error}") from None
        for keys, value in _leaves(document):
            line = line_of(text, keys)
            place = f"line {line}, {dotted(keys)}" if line else dotted(keys)
            self._take(keys, value, _Setting(value, path, place), path.parent.absolute())

    def read_environment(self) -> None:
        known = {env_name(table, key): (table, key) for table, keys in KINDS.items() for key in keys}
        tables = tuple(f"P2PD_{table}_".upper() for table in TABLES)
        for name, text in sorted(self.environ.items()):
            if name in known:
                keys = known[name]
                self._take_text(keys, text, _Setting(text, None, f"environment variable {name} ({dotted(keys)})"))
            elif name.startswith(tables):
                # Not an error: an orchestrator may set such names by itself, as Kubernetes does for each service.
                self.warnings.append(
                    f"environment variable {name} is not a setting of p2pd{_did_you_mean(name, known)}"
                )

    def read_override(self, key: str, text: str) -> None:
        try:
            document: Any = toml.parse(f"{key} = 0") if "\n" not in key else {}
            ((keys, _),) = _leaves(document)
        except ValueError:
            raise ConfigError(
                None, f"--set {key}={text}", "must be TABLE.KEY=VALUE, as in mirror.hold_back=5s"
            ) from None
        self._take_text(keys, text, _Setting(text, None, f"--set {dotted(keys)}"))

    def _take_text(self, keys: Keys, text: str, setting: _Setting) -> None:
        kind = _kind_of(_joined_host(keys), setting)
        try:
            value = kind.from_text(text)
        except ValueError as error:
            raise setting.error(str(error)) from None
        self._take(keys, value, setting, Path.cwd())

    def _take(self, keys: Keys, value: Any, setting: _Setting, base: Path) -> None:
        if self.only is not None and keys[0] != self.only:
            return
        keys = _joined_host(keys, is_table=value == {})
        if keys[0] == "upstreams" and len(keys) > 1:
            keys = (keys[0], _normal_host(keys[1], setting), *keys[2:])
            self.hosts.setdefault(keys[1], setting)
            if len(keys) == 2 and value == {}:
                return
        elif len(keys) == 1 and value == {} and keys[0] in (*TABLES, "upstreams"):
            return
        kind = _kind_of(keys, setting)
        try:
            checked = kind.read(value, Context(base, self.environ, self.warnings))
        except ValueError as error:
            raise setting.error(str(error)) from None
        self.settings[keys] = _Setting(checked, setting.path, setting.place)


def _leaves(table: Mapping[str, Any], above: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """All settings of a document with their keys. An empty table is one too: it may name an upstream."""
    for key, value in table.items():
        keys = (*above, key)
        if isinstance(value, dict) and value and len(keys) < 8:
            yield from _leaves(value, keys)
        else:
            yield keys, value


def _joined_host(keys: Keys, *, is_table: bool = False) -> Keys:
    """[upstreams.ghcr.io], written without quotes, means "ghcr.io" all the same."""
    end = len(keys) if is_table else len(keys) - 1
    if keys[0] != "upstreams" or end < 2:
        return keys
    return ("upstreams", ".".join(keys[1:end]), *keys[end:])


def _kind_of(keys: Keys, setting: _Setting) -> Kind:
    tables = (*TABLES, "upstreams")
    if keys[0] not in tables:
        advice = f"{_did_you_mean(keys[0], tables)}; the tables are {', '.join(tables)}"
        if len(keys) > 1 or setting.value == {}:
            raise setting.error(f"unknown table {keys[0]!r}{advice}")
        raise setting.error(f"{keys[0]!r} is not a table, and keys must stand in a table{advice}")
    if keys[0] == "upstreams":
        if len(keys) < 3:
            raise setting.error('must be a table of registries, as in [upstreams."registry.example:5000"]')
        known, rest = KINDS_OF_UPSTREAM, keys[2:]
    else:
        if len(keys) < 2:
            raise setting.error(f"must be a table, as in [{keys[0]}]")
        known, rest = KINDS[keys[0]], keys[1:]
    name = dotted(rest)
    if name not in known:
        raise setting.error(f"unknown key {name!r}{_did_you_mean(name, known)}; allowed are {', '.join(known)}")
    return known[name]


def _normal_host(text: str, setting: _Setting) -> str:
    try:
        if text.startswith("*"):  # a pattern, as in "*-docker.pkg.dev"
            normal_host(text.replace("*", "x", 1))
            return text.lower()
        return normal_host(text)
    except BadName as error:
        raise setting.error(f"{error}: write host or host:port, without https:// or a path") from None


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _build(reader: _Reader) -> Config:
    parts = {table: _build_table(table, reader) for table in TABLES}
    upstreams = dict(WELL_KNOWN)
    for host, setting in reader.hosts.items():
        upstreams[host] = _upstream(reader, host, setting, upstreams.get(host))
    config = Config(**parts, upstreams=upstreams)
    _check_across(config, reader)
    warnings = (*reader.warnings, *_warnings(config))
    return dataclasses.replace(config, warnings=warnings)


def _build_table(table: str, reader: _Reader) -> Any:
    given = {k: reader.settings[table, k].value for k in KINDS[table] if (table, k) in reader.settings}
    if table == "node" and "name" not in given:
        given["name"] = _host_label()
    if table == "mirror" and "hold_back" not in given and "header_wait" in given:
        given["hold_back"] = min(MirrorConfig.hold_back, given["header_wait"])
    return TABLES[table](**given)


def _host_label() -> str:
    """This machine's name, fit to be a node's name: other characters become dashes."""
    text = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in socket.gethostname())
    return text.strip("-_.")[:63] or "node"


def _upstream(reader: _Reader, host: str, setting: _Setting, known: UpstreamConfig | None) -> UpstreamConfig:
    given = {key: reader.settings["upstreams", host, key] for key in KINDS_OF_UPSTREAM if _has(reader, host, key)}
    if ("username" in given) != ("password_file" in given):
        have, lack = ("username", "password_file") if "username" in given else ("password_file", "username")
        raise given[have].error(f"{lack} is missing: a registry's username and password_file go together")
    values = {f.name: getattr(known, f.name) for f in fields(UpstreamConfig)} if known else {}
    values |= {"host": host}
    for key, part in given.items():
        values["password" if key == "password_file" else key] = part.value
    try:
        return UpstreamConfig(**values)
    except ValueError as error:
        raise setting.error(str(error)) from None


def _has(reader: _Reader, host: str, key: str) -> bool:
    return ("upstreams", host, key) in reader.settings


def _check_across(config: Config, reader: _Reader) -> None:
    """The rules that join two keys."""
    mirror = config.mirror
    if mirror.default_upstream not in config.upstreams:
        raise _blame(reader, ("mirror", "default_upstream")).error(
            f"{mirror.default_upstream!r} is not an upstream that p2pd knows: "
            f'add [upstreams."{mirror.default_upstream}"], or name one of {", ".join(sorted(config.upstreams))}'
        )
    if mirror.hold_back > mirror.header_wait:
        raise _blame(reader, ("mirror", "hold_back")).error(
            f"{mirror.hold_back:g}s is longer than mirror.header_wait ({mirror.header_wait:g}s): "
            "headers would come too late for a held-back blob"
        )
    _check_fleet(config, reader)
    if mirror.private and mirror.share_private:
        raise _blame(reader, ("mirror", "private")).error(
            "contradicts mirror.share_private = true, which serves private repositories to everybody: remove one"
        )
    credentials = config.credentials
    for key, other in (("kubelet_config", "kubelet_plugins"), ("kubelet_plugins", "kubelet_config")):
        if getattr(credentials, key) and not getattr(credentials, other):
            raise _blame(reader, ("credentials", key)).error(
                f"credentials.{other} is missing: the kubelet's plugins need their configuration and their directory, "
                "as its --image-credential-provider-config and --image-credential-provider-bin-dir"
            )
    addresses = {
        "mirror.listen": mirror.listen,
        "peers.listen": config.peers.listen,
        "admin.listen": config.admin.listen,
    }
    seen: dict[int, str] = {}
    for name, listen in addresses.items():
        if listen.port and listen.port in seen:
            keys = tuple(name.split("."))
            raise _blame(reader, keys).error(f"port {listen.port} is taken by {seen[listen.port]}: give each its own")
        seen[listen.port] = name


def _check_fleet(config: Config, reader: _Reader) -> None:
    given = {key: getattr(config.fleet, key) for key in KINDS["fleet"]}
    missing = [key for key, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    there = next(key for key, value in given.items() if value is not None)
    blamed = _blame(reader, ("fleet", there))
    if missing:
        raise blamed.error(f"{' and '.join(missing)} missing: [fleet] needs ca, certificate and key")
    if config.peers.insecure:
        raise _blame(reader, ("peers", "insecure")).error(
            "true together with [fleet]: a node talks with TLS or without, so leave one of them out"
        )


def _blame(reader: _Reader, keys: Keys) -> _Setting:
    return reader.settings.get(keys) or _Setting(None, None, dotted(keys))


def _warnings(config: Config) -> Iterator[str]:
    if not config.mirror.listen.is_loopback:
        yield (
            f"mirror.listen = {config.mirror.listen} is not loopback: "
            "whoever reaches it can read every image that this node may pull"
        )
    for upstream in config.upstreams.values():
        if upstream.username and upstream.url.startswith("http://"):
            yield f'upstreams."{upstream.host}": its password travels unencrypted, since url is {upstream.url}'
