"""Where this node's credentials for a registry come from, as they are now.

1. `username` and `password` of the registry's own configuration; else
2. its own `docker_config`: what is wrong with that file is an error of every request; else
3. what the node has for all registries: files, then the kubelet's plugins. A place that fails is named in the log, and
   the registry is asked without credentials: it may want none.

In a file, helpers go before entries. May know this package's config and what reads credentials.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from p2pd.upstream.auth_files import AuthFile, Helper
from p2pd.upstream.config import NodeCredentials, UpstreamConfig
from p2pd.upstream.credentials import BadCredentials, Credentials, Password
from p2pd.upstream.errors import Denied
from p2pd.upstream.flights import Cache, Flights
from p2pd.upstream.helpers import ask_helper
from p2pd.upstream.kubelet import Plugin, read_providers

log = logging.getLogger(__name__)

FILE_SIZE_MAX = 1 << 20  # bytes of a docker config.json; real ones have a few KiB
RECHECK_S = 30.0  # how old a read of a file, or a helper's failure, may be: cloud tokens are renewed every few hours
HELPER_LIFETIME_S = 300.0  # a helper is a process each time, and has a cache of its own
HELPED_MAX = 256  # answers of helpers remembered


class _File:
    """One file, read again when it changed."""

    def __init__(self, path: Path, clock: Callable[[], float], *, may_be_missing: bool = False) -> None:
        self.path = path
        self._clock = clock
        self._may_be_missing = may_be_missing
        self._checked_at: float | None = None
        self._stamp: tuple[int, int] | None = None
        self._content: AuthFile | None = None

    async def content(self) -> AuthFile | None:
        """BadCredentials if it can't be used and never could; one that breaks later leaves what was read before in
        force."""
        now = self._clock()
        if self._checked_at is not None and now - self._checked_at < RECHECK_S:
            return self._content
        try:
            await trio.to_thread.run_sync(self.read)
        except BadCredentials as error:
            if self._content is None:
                raise
            log.warning("%s; what was read of it before stays in force", error)
        self._checked_at = now
        return self._content

    def read(self) -> AuthFile | None:
        """Now. BadCredentials."""
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return self._content
            if status.st_size > FILE_SIZE_MAX:
                raise BadCredentials(
                    f"{self.path} has {status.st_size} bytes; a docker config.json has at most {FILE_SIZE_MAX}"
                )
            self._content, self._stamp = AuthFile(self.path.read_bytes(), self.path), stamp
        except FileNotFoundError as error:
            if not self._may_be_missing:
                raise BadCredentials(f"can't read {self.path}: {error.strerror}") from None
            self._content = self._stamp = None
        except OSError as error:
            raise BadCredentials(f"can't read {self.path}: {error.strerror}") from None
        return self._content


class Places:
    """All places of this node, for all registries; each is asked by one task at a time."""

    def __init__(
        self,
        config: NodeCredentials,
        clock: Callable[[], float] = trio.current_time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """BadCredentials if the kubelet's configuration can't be used."""
        self._clock = clock
        self._files: dict[Path, _File] = {}
        self._shared = [self._file(path) for path in config.files]
        if config.well_known:
            self._shared += [_File(path, clock, may_be_missing=True) for path in well_known_files(environ)]
        self._plugins: list[Plugin] = []
        if config.kubelet_config is not None and config.kubelet_plugins is not None:
            try:
                providers = read_providers(config.kubelet_config, config.kubelet_plugins)
            except OSError as error:
                raise BadCredentials(
                    f"[credentials] kubelet_config: can't read {config.kubelet_config}: {error.strerror}"
                ) from None
            except BadCredentials as error:
                raise BadCredentials(f"[credentials] kubelet_config: {error}") from None
            self._plugins = [Plugin(provider, clock) for provider in providers]
        self._helped: Cache[Helper, tuple[Credentials | None, BadCredentials | None]] = Cache(HELPED_MAX, clock)
        self._helping: Flights[Helper, tuple[Credentials | None, BadCredentials | None]] = Flights()
        self._plugged = trio.Lock()
        self._complained: Cache[str, bool] = Cache(HELPED_MAX, clock)

    @property
    def any(self) -> bool:
        """Whether there is any place at all."""
        return bool(self._shared or self._plugins)

    def check(self, upstreams: Sequence[UpstreamConfig]) -> None:
        """Look at what the configuration names, now: BadCredentials for a file that can't be used; a helper that is
        missing is named in the log, since its file may be shared with others."""
        named = [("[credentials] files", path) for path in self._files]
        named += [(f'[upstreams."{c.host}"] docker_config', c.docker_config) for c in upstreams if c.docker_config]
        for key, path in named:
            try:
                content = self._file(path).read()
            except BadCredentials as error:
                raise BadCredentials(f"{key}: {error}; put it right, or take it out of the configuration") from None
            missing = sorted(name for name in content.helpers() if shutil.which(name) is None) if content else []
            for name in missing:
                log.warning("%s: %s is not on p2pd's PATH: install it, or put entries under auths", path, name)

    async def own(self, path: Path, host: str, repository: str) -> Credentials | None:
        """What one file has for a repository. BadCredentials."""
        return await self._in_file(self._file(path), host, repository)

    async def shared(self, host: str, repository: str) -> Credentials | None:
        """What the node has for it; a place that fails is named in the log and passed over."""
        for file in self._shared:
            try:
                found = await self._in_file(file, host, repository)
            except BadCredentials as error:
                self._complain(str(error))
                continue
            if found is not None:
                return found
        for plugin in self._plugins:
            if plugin.is_for(host, repository):
                try:
                    async with self._plugged:
                        found = await plugin.ask(host, repository)
                except BadCredentials as error:
                    self._complain(str(error))
                    continue
                if found is not None:
                    return found
        return None

    def _file(self, path: Path) -> _File:
        return self._files.setdefault(path, _File(path, self._clock))

    async def _in_file(self, file: _File, host: str, repository: str) -> Credentials | None:
        content = await file.content()
        if content is None:
            return None
        helper = content.helper(host)
        if helper is not None:
            found, error = await self._help(helper)
            if error is not None:
                raise error
            if found is not None:
                return found
        return content.find(host, repository)

    async def _help(self, helper: Helper) -> tuple[Credentials | None, BadCredentials | None]:
        known = self._helped.get(helper)
        return known if known is not None else await self._helping.run(helper, lambda: self._ask(helper))

    async def _ask(self, helper: Helper) -> tuple[Credentials | None, BadCredentials | None]:
        answer: tuple[Credentials | None, BadCredentials | None]
        try:
            answer = (await ask_helper(helper), None)
        except BadCredentials as error:
            answer = (None, error)
        self._helped.put(helper, answer, RECHECK_S if answer[1] else HELPER_LIFETIME_S)
        return answer

    def _complain(self, message: str) -> None:
        if self._complained.get(message) is None:
            self._complained.put(message, True, RECHECK_S)
            log.error("credentials: %s", message)


class CredentialSource:
    """The credentials of one registry."""

    def __init__(self, config: UpstreamConfig, places: Places) -> None:
        self._host = config.host
        self._path = config.docker_config
        self._places = places
        self._fixed: Password | None = None
        if config.username is not None and config.password is not None:
            self._fixed = Password(config.username, config.password)

    @property
    def configured(self) -> bool:
        """True if there is any place where credentials may come from."""
        return self._fixed is not None or self._path is not None or self._places.any

    async def current(self, repository: str) -> Credentials | None:
        """The credentials for a repository, None without. Denied if the registry's own file can't be used."""
        if self._fixed is not None:
            return self._fixed
        if self._path is None:
            return await self._places.shared(self._host, repository)
        try:
            return await self._places.own(self._path, self._host, repository)
        except BadCredentials as error:
            raise Denied(f"{self._host}: {error}") from None


def well_known_files(environ: Mapping[str, str]) -> list[Path]:
    """Where systemd, podman and docker keep a user's credentials (containers-auth.json(5), docker's CLI)."""
    home, found = environ.get("HOME"), []
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        found.append(Path(directory) / "docker.json")
    if path := environ.get("REGISTRY_AUTH_FILE"):
        found.append(Path(path))
    if directory := environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(directory) / "containers/auth.json")
    else:
        found.append(Path(f"/run/containers/{os.getuid()}/auth.json"))
    if home:
        found.append(Path(home) / ".config/containers/auth.json")
    if directory := environ.get("DOCKER_CONFIG"):
        found.append(Path(directory) / "config.json")
    elif home:
        found.append(Path(home) / ".docker/config.json")
    return found
