"""One tracker process, and a whole fleet that arrives at once: how long its answers take, on one core.

    python -m tests.bench.tracker_load [--nodes 10000] [--arrive 30] [--steady 30] [--plain]
    python -m tests.bench.tracker_load --short

The real p2pd-tracker runs on one core, with TLS. The nodes are spoken by hand on the other cores: each has a
certificate of its own, connects at a random moment within `--arrive` seconds (and again, with a daemon's patience and
pauses, until it is let in), and announces the same ten blobs as a daemon does that gets them from peers: at once, then
again after two seconds with fewer neighbours wanted, then at the calm interval; who gets a lease renews it every two
seconds. They do nothing else, and read no more of an answer than whose it is.

An answer's time is from the send to the answer at the node, the nodes' own lateness included; that is shown beside it.
Needs about twice as many file descriptors in each process as it has nodes (ulimit -n); runs on loopback only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from p2pd.fleet import NodeKey
from p2pd.peers.avoided import Avoided
from p2pd.peers.frames import FrameReader
from p2pd.peers.handshake import FLEET_INSECURE, FLEET_MEMBERS, shake_hands
from p2pd.peers.network import TRACKER_RETRY_S
from p2pd.peers.tls import TlsTransport
from p2pd.peers.transport import ConnectionLost, PlainTransport, Transport
from p2pd.swarm.announcing import TOGETHER
from p2pd.swarm.messages import (
    FRAME_HEADER,
    PROTOCOL_VERSION,
    Announce,
    Answer,
    Hello,
    Ping,
    ProtocolError,
    decode,
    encode,
)
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import node_id
from tests.bench.table import print_table, verdict
from tests.fleet.certificates import Authority, key_pem, pem
from tests.lab import cpu_seconds, free_port, resident_bytes

TARGET_MS = 100.0  # p99 of an answer
BLOBS = 10
WORKERS = 4  # processes that play nodes; one thread of Python each
NEED_FIRST, NEED_SECOND = 20, 8  # neighbours that a node asks for, with each of its first two announces
PING_S = 10.0  # as p2pd.peers.connection comes to
LAG_S = 0.05  # how often a worker looks how late it is itself
BUCKET_MS = 1.0
DIGESTS = [bytes([number]) * 32 for number in range(1, BLOBS + 1)]
DIGEST_AT = slice(8, 40)  # of an Answer's frame: length, array, number, two bytes of length, the digest
ANSWER_STARTS = encode(Answer(b"d" * 32, 0, b"", 0, False, "", 0, ()))[4:8]


# -- the nodes --------------------------------------------------------------------------------------------------------


@dataclass
class Counts:
    """What one worker saw. Times in buckets of BUCKET_MS."""

    answers: dict[str, Counter[int]] = field(default_factory=lambda: {"arriving": Counter(), "steady": Counter()})
    hellos: Counter[int] = field(default_factory=Counter)
    lags: Counter[int] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)  # calls that came to nothing, and why
    announces: int = 0
    unanswered: int = 0


class Player:
    """One node."""

    def __init__(
        self, number: int, key: bytes, context: ssl.SSLContext | None, counts: Counts, steady_at: float
    ) -> None:
        self.number, self.key, self.context, self.counts = number, key, context, counts
        self.steady_at = steady_at
        self.me = node_id(key)
        self.dice = Random(number)
        self.sent: dict[bytes, float] = {}
        self.terms: dict[bytes, int] = {}
        self.progress = 0
        # When, which blob, how many announces before; and when at the soonest, with another blob's.
        self.due: list[tuple[float, int, int, float]] = []
        self.moved = trio.Event()
        self.transport: Transport

    async def run(self, source: str, port: int) -> None:
        try:
            await self.meet(source, port)
            self.context = None  # it is large
            self.due = [(0.0, place, 0, 0.0) for place in range(BLOBS)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.announce)
                await self.read()
        except* (ConnectionLost, ProtocolError, OSError) as group:
            self.counts.lost[str(group.exceptions[0])] += 1
        finally:
            self.counts.unanswered += len(self.sent)

    async def meet(self, source: str, port: int) -> None:
        """Call until it is let in, with a daemon's patience and pauses."""
        began, pause = time.perf_counter(), TRACKER_RETRY_S[0]
        while True:
            sock = trio.socket.socket()
            await sock.bind((source, 0))
            try:
                await sock.connect(("127.0.0.1", port))
                self.transport = (
                    TlsTransport(sock, self.context, accepted=False) if self.context else PlainTransport(sock)
                )
                fleet = FLEET_MEMBERS if self.context else FLEET_INSECURE
                mine = Hello(PROTOCOL_VERSION, self.key, f"node{self.number}", "", "127.0.0.1", 9581, fleet)
                frames = FrameReader(self.transport)
                await shake_hands(self.transport, frames, mine, Avoided())
            except ConnectionLost as error:
                self.counts.again[str(error)] += 1
                await trio.sleep(pause * self.dice.uniform(0.5, 1.5))
                pause = min(2 * pause, TRACKER_RETRY_S[1])
            else:
                self.counts.hellos[bucket(time.perf_counter() - began)] += 1
                return

    async def read(self) -> None:
        buffer = memoryview(bytearray(64 * 1024))
        kept = b""
        while True:
            count = await self.transport.receive_into(buffer)
            data, start = kept + bytes(buffer[:count]), 0
            while len(data) - start >= 4:
                end = start + 4 + FRAME_HEADER.unpack_from(data, start)[0]
                if end > len(data):
                    break
                self.frame(data[start:end])
                start = end
            kept = data[start:]

    def frame(self, data: bytes) -> None:
        if data[4:8] != ANSWER_STARTS:
            return
        now = time.perf_counter()
        sent = self.sent.pop(data[DIGEST_AT], None)
        if sent is not None:
            self.counts.answers["steady" if now >= self.steady_at else "arriving"][bucket(now - sent)] += 1
        if self.me in data:  # the lease is ours
            answer = decode(data[4:])
            assert isinstance(answer, Answer)
            if answer.holder == self.me and answer.digest not in self.terms:
                self.terms[answer.digest] = answer.term
                now = time.perf_counter()
                self.due = sorted([*self.due, (now, DIGESTS.index(answer.digest), 2, now)])
                self.moved.set()

    async def announce(self) -> None:
        settings = Settings()
        heard = time.perf_counter()
        while True:
            now = time.perf_counter()
            parts = []
            is_one_due = self.due[0][0] <= now
            for due in [due for due in self.due if is_one_due and min(due[0], due[3]) <= now]:
                self.due.remove(due)
                _, place, before, _ = due
                digest = DIGESTS[place]
                parts.append(encode(self.message(digest, before)))
                self.sent.setdefault(digest, now)
                pause = settings.announce_calm_s if before else settings.announce_hungry_s
                if digest in self.terms:
                    pause = settings.announce_holder_s
                at = now + pause * (0.9 + 0.2 * self.dice.random())
                self.due.append((at, place, before + 1, at - TOGETHER * pause))
            self.due.sort()
            if parts:
                self.counts.announces += len(parts)
                await self.transport.send_all(b"".join(parts))
                heard = now
            elif now - heard >= PING_S:
                await self.transport.send_all(encode(Ping()))
                heard = now
            self.moved = trio.Event()
            with trio.move_on_after(max(0.0, min(self.due[0][0], heard + PING_S) - time.perf_counter())):
                await self.moved.wait()

    def message(self, digest: bytes, before: int) -> Announce:
        self.progress += 1
        return Announce(
            digest=digest,
            size=200_000_000,
            kind="blob",
            upstream="registry.example",
            repository="library/image",
            primary=True,
            wanting=True,
            waiting=True,
            stuck=False,
            can_pull=True,
            complete=False,
            term=self.terms.get(digest, 0),
            progress=self.progress if digest in self.terms else 0,
            heard=self.terms.get(digest, 0),
            need=(NEED_FIRST, NEED_SECOND)[before] if before < 2 else 0,
        )


def bucket(seconds: float) -> int:
    return int(seconds * 1000 / BUCKET_MS)


def papers(number: int, count: int, fleet: Path | None) -> list[tuple[bytes, ssl.SSLContext | None]]:
    """A key for each node, and a context with its certificate."""
    if fleet is None:
        return [(NodeKey.generate().public, None) for _ in range(count)]
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate = x509.load_pem_x509_certificate((fleet / "ca.crt").read_bytes())
    authority = Authority(certificate, load_pem_private_key((fleet / "ca.key").read_bytes(), None))  # type: ignore[arg-type]
    made = []
    own = fleet / f"worker{number}.pem"
    for place in range(count):
        member = authority.member(f"node{number}-{place}")
        own.write_bytes(pem(member.certificate) + key_pem(member.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(fleet / "ca.crt")
        context.load_cert_chain(own)
        made.append((member.key.public_key().public_bytes_raw(), context))  # type: ignore[union-attr]
    return made


async def work(options: argparse.Namespace) -> None:
    """One worker: its share of the nodes."""
    gc.disable()  # a pause of a worker would count as the tracker's
    made = papers(options.worker, options.nodes, Path(options.fleet) if options.fleet else None)
    print("ready", flush=True)
    go = float(await trio.to_thread.run_sync(sys.stdin.readline))  # on the clock that all processes share
    os.sched_setaffinity(0, map(int, options.cores.split(",")))
    counts, dice = Counts(), Random(options.worker)
    steady_at, end = go + options.arrive, go + options.arrive + options.steady
    source = f"127.0.0.{options.worker + 2}"

    async def lag() -> None:
        while True:
            due = time.perf_counter() + LAG_S
            await trio.sleep(LAG_S)
            counts.lags[bucket(max(0.0, time.perf_counter() - due))] += 1

    async def later(player: Player, at: float) -> None:
        await trio.sleep(max(0.0, at - time.perf_counter()))
        await player.run(source, options.port)

    with trio.move_on_after(end - time.perf_counter()):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lag)
            for place, (key, context) in enumerate(made):
                player = Player(options.worker * 100_000 + place, key, context, counts, steady_at)
                nursery.start_soon(later, player, go + dice.random() * options.arrive)
            made.clear()
    late = sum(counts.answers["arriving"].values()) + sum(counts.answers["steady"].values())
    print(
        json.dumps(
            {
                "arriving": dict(counts.answers["arriving"]),
                "steady": dict(counts.answers["steady"]),
                "hellos": dict(counts.hellos),
                "lags": dict(counts.lags),
                "lost": dict(counts.lost),
                "again": dict(counts.again),
                "announces": counts.announces,
                "answers": late,
            }
        ),
        flush=True,
    )


# -- the tracker and the table ----------------------------------------------------------------------------------------


def quantile(buckets: Counter[int], share: float) -> float:
    """Milliseconds, the upper end of the bucket; NaN of nothing."""
    left = share * sum(buckets.values())
    for place in sorted(buckets):
        left -= buckets[place]
        if left <= 0:
            return (place + 1) * BUCKET_MS
    return float("nan")


def merged(results: list[dict], name: str) -> Counter[int]:
    total: Counter[int] = Counter()
    for result in results:
        total.update({int(place): count for place, count in result[name].items()})
    return total


def measure(options: argparse.Namespace, place: Path) -> bool:
    """One run. Whether the target is met."""
    fleet = place / "fleet"
    fleet.mkdir()
    authority = Authority.make("bench")
    (fleet / "ca.crt").write_bytes(pem(authority.certificate))
    (fleet / "ca.key").write_bytes(key_pem(authority.key))
    authority.member("tracker").write(place / "tracker")
    port, cores = free_port(), sorted(os.sched_getaffinity(0))
    how = ["--insecure"]
    if not options.plain:
        own = place / "tracker"
        how = ["--ca", fleet / "ca.crt", "--certificate", own / "node.crt", "--key", own / "node.key"]
    program = Path(sys.executable).parent / "p2pd-tracker"
    command = [
        "taskset",
        "-c",
        str(cores[0]),
        program,
        "run",
        "--listen",
        f"127.0.0.1:{port}",
        "--admin",
        "none",
        *map(str, how),
    ]
    others = ",".join(map(str, cores[1:] or cores))
    shares = [options.nodes // WORKERS + (number < options.nodes % WORKERS) for number in range(WORKERS)]
    with (place / "tracker.log").open("wb") as log:
        tracker = subprocess.Popen(command, stderr=log)
    workers = []
    try:
        for number, share in enumerate(shares):
            words = ["--worker", number, "--nodes", share, "--port", port, "--cores", others]
            words += ["--arrive", options.arrive, "--steady", options.steady]
            words += [] if options.plain else ["--fleet", fleet]
            role = [sys.executable, "-m", "tests.bench.tracker_load", *map(str, words)]
            workers.append(subprocess.Popen(role, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for worker in workers:
            assert worker.stdout
            if worker.stdout.readline().strip() != "ready":
                raise SystemExit("a worker ended early")
        go = time.perf_counter() + 0.5
        before = cpu_seconds(tracker.pid)
        for worker in workers:
            assert worker.stdin
            worker.stdin.write(f"{go}\n")
            worker.stdin.flush()
        time.sleep(0.5 + options.arrive)
        arrived = cpu_seconds(tracker.pid)
        time.sleep(options.steady - 0.5)
        end, memory = cpu_seconds(tracker.pid), resident_bytes(tracker.pid)
        results = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout]
    finally:
        for process in (*workers, tracker):
            process.send_signal(signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
    return report(options, results, (arrived - before, end - arrived), memory)


def report(options: argparse.Namespace, results: list[dict], cpu: tuple[float, float], memory: int) -> bool:
    hellos, lags = merged(results, "hellos"), merged(results, "lags")
    rows, good = [], True
    for name, seconds, spent in (
        ("arriving", options.arrive, cpu[0]),
        ("steady", options.steady - 0.5, cpu[1]),
    ):
        buckets = merged(results, name)
        p99 = quantile(buckets, 0.99)
        good = good and p99 <= TARGET_MS
        rows.append(
            [
                name,
                f"{sum(buckets.values()):,}",
                f"{sum(buckets.values()) / seconds:,.0f}",
                f"{quantile(buckets, 0.5):.0f}",
                f"{p99:.0f}",
                f"{quantile(buckets, 1):.0f}",
                verdict(p99, TARGET_MS),
                f"{spent / seconds:.0%}",
            ]
        )
    kind = "without TLS" if options.plain else "TLS"
    print_table(
        f"one tracker on one core, {options.nodes:,} nodes within {options.arrive:g} s, {BLOBS} blobs each; {kind}",
        ["", "answers", "a second", "p50 ms", "p99 ms", "slowest", "", "core"],
        rows,
    )
    connected = sum(hellos.values())
    print(f"  connected {connected:,} of {options.nodes:,}; call to hello p50 {quantile(hellos, 0.5):.0f} ms, ", end="")
    print(f"p99 {quantile(hellos, 0.99):.0f} ms; tracker {memory / 1e6:.0f} MB resident", end="")
    print(f"; the nodes themselves were late by p99 {quantile(lags, 0.99):.0f} ms")
    print(f"  tracker: {sum(cpu) / sum(result['answers'] for result in results) * 1e6:.0f} us of CPU an answer, in all")
    lost = sum((Counter(result["lost"]) for result in results), Counter())
    again = sum((Counter(result["again"]) for result in results), Counter())
    for what, whys in (("lost", lost), ("called again", again)):
        for why, count in whys.most_common(5):
            print(f"  {what} {count:,}: {why}")
    return good and connected == options.nodes and not lost


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tracker_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--arrive", type=float, default=30.0, help="seconds (default: %(default)s)")
    parser.add_argument("--steady", type=float, default=30.0, help="seconds after that (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--short", action="store_true", help="1000 nodes within 5 s, 5 s more: a third of the rate")
    for name, kind in (("--fleet", str), ("--cores", str), ("--worker", int), ("--port", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.short:
        options.nodes, options.arrive, options.steady = 1000, 5.0, 5.0
    return options


def main() -> int:
    options = parse()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.worker is not None:
        trio.run(work, options)
        return 0
    if options.nodes + 500 > hard:
        print(f"{options.nodes} nodes need more than the {hard} descriptors of this shell: raise `ulimit -Hn`")
        return 1
    place = Path(tempfile.mkdtemp(prefix="p2pd-bench-"))
    try:
        return 0 if measure(options, place) else 1
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
