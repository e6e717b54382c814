"""One client's connection: HTTP/1.1 framing by h11, bytes to and from the socket, and an end that is always a FIN.

Not the place where anything is decided about contents. Knows filesend and nothing else of p2pd.

A reset would cost the client its whole pull: containerd fails a pull on RST in mid-body, but on FIN it goes on, here or
at its next host, from the byte that it has reached. Linux sends RST when a socket is closed with unread input, or when
input arrives afterwards; so the end is shutdown(SHUT_WR), then reading what still comes, then close.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

import h11
import trio

from p2pd.filesend import ReceiverGone, ReceiverStalled, SendError, send_file_range
from p2pd.mirror.settings import MirrorSettings

RECEIVE_MAX = 16 << 10  # bytes of one recv: several times the usual request
EARLY_MAX = 64 << 10  # bytes of later requests kept while one is answered; after that the client must wait
LINGER_S = 5.0  # how long to read on after our FIN: nginx's lingering_timeout
LINGER_BYTES_MAX = 1 << 20  # a client that sends more than this into a closed connection may get its RST
_LAST_DATA_SENT = (
    44  # tcpi_last_data_sent, ms, 4 bytes, in struct tcp_info of linux/tcp.h: probes of a full window are no data
)
_TLS_HANDSHAKE = 0x16  # first byte of a ClientHello (RFC 8446, 5.1)

Headers = list[tuple[str, str]]


class ClientGone(Exception):
    """The client closed, reset, or took nothing for too long. Everyday; str() says which."""


class BadRequest(Exception):
    """What came is not an HTTP/1.1 request that can be answered as such: `status`, then the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `headers` in lower case, as h11 gives them; `has_body` if a body is announced."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    has_body: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header that appears exactly once; None if it is missing or repeated."""
        values = [value for key, value in self.headers if key == name]
        return values[0] if len(values) == 1 else None


class _Run:
    """Stands in for body bytes that sendfile sends: h11 only counts them."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


class Connection:
    """Owned by one task; `watch` may run beside it. Ends with `aclose`, which is safe to call under cancellation."""

    def __init__(self, stream: trio.SocketStream, settings: MirrorSettings) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._settings = settings
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=settings.header_size_max)
        self._fresh = True
        self._method = ""  # of the current request; empty before its head is complete
        self.answering = False  # the current request's status line is out, or on its way
        self.status = 0  # of the current answer
        self.sent = 0  # body bytes of the current answer
        self._requests = 0
        # trio limits unsent bytes to 16 KiB, which suits interactive protocols; bulk bodies want the full send buffer.
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)

    async def next_request(self) -> Request | None:
        """The next request; None when the client has no more, or idles or dawdles too long. Raises BadRequest."""
        self._method, self.answering, self.status, self.sent = "", False, 0, 0
        begun = bool(self._h11.trailing_data[0])
        limit = self._settings.header_timeout if begun else self._settings.idle_timeout
        with trio.move_on_after(limit) as scope:
            while True:
                held = len(self._h11.trailing_data[0])
                event = self._next_event()
                if isinstance(event, h11.Request):
                    self._check_length(held - len(self._h11.trailing_data[0]))
                    return self._request(event)
                if event is not h11.NEED_DATA:
                    return None
                data = await self._receive()
                if not data:
                    return None
                if not begun:
                    begun, scope.deadline = True, trio.current_time() + self._settings.header_timeout
                self._check_first(data)
                self._h11.receive_data(data)
        return None

    async def watch(self) -> None:
        """Return when the client closes or resets. Keeps what it sends early, as pipelining does, for later."""
        while len(self._h11.trailing_data[0]) < EARLY_MAX:
            data = await self._receive()
            if not data:
                return
            self._h11.receive_data(data)
        await trio.sleep_forever()

    async def send_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer; Content-Length is added. To a HEAD request the body is not sent. Raises ClientGone."""
        data = self._head(status, [*headers, ("Content-Length", str(len(body)))])
        if self._method != "HEAD":
            data += self._h11.send(h11.Data(data=body)) or b""
            self.sent = len(body)
        await self._send(data + (self._h11.send(h11.EndOfMessage()) or b""))

    async def send_head(self, status: int, headers: Headers) -> None:
        """Status line and headers, Content-Length among them; then the body, then `end`. Raises ClientGone."""
        await self._send(self._head(status, headers))

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """The body's next `count` bytes, from a file. Raises ClientGone, or filesend.SourceFailed."""
        self._h11.send_with_data_passthrough(h11.Data(data=_Run(count)))  # type: ignore[arg-type]
        try:
            await send_file_range(self._socket, fd, offset, count, stall_timeout=self._settings.stall_timeout)
        except SendError as error:
            self.sent += error.sent
            self._h11.send_failed()
            if isinstance(error, ReceiverGone | ReceiverStalled):
                raise ClientGone(str(error)) from error
            raise
        self.sent += count

    async def end(self) -> None:
        """The body is complete."""
        if rest := self._h11.send(h11.EndOfMessage()):
            await self._send(rest)

    @property
    def is_complete(self) -> bool:
        """Whether the current request has been answered whole."""
        return self._h11.our_state in (h11.DONE, h11.MUST_CLOSE)

    def unread_for(self) -> float:
        """Seconds for which bytes have waited for a client that takes none; 0 if none wait, or it can't be told."""
        try:
            waiting = struct.unpack("=i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_SENT + 4)
        except (OSError, ValueError):  # no TCP, or closed meanwhile
            return 0.0
        return struct.unpack_from("=I", info, _LAST_DATA_SENT)[0] / 1000 if waiting else 0.0

    def next_cycle(self) -> bool:
        """Ready for another request on this connection; False if it has to end."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def aclose(self) -> None:
        """End with FIN, wait a little for the client's own, and close. Under cancellation it does not wait."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            with trio.move_on_after(LINGER_S):
                drained = 0
                while drained < LINGER_BYTES_MAX and (data := await self._socket.recv(RECEIVE_MAX)):
                    drained += len(data)
        except OSError:
            pass  # it is gone already
        finally:
            self._drain_now()
            self._socket.close()

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            status = 431 if error.error_status_hint == 431 else 400
            raise BadRequest(status, f"not an HTTP/1.1 request: {error}") from error

    def _check_first(self, data: bytes) -> None:
        """An answer that begins with "HTTP/" is what makes clients fall back from TLS to plain HTTP at once."""
        if self._fresh and data[0] == _TLS_HANDSHAKE:
            raise BadRequest(400, "this port speaks plain HTTP, not TLS")
        self._fresh = False

    def _check_length(self, length: int) -> None:
        """h11 looks at the length of an incomplete head only: one whose end comes with its last read would pass."""
        if length > self._settings.header_size_max:
            raise BadRequest(431, f"a request's head of {length} bytes, over {self._settings.header_size_max}")

    def _request(self, event: h11.Request) -> Request:
        if event.http_version not in (b"1.0", b"1.1"):
            raise BadRequest(400, f"HTTP/{event.http_version.decode('ascii')} is not spoken here, only HTTP/1.1")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers)
        has_body = any(
            name == "transfer-encoding" or (name == "content-length" and value.strip("0")) for name, value in headers
        )
        if not has_body:
            self._next_event()  # EndOfMessage: makes h11 ready for the next cycle
        self._method = event.method.decode("ascii")
        self._requests += 1
        return Request(self._method, event.target.decode("ascii"), headers, has_body)

    def _head(self, status: int, headers: Headers) -> bytes:
        self.answering, self.status = True, status
        dated = [("Date", formatdate(usegmt=True)), *headers]
        is_last = self._requests >= self._settings.requests_max
        if is_last or self._h11.their_state not in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL):
            dated.append(("Connection", "close"))
        return self._h11.send(h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=dated)) or b""

    async def _receive(self) -> bytes:
        """b"" at the client's FIN or reset."""
        try:
            return await self._socket.recv(RECEIVE_MAX)
        except OSError:
            return b""

    async def _send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        with contextlib.suppress(OSError):  # full, or gone: what follows finds that out
            data = data[os.write(self._socket.fileno(), data) :]  # nearly always all of it, and no turn of the loop
        if not data:
            return
        with trio.move_on_after(self._settings.stall_timeout) as scope:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._h11.send_failed()
                raise ClientGone("the client closed the connection") from error
        if scope.cancelled_caught:
            self._h11.send_failed()
            raise ClientGone(f"the client took nothing for {self._settings.stall_timeout:g} s")

    def _drain_now(self) -> None:
        """Read what has come, without waiting: the last chance to keep close() from sending RST."""
        number, drained = self._socket.fileno(), 0
        with contextlib.suppress(OSError):
            while number >= 0 and drained < LINGER_BYTES_MAX and (data := os.read(number, RECEIVE_MAX)):
                drained += len(data)
