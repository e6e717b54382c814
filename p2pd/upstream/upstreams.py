"""All registries that this node may talk to, by the name that image references use.

May know p2pd.oci and this package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import trio

from p2pd import oci
from p2pd.upstream.config import NodeCredentials, UpstreamConfig
from p2pd.upstream.errors import UnknownUpstream
from p2pd.upstream.exchange import OnRateLimit, OnRequest
from p2pd.upstream.registry import Registry
from p2pd.upstream.sources import Places
from p2pd.upstream.transport import environment_proxy, load_roots
from p2pd.upstream.urls import is_private_address

PATTERN_HOSTS_MAX = 256  # hosts of one pattern: clients choose their names, so there must be an end
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


class Upstreams:
    """Hands out one Registry for each host, made when it is first asked for."""

    def __init__(
        self,
        configs: Mapping[str, UpstreamConfig],
        credentials: NodeCredentials | None = None,
        *,
        on_request: OnRequest,
        on_rate_limit: OnRateLimit | None = None,
        private_address: Callable[[str], bool] = is_private_address,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`configs`: by host; a key that begins with "*" stands for the hosts that end like it. `credentials`: of this
        node, for those that have none of their own.

        `on_request(registry, kind, code)` is called once for each HTTP request that was tried, redirects and tokens
        included; kind is "manifest", "blob", "tag", "token", "ping" or "passthrough"; code is None if no answer came.
        `on_rate_limit(registry, remaining)`: pulls that Docker Hub says are left.

        ValueError if a file or program that a configuration names, or a proxy in the environment, can't be used.
        """
        self._exact = {oci.normal_host(host): config for host, config in configs.items() if not host.startswith("*")}
        self._patterns = [
            (re.compile(_LABEL + re.escape(host[1:].lower())), config)
            for host, config in configs.items()
            if host.startswith("*")
        ]
        self._places = Places(credentials or NodeCredentials(), clock)
        self._places.check([*configs.values()])
        self._on_request = on_request
        self._on_rate_limit = on_rate_limit
        self._private_address = private_address
        self._clock = clock
        self._registries: dict[str, Registry] = {}
        for host, config in self._exact.items():
            if config.ca is not None or config.client_certificate is not None:
                self.get(host)  # a wrong file is to be heard of at start, not at the first pull
            elif config.proxy is None:
                environment_proxy(config.url)
        load_roots()

    def is_known(self, host: str) -> bool:
        """True if `get` would hand out a registry for this host."""
        try:
            self._config(host)
        except UnknownUpstream:
            return False
        return True

    def get(self, host: str) -> Registry:
        """The registry of a host as it stands in references ("docker.io", or an alias of it). UnknownUpstream if it is
        not allowed."""
        config = self._config(host)
        registry = self._registries.get(config.host)
        if registry is None:
            registry = self._registries[config.host] = Registry(
                config,
                self._places,
                on_request=self._on_request,
                on_rate_limit=self._on_rate_limit,
                private_address=self._private_address,
                clock=self._clock,
            )
        return registry

    def _config(self, host: str) -> UpstreamConfig:
        try:
            name = oci.normal_host(host)
        except oci.BadName as error:
            raise UnknownUpstream(str(error)) from None
        if name in self._exact:
            return self._exact[name]
        made = sum(1 for known in self._registries if known not in self._exact)
        for pattern, config in self._patterns:
            if pattern.fullmatch(name) and (name in self._registries or made < PATTERN_HOSTS_MAX):
                return config.for_host(name)
        raise UnknownUpstream(f"{name} is not a configured registry; list it under [upstreams]")

    async def aclose(self) -> None:
        """Close all connections."""
        for registry in self._registries.values():
            await registry.aclose()
