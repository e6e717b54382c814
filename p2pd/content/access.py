"""Who may have what: everybody, where upstream lets everybody; else the client that upstream lets with what it shows.

1. A repository that refuses an anonymous HEAD, or that the operator lists, is private. All others are public.
2. What a public repository has is for everybody. That it has it is known from upstream's own answer, or from a manifest
   that it has and that lists it: a digest alone opens nothing, under whatever name it is asked for.
3. In a private repository the client is asked for credentials as upstream would ask, and what it shows is tried there:
   by HEAD of the thing itself, or of a manifest of the same repository that lists it. The outcome is remembered for
   CHECK_LIFETIME_S, under a keyed hash of what was shown.

What this node has, or its peers, plays no part in the answer, nor in the time that it takes. A registry that can't be
asked lets nobody in who was not let in before.

May know p2pd.upstream, `tags`, and the mirror's exceptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import trio

from p2pd.content.tags import Tags
from p2pd.mirror import Challenged, NotAvailable, Presented, Refused
from p2pd.oci import Descriptor, Kind
from p2pd.patterns import RepositoryPattern
from p2pd.upstream import (
    Denied,
    Identity,
    NotFound,
    Registry,
    Response,
    UnknownUpstream,
    UpstreamError,
    Upstreams,
    parse_authorization,
)
from p2pd.upstream.flights import Cache

REPOSITORY_LIFETIME_S = 300.0  # how long a repository's being public or private is believed
CHECK_LIFETIME_S = 60.0  # ... and upstream's word on a client: as long as a token without a stated lifetime
REFUSAL_LIFETIME_S = 5.0  # a client that was refused may ask up to six times in a row, and its secret may be put right
CLIENT_LIFETIME_S = 300.0  # a client's tokens, so that its secret is not shown to the token service for each blob
REPOSITORIES_MAX = 4096  # each some 300 bytes
MEMBERS_MAX = 20_000  # digests that public repositories are known to have, each some 400 bytes
CHECKS_MAX = 20_000  # digests that clients were let at, or refused, each some 200 bytes
CLIENTS_MAX = 256  # one for each secret and registry

Place = tuple[str, str]  # upstream, repository


class Operator:
    """Asks on this node's own account: a command over the control socket."""


OPERATOR = Operator()
Caller = Presented | Operator | None


@dataclass(frozen=True, slots=True)
class Client:
    """A client that shows something: what, and as whom a registry is asked with it."""

    presented: Presented
    identity: Identity
    has_token: bool


@dataclass(frozen=True, slots=True)
class Admission:
    """The caller may have it. `descriptor`: what upstream said of it just now, if it was asked; `client`: who was
    checked for it, if not everybody may have it; `place`: where it may be had, None if nobody asked whether."""

    registry: Registry
    descriptor: Descriptor | None = None
    client: Client | None = None
    place: Place | None = None
    until: float = float("inf")

    @property
    def identity(self) -> Identity | None:
        """As whom it may be pulled, besides this node itself."""
        return self.client.identity if self.client else None


@dataclass(frozen=True, slots=True)
class _Check:
    allowed: bool
    until: float


class Access:
    """`private`: what the operator lists; `share_private`: whatever this node may have is for everybody."""

    def __init__(
        self,
        upstreams: Upstreams,
        tags: Tags,
        *,
        private: Sequence[RepositoryPattern] = (),
        share_private: bool = False,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._upstreams = upstreams
        self._tags = tags
        self._listed = tuple(private)
        self._share_private = share_private
        self._clock = clock
        self._key = secrets.token_bytes(32)  # of this process: what is remembered tells nobody else anything
        self._private: Cache[Place, tuple[bool, float]] = Cache(REPOSITORIES_MAX, clock)  # and since when
        self._members: Cache[tuple[str, str, str], bool] = Cache(MEMBERS_MAX, clock)
        self._checks: Cache[bytes, _Check] = Cache(CHECKS_MAX, clock)
        self._clients: Cache[bytes, Client] = Cache(CLIENTS_MAX, clock)

    async def admit(
        self, kind: Kind | Literal["tag"], upstream: str, repository: str, reference: str, caller: Caller
    ) -> Admission:
        """Raises Challenged, Refused, or NotAvailable if upstream does not have it or can't be asked."""
        registry = self._registry(upstream)
        if self._share_private or isinstance(caller, Operator):
            return Admission(registry)
        place = (upstream, repository)
        self._check_certificate(registry, place)
        if self._is_private(place) is not True:
            admission = await self._as_anybody(registry, kind, place, reference)
            if admission is not None:
                return admission
        return await self._as_client(registry, kind, place, reference, caller)

    def learn(self, admission: Admission, digests: Iterable[str]) -> None:
        """The thing admitted is a manifest or index, proven, and lists these."""
        if admission.place is None:
            return
        left = admission.until - self._clock()
        for digest in digests:
            if admission.client is None:
                self._members.put((*admission.place, digest), True)
            elif left > 0:
                key = self._mac(admission.client.presented, *admission.place, digest)
                self._checks.put(key, _Check(True, admission.until), left)

    async def passthrough(self, upstream: str, repository: str, path_and_query: str, caller: Caller) -> Response:
        """A list that upstream answers, as it answers this caller. UpstreamError, and what `admit` raises."""
        registry = self._registry(upstream)
        if self._share_private:
            return await registry.passthrough(path_and_query)
        place = (upstream, repository)
        self._check_certificate(registry, place)
        if self._is_private(place) is not True and not self._is_listed(place):
            with contextlib.suppress(Denied):
                return await registry.passthrough(path_and_query, registry.anonymous)
        client = await self._client(registry, place, caller)
        try:
            return await registry.passthrough(path_and_query, client.identity)
        except Denied:
            await self._refuse(registry, place, client)

    # -- everybody --------------------------------------------------------------------------------------------------

    async def _as_anybody(
        self, registry: Registry, kind: Kind | Literal["tag"], place: Place, reference: str
    ) -> Admission | None:
        """None if it is private."""
        listed, known = self._is_listed(place), self._is_private(place)
        is_member = self._members.get((*place, reference)) is not None
        if known is False and is_member and not listed:
            return Admission(registry, place=place)
        before = self._private.get(place)
        try:
            found = await self._look(registry, kind, place[1], reference, None)
        except Denied as error:
            if known is False:  # one thing of a public repository; that it has become private is noticed soon
                raise NotAvailable(_unknown(kind), str(error)) from None
            self._private.put(place, (True, self._clock()))
            return None
        except NotFound as error:
            # Some registries say so of what they hide. Where this node has credentials, or is told so, that may be it.
            if known is not False and (listed or registry.has_credentials):
                return None
            raise NotAvailable(_unknown(kind), str(error)) from None
        except UpstreamError as error:
            if before is not None and before[0]:
                return None
            if is_member and not listed:
                return Admission(registry, place=place)
            raise NotAvailable(_unknown(kind), f"whether everybody may have it can't be told: {error}") from None
        self._private.put(place, (False, self._clock()))
        if listed:
            raise Refused("DENIED", _said(place, "listed as private, but upstream shows it to everybody"))
        self._members.put((*place, found.digest), True)
        return Admission(registry, found, place=place)

    def _is_private(self, place: Place) -> bool | None:
        """What is known, and fresh."""
        known = self._private.get(place)
        if known is None or self._clock() - known[1] >= REPOSITORY_LIFETIME_S:
            return None
        return known[0]

    def _is_listed(self, place: Place) -> bool:
        return any(pattern.matches(*place) for pattern in self._listed)

    # -- one client -------------------------------------------------------------------------------------------------

    async def _as_client(
        self, registry: Registry, kind: Kind | Literal["tag"], place: Place, reference: str, caller: Caller
    ) -> Admission:
        client = await self._client(registry, place, caller)
        key = self._mac(client.presented, *place, reference)
        check = self._checks.get(key)
        if check is not None and not check.allowed:
            await self._refuse(registry, place, client)
        if check is not None and kind != "tag":
            return Admission(registry, None, client, place, check.until)
        try:
            found = await self._look(registry, kind, place[1], reference, client.identity)
        except Denied:
            self._checks.put(key, _Check(False, 0.0), REFUSAL_LIFETIME_S)
            await self._refuse(registry, place, client)
        except NotFound as error:
            raise NotAvailable(_unknown(kind), str(error)) from None
        except UpstreamError as error:
            message = f"whether this client may have it can't be told: {error}"
            raise NotAvailable(_unknown(kind), message) from None
        now = self._clock()
        self._private.put(place, (True, now))
        until = now + CHECK_LIFETIME_S
        self._checks.put(self._mac(client.presented, *place, found.digest), _Check(True, until), CHECK_LIFETIME_S)
        return Admission(registry, found, client, place, until)

    async def _client(self, registry: Registry, place: Place, caller: Caller) -> Client:
        """Who asks. Challenged if it shows nothing that can be tried."""
        shown = parse_authorization(caller.header) if isinstance(caller, Presented) else None
        if shown is None or not isinstance(caller, Presented):
            await self._challenge(registry, place)
        key = self._mac(caller, registry.name)
        client = self._clients.get(key)
        if client is None:
            client = Client(caller, registry.client(shown), has_token=isinstance(shown, str))
            self._clients.put(key, client, CLIENT_LIFETIME_S)
        return client

    async def _challenge(self, registry: Registry, place: Place, **problem: str) -> NoReturn:
        try:
            challenge = await registry.challenge(place[1])
        except UpstreamError as error:
            raise Refused("DENIED", _said(place, f"private, and how to ask for it can't be told: {error}")) from None
        if challenge is None:
            why = "its registry asks for no credentials, or for those that only another host may see"
            raise Refused("DENIED", _said(place, f"private, and no client can be checked: {why}"))
        raise Challenged(
            _said(place, "private: show who you are"), challenge.scheme, {**challenge.parameters, **problem}
        )

    async def _refuse(self, registry: Registry, place: Place, client: Client) -> NoReturn:
        """What it showed was no good. A token may have run out: its owner can get another. A password won't change."""
        if client.has_token:
            await self._challenge(registry, place, error="invalid_token")
        raise Refused("DENIED", _said(place, "upstream refuses what this client shows"))

    def _check_certificate(self, registry: Registry, place: Place) -> None:
        if registry.has_certificate:
            raise Refused("DENIED", _said(place, "the registry knows this node by its certificate, and so no client"))

    def _mac(self, caller: Presented, *names: str) -> bytes:
        return hmac.digest(self._key, "\0".join((*names, caller.header)).encode(), hashlib.sha256)

    # -- upstream ---------------------------------------------------------------------------------------------------

    async def _look(
        self, registry: Registry, kind: Kind | Literal["tag"], repository: str, reference: str, client: Identity | None
    ) -> Descriptor:
        """Upstream's word for a thing: to everybody, or to one client."""
        if kind == "blob":
            return await registry.head("blob", repository, reference, client or registry.anonymous)
        if client is None:
            return (await self._tags.resolve(registry.name, repository, reference)).descriptor
        if kind == "tag":
            return await registry.resolve(repository, reference, client)
        return await registry.head("manifest", repository, reference, client)

    def _registry(self, upstream: str) -> Registry:
        try:
            return self._upstreams.get(upstream)
        except UnknownUpstream as error:
            raise NotAvailable("NAME_UNKNOWN", str(error)) from None


def _said(place: Place, what: str) -> str:
    return f"{place[0]}/{place[1]}: {what}"


def _unknown(kind: Kind | Literal["tag"]) -> str:
    return "BLOB_UNKNOWN" if kind == "blob" else "MANIFEST_UNKNOWN"
