"""A cached blob from the mirror to curl, against the same file from nginx with sendfile.

    python -m tests.bench.mirror_vs_nginx

Both serve over loopback, from one process each; the file is in the page cache. Downloads alternate, in pairs; the ratio
is nginx's time over the mirror's, so above 1 the mirror is the faster one. The table has the median over all pairs and
between what half of the pairs lie. CPU seconds are the server's, for each GB.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pd.mirror import MirrorSettings, NotAvailable, PassedThrough, Presented, serve_mirror
from p2pd.oci import Descriptor, Kind
from p2pd.units import format_rate, parse_size
from tests.bench import nginx
from tests.bench.table import print_table
from tests.lab import cpu_seconds

RATIO_MIN = 1.0
BYTES_AIMED = 4_000_000_000  # moved by each side for one row, in at least PAIRS_MIN and at most PAIRS_MAX downloads
PAIRS_MIN, PAIRS_MAX = 5, 41
PATH = "/v2/library/bench/blobs/sha256:" + "a" * 64


class _FileReader:
    media_type = None

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self.size = fd, size

    async def wait(self, offset: int) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self.size

    def fileno(self) -> int:
        return self._fd

    def sent(self, count: int) -> None:
        pass


class _FileLibrary:
    """One file under every digest."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_allowed(self, upstream: str) -> bool:
        return True

    async def resolve(
        self, upstream: str, repository: str, tag: str, *, presented: Presented | None = None
    ) -> Descriptor:
        raise NotAvailable("MANIFEST_UNKNOWN", "there are no tags here")

    async def head(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, presented: Presented | None = None
    ) -> Descriptor:
        return Descriptor(digest, self._path.stat().st_size, "application/octet-stream")

    @asynccontextmanager
    async def open(
        self,
        kind: Kind,
        upstream: str,
        repository: str,
        digest: str,
        *,
        patient: bool,
        presented: Presented | None = None,
    ) -> AsyncIterator[_FileReader]:
        with self._path.open("rb") as file:
            yield _FileReader(file.fileno(), os.fstat(file.fileno()).st_size)

    async def passthrough(
        self, upstream: str, path_and_query: str, *, presented: Presented | None = None
    ) -> PassedThrough:
        raise NotAvailable("NAME_UNKNOWN", "there is no upstream here")


async def serve(path: Path) -> None:
    """The mirror's process: says its port, and serves until killed."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gc.collect()
    gc.freeze()  # as the daemon does
    print(listeners[0].socket.getsockname()[1], flush=True)
    await serve_mirror(listeners, _FileLibrary(path), MirrorSettings())


@dataclass
class Server:
    url: str
    pid: int
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0


def download(server: Server, size: int, clients: int) -> float:
    """Seconds until the last of so many curls, begun together, has the whole file."""
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", server.url]
    before = cpu_seconds(server.pid)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    slowest = 0.0
    for one in running:
        words = (one.communicate()[0] or "0 0").split()
        if one.returncode or int(words[0]) != size:
            raise SystemExit(f"{server.url}: {words[0]} bytes instead of {size}")
        slowest = max(slowest, float(words[1]))
    server.cpu += cpu_seconds(server.pid) - before
    return slowest


def row(mirror: Server, other: Server, size: int, clients: int, pairs: int) -> list[str]:
    servers = (other, mirror)
    for server in servers:
        download(server, size, clients)  # once without counting: page cache, and curl itself
        server.seconds, server.cpu = [], 0.0
    for number in range(pairs):
        for server in servers if number % 2 else servers[::-1]:
            server.seconds.append(download(server, size, clients))
    ratios = sorted(theirs / ours for ours, theirs in zip(mirror.seconds, other.seconds, strict=True))
    median = statistics.median(ratios)
    moved = size * clients
    rates = [format_rate(moved / statistics.median(server.seconds)) for server in servers]
    cpu = [f"{server.cpu / pairs / moved * 1e9:.2f}" for server in servers]
    half = f"{ratios[len(ratios) // 4]:.2f} - {ratios[-1 - len(ratios) // 4]:.2f}"
    fits = "ok" if median >= RATIO_MIN else f"below {RATIO_MIN:g}"
    return [f"{size / 1e6:g} MB", str(clients), str(pairs), *rates, f"{median:.3f}", half, fits, *cpu]


def measure(folder: Path, sizes: list[int], clients: list[int], pairs: int) -> None:
    files = folder / "files"
    files.mkdir()
    block = os.urandom(1 << 20)
    rows = []
    for size in sizes:
        with (files / "blob").open("wb") as file:
            for offset in range(0, size, len(block)):
                file.write(block[: size - offset])
        command = [sys.executable, "-m", "tests.bench.mirror_vs_nginx", "--serve", files / "blob"]
        with nginx.serving(files, folder / "nginx") as (port, worker):
            ours = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                assert ours.stdout
                mirror = Server(f"http://127.0.0.1:{int(ours.stdout.readline())}{PATH}", ours.pid)
                other = Server(f"http://127.0.0.1:{port}/blob", worker)
                for count in clients:
                    fitting = min(PAIRS_MAX, max(PAIRS_MIN, BYTES_AIMED // (size * count)))
                    rows.append(row(mirror, other, size, count, pairs or fitting))
            finally:
                ours.kill()
                ours.wait()
    header = [
        "blob",
        "clients",
        "pairs",
        "nginx",
        "mirror",
        "ratio",
        "half of the pairs",
        "",
        "nginx's CPU",
        "mirror's",
    ]
    print_table("a cached blob to curl, mirror / nginx in speed", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.mirror_vs_nginx",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default="10MB,200MB,2GB", help="of the blob (default: %(default)s)")
    parser.add_argument("--clients", default="1,4", help="curls at a time (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=0, help="downloads of each side for a row (default: by size)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.serve)
        return
    if shutil.which("curl") is None:
        raise SystemExit("curl is needed: apt-get install curl")
    with tempfile.TemporaryDirectory(prefix="p2pd-bench-") as folder:
        sizes = [parse_size(text) for text in options.sizes.split(",")]
        measure(Path(folder), sizes, [int(text) for text in options.clients.split(",")], options.pairs)


if __name__ == "__main__":
    main()
