"""Orders to the front over a unix socket: one JSON line each way for each order. Works across network namespaces."""

from __future__ import annotations

import json
import socketserver
from pathlib import Path

from simulations.lab.front.server import Front


class Control(socketserver.ThreadingUnixStreamServer):
    """Serves orders for one Front."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, front: Front) -> None:
        self.front = front
        super().__init__(str(path), _Orders)


class _Orders(socketserver.StreamRequestHandler):
    server: Control

    def handle(self) -> None:
        for line in self.rfile:
            try:
                answer = {"ok": obey(self.server.front, json.loads(line))}
            except Exception as error:  # the test that sent the order gets the reason
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def obey(front: Front, order: dict) -> object:
    """Carries out one order. KeyError or TypeError for one that there is not."""
    match order:
        case {"do": "port"}:
            return front.port
        case {"do": "entries"}:
            return front.ledger.snapshot()
        case {"do": "reset"}:
            front.ledger.reset()
        case {"do": "rate", "rate": rate}:
            front.limiter.rate = rate
        case {"do": "latency", "latency": latency}:
            front.latency = latency
        case {"do": "refuse", "refuse": refuse}:
            (front.refuse if refuse else front.open)()
        case {"do": "add", "rule": rule}:
            return front.rules.add(rule)
        case {"do": "clear", "number": number}:
            front.rules.clear(number)
        case _:
            raise KeyError(f"no such order: {order}")
    return None
