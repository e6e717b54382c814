"""The Authorization header for a registry: Basic, or a Bearer token from the token service that the registry names.

Source: distribution's token specification (GET with service and scope, Basic for a user; POST with
grant_type=refresh_token for an identity token). Not here: HTTP itself; a function that sends is handed in.
May know this package's other modules but transport, exchange and registry.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from p2pd.upstream.challenges import Challenge
from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.credentials import Credentials, IdentityToken, Password
from p2pd.upstream.errors import BadAnswer, Denied, RateLimited, Unreachable
from p2pd.upstream.flights import Cache, Flights
from p2pd.upstream.realms import check_realm, may_see_credentials
from p2pd.upstream.urls import origin

log = logging.getLogger(__name__)

TOKEN_LIFETIME_DEFAULT_S = 60.0  # the token specification's, where expires_in is missing
TOKEN_LIFETIME_MAX_S = 86400.0
TOKEN_REFRESH_SHARE = 0.8  # of its lifetime: after that a new one is fetched, the old one serves if that fails
TOKEN_LENGTH_MAX = 16384  # characters; fits into a header that servers take
TOKENS_MAX = 1024  # scopes, so in effect repositories, remembered
CLIENT_TOKENS_MAX = 16  # ... for somebody else than this node: there may be hundreds, and a pull needs one
CLIENT_ID = "p2pd"

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what may stand in a header after "Bearer "


class Source(Protocol):
    """Where credentials come from."""

    async def current(self, repository: str) -> Credentials | None: ...


class Nobody:
    """The source of anonymous requests."""

    async def current(self, repository: str) -> Credentials | None:
        """None."""
        return None


@dataclass(frozen=True, slots=True)
class Fixed:
    """The source of one password: a client's."""

    password: Password = field(repr=False)

    async def current(self, repository: str) -> Credentials | None:
        """It."""
        return self.password


class Identity(Protocol):
    """As whom a registry is asked."""

    @property
    def hint(self) -> str: ...

    async def authorization(self, repository: str) -> str | None: ...

    async def answer(self, challenges: Sequence[Challenge], repository: str, refused: str | None) -> str | None: ...


class GivenToken:
    """Somebody who came with a token, and with nothing to get another one."""

    hint = ""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    async def authorization(self, repository: str) -> str | None:
        """The token."""
        return self._header

    async def answer(self, challenges: Sequence[Challenge], repository: str, refused: str | None) -> str | None:
        """Nothing else to try."""
        return None


Send = Callable[[str, str, Mapping[str, str], str | None, bytes | None], Awaitable[tuple[int, bytes]]]
"""method, url, headers, authorization, body -> status, body. Raises UpstreamError."""


@dataclass(frozen=True, slots=True)
class _Service:
    realm: str
    service: str


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    refresh_at: float
    expires_at: float


class Authenticator:
    """Knows how one registry wants to be asked, as one identity. Learns it from the first 401."""

    def __init__(
        self,
        config: UpstreamConfig,
        source: Source,
        send: Send,
        clock: Callable[[], float],
        tokens_max: int = TOKENS_MAX,
    ) -> None:
        self._config = config
        self._source = source
        self._send = send
        self._clock = clock
        self._learned: _Service | str | None = None  # a token service, or "basic"
        self._scopes: Cache[str, str] = Cache(tokens_max, clock)  # repository -> the scope its challenge asked for
        # By repository, too: credentials may be of one repository, and a registry may have one scope for all of them.
        self._tokens: Cache[tuple[_Service, str, str], _Token] = Cache(tokens_max, clock)
        self._flights: Flights[tuple[_Service, str, str], _Token] = Flights()
        self._withheld_from: str | None = None

    @property
    def hint(self) -> str:
        """For the text of a refusal: why it may be our own doing. Empty, or begins with "; "."""
        if self._withheld_from is None:
            return ""
        host = self._withheld_from
        return f"; the credentials were not shown to the token service at {host}: list it in realm_hosts if it is right"

    def challenge(self, repository: str) -> Challenge | None:
        """How the registry wants to be asked for this repository, as far as that was learned."""
        if self._learned == "basic":
            return Challenge("basic", {"realm": self._config.host})
        if not isinstance(self._learned, _Service):
            return None
        service = {"service": self._learned.service} if self._learned.service else {}
        return Challenge("bearer", {"realm": self._learned.realm, **service, "scope": self._scope(repository)})

    async def authorization(self, repository: str) -> str | None:
        """The header to send at once, from what was learned before; None while nothing was."""
        if self._learned == "basic":
            return await self._basic(repository)
        if isinstance(self._learned, _Service):
            return f"Bearer {await self._token(self._learned, repository)}"
        return None

    def learn(self, challenges: Sequence[Challenge], repository: str) -> None:
        """Take in how the registry wants to be asked. BadAnswer if it names a token service that may not be asked."""
        service = self._service(challenges)
        if service is not None:
            self._learned = service
            for challenge in challenges:
                if challenge.scheme == "bearer" and challenge.parameters.get("scope"):
                    self._scopes.put(repository, challenge.parameters["scope"])
        elif any(challenge.scheme == "basic" for challenge in challenges):
            self._learned = "basic"

    async def answer(self, challenges: Sequence[Challenge], repository: str, refused: str | None) -> str | None:
        """The header to try after a 401. None if there is nothing (else) to try.

        `refused`: the header that the 401 answered. A cached token in it is dropped.
        """
        service = self._service(challenges)
        if service is not None:
            key = (service, self._scope(repository), repository)
            token = self._tokens.get(key)
            if token is not None and refused == f"Bearer {token.value}":
                self._tokens.drop(key)
        self.learn(challenges, repository)
        header: str | None = None
        if service is not None:
            header = f"Bearer {await self._token(service, repository)}"
        elif any(challenge.scheme == "basic" for challenge in challenges):
            header = await self._basic(repository)
        return None if header == refused else header

    def _service(self, challenges: Sequence[Challenge]) -> _Service | None:
        """The token service of the first Bearer challenge. BadAnswer if it may not be asked and Basic is no way out."""
        for challenge in challenges:
            realm = challenge.parameters.get("realm")
            if challenge.scheme != "bearer" or not realm:
                continue
            try:
                check_realm(self._config, realm)
            except BadAnswer:
                if any(other.scheme == "basic" for other in challenges):
                    continue
                raise
            return _Service(realm, challenge.parameters.get("service", ""))
        return None

    def _scope(self, repository: str) -> str:
        return self._scopes.get(repository) or f"repository:{repository}:pull"

    async def _basic(self, repository: str) -> str | None:
        credentials = await self._source.current(repository)
        return credentials.basic() if isinstance(credentials, Password) else None

    async def _token(self, service: _Service, repository: str) -> str:
        scope = self._scope(repository)
        key = (service, scope, repository)
        token = self._tokens.get(key)
        if token is not None and self._clock() < token.refresh_at:
            return token.value
        try:
            return (await self._flights.run(key, lambda: self._fetch(service, scope, repository))).value
        except (BadAnswer, RateLimited, Unreachable):
            if token is not None and self._clock() < token.expires_at:
                return token.value
            raise

    async def _fetch(self, service: _Service, scope: str, repository: str) -> _Token:
        credentials = await self._source.current(repository)
        if credentials is not None and not may_see_credentials(self._config, service.realm):
            self._withheld_from = origin(service.realm).host
            log.warning("%s%s", self._config.host, self.hint)
            credentials = None
        asked_at = self._clock()
        status, body = await self._ask(service, scope, credentials)
        what = f"{self._config.host}: the token service at {origin(service.realm).host}"
        if status in (401, 403):
            raise Denied(
                f"{what} refused {scope} ({'with' if credentials else 'without'} credentials){self.hint}", status
            )
        if status != 200:
            raise BadAnswer(f"{what} answered {status}")
        value, lifetime = parse_token(body, what)
        token = _Token(value, asked_at + lifetime * TOKEN_REFRESH_SHARE, asked_at + lifetime)
        self._tokens.put((service, scope, repository), token, token.expires_at - self._clock())
        return token

    async def _ask(self, service: _Service, scope: str, credentials: Credentials | None) -> tuple[int, bytes]:
        # A challenge may ask for several scopes, parted by spaces; each is a parameter of its own.
        question = [("service", service.service)] if service.service else []
        if isinstance(credentials, IdentityToken):
            fields = [("grant_type", "refresh_token"), ("refresh_token", credentials.token), ("client_id", CLIENT_ID)]
            form = urlencode([*fields, *question, ("scope", scope)]).encode()
            kind = {"content-type": "application/x-www-form-urlencoded"}
            return await self._send("POST", service.realm, kind, None, form)
        parts = urlsplit(service.realm)
        question += [("scope", one) for one in scope.split()]
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *question])
        url = parts._replace(query=query, fragment="").geturl()
        basic = credentials.basic() if isinstance(credentials, Password) else None
        return await self._send("GET", url, {}, basic, None)


def parse_token(body: bytes, what: str) -> tuple[str, float]:
    """(token, lifetime in seconds) of a token service's answer. BadAnswer, with `what` in front, if it is not one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadAnswer(f"{what} answered something that is not a JSON object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or len(value) > TOKEN_LENGTH_MAX or not _TOKEN.fullmatch(value):
        raise BadAnswer(f"{what} answered without a usable token")
    lifetime = document.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not lifetime > 0:
        lifetime = TOKEN_LIFETIME_DEFAULT_S
    return value, float(min(lifetime, TOKEN_LIFETIME_MAX_S))
