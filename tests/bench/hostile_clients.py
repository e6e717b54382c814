"""What an honest client of a node notices while others mean harm: its throughput and its wait, with them and without.

    python -m tests.bench.hostile_clients [ATTACK...]

One node holds a blob. The honest client reads it over and over, another one asks for its first byte range; before each
attack, and while it goes on. Both times are of one run, so their ratio counts. Memory and descriptors are the node's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.attacks import ATTACKS, CONNECTIONS
from tests.bench.table import print_table, verdict
from tests.lab import REGISTRY_NAME, Lab, Layer, Machine, Plan, Process, Warehouse, resident_bytes

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64 << 20  # of the blob
PHASE_S = 4.0  # of each measurement
SETTLE_S = 1.5  # from an attack's start until it counts
RESIDENT_MAX = 128 << 20
DESCRIPTORS_MAX = 1500  # 512 clients with a socket and a file each, and peers
REPOSITORY = "bench/hostile"
TIMEOUT_S = 30.0


@dataclass
class Seen:
    """What the honest client saw, and what the node took meanwhile."""

    seconds: float = PHASE_S
    bytes: int = 0
    waits: list[float] = field(default_factory=list)  # of one small request on a connection of its own
    requests: int = 0
    failures: int = 0  # of these
    resident: int = 0
    descriptors: int = 0

    @property
    def rate(self) -> float:
        return self.bytes / self.seconds

    @property
    def p99(self) -> float:
        return sorted(self.waits)[int(0.99 * (len(self.waits) - 1))] if self.waits else TIMEOUT_S


def blob_path(digest: str) -> str:
    return f"/v2/{REPOSITORY}/blobs/{digest}?ns={REGISTRY_NAME.replace(':', '%3A')}"


@contextlib.contextmanager
def attack(lab: Lab, machine: Machine, name: str, digest: str, count: int = CONNECTIONS) -> Iterator[Process]:
    node = machine.node
    words = ["--mirror", str(node.mirror_port), "--peers", str(node.peers_port), "--blob", blob_path(digest)]
    words += ["--count", str(count)]
    process = Process(
        name,
        [sys.executable, "-m", "tests.bench.attacks", name, *words],
        lab.directory / f"{name}.log",
        env={"PYTHONPATH": str(ROOT)},
    )
    process.start()
    try:
        process.wait_ready(lambda: "attacking" in process.tail())
        yield process
    finally:
        process.kill9()


def _get(port: int, path: str, extra: str, until: float) -> int:
    """The bytes of one answer's body on a connection of its own, up to the moment `until`. OSError if it is none."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{extra}\r\n".encode())
        head = connection.recv(4096, socket.MSG_PEEK)
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 206")):
            raise ConnectionError(f"answered {head[:20]!r}")
        count, buffer = -head.find(b"\r\n\r\n") - 4, bytearray(1 << 20)
        while time.monotonic() < until and (more := connection.recv_into(buffer, len(buffer), socket.MSG_TRUNC)):
            count += more
        return count


def observe(machine: Machine, digest: str, seconds: float = PHASE_S) -> Seen:
    """An honest client for so long."""
    seen, path, port = Seen(seconds), blob_path(digest), machine.node.mirror_port
    end = time.monotonic() + seconds

    def read() -> None:
        while time.monotonic() < end:
            seen.requests += 1
            try:
                seen.bytes += _get(port, path, "", end)
            except OSError:
                seen.failures += 1

    def ask() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            seen.requests += 1
            try:
                _get(port, path, "Range: bytes=0-9\r\n", began + TIMEOUT_S)
            except OSError:
                seen.failures += 1
            seen.waits.append(time.monotonic() - began)
            time.sleep(0.01)

    def watch() -> None:
        pid = machine.node.process.pid
        while time.monotonic() < end:
            seen.resident = max(seen.resident, resident_bytes(pid))
            seen.descriptors = max(seen.descriptors, len(os.listdir(f"/proc/{pid}/fd")))
            time.sleep(0.05)

    threads = [threading.Thread(target=task) for task in (read, ask, watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def row(name: str, calm: Seen, under: Seen) -> list[str]:
    failed = under.failures / max(under.requests, 1)
    return [
        name, f"{calm.rate / 1e6:.0f}", f"{under.rate / 1e6:.0f}", f"{under.rate / max(calm.rate, 1):.2f}",
        f"{calm.p99 * 1e3:.1f}", f"{under.p99 * 1e3:.1f}", f"{under.p99 / calm.p99:.1f}", f"{failed:.1%}",
        f"{under.resident / 2**20:.0f}", str(under.descriptors), verdict(under.resident, RESIDENT_MAX),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hostile_clients")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; all without one")
    options = parser.parse_args()
    rows = []
    with Warehouse() as warehouse:
        image = warehouse.image(REPOSITORY, [Layer(SIZE, 77)])
        with Lab(warehouse.lab_directory(), warehouse.storage, Plan(nodes=1, containerd=False, tls=False)) as lab:
            (machine,) = lab.machines
            digest = image.biggest.digest
            assert machine.node.mirror(blob_path(digest)).status == 200
            for name in options.attacks or ATTACKS:
                calm = observe(machine, digest)
                with attack(lab, machine, name, digest) as process:
                    time.sleep(SETTLE_S)
                    under = observe(machine, digest)
                    assert process.running, process.tail()
                time.sleep(SETTLE_S)
                rows.append(row(name, calm, under))
    header = ["attack", "MB/s", "under it", "ratio", "p99 ms", "under it", "ratio", "failed", "MiB", "fds", "128 MiB"]
    print_table("An honest client of the mirror without an attack and under it", header, rows)


if __name__ == "__main__":
    main()
