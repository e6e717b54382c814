"""Resident memory of p2pd while a large blob is in flight through it, against a small one: it must not grow.

    python -m tests.bench.memory

Two nodes, a seeder and one that gets the blob from it, each with several clients that read it at once. Then one node
that streams a huge blob to many clients: a sparse file behind nginx, but each of its bytes is received, hashed, stored
and sent on. Peaks are over samples of /proc; `anonymous` leaves out mapped files, which the kernel may take back at any
time.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from p2pd.units import parse_size
from tests.bench import nginx
from tests.bench.table import print_table, verdict
from tests.lab import (
    REGISTRY_NAME,
    Lab,
    LabError,
    Layer,
    Node,
    Plan,
    Warehouse,
    anonymous_bytes,
    resident_bytes,
)

RESIDENT_MAX = 128 * 2**20
SAMPLE_S = 0.05
READ_TIMEOUT_S = 60.0
READ_SIZE = 1 << 20


@dataclass
class Peak:
    """The most that one process took while it was watched, in bytes."""

    pid: int
    idle: int = 0
    resident: int = 0
    anonymous: int = 0

    def sample(self) -> None:
        self.resident = max(self.resident, resident_bytes(self.pid))
        self.anonymous = max(self.anonymous, anonymous_bytes(self.pid))


def read_blob(node: Node, repository: str, digest: str, received: list[int]) -> None:
    """One client: reads the blob from the mirror and throws it away. The bytes of its body go into `received`."""
    request = f"GET /v2/{repository}/blobs/{digest}?ns=registry.test%3A5000 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with socket.create_connection(("127.0.0.1", node.mirror_port), READ_TIMEOUT_S) as connection:
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n") and (more := connection.recv(1)):
            head += more
        count, untouched = 0, bytearray(READ_SIZE)
        if head.startswith(b"HTTP/1.1 200"):
            # MSG_TRUNC: TCP throws the bytes away without copying them (tcp(7)).
            while more := connection.recv_into(untouched, len(untouched), socket.MSG_TRUNC):
                count += more
    received.append(count)


def watch(nodes: list[Node], repository: str, digest: str, size: int, streams: int) -> list[Peak]:
    """Peaks of the nodes while `streams` clients of each read the blob."""
    peaks = [Peak(node.process.pid) for node in nodes]
    for peak in peaks:
        peak.idle = resident_bytes(peak.pid)
    received: list[int] = []
    readers = [
        threading.Thread(target=read_blob, args=(node, repository, digest, received))
        for node in nodes
        for _ in range(streams)
    ]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        for peak in peaks:
            peak.sample()
        time.sleep(SAMPLE_S)
    if received != [size] * len(readers):
        tails = "\n".join(node.process.tail() for node in nodes)
        raise LabError(f"clients received {received} of {size} bytes\n{tails}")
    return peaks


def watch_huge(directory: Path, size: int, streams: int) -> Peak:
    """One node, alone, and a sparse blob: only its length would fill a disk twice."""
    zeros, hashed = bytes(READ_SIZE), hashlib.sha256()
    for offset in range(0, size, len(zeros)):
        hashed.update(zeros[: size - offset])
    digest = f"sha256:{hashed.hexdigest()}"
    files = directory / "files"
    blob = files / "v2" / "bench" / "huge" / "blobs" / digest
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as file:
        file.truncate(size)
    with nginx.serving(files, directory / "nginx") as (port, _):
        settings = {"store": {"size_limit": f"{2 * size}B"}}
        node = Node(
            directory / "node", "huge", upstreams={REGISTRY_NAME: f"http://127.0.0.1:{port}"}, settings=settings
        )
        node.start()
        try:
            (peak,) = watch([node], "bench/huge", digest, size, streams)
        finally:
            node.stop()
    return peak


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="200MB,2GB", help="of the blob (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=4, help="clients of each node (default: %(default)s)")
    parser.add_argument("--huge", default="10GB", help="size of the sparse blob; 0B for none (default: %(default)s)")
    parser.add_argument("--huge-streams", type=int, default=8, help="its clients (default: %(default)s)")
    return parser.parse_args()


def row(name: str, peak: Peak, growth: str) -> list[str]:
    figures = [f"{count / 2**20:.0f} MiB" for count in (peak.idle, peak.resident, peak.anonymous)]
    return [name, *figures, growth, verdict(peak.resident, RESIDENT_MAX)]


def main() -> None:
    options = parse()
    rows, first = [], {}
    with Warehouse() as warehouse:
        for text in filter(None, options.sizes.split(",")):
            repository = f"bench/memory-{text.lower()}"
            image = warehouse.image(repository, [Layer(parse_size(text), 7200)])
            with Lab(warehouse.lab_directory(), warehouse.storage, Plan(nodes=2)) as lab:
                nodes = [machine.node for machine in lab.machines]
                peaks = watch(nodes, repository, image.biggest.digest, image.biggest.size, options.streams)
            for number, peak in enumerate(peaks, start=1):
                small = first.setdefault(number, peak.resident)
                name = f"{text}, node {number}, {options.streams} clients"
                rows.append(row(name, peak, f"{peak.resident / small:.2f}"))
        if huge := parse_size(options.huge):
            peak = watch_huge(warehouse.lab_directory(), huge, options.huge_streams)
            rows.append(row(f"{options.huge}, one node, {options.huge_streams} clients", peak, ""))
    header = ["blob", "idle", "peak resident", "peak anonymous", "over the first size", "within 128 MiB"]
    print_table("resident memory with a blob in flight", header, rows)


if __name__ == "__main__":
    main()
