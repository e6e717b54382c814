"""The kubelet's credential provider plugins: which one is for an image, how it is asked, what its answer is for.

Source: Kubernetes' KEP-2133 and k8s.io/kubelet (config v1: CredentialProviderConfig; credentialprovider v1). Plugins
that need a pod's service account (tokenAttributes) are passed over: there is no pod here. May know p2pd.units and this
package's credentials and programs.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from p2pd.upstream.credentials import BadCredentials, Password, is_plain
from p2pd.upstream.flights import Cache
from p2pd.upstream.programs import ask_program

CONFIG_SIZE_MAX = 1 << 20  # bytes; real ones have a few KiB
PROVIDERS_MAX = 32
MATCHES_MAX = 256  # of one provider
ANSWERS_MAX = 256  # remembered of one provider
DURATION_MAX_S = 86400.0  # an answer is asked for again after a day, whatever it says

_API = re.compile(r"credentialprovider\.kubelet\.k8s\.io/v1(?:alpha1|beta1)?")
_CONFIG_API = re.compile(r"kubelet\.config\.k8s\.io/v1(?:alpha1|beta1)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_DURATION = re.compile(r"(?:(\d{1,6}(?:\.\d+)?)h)?(?:(\d{1,8}(?:\.\d+)?)m)?(?:(\d{1,9}(?:\.\d+)?)s)?", re.ASCII)
_GLOB = re.compile(r"[A-Za-z0-9*?\[\]._-]+(?::\d{1,5})?(?:/[\w./-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Glob:
    """One of `matchImages`: host labels with wildcards inside each, an exact port, the beginning of a path."""

    labels: tuple[str, ...]
    port: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Glob:
        """ValueError if it is none."""
        if not _GLOB.fullmatch(text):
            raise ValueError(text)
        authority, _, path = text.removeprefix("https://").removeprefix("http://").partition("/")
        host, _, port = authority.partition(":")
        return cls(tuple(host.lower().split(".")), port, path)

    def matches(self, host: str, repository: str) -> bool:
        name, _, port = host.partition(":")
        labels = name.split(".")
        return (
            len(labels) == len(self.labels)
            and port == self.port
            and all(fnmatch.fnmatchcase(one, glob) for one, glob in zip(labels, self.labels, strict=True))
            and repository.startswith(self.path)
        )


@dataclass(frozen=True, slots=True)
class Provider:
    """One plugin of the configuration."""

    program: Path
    globs: tuple[Glob, ...]
    api: str
    lifetime_s: float
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def read_providers(path: Path, directory: Path) -> tuple[Provider, ...]:
    """The plugins that a CredentialProviderConfig names, in its order. BadCredentials if it is none, or if a program is
    missing from `directory`; OSError if it can't be read."""
    with path.open("rb") as file:
        text = file.read(CONFIG_SIZE_MAX + 1)
    if len(text) > CONFIG_SIZE_MAX:
        raise BadCredentials(f"{path} is larger than {CONFIG_SIZE_MAX} bytes: it is no CredentialProviderConfig")
    try:
        document = yaml.load(text, _Loader)  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "somewhere"
        raise BadCredentials(f"{path}: {where}: is neither YAML nor JSON") from None
    if not isinstance(document, dict) or document.get("kind") != "CredentialProviderConfig":
        raise BadCredentials(f"{path}: kind must be CredentialProviderConfig")
    if not _CONFIG_API.fullmatch(str(document.get("apiVersion"))):
        raise BadCredentials(f"{path}: apiVersion must be kubelet.config.k8s.io/v1")
    entries = document.get("providers")
    if not isinstance(entries, list) or not 0 < len(entries) <= PROVIDERS_MAX:
        raise BadCredentials(f"{path}: providers must be a list of 1 to {PROVIDERS_MAX}")
    providers = [_provider(entry, number, path, directory) for number, entry in enumerate(entries)]
    return tuple(one for one in providers if one is not None)


class _Loader(yaml.SafeLoader):
    """Without aliases: a configuration has none, and a few bytes of them can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def _provider(entry: Any, number: int, path: Path, directory: Path) -> Provider | None:
    def wrong(key: str, what: str) -> NoReturn:
        raise BadCredentials(f"{path}: providers[{number}].{key} {what}")

    if not isinstance(entry, dict):
        raise BadCredentials(f"{path}: providers[{number}] must be an object")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        wrong("name", "must be the name of a program, without a path")
    if entry.get("tokenAttributes") is not None:
        return None
    globs = entry.get("matchImages")
    if not isinstance(globs, list) or not 0 < len(globs) <= MATCHES_MAX:
        wrong("matchImages", f"must be a list of 1 to {MATCHES_MAX} patterns")
    try:
        parsed = tuple(Glob.parse(str(glob)) for glob in globs)
    except ValueError as error:
        wrong("matchImages", f"has {str(error)[:80]!r}, which is not a pattern of images")
    api = entry.get("apiVersion")
    if not isinstance(api, str) or not _API.fullmatch(api):
        wrong("apiVersion", "must be credentialprovider.kubelet.k8s.io/v1")
    lifetime = parse_duration(entry.get("defaultCacheDuration"))
    if lifetime is None:
        wrong("defaultCacheDuration", 'must be a duration, as in "12h"')
    arguments = entry.get("args") or []
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        wrong("args", "must be a list of texts")
    variables = entry.get("env") or []
    if not isinstance(variables, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("value"), str)
        for one in variables
    ):
        wrong("env", "must be a list of objects with name and value")
    program = directory / name
    if not os.access(program, os.X_OK) or not program.is_file():
        wrong("name", f"{name!r}: there is no program {program}: see [credentials] kubelet_plugins")
    environment = {one["name"]: one["value"] for one in variables}
    return Provider(program, parsed, api, lifetime, tuple(arguments), environment)


def parse_duration(text: object) -> float | None:
    """Seconds of Go's "1h30m", at most DURATION_MAX_S; None if it is none."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not match or not any(match.groups()):
        return 0.0 if text == "0" else None
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return min(hours * 3600 + minutes * 60 + seconds, DURATION_MAX_S)


class Plugin:
    """One provider and what it said. Safe to ask from several tasks; the caller sees to it that only one asks."""

    def __init__(self, provider: Provider, clock: Callable[[], float]) -> None:
        self.provider = provider
        self._answers: Cache[str, tuple[tuple[Glob, Password], ...]] = Cache(ANSWERS_MAX, clock)

    def is_for(self, host: str, repository: str) -> bool:
        return any(glob.matches(host, repository) for glob in self.provider.globs)

    async def ask(self, host: str, repository: str) -> Password | None:
        """Its credentials for an image, remembered as long as it allows. BadCredentials if it fails."""
        image = f"{host}/{repository}"
        for key in (image, host, ""):
            known = self._answers.get(key)
            if known is not None:
                return _best(known, host, repository)
        question = {"apiVersion": self.provider.api, "kind": "CredentialProviderRequest", "image": image}
        status, output = await ask_program(
            self.provider.program, self.provider.arguments, json.dumps(question).encode(), self.provider.environment
        )
        if status != 0:
            raise BadCredentials(f"{self.provider.program} ended with status {status} when asked for {image}")
        key_type, lifetime, entries = parse_response(output, self.provider)
        if lifetime > 0:
            key = {"Image": image, "Registry": host, "Global": ""}[key_type]
            self._answers.put(key, entries, lifetime)
        return _best(entries, host, repository)


def parse_response(output: bytes, provider: Provider) -> tuple[str, float, tuple[tuple[Glob, Password], ...]]:
    """Cache key type, lifetime in seconds, and credentials by pattern. BadCredentials, without a word of it."""
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("kind") != "CredentialProviderResponse":
        raise BadCredentials(f"{provider.program} answered something that is not a CredentialProviderResponse")
    key_type, auth = document.get("cacheKeyType"), document.get("auth") or {}
    if key_type not in ("Image", "Registry", "Global"):
        raise BadCredentials(f"{provider.program} answered without a cacheKeyType of Image, Registry or Global")
    given = document.get("cacheDuration")
    lifetime = provider.lifetime_s if given is None else parse_duration(given)
    if lifetime is None or not isinstance(auth, dict) or len(auth) > MATCHES_MAX:
        raise BadCredentials(f"{provider.program} answered with a cacheDuration or auth that can't be read")
    entries = []
    # The more special pattern goes first, as in the kubelet: it sorts them backward.
    for pattern, entry in sorted(auth.items(), reverse=True):
        username, password = (entry.get("username"), entry.get("password")) if isinstance(entry, dict) else (None, None)
        try:
            glob = Glob.parse(pattern)
        except ValueError:
            glob = None
        if glob is None or not isinstance(username, str) or not isinstance(password, str):
            raise BadCredentials(f"{provider.program} answered with an entry of auth that can't be read")
        if not is_plain(username, password):
            raise BadCredentials(f"{provider.program} answered with a user or password that has control characters")
        entries.append((glob, Password(username, password)))
    return key_type, lifetime, tuple(entries)


def _best(entries: tuple[tuple[Glob, Password], ...], host: str, repository: str) -> Password | None:
    return next((password for glob, password in entries if glob.matches(host, repository)), None)
