"""TLS 1.3 on one socket: OpenSSL reads and writes the descriptor itself, and says when it has to wait for it.

Not trio.SSLStream, which copies each record through two buffers and goes through the event loop for it: four fifths of
the speed. What is trusted is in the contexts, which are handed in. May know p2pd.filesend and `overtime`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from cryptography import x509

from p2pd.filesend import SendError, warm
from p2pd.fleet.keys import public_bytes
from p2pd.peers.overtime import Overtime
from p2pd.peers.refusal import Refused, refused
from p2pd.peers.transport import CALL_BYTES, WAKE_BYTES, ConnectionLost, PlainTransport, Transport, connect
from p2pd.swarm.messages import ProtocolError

TURN_BYTES = 256 * 1024  # moved without letting the others have their turn: about a quarter of a millisecond
RECORD_SIZE = 16 * 1024  # the most that one read brings
RECORDS_MAX = 32  # in one call: twice a turn's bytes in full records, and a fraction of a millisecond in tiny ones
FILE_CHUNK = 128 * 1024  # read from a file at a time: it stays in the processor's cache until it is encrypted
HEAD_SIZE_MAX = 1024  # a Run frame is a few dozen
DRAIN_SIZE = 64 * 1024  # bytes of a refused one that are thrown away, so that it hears the reason before a reset


Wait = Callable[[socket.socket], Awaitable[None]]


class Contexts(Protocol):
    """What this side shows and trusts now; `p2pd.fleet.Identity` is one."""

    @property
    def accepting(self) -> ssl.SSLContext: ...
    @property
    def calling(self) -> ssl.SSLContext: ...
    @property
    def calling_by_name(self) -> ssl.SSLContext: ...


class TlsTransport(Transport):
    """Bytes flow after `start`, the handshake."""

    turn_bytes = TURN_BYTES

    def __init__(
        self, sock: trio.socket.SocketType, context: ssl.SSLContext, *, accepted: bool, name: str = ""
    ) -> None:
        """`name`: that the other side's certificate must be for, where the context asks for one. ConnectionLost."""
        super().__init__(sock)
        self._name = name
        self._ends_at = float("inf")  # when the other side's certificate ends
        self._head = b""  # to be sent before the next bytes of a file
        self._chunk: memoryview | None = None  # a file's bytes on their way, while there are such
        self._waits: dict[Wait, trio.Event | None] = {}  # under way; an event where a second task waits
        self._overtime = Overtime()
        try:
            self._tls = context.wrap_socket(
                self._sock,
                server_side=accepted,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
                server_hostname=name or None,
            )
        except OSError as error:
            self._sock.close()
            raise ConnectionLost(error.strerror or str(error)) from None
        self._sock = self._tls

    async def start(self) -> None:
        """The handshake: both sides prove their certificates' keys. Refused, ConnectionLost."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._readable(1)
            except ssl.SSLWantWriteError:
                await self._until(trio.lowlevel.wait_writable)
            except ssl.SSLEOFError:
                raise ConnectionLost("closed by the other side during the handshake") from None
            except ssl.SSLError as error:
                self._drain()
                raise refused(error, self._name) from None
            except OSError as error:
                raise ConnectionLost(error.strerror or str(error)) from None
        self._meet(self._tls.getpeercert(binary_form=True))

    def check(self) -> None:
        if time.time() >= self._ends_at:
            raise ConnectionLost("its certificate has ended")

    async def receive_into(self, view: memoryview, promised: bool = False) -> int:
        """A call for less than a record reads one record or a part of it: a frame's reader wants no more at a time."""
        await self._turn()
        while True:
            count, waits_for = self._read(view)
            if count:
                break
            if waits_for is trio.lowlevel.wait_readable:
                # A part of a record may be here already, for OpenSSL to add to.
                await self._readable(len(view) - RECORD_SIZE if promised else 1)
            elif waits_for:
                await self._until(waits_for)
            else:
                raise ConnectionLost("closed by the other side")
        self._moved += count + CALL_BYTES
        return count

    def _read(self, view: memoryview) -> tuple[int, Wait | None]:
        """How many bytes were here; what to wait for where there were none: nothing is the end. ConnectionLost;
        ProtocolError if the other side keeps OpenSSL busy with records that bring none.
        """
        count, size, records = 0, len(view), 0
        waits_for: Wait | None = None
        self._overtime.begin(self._tls.fileno())
        try:
            while count < size:
                # recv_into, less a call
                got: int = self._tls.read(size - count, view[count:])  # type: ignore[assignment]
                if not got:
                    break  # it said goodbye, and will again
                count += got
                records += 1
                if size < RECORD_SIZE or count >= TURN_BYTES or records == RECORDS_MAX:
                    break
        except ssl.SSLWantReadError:
            waits_for = trio.lowlevel.wait_readable
        except ssl.SSLWantWriteError:
            waits_for = trio.lowlevel.wait_writable
        except OSError as error:
            raise _lost(error) from None
        finally:
            if self._overtime.end(count):
                raise ProtocolError("keeps this side busy with TLS records that bring no data")
        return count, waits_for

    async def send_all(self, data: bytes, more: bool = False) -> None:
        self._head += data
        if more:
            return  # it goes out with the file's first bytes, in one record
        data, self._head = self._head, b""
        await self._turn()
        self.sending_since = trio.current_time()
        try:
            await self._send(memoryview(data))
        finally:
            self.sending_since = None
        self._moved += len(data) + CALL_BYTES

    def send_now(self, data: bytes) -> int:
        try:
            return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise _lost(error) from None

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        await self._turn()
        end = offset + count
        chunk = self._chunk = self._chunk or memoryview(bytearray(HEAD_SIZE_MAX + FILE_CHUNK))
        filled = len(self._head)
        chunk[:filled] = self._head
        self._head = b""
        is_warm = False
        self.sending_since = trio.current_time()
        try:
            while offset < end:
                space = chunk[filled : filled + min(FILE_CHUNK, end - offset)]
                got = 0 if is_warm else _resident_into(space, fd, offset)
                if not got:
                    await warm(fd, offset, end - offset)
                    is_warm = True
                    got = os.preadv(fd, [space], offset)
                if not got:
                    raise ConnectionLost(f"the file to be sent ends at byte {offset}")
                await self._send(chunk[: filled + got])
                offset += got
                filled = 0
        except (OSError, SendError) as error:
            raise ConnectionLost(str(error)) from None
        finally:
            self.sending_since = None
        self._moved += count + CALL_BYTES

    def flush(self) -> None:
        self._chunk = None

    def close(self) -> None:
        """Says goodbye if that takes no waiting: without it the other side knows only that the line was cut."""
        self._overtime.begin(self._tls.fileno())
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()  # reads, too
        self._overtime.end(0)
        super().close()

    async def _send(self, view: memoryview) -> None:
        """A record a call. What could not be sent is sent again with the same bytes first, as OpenSSL demands."""
        try:
            while view:
                try:
                    view = view[self._tls.send(view) :]
                except ssl.SSLWantWriteError:
                    await self._until(trio.lowlevel.wait_writable)
                except ssl.SSLWantReadError:
                    self._wake_at(1)
                    await self._until(trio.lowlevel.wait_readable)
        except OSError as error:
            raise _lost(error) from None

    async def _readable(self, least: int) -> None:
        self._wake_at(max(1, min(least, WAKE_BYTES)))
        self.receiving_since = trio.current_time()
        try:
            await self._until(trio.lowlevel.wait_readable)
        finally:
            self.receiving_since = None

    async def _until(self, wait: Wait) -> None:
        """Either direction may have to wait for either event: reading for room to answer a change of keys, say. trio
        lets one task wait for each; a second one waits for the first.
        """
        if wait in self._waits:
            over = self._waits[wait] = self._waits[wait] or trio.Event()
            await over.wait()
            return
        self._waits[wait] = None
        try:
            await wait(self._sock)
        finally:
            if done := self._waits.pop(wait):
                done.set()

    def _meet(self, certificate: bytes | None) -> None:
        assert certificate
        try:
            parsed = x509.load_der_x509_certificate(certificate)
            self.peer_key = public_bytes(parsed)
            self._ends_at = parsed.not_valid_after_utc.timestamp()
        except ValueError as error:  # OpenSSL takes some that break the standard
            raise Refused("bad-certificate", f"shows a certificate that is not understood: {error}") from None
        if self.peer_key is None:
            self._drain()
            raise Refused("bad-certificate", "shows a certificate whose key is not Ed25519, so not a p2pd node's")

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.recv(self._sock, DRAIN_SIZE)


def _resident_into(space: memoryview, fd: int, offset: int) -> int:
    """Read what is in the page cache; 0 if nothing is, if that can not be told, or at an error that will come again."""
    try:
        return os.preadv(fd, [space], offset, os.RWF_NOWAIT)
    except OSError:
        return 0


def _lost(error: OSError) -> ConnectionLost:
    """What an error after the handshake means. A refusal of our certificate comes only then: TLS 1.3's first flight
    of the caller ends before the other side has looked at it.
    """
    if isinstance(error, ssl.SSLEOFError):
        return ConnectionLost("cut off")
    if isinstance(error, ssl.SSLError):
        return refused(error)
    return ConnectionLost(error.strerror or str(error))


async def call(host: str, port: int, timeout_s: float, contexts: Contexts | None, *, by_name: bool) -> Transport:
    """A connection to (host, port), not started; plain without contexts. `by_name`: only the address tells who it is,
    so its certificate must be for that. ConnectionLost if there is none in time.
    """
    sock = await connect(host, port, timeout_s)
    if contexts is None:
        return PlainTransport(sock)
    if by_name:
        return TlsTransport(sock, contexts.calling_by_name, accepted=False, name=host)
    return TlsTransport(sock, contexts.calling, accepted=False)


def answer(sock: trio.socket.SocketType, contexts: Contexts | None) -> Transport:
    """The other end of a call that came in. ConnectionLost."""
    return PlainTransport(sock) if contexts is None else TlsTransport(sock, contexts.accepting, accepted=True)
