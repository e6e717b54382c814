"""A member that changes its keys: `python -m tests.peers.keyupdates PORT CA CERTIFICATE KEY BURST PAUSE SECONDS`.

It sends BURST KeyUpdates (RFC 8446 section 4.6.3) every PAUSE seconds, then a byte, for SECONDS or until it is cut off.
Prints how many went out. Python's ssl has no call for that, so OpenSSL's own is called with the connection inside the
SSLSocket.
"""

from __future__ import annotations

import _ssl
import ctypes
import socket
import ssl
import sys
import time

UPDATE_NOT_REQUESTED = 0
CONNECTION_AT = 3 * ctypes.sizeof(ctypes.c_void_p)  # PySSLSocket of CPython's _ssl.c: the object's head, Socket, ssl


def main(port: int, ca: str, certificate: str, key: str, burst: int, pause: float, seconds: float) -> None:
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    context.load_cert_chain(certificate, key)
    library = ctypes.CDLL(_ssl.__file__)
    sent = 0
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as tls:
        connection = ctypes.c_void_p.from_address(id(tls._sslobj) + CONNECTION_AT)  # type: ignore[attr-defined]
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                for _ in range(burst):
                    if library.SSL_key_update(connection, UPDATE_NOT_REQUESTED) != 1:
                        raise RuntimeError("OpenSSL makes no KeyUpdate")
                    if library.SSL_do_handshake(connection) != 1:
                        raise ConnectionError
                    sent += 1
                tls.send(b"x")
                time.sleep(pause)
        except OSError:
            pass
        print(sent)


if __name__ == "__main__":
    port, ca, certificate, key, burst, pause, seconds = sys.argv[1:]
    main(int(port), ca, certificate, key, int(burst), float(pause), float(seconds))
