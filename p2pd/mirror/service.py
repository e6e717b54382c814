"""From one request to one answer: which content, which range, which status, and what becomes of each failure.

Not the framing (connection.py) and not the contents (the Library). Its statuses are chosen for what registry clients do
with them: every failure before the first byte is 404, on which they go to their next host; but 401 asks them for
credentials, where something is private. 304 aborts a pull, 408 and 429 are retried at once and up to five times. After
the first byte a failure is a FIN.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from urllib.parse import parse_qsl, urlencode, urlsplit

import trio

from p2pd import oci
from p2pd.filesend import CALL_MAX, SourceFailed, warm
from p2pd.mirror.auth import challenge_header, presented
from p2pd.mirror.connection import Connection, Headers, Request
from p2pd.mirror.library import Challenged, Interrupted, Library, NotAvailable, Reader
from p2pd.mirror.ranges import Span, Unsatisfiable, select_span
from p2pd.mirror.settings import HEADER_WAIT_SLACK, MirrorSettings
from p2pd.mirror.targets import BadTarget, Target, is_loopback, parse_target, split_authority

log = logging.getLogger("p2pd.mirror")

SLICE = 256 << 20  # bytes sent between two reports to the reader: a fraction of a second for a client that keeps up
_API_VERSION = ("Docker-Distribution-API-Version", "registry/2.0")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_LINK = re.compile(r"\s*<([^<>]*)>(.*)", re.DOTALL)
_RELAYED_STATUSES = frozenset({200, 400, 404})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is in memory: errors, relayed lists, and those without a body."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""


def error_answer(status: int, code: str, message: str, headers: Headers | None = None) -> Answer:
    """The distribution-spec's error body, of one error."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, [("Content-Type", "application/json"), *(headers or [])], body)


class Service:
    """Stateless but for what it was given; shared by all connections."""

    def __init__(self, library: Library, settings: MirrorSettings) -> None:
        self._library = library
        self._settings = settings

    async def respond(self, request: Request, connection: Connection) -> str:
        """Answer one request, whole or up to where its bytes end; what to add to the log line.

        Raises connection.ClientGone. Cancelled when the client goes away meanwhile.
        """
        try:
            target = self._target(request)
        except BadTarget as error:
            headers = [("Allow", "GET, HEAD")] if error.status == 405 else []
            return await self._send(connection, error_answer(error.status, error.code, error.message, headers))
        bound = self._settings.patience if target.patient else self._settings.header_wait + HEADER_WAIT_SLACK
        failure = NotAvailable(target.unknown_code, f"nothing came within {bound:g} s")
        answer: Answer | None = None
        try:
            with trio.CancelScope(deadline=trio.current_time() + bound) as scope:
                answer = await self._answer(target, request, connection, scope)
                if answer is None:
                    return ""
        except (NotAvailable, Interrupted, SourceFailed) as error:
            if isinstance(error, SourceFailed):
                log.error("the store's file for %s can't be read: %s", target.reference, error)
            if connection.answering:
                return f"cut off after {connection.sent} bytes: {error}"
            code = error.code if isinstance(error, NotAvailable) else target.unknown_code
            failure = NotAvailable(code, str(error))
            if isinstance(error, Challenged) and (header := challenge_header(error)) is not None:
                fields = [("WWW-Authenticate", header), *_namespace(target)]
                answer = error_answer(401, error.code, error.message, fields)
        answer = answer or error_answer(404, failure.code, failure.message, _namespace(target))
        return await self._send(connection, answer)

    async def _send(self, connection: Connection, answer: Answer) -> str:
        await connection.send_answer(answer.status, [_API_VERSION, *answer.headers], answer.body)
        return ""

    def _target(self, request: Request) -> Target:
        authority, path = split_authority(request.target)
        host = request.header("host") if authority is None else authority
        if host is None or not is_loopback(host):
            raise BadTarget(400, "DENIED", "p2pd's mirror answers only to a loopback Host, such as 127.0.0.1")
        if request.method not in ("GET", "HEAD"):
            raise BadTarget(405, "UNSUPPORTED", "p2pd is a mirror to pull from: only GET and HEAD")
        if request.has_body:
            raise BadTarget(400, "UNSUPPORTED", "a GET or HEAD with a body is not served")
        return parse_target(path, self._settings.default_upstream, self._library.is_allowed)

    async def _answer(
        self, target: Target, request: Request, connection: Connection, scope: trio.CancelScope
    ) -> Answer | None:
        """An answer to be sent, or None when a body was streamed. `scope` ends the wait for a first byte."""
        if target.form == "ping":
            return Answer(200, [("Content-Type", "application/json")], b"{}")
        if target.form in ("tags", "referrers"):
            return await self._relay(target, request)
        kind: oci.Kind = "manifest" if target.form == "manifest" else "blob"
        shown_by_client = presented(request)
        where = (target.upstream, target.repository)
        descriptor: oci.Descriptor | None = None
        if target.is_tag:
            descriptor = await self._library.resolve(*where, target.reference, presented=shown_by_client)
        elif request.method == "HEAD":
            descriptor = await self._library.head(kind, *where, target.reference, presented=shown_by_client)
        if request.method == "HEAD" and descriptor is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            scope.deadline = inf
            span = Span(0, descriptor.size, partial=False)
            await connection.send_head(200, _content_headers(target, descriptor, span))
            await connection.end()
            return None
        digest = descriptor.digest if descriptor else target.reference
        async with self._library.open(
            kind, *where, digest, patient=target.patient, presented=shown_by_client
        ) as reader:
            media_type = reader.media_type or (descriptor.media_type if descriptor else "")
            shown = oci.Descriptor(digest, reader.size, media_type)
            return await self._stream(target, request, connection, scope, reader, shown)

    async def _stream(
        self,
        target: Target,
        request: Request,
        connection: Connection,
        scope: trio.CancelScope,
        reader: Reader,
        shown: oci.Descriptor,
    ) -> Answer | None:
        """A blob's or manifest's body, or the part that the client asked for, as far as it comes."""
        try:
            span = select_span(request.header("range"), reader.size)
        except Unsatisfiable:
            message = f"the blob has {reader.size} bytes, none of them in the range that was asked for"
            return error_answer(416, "SIZE_INVALID", message, [("Content-Range", f"bytes */{reader.size}")])
        headers = _content_headers(target, shown, span)
        offset, ready = span.start, span.start
        if offset < span.stop:
            ready = await _ready(reader, offset)
            await warm(reader.fileno(), offset, min(ready, span.stop, offset + CALL_MAX) - offset)
        # The first bytes are in hand: from here on it is 200, unless the time had run out before.
        await trio.lowlevel.checkpoint_if_cancelled()
        scope.deadline = inf
        await connection.send_head(206 if span.partial else 200, headers)
        while offset < span.stop:
            if offset >= ready:
                ready = await _ready(reader, offset)
            count = min(ready, span.stop, offset + SLICE) - offset
            await connection.send_file(reader.fileno(), offset, count)
            reader.sent(count)
            offset += count
        await connection.end()
        return None

    async def _relay(self, target: Target, request: Request) -> Answer:
        """tags/list and referrers, as upstream answers them."""
        last = "tags/list" if target.form == "tags" else f"referrers/{target.reference}"
        path = f"{target.repository}/{last}" + (f"?{target.query}" if target.query else "")
        relayed = await self._library.passthrough(target.upstream, path, presented=presented(request))
        if relayed.status not in _RELAYED_STATUSES:
            raise NotAvailable(target.unknown_code, f"{target.upstream} answered {relayed.status}")
        headers = _namespace(target) + _relayed_headers(target, relayed.headers)
        return Answer(relayed.status, headers, relayed.body)


async def _ready(reader: Reader, offset: int) -> int:
    ready = await reader.wait(offset)
    if ready <= offset:
        raise AssertionError(f"the library's wait({offset}) returned {ready}: not past the offset")
    return ready


def _namespace(target: Target) -> Headers:
    return [("OCI-Namespace", target.ns)] if target.ns is not None else []


def _content_headers(target: Target, shown: oci.Descriptor, span: Span) -> Headers:
    """Of a blob or manifest. Raises NotAvailable for a manifest whose type is not known: clients need it."""
    media_type = shown.media_type.partition(";")[0].strip()
    if not oci.MEDIA_TYPE.fullmatch(media_type):
        if target.form == "manifest":
            raise NotAvailable("MANIFEST_UNKNOWN", f"{shown.digest} is not a manifest whose media type is known")
        media_type = oci.BLOB_TYPE
    headers = [
        _API_VERSION,
        *_namespace(target),
        ("Content-Type", media_type),
        ("Content-Length", str(span.stop - span.start)),
        ("Docker-Content-Digest", shown.digest),
        ("Accept-Ranges", "bytes"),
    ]
    if span.partial:
        headers.append(("Content-Range", f"bytes {span.start}-{span.stop - 1}/{shown.size}"))
    return headers


def _relayed_headers(target: Target, headers: Mapping[str, str]) -> Headers:
    """The few of upstream's headers that mean something here, if they can stand in a header at all."""
    relayed = [("Content-Type", headers.get("content-type", "application/json"))]
    if "oci-filters-applied" in headers:
        relayed.append(("OCI-Filters-Applied", headers["oci-filters-applied"]))
    if "link" in headers:
        relayed.append(("Link", _link_here(target, headers["link"])))
    return [(name, value) for name, value in relayed if _HEADER_VALUE.fullmatch(value)]


def _link_here(target: Target, link: str) -> str:
    """Upstream's link to the next page, turned so that it leads through this mirror to the same upstream."""
    match = _LINK.fullmatch(link)
    if match is None:
        return link
    try:
        parts = urlsplit(match[1])
    except ValueError:
        return ""
    if not parts.path.startswith("/v2/"):
        return link
    fields = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "ns"]
    path = parts.path
    if target.ns is not None:
        fields.append(("ns", target.ns))
    elif target.patient:
        path = f"/v2/{target.upstream}/{path.removeprefix('/v2/')}"
    return f"<{path}{'?' + urlencode(fields) if fields else ''}>{match[2]}"
