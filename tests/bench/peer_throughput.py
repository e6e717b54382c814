"""Peer to peer, checked and stored: how fast one node gets a blob from another, both on this machine.

    python -m tests.bench.peer_throughput [--tls] [--disk DIRECTORY] [--profile FILE]

Two processes, each with the daemon's parts: core, engine, network, arrivals, store. Beside it, in the same run and in
turns, a bare loop: sendfile at one end, recv_into a reused buffer at the other, and hash and pwrite of each piece in a
worker thread. Once in /dev/shm, once on a disk. GB/s are 10^9 bytes a second, from the first piece's first byte to the
moment the blob is proven; CPU seconds are those of both processes.

With --tls all of it is encrypted: the bare loop reads a non-blocking ssl.SSLSocket into its buffer. Beside it, through
trio.SSLStream: the same two processes with the daemon's parts, and such a loop.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrivals import Arrivals
from p2pd.engine import Engine
from p2pd.fleet import FleetFiles, Identity, NodeKey, verify
from p2pd.fleet.authority import init_authority, issue
from p2pd.hashing import Compression
from p2pd.peers.network import Network
from p2pd.store import Store
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import PROTOCOL_VERSION, Contact, Hello
from p2pd.swarm.node import Node
from p2pd.swarm.pieces import Geometry
from p2pd.swarm.voucher import node_id
from p2pd.units import format_size, parse_size
from tests.bench import ssl_stream
from tests.bench.table import print_table
from tests.lab import Busy, cpu_seconds

TARGET = 0.5  # GB/s, on two shared cores, without TLS
TLS_TARGETS = {"bare": 0.8, "p2pd-stream": 1.5}  # of p2pd's rate over that side's
SEND_SIZE = 128 * 1024  # bytes read and encrypted at a time by the loops
NAMES = {
    "p2pd": "p2pd",
    "bare": "bare loop",
    "p2pd-stream": "p2pd through SSLStream",
    "stream": "SSLStream loop",
}
DAEMONS = ("p2pd", "p2pd-stream")
STORE_LIMIT = 1 << 40


# -- one node ---------------------------------------------------------------------------------------------------------


class Meter:
    def from_peer(self, digest: bytes, count: int, zone: str) -> None: ...
    def to_peer(self, count: int, zone: str) -> None: ...


class Part:
    """A node as the daemon wires it, without mirror, upstream and trackers."""

    def __init__(self, state: Path, nursery: trio.Nursery, identity: Identity | None) -> None:
        key = identity.key if identity else NodeKey.generate()
        self.me = Contact(node_id(key.public), "bench", "", "127.0.0.1", 0)
        node = Node(self.me, key.public, key.sign, verify, Random(1), trio.current_time())
        self.store = Store.open(state, STORE_LIMIT)
        self.engine = Engine(node)
        self.arrivals = Arrivals(self.store, self.engine, Metrics("bench"), nursery)
        hello = Hello(PROTOCOL_VERSION, key.public, "bench", "", "", 1, "bench")
        self.network = Network(
            self.engine.post, node.link, self.arrivals, Meter(), hello, nursery, contexts=lambda: identity
        )
        others = dict.fromkeys(cmd.Command.__args__, lambda command: None)
        self.engine.carry_out(others | self.network.commands() | self.arrivals.commands())
        self.arrivals.load()
        nursery.start_soon(self.engine.run)
        nursery.start_soon(self.arrivals.sweep)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def send(state: Path, identity: Identity | None) -> None:
    """Serve what is in the store, until killed."""
    async with trio.open_nursery() as nursery:
        part = Part(state, nursery, identity)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        say(port=listeners[0].socket.getsockname()[1], node=part.me.node_id.hex())
        await part.network.serve(listeners)


async def receive(state: Path, peer: str, port: int, digest: str, size: int, identity: Identity | None) -> None:
    """Get one blob from one peer."""
    async with trio.open_nursery() as nursery:
        part = Part(state, nursery, identity)
        began = 0.0
        post = part.network.post

        def watch(event: ev.Event) -> None:
            nonlocal began
            if isinstance(event, ev.PieceStarted) and not began:
                began = time.perf_counter()
                say(began=True)
            post(event)

        part.network.post = watch
        arrival = part.arrivals.want("blob", "u", "r", digest, size)
        assert arrival
        part.network.commands()[cmd.Connect](cmd.Connect(Contact(bytes.fromhex(peer), "", "", "127.0.0.1", port)))
        while not arrival.proven:
            await arrival.changed.wait()
        say(seconds=time.perf_counter() - began)
        while part.store.proven(digest) is None:  # noqa: ASYNC110  (the commit's end is nobody's event)
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


# -- the bare loop ----------------------------------------------------------------------------------------------------


async def loop_send(path: Path, how: str, identity: Identity | None) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    say(port=listener.socket.getsockname()[1], node="")
    with path.open("rb") as file:
        sock = (await listener.accept()).socket
        if identity is None:
            await send_plain(sock, file.fileno())
        elif how == "bare":
            await send_tls(await secured(sock, identity.accepting, True), file.fileno())
        else:
            await send_stream(
                trio.SSLStream(trio.SocketStream(sock), identity.accepting, server_side=True), file.fileno()
            )
        await trio.sleep_forever()


async def send_plain(sock: trio.socket.SocketType, fd: int) -> None:
    offset, size = 0, os.fstat(fd).st_size
    while offset < size:
        try:
            offset += os.sendfile(sock.fileno(), fd, offset, 8 << 20)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        await trio.lowlevel.checkpoint()


async def send_tls(tls: ssl.SSLSocket, fd: int) -> None:
    offset = 0
    while data := memoryview(os.pread(fd, SEND_SIZE, offset)):
        offset += len(data)
        while data:
            try:
                data = data[tls.send(data) :]
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)


async def send_stream(stream: trio.SSLStream, fd: int) -> None:
    offset = 0
    while data := os.pread(fd, SEND_SIZE, offset):
        offset += len(data)
        await stream.send_all(data)


async def secured(sock: trio.socket.SocketType, context: ssl.SSLContext, accepted: bool) -> ssl.SSLSocket:
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    tls = context.wrap_socket(plain, server_side=accepted, do_handshake_on_connect=False)
    while True:
        try:
            tls.do_handshake()
            return tls
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(tls)


async def loop_receive(path: Path, how: str, port: int, size: int, identity: Identity | None) -> None:
    sock = (await trio.open_tcp_stream("127.0.0.1", port)).socket
    fill: Fill
    if identity is None:
        fill = sock.recv_into
    elif how == "bare":
        fill = partial(fill_tls, await secured(sock, identity.calling, False))
    else:
        fill = partial(fill_stream, trio.SSLStream(trio.SocketStream(sock), identity.calling))
    await store(path, size, fill)


Fill = Callable[[memoryview], Awaitable[int]]  # some bytes into the view


async def fill_tls(tls: ssl.SSLSocket, view: memoryview) -> int:
    """As much as is there."""
    count = 0
    while count < len(view):
        try:
            count += tls.recv_into(view[count:])
        except ssl.SSLWantReadError:
            if count:
                break
            await trio.lowlevel.wait_readable(tls)
    return count


async def fill_stream(stream: trio.SSLStream, view: memoryview) -> int:
    data = await stream.receive_some(len(view))
    view[: len(data)] = data
    return len(data)


async def store(path: Path, size: int, fill: Fill) -> None:
    """Hash and write piece by piece, in a worker thread."""
    piece_size = Geometry.of(size).piece_size
    buffer, compression, offset = memoryview(bytearray(piece_size)), Compression(), 0
    with path.open("wb") as file:

        def work(data: memoryview) -> None:
            compression.update(data)
            os.pwrite(file.fileno(), data, offset)

        began = 0.0
        while offset < size:
            filled, want = 0, min(piece_size, size - offset)
            while filled < want:
                filled += await fill(buffer[filled:want])
                if not began:
                    began = time.perf_counter()
                    say(began=True)
            await trio.to_thread.run_sync(work, buffer[:want])
            offset += want
    say(seconds=time.perf_counter() - began)


# -- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    rate: float  # GB/s
    sender_cpu: float  # seconds a GB
    receiver_cpu: float
    busy: float


@contextlib.contextmanager
def role(*words: object) -> Iterator[subprocess.Popen[str]]:
    """This program, once more, in another part."""
    command = [sys.executable, "-m", "tests.bench.peer_throughput", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def heard(child: subprocess.Popen[str]) -> dict:
    assert child.stdout
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(map(str, child.args))} ended early")  # type: ignore[arg-type]
    return json.loads(line)


def transfer(place: Path, blob: Path, digest: str, how: str, options: argparse.Namespace) -> Figure:
    """One transfer of the blob, into a fresh directory. `how`: one of NAMES."""
    size, target = blob.stat().st_size, place / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    touch_memory(target / "blob", size)
    fleet = ["--fleet", place / "fleet"] if options.tls else []
    source, end = (place / "source", target) if how in DAEMONS else (blob, target / "blob")
    with role("--role", "send", "--how", how, "--path", source, *fleet) as sender:
        there = heard(sender)
        words = ["--role", "receive", "--how", how, "--path", end, *fleet]
        words += ["--port", there["port"], "--node", there["node"], "--digest", digest, "--size", size]
        if options.profile and how == "p2pd":
            words += ["--profile", options.profile]
        with role(*words) as receiver:
            assert heard(receiver)["began"]
            with Busy() as busy:
                before = cpu_seconds(sender.pid), cpu_seconds(receiver.pid)
                seconds = heard(receiver)["seconds"]
                after = cpu_seconds(sender.pid), cpu_seconds(receiver.pid)
            receiver.wait(60)
    gigabytes = size / 1e9
    cpu = [(now - then) / gigabytes for now, then in zip(after, before, strict=True)]
    return Figure(gigabytes / seconds, cpu[0], cpu[1], busy.share)


def touch_memory(path: Path, size: int) -> None:
    """Memory costs several times as much when it is used for the first time: let neither side pay for that."""
    block = bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
    path.unlink()


def make_blob(place: Path, size: int) -> tuple[Path, str]:
    """A store that holds one blob of `size` bytes: the blob's file and its digest."""
    directory = place / "source" / "sha256"
    directory.mkdir(parents=True)
    block = Random(7).randbytes(1 << 20)
    compression, path = Compression(), directory / "new"
    with path.open("wb") as file:
        for number in range(-(-size // len(block))):
            part = (number.to_bytes(8, "big") + block[8:])[: size - number * len(block)]
            compression.update(part)
            file.write(part)
    digest = compression.digest().hex()
    return path.rename(directory / digest), f"sha256:{digest}"


def compare(where: str, directory: Path, options: argparse.Namespace) -> list[list[str]]:
    """All sides, in turns, in one directory; rows for the table."""
    place = Path(tempfile.mkdtemp(prefix="p2pd-bench-", dir=directory))
    sides = list(NAMES) if options.tls else ["p2pd", "bare"]
    try:
        init_authority(place / "fleet", "bench", 1)
        for end in ("send", "receive"):
            issue(place / "fleet", end, (), 1, place / "fleet")
        blob, digest = make_blob(place, parse_size(options.size))
        figures: dict[str, list[Figure]] = {how: [] for how in sides}
        for turn in range(options.rounds):
            for how in sides if turn % 2 == 0 else reversed(sides):
                figures[how].append(transfer(place, blob, digest, how, options))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    medians = {how: statistics.median(f.rate for f in figures[how]) for how in sides}
    return [row(where, how, figures[how], medians, options.tls) for how in sides]


def row(where: str, how: str, own: list[Figure], medians: dict[str, float], tls: bool) -> list[str]:
    """One line: its rate, p2pd's over it, and whether that is enough."""
    ratio = medians["p2pd"] / medians[how]
    good = ""
    if tls and how in TLS_TARGETS:
        good = "ok" if ratio >= TLS_TARGETS[how] else f"below {TLS_TARGETS[how]}"
    elif not tls and how == "p2pd":
        good = "ok" if medians[how] >= TARGET else f"below {TARGET}"
    cpu = [statistics.median(values) for values in zip(*((f.sender_cpu, f.receiver_cpu) for f in own), strict=True)]
    return [
        f"{where}, {NAMES[how]}",
        f"{medians[how]:.2f}",
        "" if how == "p2pd" else f"{ratio:.2f}",
        good,
        f"{cpu[0]:.2f}",
        f"{cpu[1]:.2f}",
        f"{statistics.median(f.busy for f in own):.0%}",
        " ".join(f"{f.rate:.2f}" for f in own),
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peer_throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default="1500MB", help="of the blob (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (default: %(default)s)")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a tmpfs (default: %(default)s)")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="a disk (default: %(default)s)")
    parser.add_argument("--only", choices=("memory", "disk"))
    parser.add_argument("--profile", help="where the receiver writes what cProfile saw")
    parser.add_argument("--tls", action="store_true", help="encrypted")
    for name in ("--role", "--how", "--path", "--node", "--digest", "--fleet"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def play(options: argparse.Namespace) -> None:
    """One of the two processes."""
    path, how, identity = Path(options.path), options.how, None
    if options.fleet:
        fleet = Path(options.fleet)
        files = FleetFiles(fleet / "ca.crt", fleet / f"{options.role}.crt", fleet / f"{options.role}.key")
        identity = Identity.load(files)
    if how == "p2pd-stream":
        ssl_stream.take_over()
    match options.role, how in DAEMONS:
        case "send", True:
            trio.run(send, path, identity)
        case "receive", True:
            trio.run(receive, path, options.node, options.port, options.digest, int(options.size), identity)
        case "send", _:
            trio.run(loop_send, path, how, identity)
        case "receive", _:
            trio.run(loop_receive, path, how, options.port, int(options.size), identity)


def main() -> None:
    options = parse()
    if options.role:
        with cProfile.Profile() if options.profile else contextlib.nullcontext() as profile:
            play(options)
        if profile:
            profile.dump_stats(options.profile)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave no gigabytes behind
    rows = []
    for where, directory in (("memory", options.memory), ("disk", options.disk)):
        if options.only in (None, where):
            rows += compare(where, directory, options)
    header = ["", "GB/s", "p2pd over it", "", "sender CPU s/GB", "receiver CPU s/GB", "busy", "each"]
    size = parse_size(options.size)
    pieces = format_size(Geometry.of(size).piece_size)
    kind = ", TLS" if options.tls else ""
    title = f"peer to peer{kind}, {format_size(size)} in pieces of {pieces}; medians of {options.rounds}"
    print_table(title, header, rows)


if __name__ == "__main__":
    main()
