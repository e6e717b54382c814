"""Resident memory of p2pd while a large blob is in flight through it, against a small one: it must not grow.

    python -m tests.bench.memory

Two nodes, a seeder and one that gets the blob from it, each with several clients that read it at once. Peaks are over
samples of /proc; `anonymous` leaves out mapped files, which the kernel may take back at any time.
"""

from __future__ import annotations

import argparse
import socket
import threading
import time
from dataclasses import dataclass

from p2pd.units import parse_size
from tests.bench.table import print_table, verdict
from tests.lab import Image, Lab, LabError, Layer, Machine, Plan, Warehouse, anonymous_bytes, resident_bytes

RESIDENT_MAX = 128 * 2**20
SAMPLE_S = 0.05
READ_TIMEOUT_S = 60.0


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


def read_blob(machine: Machine, repository: str, digest: str, received: list[int]) -> None:
    """One client: reads the blob from the mirror and throws it away. The bytes of its body go into `received`."""
    request = f"GET /v2/{repository}/blobs/{digest}?ns=registry.test%3A5000 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", machine.node.mirror_port), READ_TIMEOUT_S) as connection:
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            while answer.readline() not in (b"\r\n", b""):
                pass
            count = 0
            while status == 200 and (more := answer.readinto(buffer)):
                count += more
    received.append(count)


def measure(lab: Lab, repository: str, image: Image, streams: int) -> list[Peak]:
    """Peaks of the two nodes while all clients read."""
    digest = image.biggest.digest
    peaks = [Peak(machine.node.process.pid) for machine in lab.machines]
    for peak in peaks:
        peak.idle = resident_bytes(peak.pid)
    received: list[int] = []
    readers = [
        threading.Thread(target=read_blob, args=(machine, repository, digest, received))
        for machine in lab.machines
        for _ in range(streams)
    ]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        for peak in peaks:
            peak.sample()
        time.sleep(SAMPLE_S)
    if received != [image.biggest.size] * len(readers):
        raise LabError(f"clients received {received} of {image.biggest.size} bytes\n{lab.report()}")
    return peaks


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="200MB,2GB", help="of the blob (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=4, help="clients of each node (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    rows, first = [], {}
    with Warehouse() as warehouse:
        for text in options.sizes.split(","):
            repository = f"bench/memory-{text.lower()}"
            image = warehouse.image(repository, [Layer(parse_size(text), 7200)])
            with Lab(warehouse.lab_directory(), warehouse.storage, Plan(nodes=2)) as lab:
                peaks = measure(lab, repository, image, options.streams)
            for number, peak in enumerate(peaks, start=1):
                small = first.setdefault(number, peak.resident)
                figures = [f"{count / 2**20:.0f} MiB" for count in (peak.idle, peak.resident, peak.anonymous)]
                growth = f"{peak.resident / small:.2f}"
                rows.append([f"{text}, node {number}", *figures, growth, verdict(peak.resident, RESIDENT_MAX)])
    header = ["blob", "idle", "peak resident", "peak anonymous", "over the first size", "within 128 MiB"]
    print_table(f"memory with {options.streams} clients on each node", header, rows)


if __name__ == "__main__":
    main()
