"""Peer to peer, checked and stored: how fast one node gets a blob from another, both on this machine.

    python -m tests.bench.peer_throughput [--disk DIRECTORY] [--profile FILE]

Two processes, each with the daemon's parts: core, engine, network, arrivals, store. Beside it, in the same run and in
turns, a bare loop: sendfile at one end, recv_into a reused buffer at the other, and hash and pwrite of each piece in a
worker thread. Once in /dev/shm, once on a disk. GB/s are 10^9 bytes a second, from the first piece's first byte to the
moment the blob is proven; CPU seconds are those of both processes.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.arrivals import Arrivals
from p2pd.engine import Engine
from p2pd.fleet.keys import NodeKey, verify
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
from tests.bench.table import print_table
from tests.lab import Busy, cpu_seconds

TARGET = 0.5  # GB/s, on two shared cores
STORE_LIMIT = 1 << 40


# -- one node ---------------------------------------------------------------------------------------------------------


class Meter:
    def from_peer(self, digest: bytes, count: int, zone: str) -> None: ...
    def to_peer(self, count: int, zone: str) -> None: ...


class Part:
    """A node as the daemon wires it, without mirror, upstream and trackers."""

    def __init__(self, state: Path, nursery: trio.Nursery) -> None:
        key = NodeKey.generate()
        self.me = Contact(node_id(key.public), "bench", "", "127.0.0.1", 0)
        node = Node(self.me, key.public, key.sign, verify, Random(1), trio.current_time())
        self.store = Store.open(state, STORE_LIMIT)
        self.engine = Engine(node)
        self.arrivals = Arrivals(self.store, self.engine, Metrics("bench"), nursery)
        hello = Hello(PROTOCOL_VERSION, key.public, "bench", "", "", 1, "bench")
        self.network = Network(self.engine.post, node.link, self.arrivals, Meter(), hello, nursery)
        others = dict.fromkeys(cmd.Command.__args__, lambda command: None)
        self.engine.carry_out(others | self.network.commands() | self.arrivals.commands())
        self.arrivals.load()
        nursery.start_soon(self.engine.run)
        nursery.start_soon(self.arrivals.sweep)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def send(state: Path) -> None:
    """Serve what is in the store, until killed."""
    async with trio.open_nursery() as nursery:
        part = Part(state, nursery)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        say(port=listeners[0].socket.getsockname()[1], node=part.me.node_id.hex())
        await part.network.serve(listeners)


async def receive(state: Path, peer: str, port: int, digest: str, size: int) -> None:
    """Get one blob from one peer."""
    async with trio.open_nursery() as nursery:
        part = Part(state, nursery)
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


async def bare_send(path: Path) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    say(port=listener.socket.getsockname()[1], node="")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        sock = (await listener.accept()).socket
        offset = 0
        while offset < size:
            try:
                offset += os.sendfile(sock.fileno(), file.fileno(), offset, 8 << 20)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
            await trio.lowlevel.checkpoint()
        await trio.sleep_forever()


async def bare_receive(path: Path, port: int, size: int) -> None:
    piece_size = Geometry.of(size).piece_size
    sock = (await trio.open_tcp_stream("127.0.0.1", port)).socket
    buffer, compression, offset = memoryview(bytearray(piece_size)), Compression(), 0
    with path.open("wb") as file:

        def work(data: memoryview) -> None:
            compression.update(data)
            os.pwrite(file.fileno(), data, offset)

        began = 0.0
        while offset < size:
            filled, want = 0, min(piece_size, size - offset)
            while filled < want:
                filled += await sock.recv_into(buffer[filled:want])
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


def transfer(place: Path, blob: Path, digest: str, bare: bool, profile: str | None) -> Figure:
    """One transfer of the blob, into a fresh directory."""
    size, target = blob.stat().st_size, place / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    touch_memory(target / "blob", size)
    words: list[object] = (
        ["--role", "bare-send", "--path", blob] if bare else ["--role", "send", "--path", place / "source"]
    )
    with role(*words) as sender:
        there = heard(sender)
        words = (
            ["--role", "bare-receive", "--path", target / "blob"] if bare else ["--role", "receive", "--path", target]
        )
        words += ["--port", there["port"], "--node", there["node"], "--digest", digest, "--size", size]
        if profile and not bare:
            words += ["--profile", profile]
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
    """Both, in turns, in one directory; rows for the table."""
    place = Path(tempfile.mkdtemp(prefix="p2pd-bench-", dir=directory))
    try:
        blob, digest = make_blob(place, parse_size(options.size))
        figures: dict[bool, list[Figure]] = {False: [], True: []}
        for turn in range(options.rounds):
            for bare in (False, True) if turn % 2 == 0 else (True, False):
                figures[bare].append(transfer(place, blob, digest, bare, options.profile))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = []
    medians = {bare: statistics.median(f.rate for f in figures[bare]) for bare in figures}
    for bare, name in ((False, "p2pd"), (True, "bare loop")):
        own = figures[bare]
        cpu = [statistics.median(values) for values in zip(*((f.sender_cpu, f.receiver_cpu) for f in own), strict=True)]
        rates = " ".join(f"{f.rate:.2f}" for f in own)
        ratio = "" if bare else f"{medians[False] / medians[True]:.2f}"
        ok = "" if bare else "ok" if medians[False] >= TARGET else f"below {TARGET}"
        busy = statistics.median(f.busy for f in own)
        rows.append(
            [
                f"{where}, {name}",
                f"{medians[bare]:.2f}",
                ratio,
                ok,
                f"{cpu[0]:.2f}",
                f"{cpu[1]:.2f}",
                f"{busy:.0%}",
                rates,
            ]
        )
    return rows


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
    for name in ("--role", "--path", "--node", "--digest"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def play(options: argparse.Namespace) -> None:
    """One of the two processes."""
    path = Path(options.path)
    match options.role:
        case "send":
            trio.run(send, path)
        case "receive":
            trio.run(receive, path, options.node, options.port, options.digest, int(options.size))
        case "bare-send":
            trio.run(bare_send, path)
        case "bare-receive":
            trio.run(bare_receive, path, options.port, int(options.size))


def main() -> None:
    options = parse()
    if options.role:
        with cProfile.Profile() if options.profile else contextlib.nullcontext() as profile:
            play(options)
        if profile:
            profile.dump_stats(options.profile)
        return
    rows = []
    for where, directory in (("memory", options.memory), ("disk", options.disk)):
        if options.only in (None, where):
            rows += compare(where, directory, options)
    header = ["", "GB/s", "ratio", "", "sender CPU s/GB", "receiver CPU s/GB", "busy", "each"]
    size = parse_size(options.size)
    pieces = format_size(Geometry.of(size).piece_size)
    print_table(f"peer to peer, {format_size(size)} in pieces of {pieces}; medians of {options.rounds}", header, rows)


if __name__ == "__main__":
    main()
