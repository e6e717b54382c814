"""One registry as a pull client sees it: resolve a tag, look at a manifest or blob, stream it.

Source: OCI distribution-spec v1.1.1, end-2, end-3, end-8 and end-12; what real registries do beside it stands at the
place. Not here: hashing, caching of tags, who pulls. May know p2pd.oci and this package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urljoin

import trio

from p2pd import oci
from p2pd.oci import Descriptor, Kind
from p2pd.ratelimit import RateLimit
from p2pd.upstream.auth import CLIENT_TOKENS_MAX, Authenticator, Fixed, GivenToken, Identity, Nobody
from p2pd.upstream.challenges import Challenge, parse_challenges
from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.credentials import Password
from p2pd.upstream.errors import BadAnswer, Denied, NotFound, Unreachable
from p2pd.upstream.exchange import Exchange, OnRateLimit, OnRequest
from p2pd.upstream.flights import Flights
from p2pd.upstream.headers import parse_content_range, parse_length, plain_media_type
from p2pd.upstream.realms import may_see_credentials
from p2pd.upstream.sources import CredentialSource, Places
from p2pd.upstream.stream import BlobStream, Opened
from p2pd.upstream.transport import Answer, Transport
from p2pd.upstream.urls import is_private_address, origin

HEADER_PHASE_S = 15.0  # tokens, redirects and retries included: the mirror has to answer its client within 20 s
TOKEN_ANSWER_MAX = 65536  # bytes

_PASSTHROUGH = re.compile(rf"({oci.NAME.pattern})/(tags/list|referrers/{oci.DIGEST.pattern})(\?.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that is handed on as it is. `headers`: content-type, link, oci-filters-applied, where they came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """One upstream. Methods raise UpstreamError's children, oci.BadName for a name that is none. All can be cancelled.

    Each call answers, or fails, within HEADER_PHASE_S; a stream then goes on for as long as bytes come.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        places: Places,
        *,
        on_request: OnRequest,
        on_rate_limit: OnRateLimit | None = None,
        private_address: Callable[[str], bool] = is_private_address,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """ValueError if a file that `config` names can't be used. The callbacks are explained at Upstreams."""
        self.name = config.host
        self._config = config
        self._clock = clock
        self._base = f"{config.url}/v2"
        self._transport = Transport(config, private_address)
        self._exchange = Exchange(config, self._transport, on_request, on_rate_limit, clock)
        self._limit = RateLimit(config.download_limit, clock)
        source = CredentialSource(config, places)
        self._has_credentials = source.configured
        self._has_certificate = config.client_certificate is not None
        self._anonymous = Authenticator(config, Nobody(), self._send_for_token, clock)
        self._ours = (
            Authenticator(config, source, self._send_for_token, clock) if source.configured else self._anonymous
        )
        self._looking: Flights[tuple[Identity, str, str, str], Descriptor] = Flights()

    def __repr__(self) -> str:
        return f"<Registry {self.name}>"

    @property
    def anonymous(self) -> Identity:
        """Nobody: what the registry shows to everybody."""
        return self._anonymous

    @property
    def has_certificate(self) -> bool:
        """Whether it knows this node by a client certificate: then no request shows what somebody else may have."""
        return self._has_certificate

    @property
    def has_credentials(self) -> bool:
        """Whether it may let us have what it hides from others: for a password, a token or a client certificate."""
        return self._has_credentials or self._has_certificate

    @property
    def held_until(self) -> float:
        """Until then (trio's clock) every call raises RateLimited at once."""
        return self._exchange.held_until

    def hold(self, seconds: float) -> None:
        """Leave the registry in peace for so long, at most an hour: another member of the fleet was told to."""
        self._exchange.hold(seconds)

    async def aclose(self) -> None:
        """Close the connections; streams that are open end with an error."""
        await self._transport.aclose()

    def client(self, shown: Password | str) -> Identity:
        """Somebody else than this node: with a password, or with a token (a str) of the registry's token service."""
        if isinstance(shown, str):
            return GivenToken(shown)
        return Authenticator(self._config, Fixed(shown), self._send_for_token, self._clock, CLIENT_TOKENS_MAX)

    async def challenge(self, repository: str) -> Challenge | None:
        """How a client of this node's mirror is to be asked for credentials that this registry may see. None if it
        asks for none, or if they would go to somebody else.

        Bearer with the registry's own token service, so that a client shows its secret there and to nobody else; Basic
        where the registry has that, and where only this node is told (by `ca`) whom to trust there.
        """
        if self._anonymous.challenge(repository) is None:
            with _header_phase(f"{self.name}: ping"):
                answer = await self._exchange.send("ping", f"{self.name}: ping", "GET", f"{self._base}/", {})
                await answer.discard()
            if answer.status == 401 and answer.origin == origin(self._base):
                self._anonymous.learn(parse_challenges(answer.header_list("www-authenticate")), repository)
        challenge = self._anonymous.challenge(repository)
        if challenge is None or challenge.scheme == "basic":
            return challenge
        if not may_see_credentials(self._config, challenge.parameters["realm"]):
            return None
        return challenge if self._config.ca is None else Challenge("basic", {"realm": self.name})

    async def resolve(self, repository: str, tag: str, identity: Identity | None = None) -> Descriptor:
        """What a tag points to now. One HEAD, which Docker Hub does not count as a pull; a GET only for a registry
        whose HEAD lacks digest, type or length. Calls for the same tag at the same time share one request."""
        oci.check_tag(tag)
        return await self._shared_look("tag", repository, tag, identity)

    async def head(self, kind: Kind, repository: str, digest: str, identity: Identity | None = None) -> Descriptor:
        """Size and type of a manifest or blob. BadAnswer if the registry says another digest than the one asked for."""
        oci.check_digest(digest)
        return await self._shared_look(kind, repository, digest, identity)

    @asynccontextmanager
    async def open(
        self,
        kind: Kind,
        repository: str,
        digest: str,
        start: int = 0,
        stop: int | None = None,
        client: Identity | None = None,
    ) -> AsyncIterator[BlobStream]:
        """One request for the bytes from `start` to the end, or up to `stop` (exclusive).

        As this node; or, where that is refused or it has no credentials, as the `client` that it is for.

        A registry that ignores the range has its first bytes discarded, and its stream goes on behind `stop`; one that
        can't serve it (416) is a BadAnswer.
        """
        oci.check_digest(digest)
        path, what = self._path(kind, repository, digest), self._what("GET", kind, repository, digest)
        with _header_phase(what):
            answer, identity = await self._get_for(client, kind, what, repository, path, start, stop)
            try:
                opened = await self._check_open(answer, identity, kind, what, repository, digest, start, stop)
            except BaseException:
                await answer.aclose()
                raise
        async with answer:
            is_whole = answer.status == 200
            end = opened.size if is_whole or stop is None else min(stop, opened.size)
            yield BlobStream(answer, opened, start if is_whole else 0, end, self._limit, what)

    async def passthrough(self, path_and_query: str, identity: Identity | None = None) -> Response:
        """tags/list or referrers of a repository, e.g. "library/debian/tags/list?n=5"; other paths are NotFound.

        Answers of 4xx are handed on, but not 401, 403 and 429, which raise as everywhere.
        """
        match = _PASSTHROUGH.fullmatch(path_and_query)
        if not match:
            raise NotFound(f"{self.name}: only tags/list and referrers are passed through")
        query = quote(match[3] or "", safe="?&=%:/,+~@!*'()$;")
        what = self._what("GET", match[2].partition("/")[0], match[1], "")
        with _header_phase(what):
            url = f"{self._base}/{match[1]}/{match[2]}{query}"
            headers = {"accept": "application/json, */*"}
            answer = await self._ask("passthrough", what, "GET", url, match[1], headers, identity)
            async with answer:
                self._check_refusal(answer, what, identity)
                self._check_coding(answer, what)
                if answer.status >= 500 or answer.status < 200:
                    raise BadAnswer(f"{what}: answered {answer.status}")
                body = await answer.read(oci.MANIFEST_SIZE_MAX)
        passed_on = {name: answer.header(name) for name in ("content-type", "oci-filters-applied")}
        passed_on["link"] = _own_link(answer.header("link"), url)
        return Response(answer.status, {name: value for name, value in passed_on.items() if value}, body)

    # Requests

    async def _ask(
        self,
        kind: str,
        what: str,
        method: str,
        url: str,
        repository: str,
        headers: Mapping[str, str],
        identity: Identity | None = None,
    ) -> Answer:
        """One request with the token flow around it. The caller closes the answer and judges its status."""
        identity = identity or self._ours  # from here on; above, None means this node itself
        self._exchange.check_hold()
        header = await identity.authorization(repository)
        answer = await self._exchange.send(kind, what, method, url, headers, header)
        # A challenge of a host that we were redirected to is not the registry's, and has none of its tokens.
        if answer.status != 401 or not answer.header("www-authenticate") or answer.origin != origin(url):
            return answer
        challenges = parse_challenges(answer.header_list("www-authenticate"))
        await answer.discard()
        header = await identity.answer(challenges, repository, header)
        if header is None:
            raise Denied(f"{what}: refused {self._as_whom(identity)}{identity.hint}", 401)
        return await self._exchange.send(kind, what, method, url, headers, header)

    async def _send_for_token(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None, body: bytes | None
    ) -> tuple[int, bytes]:
        what = f"{self.name}: {method} token"
        async with await self._exchange.send("token", what, method, url, headers, authorization, body) as answer:
            return answer.status, await answer.read(TOKEN_ANSWER_MAX)

    async def _get_for(
        self, client: Identity | None, kind: Kind, what: str, repository: str, path: str, start: int, stop: int | None
    ) -> tuple[Answer, Identity]:
        """The answer, and as whom it came."""
        if client is None or self._has_credentials:
            try:
                return await self._get(kind, what, repository, path, start, stop), self._ours
            except Denied:
                if client is None:
                    raise
        return await self._get(kind, what, repository, path, start, stop, client), client

    async def _get(
        self,
        kind: Kind,
        what: str,
        repository: str,
        path: str,
        start: int,
        stop: int | None = None,
        identity: Identity | None = None,
    ) -> Answer:
        headers = {"accept": oci.MANIFEST_ACCEPT if kind == "manifest" else "*/*"}
        if start or stop is not None:
            headers["range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        answer = await self._ask(kind, what, "GET", self._base + path, repository, headers, identity)
        return await self._checked(answer, what, {200, 206}, identity)

    async def _checked(self, answer: Answer, what: str, allowed: set[int], identity: Identity | None) -> Answer:
        """`answer`, if its status is an allowed one and its body comes as it is; else closed, and the error raised."""
        try:
            self._check_refusal(answer, what, identity)
            if answer.status == 404:
                raise NotFound(f"{what}: not there")
            if answer.status not in allowed:
                raise BadAnswer(f"{what}: answered {answer.status}")
            self._check_coding(answer, what)
        except BaseException:
            await answer.discard()
            raise
        return answer

    def _check_refusal(self, answer: Answer, what: str, identity: Identity | None) -> None:
        if answer.status in (401, 403):
            identity = identity or self._ours
            text = f"{what}: answered {answer.status} {self._as_whom(identity)}{identity.hint}"
            raise Denied(text, answer.status)

    def _check_coding(self, answer: Answer, what: str) -> None:
        coding = answer.header("content-encoding")
        if coding and coding.strip().lower() != "identity":
            raise BadAnswer(f"{what}: the body is encoded although none was asked for")

    # What the answers mean

    async def _shared_look(self, kind: str, repository: str, reference: str, identity: Identity | None) -> Descriptor:
        key = (identity or self._ours, kind, repository, reference)
        return await self._looking.run(key, lambda: self._look(kind, repository, reference, identity))

    async def _look(self, kind: str, repository: str, reference: str, identity: Identity | None) -> Descriptor:
        """HEAD of a tag or digest; if that does not say enough, a GET."""
        path, what = self._path(kind, repository, reference), self._what("HEAD", kind, repository, reference)
        headers = {"accept": "*/*" if kind == "blob" else oci.MANIFEST_ACCEPT}
        with _header_phase(what):
            answer = await self._ask(kind, what, "HEAD", self._base + path, repository, headers, identity)
            async with await self._checked(answer, what, {200, 405}, identity):
                await answer.discard()
            found = self._described(answer, kind, reference, what) if answer.status == 200 else None
            if found is None and kind == "blob":
                found = await self._look_by_range(repository, reference, identity)
            elif found is None:
                found = await self._look_by_body(repository, reference, identity)
        return found

    def _described(self, answer: Answer, kind: str, reference: str, what: str) -> Descriptor | None:
        """What the headers say; None if they lack something. BadAnswer if they contradict what was asked."""
        digest = answer.header("docker-content-digest")
        if kind != "tag":
            _check_digest_header(digest, reference, what)
            digest = reference
        size, media_type = (
            parse_length(answer.header("content-length")),
            plain_media_type(answer.header("content-type")),
        )
        if kind == "blob":
            return None if size is None else Descriptor(reference, size, media_type or oci.BLOB_TYPE)
        if not digest or not oci.DIGEST.fullmatch(digest) or not size or media_type is None:
            return None
        if size > oci.MANIFEST_SIZE_MAX:
            raise BadAnswer(f"{what}: a manifest of {size} bytes; at most {oci.MANIFEST_SIZE_MAX} are taken")
        return Descriptor(digest, size, media_type)

    async def _look_by_body(self, repository: str, reference: str, identity: Identity | None) -> Descriptor:
        """For registries whose HEAD is poor: the manifest itself. Docker Hub would count this as a pull."""
        what = self._what("GET", "manifest", repository, reference)
        path = self._path("manifest", repository, reference)
        answer = await self._get("manifest", what, repository, path, 0, None, identity)
        async with answer:
            body = await answer.read(oci.MANIFEST_SIZE_MAX)
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        asked = reference if oci.DIGEST.fullmatch(reference) else answer.header("docker-content-digest")
        if asked and asked.startswith("sha256:") and asked != digest:
            raise BadAnswer(f"{what}: the body is not {asked}")
        media_type = oci.media_type_of(body)
        if media_type is None:
            raise BadAnswer(f"{what}: the body is not a manifest")
        return Descriptor(digest, len(body), plain_media_type(answer.header("content-type")) or media_type)

    async def _look_by_range(self, repository: str, digest: str, identity: Identity | None) -> Descriptor:
        """For registries whose HEAD of a blob has no length: what one byte of it says of the whole."""
        what = self._what("GET", "blob", repository, digest)
        url = self._base + self._path("blob", repository, digest)
        headers = {"accept": "*/*", "range": "bytes=0-0"}
        answer = await self._ask("blob", what, "GET", url, repository, headers, identity)
        async with await self._checked(answer, what, {200, 206}, identity):
            found = parse_content_range(answer.header("content-range")) if answer.status == 206 else None
            size = found[2] if found else parse_length(answer.header("content-length"))
            if size is None or (answer.status == 206) != (found is not None):
                raise BadAnswer(f"{what}: the registry does not say how long it is")
            return Descriptor(digest, size, plain_media_type(answer.header("content-type")) or oci.BLOB_TYPE)

    async def _check_open(
        self,
        answer: Answer,
        identity: Identity,
        kind: Kind,
        what: str,
        repository: str,
        digest: str,
        start: int,
        stop: int | None,
    ) -> Opened:
        _check_digest_header(answer.header("docker-content-digest"), digest, what)
        length, media_type = (
            parse_length(answer.header("content-length")),
            plain_media_type(answer.header("content-type")),
        )
        if answer.status == 206:
            given = parse_content_range(answer.header("content-range"))
            asked = bool(start) or stop is not None
            end = given[2] if given and stop is None else min(stop or 0, given[2]) if given else 0
            if not asked or given is None or given[0] != start or given[1] + 1 != end:
                to = "on" if stop is None else f"to {stop}"
                raise BadAnswer(f"{what}: asked for bytes from {start} {to}, the answer's Content-Range is another")
            if length is not None and length != end - start:
                raise BadAnswer(f"{what}: Content-Length and Content-Range contradict each other")
            return Opened(given[2], start, media_type)
        if length is None:
            # A chunked body does not say how long the blob is, so its end could not be told from a cut.
            length = (await self.head(kind, repository, digest, identity)).size
        if start > length or (start == length and start):
            raise BadAnswer(f"{what}: has {length} bytes, none from byte {start} on")
        return Opened(length, start, media_type)

    # Words

    def _path(self, kind: str, repository: str, reference: str) -> str:
        return f"/{oci.check_repository(repository)}/{'blobs' if kind == 'blob' else 'manifests'}/{reference}"

    def _what(self, method: str, kind: str, repository: str, reference: str) -> str:
        return f"{self.name}: {method} {kind} {repository} {reference}".rstrip()

    def _as_whom(self, identity: Identity) -> str:
        if identity is self._anonymous:
            return "without credentials"
        return f"with the {'credentials that are configured' if identity is self._ours else 'credentials of a client'}"


@contextmanager
def _header_phase(what: str) -> Iterator[None]:
    with trio.move_on_after(HEADER_PHASE_S) as scope:
        yield
    if scope.cancelled_caught:
        raise Unreachable(f"{what}: no answer within {HEADER_PHASE_S:.0f} s")


def _check_digest_header(given: str | None, asked: str, what: str) -> None:
    # Another algorithm's digest can't be compared; the bytes are checked against `asked` anyway.
    if given and oci.DIGEST.fullmatch(given) and given != asked:
        raise BadAnswer(f"{what}: the registry says that it sends {given}")


def _own_link(link: str | None, url: str) -> str | None:
    """A Link header that leads on within the registry, without its host: the client asks the mirror again."""
    match = re.match(r'\s*<([^>]*)>\s*(;[^,"]*(?:"[^"]*"[^,"]*)*)$', link) if link else None
    if not match:
        return None
    try:
        target = urljoin(url, match[1])
        if origin(target) != origin(url):
            return None
    except (ValueError, BadAnswer):
        return None
    path = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
    return f"<{path}>{match[2]}"
