"""For the search for secrets: forms in which one may come out, wires that are tapped, hosts that write down what they
are told, and a daemon that logs all and crashes when told to."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, quote_plus

# Runs p2pd as its command does, at the most talkative level; while the file CRASH_WHEN exists, the check of the next
# client fails as a bug would, in the middle of what knows secrets.
DAEMON = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from p2pd.cli import main
from p2pd.content.access import Access
from p2pd.upstream.registry import Registry
ask = Registry._ask
async def faulty(self, *args, **kwargs):
    if os.path.exists(os.environ["CRASH_WHEN"]):
        raise RuntimeError("a bug")
    return await ask(self, *args, **kwargs)
Registry._ask = faulty
main()
"""


def forms(secret: str) -> dict[str, bytes]:
    """What to look for: as it is, within longer base64 at each of the three offsets, and in a URL."""
    raw = secret.encode()
    found = {"plain": raw, "quoted": quote(secret, safe="").encode(), "plus": quote_plus(secret).encode()}
    for offset in range(3):
        for name, alphabet in (("base64", b"+/"), ("base64url", b"-_")):
            text = base64.b64encode(b"\0" * offset + raw, altchars=alphabet)
            # Without what depends on the neighbours: the first letters, and those of an incomplete end.
            whole = (offset + len(raw)) // 3 * 4
            found[f"{name} at {offset}"] = text[0 if offset == 0 else 4 : whole]
    found["json"] = json.dumps(secret)[1:-1].encode()
    return found


def leaks(secrets: Mapping[str, str], outputs: Mapping[str, bytes]) -> list[str]:
    """Which secret was found where, and in which form."""
    return [
        f"{name} ({form}) in {where}"
        for name, secret in secrets.items()
        for form, text in forms(secret).items()
        for where, output in outputs.items()
        if text in output
    ]


class Tap:
    """Stands before a TCP port of loopback; `heard` is all that went through, both ways."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._behind), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.heard += data
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Host:
    """An HTTP host that writes down what it is told, and answers what `answers` says for the end of the path."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.heard = bytearray()
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self._server = ThreadingHTTPServer((address, 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"{address}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.heard += f"{self.command} {self.path}\n{self.headers}\n".encode()
                for end, (status, headers, body) in host.answers.items():
                    if self.path.partition("?")[0].endswith(end):
                        self._say(status, headers, body)
                        return
                self._say(404, {}, b"{}")

            do_HEAD = do_GET

            def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextlib.contextmanager
def closing_all(*things: Tap | Host) -> Iterator[None]:
    """Ends them at the end."""
    try:
        yield
    finally:
        for thing in things:
            thing.close()
