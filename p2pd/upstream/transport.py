"""One HTTP request and its answer. The only module that knows httpx: no other one may import it, or httpcore.

Not here: redirects, retries, tokens, what a status means. httpx's *client* is left aside on purpose: it keeps cookies,
logs URLs (signed ones too) and follows what the environment says. Its transport does none of that.

May know this package's config, errors and urls.
"""

# ruff: noqa: E402  (one line stands before an import)

from __future__ import annotations

import functools
import logging
import os
import ssl
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import h11
import httpcore
import trio

# Without httpx's own command line, and rich and pygments that it would bring: 3 MiB that a daemon has no use for.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
import httpx

from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.errors import AddressRefused, BadAnswer, Unreachable, UpstreamError
from p2pd.upstream.rawbody import RawBody
from p2pd.upstream.tlssocket import TlsSocket
from p2pd.upstream.urls import Origin, is_private_address, names_private_host, origin

READ_SIZE = 256 * 1024  # bytes asked of the socket at a time, where the long way is taken
BYPASS_MIN = 64 * 1024  # bytes to come of a body from which on the short way is worth its beginning
CONNECT_TIMEOUT_S = 5.0  # for each of: TCP, the TLS handshake
READ_TIMEOUT_S = 20.0  # without one byte, in headers or body: then a resume elsewhere is better
CLOSE_TIMEOUT_S = 1.0  # for the goodbye of a connection that is given up
CONNECTIONS_MAX = 64  # to all hosts of one registry; a node streams about ten blobs at a time
CONNECTIONS_IDLE_MAX = 8
IDLE_S = 30.0  # registries' load balancers close at 60 s and more
ADDRESSES_TRIED_MAX = 4  # of a redirect's host, one after the other
DISCARD_MAX = 65536  # bytes of an unwanted body that are read to keep the connection

# httpcore tells each header, httpx each URL, below WARNING. Some of both are secrets.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Answer:
    """Status, headers and the body as it comes. An async context manager; leaving it early gives the connection up."""

    def __init__(self, response: httpx.Response, what: str, place: Origin) -> None:
        self.origin = place  # whom it came from, after redirects
        self.status = response.status_code
        self._headers = response.headers
        self._what = what
        self._stream = response.stream
        self._chunks: AsyncIterator[bytes] | None = None  # async generators all the way down: see aclose
        self._first = memoryview(b"")  # of the body, received with the head
        self._bypass: _Bypass | None = None
        self._ended = False
        self._broken = False
        self._closed = False

    def header(self, name: str) -> str | None:
        """The header's value (joined by commas if it came several times)."""
        return self._headers.get(name)

    def header_list(self, name: str) -> list[str]:
        """The values of a header that may come several times."""
        return self._headers.get_list(name)

    async def receive_some(self) -> bytes:
        """The next bytes of the body as they came over the wire, b"" at its end. Unreachable if the connection breaks
        or is silent for too long, BadAnswer if the body ends short of its Content-Length.

        Cancelling it, as well as an error, breaks the body for good: later calls are Unreachable."""
        if self._broken:
            raise Unreachable(f"{self._what}: the body was given up in the middle")
        if self._ended:
            return b""
        if self._chunks is None:
            self._chunks = aiter(self._stream)  # type: ignore[arg-type]  # a response of an async transport
        try:
            chunk = await anext(self._chunks, b"")
        except BaseException as error:
            self._broken = self._ended = True  # the generators have ended with it
            if isinstance(error, _FAILURES):
                raise _translated(error, self._what) from None
            raise
        if not chunk:
            self._ended = True
            await self.aclose()
        return chunk

    async def receive_into(self, buffer: memoryview) -> int:
        """As `receive_some`, into the caller's buffer: the number of bytes, 0 at the end. Not to be mixed with it."""
        if self._bypass is not None and not self._first:
            return 0 if self._ended else await self._receive_past(self._bypass, buffer)
        if not self._first:
            self._first = memoryview(await self.receive_some())
            rest = None if self._ended else _Rest.of(self._stream)
            if rest and rest.left == 0:
                await self.receive_some()  # the end of the message: the connection can be used again
            elif rest and rest.left >= BYPASS_MIN and isinstance(rest.network, _PlainStream | _TlsStream):
                self._bypass = _Bypass(rest, rest.network.raw_body())
        count = min(len(self._first), len(buffer))
        buffer[:count] = self._first[:count]
        self._first = self._first[count:]
        return count

    async def _receive_past(self, bypass: _Bypass, buffer: memoryview) -> int:
        if self._broken:
            raise Unreachable(f"{self._what}: the body was given up in the middle")
        try:
            count = await bypass.receive_into(buffer)
        except BaseException as error:
            self._broken = True
            if isinstance(error, _FAILURES):
                raise _translated(error, self._what) from None
            raise
        if bypass.is_complete:
            await self.receive_some()
        return count

    async def read(self, limit: int) -> bytes:
        """The whole body. BadAnswer if it has more than `limit` bytes."""
        chunks, size = [], 0
        while chunk := await self.receive_some():
            size += len(chunk)
            if size > limit:
                raise BadAnswer(f"{self._what}: the answer has more than {limit} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    async def discard(self) -> None:
        """Done with it: read a small rest, so that the connection can be used again, and close."""
        with suppress(UpstreamError), trio.move_on_after(CLOSE_TIMEOUT_S):
            await self.read(DISCARD_MAX)
        await self.aclose()

    async def aclose(self) -> None:
        """Give the connection back if the body has ended, else close it. Never raises for the network's sake."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT_S):
            await self._stream.aclose()  # type: ignore[union-attr]
            if self._chunks is not None and not self._ended:
                # httpcore's nested generators hang at their yields. Trio warns of each that is collected so, and would
                # run its end in some other task. The socket is closed: going on makes all of them end here.
                with suppress(*_FAILURES):
                    async for _ in self._chunks:
                        pass

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is to come of a body of known length, all that was received having been handed out: the only place that
    looks at what httpcore and h11 keep for themselves. A test holds us to it.
    """

    reader: Any  # h11's, who counts down
    network: httpcore.AsyncNetworkStream

    @classmethod
    def of(cls, stream: Any) -> _Rest | None:
        """For the stream of a response. None if its length is not known, or if these libraries are not as expected:
        then the body comes the long way."""
        try:
            connection = stream._httpcore_stream._stream._connection
            state = connection._h11_state
            if state.their_state is not h11.SEND_BODY or state.trailing_data[0]:
                return None
            state._reader._remaining  # noqa: B018  (what no other reader has)
            return cls(state._reader, connection._network_stream)
        except AttributeError:
            return None

    @property
    def left(self) -> int:
        """Bytes."""
        return self.reader._remaining

    def end(self) -> None:
        """All of it was received, but not by h11."""
        self.reader._remaining = 0


class _Bypass:
    """The rest of a body read off the socket, below httpcore and h11, who are told when it is over."""

    def __init__(self, rest: _Rest, body: RawBody) -> None:
        self._rest = rest
        self._left = rest.left
        self._body = body

    @property
    def is_complete(self) -> bool:
        return self._left == 0

    async def receive_into(self, buffer: memoryview) -> int:
        """httpx's errors."""
        try:
            count = await self._body.receive_into(buffer[: self._left], READ_TIMEOUT_S)
        except trio.TooSlowError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except (OSError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(str(error)) from error
        if count == 0:
            raise httpx.RemoteProtocolError(f"peer closed connection with {self._left} bytes of the body still to come")
        self._left -= count
        if self.is_complete:
            self._body.close()
            self._rest.end()
        return count


class Transport:
    """The connections of one registry, and of the hosts that it sends us to.

    `private` tells which IP addresses only a registry that is itself at such an address may send us to.
    """

    def __init__(self, config: UpstreamConfig, private: Callable[[str], bool] = is_private_address) -> None:
        self._home = origin(config.url)
        proxy = environment_proxy(config.url) if config.proxy is None else config.proxy or None
        self._guard = _GuardedBackend(self._home, config, private)
        self._proxied = proxy is not None
        context = _tls(config)
        limits = httpx.Limits(
            max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_IDLE_MAX, keepalive_expiry=IDLE_S
        )
        self._transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, proxy=proxy)
        if not self._proxied:
            # httpx has no parameter for the network backend that its pool takes. A test holds us to it.
            self._transport._pool = httpcore.AsyncConnectionPool(
                ssl_context=context,
                network_backend=self._guard,
                max_connections=limits.max_connections,
                max_keepalive_connections=limits.max_keepalive_connections,
                keepalive_expiry=limits.keepalive_expiry,
            )

    async def send(self, what: str, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Send one request and receive the headers of its answer. `what` begins the text of errors.

        Unreachable without an answer; BadAnswer for one that is not HTTP; AddressRefused if the host may not be asked.
        """
        self._check_proxied(url)
        times = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            request = httpx.Request(
                method, url, headers=dict(headers), content=body, extensions={"timeout": times.as_dict()}
            )
            return Answer(await self._transport.handle_async_request(request), what, origin(url))
        except httpx.InvalidURL:
            raise BadAnswer(f"{what}: sent to a URL that can't be used") from None
        except AddressRefused as error:
            raise AddressRefused(f"{what}: {error}") from None
        except _FAILURES as error:
            raise _translated(error, what) from None

    def _check_proxied(self, url: str) -> None:
        # A proxy resolves names itself, so only what can be read off the URL is checked here.
        host = origin(url).host
        if self._proxied and self._guard.refuses_by_name(host):
            raise AddressRefused(f"sent to the private address {host}")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


class _PlainStream(httpcore.AsyncNetworkStream):
    """Reads READ_SIZE bytes at a time where httpcore would read 64 KiB: a fast body costs a third less CPU so."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._inner.read(max(max_bytes, READ_SIZE), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            tls = TlsSocket(self.get_extra_info("socket"), ssl_context, server_hostname)
        except (OSError, ValueError) as error:
            raise httpcore.ConnectError(error) from error
        try:
            with trio.fail_after(inf if timeout is None else timeout):
                await tls.start()
        except BaseException as error:
            tls.close()
            if isinstance(error, trio.TooSlowError):
                raise httpcore.ConnectTimeout(error) from error
            if isinstance(error, OSError):
                raise httpcore.ConnectError(error) from error
            raise
        return _TlsStream(tls)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def raw_body(self) -> RawBody:
        sock = self.get_extra_info("socket")
        return RawBody(sock, lambda view: os.readv(sock.fileno(), [view]))


class _TlsStream(httpcore.AsyncNetworkStream):
    def __init__(self, tls: TlsSocket) -> None:
        self._tls = tls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            with trio.fail_after(inf if timeout is None else timeout):
                return await self._tls.receive_some(max(max_bytes, READ_SIZE))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout(error) from error
        except (OSError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(error) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        try:
            with trio.fail_after(inf if timeout is None else timeout):
                await self._tls.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout(error) from error
        except (OSError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(error) from error

    async def aclose(self) -> None:
        self._tls.close()
        await trio.lowlevel.checkpoint()

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._tls.ssl
            case "is_readable":
                return self._tls.is_readable
            case "server_addr":
                return self._tls.ssl.getpeername()
        return None

    def raw_body(self) -> RawBody:
        return RawBody(self._tls.ssl, self._tls.receive_now)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects; checks the addresses of hosts other than the registry's own, between look-up and connect, so that a
    name can't change its address after the check (DNS rebinding)."""

    def __init__(self, home: Origin, config: UpstreamConfig, private: Callable[[str], bool]) -> None:
        self._inner = httpcore.TrioBackend()
        self._home = home
        self._trusted = config.realm_hosts
        self._private = private
        self._open = config.allow_private_redirects or names_private_host(home.host, private)

    def refuses(self, host: str) -> bool:
        """True if `host` may not be at a private address."""
        return not self._open and host not in self._trusted

    def refuses_by_name(self, host: str) -> bool:
        """True if `host` is a private address that may not be asked, as far as can be told without looking it up."""
        return host != self._home.host and self.refuses(host) and names_private_host(host, self._private)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore's interface)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if (host, port) == self._home[1:]:
            stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
            self._open = self._open or self._private(stream.get_extra_info("server_addr")[0])
            return _PlainStream(stream)
        if not self.refuses(host):
            return _PlainStream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))
        addresses = await self._public_addresses(host, port)
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return _PlainStream(await self._inner.connect_tcp(address, port, share, local_address, socket_options))
        stream = await self._inner.connect_tcp(addresses[-1], port, share, local_address, socket_options)
        return _PlainStream(stream)

    async def _public_addresses(self, host: str, port: int) -> list[str]:
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, trio.TooSlowError) as error:
            raise httpcore.ConnectError(f"can't look up {host}: {_reason(error)}") from None
        addresses = [str(sockaddr[0]) for *_, sockaddr in found]
        allowed = [address for address in dict.fromkeys(addresses) if not self._private(address)]
        if not allowed:
            raise AddressRefused(f"sent to {host}, which is at a private address")
        return allowed[:ADDRESSES_TRIED_MAX]

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def environment_proxy(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for a URL, as other OCI clients read them.

    ValueError if it is of a kind that is not supported.
    """
    place = origin(url)
    proxy = urllib.request.getproxies_environment().get(place.scheme)
    bypasses = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out
    if not proxy or names_private_host(place.host) or bypasses(place.host):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        origin(proxy)
    except BadAnswer:
        name = f"{place.scheme.upper()}_PROXY"
        raise ValueError(
            f"{name} is not an http:// or https:// URL; correct it, or set proxy for {place.host}"
        ) from None
    return proxy


def _system_roots() -> ssl.SSLContext:
    """What the system trusts; httpx's bundle on a machine that has no certificates."""
    paths = ssl.get_default_verify_paths()
    has_roots = bool(paths.cafile) or bool(paths.capath and any(os.scandir(paths.capath)))
    return ssl.create_default_context() if has_roots else httpx.create_ssl_context(trust_env=False)


# A context takes 1 MB and 20 ms, and most registries need nothing of their own.
_shared_system_roots = functools.cache(_system_roots)


def load_roots() -> None:
    """Read the system's certificates now, rather than while the first pull waits for that: some 40 ms."""
    _shared_system_roots()


def _tls(config: UpstreamConfig) -> ssl.SSLContext:
    """System roots, the registry's own CA, our certificate for it. ValueError if a file can't be used."""
    if config.ca is None and config.client_certificate is None:
        return _shared_system_roots()
    context = _system_roots()
    for name, path, load in (
        ("ca", config.ca, context.load_verify_locations),
        ("client_certificate", config.client_certificate, context.load_cert_chain),
    ):
        if path is not None:
            _load(load, config.host, name, path)
    return context


def _load(load: Callable[[Path], object], host: str, name: str, path: Path) -> None:
    try:
        load(path)
    except OSError as error:  # ssl.SSLError is one
        contents = "a PEM file" if name == "ca" else "a PEM file with the certificate and its key"
        raise ValueError(f"{host}: {name} {path} can't be used ({_reason(error)}); it must be {contents}") from None


# What the network and the other side can do. httpx.LocalProtocolError is not among them: that is a bug of ours.
_FAILURES = (httpx.TimeoutException, httpx.NetworkError, httpx.ProxyError, httpx.RemoteProtocolError)
# Sentences of h11 and httpcore that hold nothing of what was sent.
_HARMLESS = ("peer closed connection", "Server disconnected")


def _translated(error: Exception, what: str) -> UpstreamError:
    if isinstance(error, httpx.RemoteProtocolError):
        text = str(error)
        if text.startswith("Server disconnected"):
            return Unreachable(f"{what}: the connection was closed before an answer")
        return BadAnswer(f"{what}: {text if text.startswith(_HARMLESS) else 'the answer is not proper HTTP'}")
    if isinstance(error, httpx.PoolTimeout):
        return Unreachable(f"{what}: no free connection, {CONNECTIONS_MAX} are in use")
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"{what}: no connection within {CONNECT_TIMEOUT_S:.0f} s")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{what}: silent for {READ_TIMEOUT_S:.0f} s")
    if isinstance(error, httpx.ProxyError):
        return Unreachable(f"{what}: the proxy refused the connection")
    if isinstance(error, httpx.ConnectError):
        return _not_connected(error, what)
    return Unreachable(f"{what}: the connection broke")


def _not_connected(error: Exception, what: str) -> Unreachable:
    """The system's or OpenSSL's words lie some wrappers deep, by different ways in httpcore and trio."""
    cause: object = error
    for _ in range(8):
        if isinstance(cause, ssl.SSLCertVerificationError):
            # A certificate that is wrong stays wrong for the next try.
            reason = f"its certificate is refused: {cause.verify_message}; if it is right, set ca for this registry"
            return Unreachable(f"{what}: {reason}", passing=False)
        if isinstance(cause, OSError) or not isinstance(cause, BaseException):
            break
        wrapped = cause.args[0] if cause.args and isinstance(cause.args[0], BaseException) else None
        cause = wrapped or cause.__cause__ or cause.__context__
    text = (
        (_reason(cause) if isinstance(cause, ssl.SSLError) else str(cause))
        if isinstance(cause, OSError)
        else str(error)
    )
    return Unreachable(f"{what}: can't connect: {text[:200]}")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
