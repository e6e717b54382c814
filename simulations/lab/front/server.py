"""Passes requests on to the registry and answers back, a thread for each client connection, with the rules' faults.

HTTP/1.1 as far as a registry's readers need it: GET and HEAD without bodies, keep-alive, answers with a length or until
the connection's end. Not a general proxy: pushes go to the registry itself.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass

from simulations.lab.front.ledger import Entry, Ledger
from simulations.lab.front.limiter import CHUNK_MAX, Limiter
from simulations.lab.front.rules import NO_FAULT, Rule, Rules

HEAD_MAX = 64 * 1024
BACKLOG = 1024  # a storm of direct pulls must be counted, not refused
REGISTRY_TIMEOUT_S = 30.0
STALL_POLL_S = 0.05
# Bytes that the kernel holds for a client count as sent; a small buffer keeps that near to what the client has.
SEND_BUFFER = 256 * 1024

_DROPPED = {"connection", "keep-alive", "content-length"}
_ERROR_CODES = {404: "BLOB_UNKNOWN", 401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


class _Ended(Exception):
    """The connection to the client is to be closed; `reset` by RST."""

    def __init__(self, ending: str, *, reset: bool = False) -> None:
        self.ending, self.reset = ending, reset


@dataclass(slots=True)
class Head:
    """A request's or answer's first line and fields. Names are lower case; of a repeated field the last one counts."""

    first: str
    fields: dict[str, str]

    @classmethod
    def parse(cls, data: bytes) -> Head:
        first, *lines = data.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return cls(first, {name.strip().lower(): value.strip() for name, value in pairs})


def read_head(connection: socket.socket, rest: bytearray) -> Head | None:
    """The next head; `rest` keeps what came after it. None at the connection's end."""
    while (end := rest.find(b"\r\n\r\n")) < 0:
        if len(rest) > HEAD_MAX:
            return None
        data = connection.recv(16 * 1024)
        if not data:
            return None
        rest += data
    head = Head.parse(bytes(rest[:end]))
    del rest[: end + 4]
    return head


class Front:
    """The listening socket and its connections. `latency` (seconds) and `limiter.rate` may be changed at any time."""

    def __init__(self, registry: tuple[str, int], listen: tuple[str, int]) -> None:
        self.registry = registry
        self.ledger, self.rules, self.limiter = Ledger(), Rules(), Limiter()
        self.latency = 0.0
        self._address = listen
        self._listener: socket.socket | None = None

    @property
    def port(self) -> int:
        return self._address[1]

    def open(self) -> None:
        """Starts to listen (again)."""
        if self._listener is None:
            self._listener = socket.create_server(self._address, backlog=BACKLOG)
            self._address = (self._address[0], self._listener.getsockname()[1])
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Stops listening: new connections are refused, old ones go on."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, address = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(client, address[0]), daemon=True).start()

    def _serve(self, client: socket.socket, peer: str) -> None:
        rest = bytearray()
        with client:
            while True:
                try:
                    request = read_head(client, rest)
                except OSError:
                    return
                if request is None or not self._exchange(client, peer, request):
                    return

    def _exchange(self, client: socket.socket, peer: str, request: Head) -> bool:
        """One request and its answer; whether the connection stays open."""
        method, path, *_ = [*request.first.split(" "), "", ""]
        agent = request.fields.get("user-agent", "")
        entry = self.ledger.open(method, path, agent, peer, request.fields.get("range"))
        rule = self.rules.take(entry)
        try:
            time.sleep(self.latency + rule.latency)
            if method not in ("GET", "HEAD"):
                return self._plain(client, entry, 405, rule)
            if rule.status is not None:
                return self._plain(client, entry, rule.status, rule)
            return self._pass_on(client, entry, request, path, rule)
        except _Ended as ended:
            entry.ending = ended.ending
            if ended.reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        except OSError:
            entry.ending = "client gone"
            return False
        finally:
            entry.ended = time.monotonic()

    def _plain(self, client: socket.socket, entry: Entry, status: int, rule: Rule) -> bool:
        entry.status = status
        code = _ERROR_CODES.get(status, "UNKNOWN")
        body = b'{"errors":[{"code":"%s","message":"said by the lab"}]}' % code.encode()
        again = f"Retry-After: {rule.retry_after}\r\n" if rule.retry_after is not None else ""
        head = f"HTTP/1.1 {status} Lab\r\nContent-Type: application/json\r\n{again}Content-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + (b"" if entry.method == "HEAD" else body))
        return True

    def _pass_on(self, client: socket.socket, entry: Entry, request: Head, path: str, rule: Rule) -> bool:
        try:
            registry = socket.create_connection(self.registry, REGISTRY_TIMEOUT_S)
        except OSError:
            entry.ending = "registry failed"
            return self._plain(client, entry, 502, NO_FAULT)
        with registry:
            dropped = _DROPPED | ({"range"} if rule.ignore_range else set())
            fields = {name: value for name, value in request.fields.items() if name not in dropped}
            lines = [f"{entry.method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items()), "connection: close"]
            registry.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            rest = bytearray()
            answer = read_head(registry, rest)
            if answer is None:
                raise _Ended("registry failed")
            return self._answer(client, entry, answer, rest, registry, rule)

    def _answer(
        self, client: socket.socket, entry: Entry, answer: Head, rest: bytearray, registry: socket.socket, rule: Rule
    ) -> bool:
        entry.status = int(answer.first.split(" ")[1])
        stated = answer.fields.get("content-length")
        length = None if stated is None else int(stated)
        if length is not None and rule.truncate_to is not None:
            length = min(length, rule.truncate_to)
        keep = length is not None
        fields = {name: value for name, value in answer.fields.items() if name not in _DROPPED}
        if length is not None:
            fields["content-length"] = str(length)
        fields["connection"] = "keep-alive" if keep else "close"
        head = "\r\n".join([answer.first, *(f"{n}: {v}" for n, v in fields.items()), "", ""])
        client.sendall(head.encode("latin-1"))
        if entry.method == "GET":
            body = _Body(self, client, entry, rule, _start(answer))
            body.send_all(registry, rest, length)
        return keep


def _start(answer: Head) -> int:
    match = re.match(r"bytes (\d+)-", answer.fields.get("content-range", ""))
    return int(match[1]) if match else 0


class _Body:
    """One answer's body on its way: the rates, the counting, and the faults in mid-body."""

    def __init__(self, front: Front, client: socket.socket, entry: Entry, rule: Rule, start: int) -> None:
        self._front, self._client, self._entry, self._rule = front, client, entry, rule
        self._start = start
        self._own = Limiter(rule.rate)
        self._stalled = False

    def send_all(self, registry: socket.socket, rest: bytearray, length: int | None) -> None:
        """Sends `length` bytes (None: until the registry closes), of which `rest` has come already."""
        buffer = bytearray(CHUNK_MAX)
        while length is None or self._entry.body_bytes < length:
            room = min(self._front.limiter.chunk(), self._own.chunk())
            if length is not None:
                room = min(room, length - self._entry.body_bytes)
            room = min(room, self._fault())
            with memoryview(buffer)[:room] as view:
                if rest:
                    count = min(room, len(rest))
                    view[:count] = rest[:count]
                    del rest[:count]
                else:
                    count = registry.recv_into(view)
                if not count:
                    if length is not None:
                        raise _Ended("registry failed")
                    return
                self._flip(view[:count])
                time.sleep(max(self._front.limiter.book(count), self._own.book(count)))
                self._send(view[:count])

    def _send(self, view: memoryview) -> None:
        sent = 0
        while sent < len(view):
            count = self._client.send(view[sent:])
            self._entry.body_bytes += count
            sent += count

    def _flip(self, view: memoryview) -> None:
        if self._rule.flip_at is not None:
            place = self._rule.flip_at - self._start - self._entry.body_bytes
            if 0 <= place < len(view):
                view[place] ^= 0xFF

    def _fault(self) -> int:
        """Carries out a cut or a stall that is due here; how many bytes may go before the next one."""
        rule, sent = self._rule, self._entry.body_bytes
        if rule.cut_after is not None and sent >= rule.cut_after:
            raise _Ended("cut", reset=rule.reset)
        if rule.stall_after is not None and sent >= rule.stall_after and not self._stalled:
            self._stall()
        places = [place for place in (rule.cut_after, rule.stall_after) if place is not None and place > sent]
        return min((place - sent for place in places), default=CHUNK_MAX)

    def _stall(self) -> None:
        self._stalled, self._entry.ending = True, "stalled"
        while self._front.rules.holds(self._rule):
            readable, _, _ = select.select([self._client], [], [], STALL_POLL_S)
            if readable:
                with contextlib.suppress(BlockingIOError):
                    if not self._client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                        raise _Ended("client gone")
        self._entry.ending = ""
