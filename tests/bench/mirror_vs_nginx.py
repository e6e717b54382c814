"""A cached blob from the mirror to curl, against the same file from nginx with sendfile.

`python -m tests.bench.mirror_vs_nginx`: a command, not a test. It prints medians of alternating runs and their ratio,
above 1 if the mirror is the faster one. Both serve from one process over loopback; the file is in the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2pd.mirror import MirrorSettings, NotAvailable, PassedThrough, serve_mirror
from p2pd.oci import Descriptor, Kind
from p2pd.units import format_rate, parse_size

NGINX_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


class _FileReader:
    media_type = None

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self.size = fd, size

    async def wait(self, offset: int) -> int:
        await trio.lowlevel.checkpoint()
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

    async def resolve(self, upstream: str, repository: str, tag: str) -> Descriptor:
        raise NotAvailable("MANIFEST_UNKNOWN", "there are no tags here")

    async def head(self, kind: Kind, upstream: str, repository: str, digest: str) -> Descriptor:
        return Descriptor(digest, self._path.stat().st_size, "application/octet-stream")

    @asynccontextmanager
    async def open(
        self, kind: Kind, upstream: str, repository: str, digest: str, *, patient: bool
    ) -> AsyncIterator[_FileReader]:
        with self._path.open("rb") as file:
            yield _FileReader(file.fileno(), os.fstat(file.fileno()).st_size)

    async def passthrough(self, upstream: str, path_and_query: str) -> PassedThrough:
        raise NotAvailable("NAME_UNKNOWN", "there is no upstream here")


async def curl(url: str, size: int) -> float:
    """Bytes a second of one download."""
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", url]
    result = await trio.run_process(command, capture_stdout=True)
    received, took_s = result.stdout.split()
    if int(received) != size:
        raise SystemExit(f"{url}: {received.decode()} bytes instead of {size}")
    return size / float(took_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(folder: Path, size: int, nginx_port: int) -> None:
    """The file, and nginx's configuration."""
    folder.chmod(0o755)  # nginx's worker runs as another user
    (folder / "files").mkdir()
    block = os.urandom(1 << 20)
    with (folder / "files" / "blob").open("wb") as file:
        for offset in range(0, size, len(block)):
            file.write(block[: size - offset])
    (folder / "nginx.conf").write_text(NGINX_CONFIGURATION.format(folder=folder, port=nginx_port))


async def measure(folder: Path, size: int, rounds: int, nginx_port: int) -> None:
    """Alternate downloads from both, and print what came out."""
    async with trio.open_nursery() as nursery:
        nginx = await nursery.start(trio.run_process, ["nginx", "-c", f"{folder}/nginx.conf"])
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(serve_mirror, listeners, _FileLibrary(folder / "files" / "blob"), MirrorSettings())
        digest = "sha256:" + hashlib.sha256(b"any").hexdigest()
        mirror_port = listeners[0].socket.getsockname()[1]
        urls = {
            "nginx": f"http://127.0.0.1:{nginx_port}/blob",
            "mirror": f"http://127.0.0.1:{mirror_port}/v2/library/bench/blobs/{digest}",
        }
        await trio.sleep(0.5)
        rates: dict[str, list[float]] = {name: [] for name in urls}
        for url in urls.values():
            await curl(url, size)  # once without counting: page cache, and curl itself
        for number in range(rounds):
            for name in sorted(urls, reverse=bool(number % 2)):
                rates[name].append(await curl(urls[name], size))
        nginx.terminate()
        nursery.cancel_scope.cancel()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        spread = f"{format_rate(min(values))} to {format_rate(max(values))}"
        print(f"{name:7} median {format_rate(medians[name])} of {rounds} runs ({spread})")
    print(f"mirror / nginx = {medians['mirror'] / medians['nginx']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("1GB"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for command in ("nginx", "curl"):
        if shutil.which(command) is None:
            raise SystemExit(f"{command} is needed: apt-get install nginx-light curl")
    with tempfile.TemporaryDirectory(prefix="p2pd-bench-") as folder:
        port = free_port()
        prepare(Path(folder), arguments.size, port)
        try:
            trio.run(measure, Path(folder), arguments.size, arguments.rounds, port)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{error.cmd[0]} failed: {(error.stderr or b'').decode()}") from error


if __name__ == "__main__":
    main()
