"""A fleet pulls one image at once: what upstream sends, and how near the slowest node comes to the physical bound.

    python -m tests.bench.fanout                          upstream limited, nodes on loopback
    python -m tests.bench.fanout --link 50Mbit            each node in a network namespace, its link limited both ways

The bound is T = F / B x (1 + floor(log2 N) / M): F bytes in M pieces to N nodes over links of B bytes a second each
way, with B the rate of the link itself: TCP/IP headers, some 4 % of it, count against us. Times end with
`ctr content fetch`. A run that keeps the machine above 85 % busy says more about the machine.
"""

from __future__ import annotations

import argparse
import math
import statistics
import threading
import time
from dataclasses import dataclass, field

from p2pd.swarm.pieces import Geometry
from p2pd.units import format_rate, format_size, parse_rate, parse_size
from tests.bench.table import print_table, verdict
from tests.lab import Busy, Image, Lab, LabError, Layer, Plan, Pull, Warehouse, reference
from tests.lab.netns import CONGESTION_CONTROL

REPOSITORY = "bench/fanout"
COPIES_MAX = 1.01
REQUESTS_MAX = 4
SLOWEST_MAX = 1.5
FIRST_PIECE_MAX = 0.10
BUSY_MAX = 0.85
FIRST_PIECE_BYTES = 256 * 1024


@dataclass
class Result:
    """One run."""

    pulls: list[Pull]
    busy: float
    identical: int
    copies: float
    requests_max: int
    direct_bytes: int
    first_piece: float | None


@dataclass
class FirstPiece:
    """Watches for the first piece that a second node has; `part` is then upstream's bytes over the image's."""

    lab: Lab
    image: Image
    part: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self._stop.is_set() and self.part is None:
            sent = sum(self.lab.front.traffic().body_bytes(name=blob.digest) for blob in self.image.layers)
            if max(self.lab.received("peer").values()) >= FIRST_PIECE_BYTES:
                self.part = sent / self.image.size
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()


def bound(image: Image, nodes: int, link: float) -> float:
    """Seconds that no schedule can beat."""
    count = sum(Geometry.of(layer.size).count for layer in image.layers)
    return image.size / link * (1 + math.floor(math.log2(nodes)) / count)


def measure(lab: Lab, image: Image) -> Result:
    """All machines of a fresh lab pull."""
    first = FirstPiece(lab, image)
    watcher = threading.Thread(target=first.watch)
    with Busy() as busy:
        watcher.start()
        pulls = lab.pull_all(reference(REPOSITORY), unpack=False, timeout_s=900)
    first.stop()
    watcher.join()
    failed = [pull for pull in pulls if not pull.ok]
    if failed:
        raise LabError(f"{len(failed)} of {len(pulls)} pulls failed: {failed[0].errors}\n{lab.report()}")
    traffic = lab.front.traffic()
    digests = [blob.digest for blob in image.blobs]
    return Result(
        pulls,
        busy.share,
        len(lab.machines) - len(lab.differences(image)),
        sum(traffic.body_bytes(name=digest) for digest in digests) / image.size,
        max(traffic.requests_by_name(digests).values()),
        traffic.body_bytes(client="containerd"),
        first.part,
    )


def report(options: argparse.Namespace, image: Image, result: Result) -> None:
    nodes = len(result.pulls)
    first = "-" if result.first_piece is None else f"{result.first_piece:.1%}"
    first_verdict = "-" if result.first_piece is None else verdict(result.first_piece, FIRST_PIECE_MAX)
    rows = [
        ["upstream bytes / image bytes", f"{result.copies:.3f}", verdict(result.copies, COPIES_MAX)],
        ["requests of the most asked blob", str(result.requests_max), verdict(result.requests_max, REQUESTS_MAX)],
        ["nodes identical byte for byte", f"{result.identical} of {nodes}", verdict(nodes - result.identical, 0)],
        ["containerd's own bytes", format_size(result.direct_bytes), verdict(result.direct_bytes, 0)],
        ["upstream's part when a 2nd node had a piece", first, first_verdict],
    ]
    seconds = sorted(pull.seconds for pull in result.pulls)
    p50, slowest = statistics.median(seconds), seconds[-1]
    rows.append(["p50 / slowest", f"{p50:.2f} s / {slowest:.2f} s", ""])
    if options.link:
        least = bound(image, nodes, options.link)
        rows.append(["bound", f"{least:.2f} s", ""])
        rows.append(["p50 / bound", f"{p50 / least:.3f}", ""])
        rows.append(["slowest / bound", f"{slowest / least:.3f}", verdict(slowest / least, SLOWEST_MAX)])
    rows.append(["machine busy", f"{result.busy:.0%}", verdict(result.busy, BUSY_MAX)])
    where = (
        f"links {format_rate(options.link)} each way, {CONGESTION_CONTROL}"
        if options.link
        else f"upstream {format_rate(options.rate) if options.rate else 'unlimited'}"
    )
    title = f"{nodes} nodes, {len(image.layers)} layers, {format_size(image.size)}, {where}"
    print_table(title, ["figure", "measured", ""], rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.fanout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--layers", default="70MB,50MB,35MB", help="sizes, with commas (default: %(default)s)")
    parser.add_argument("--rate", type=parse_rate, default="40MB/s", help="upstream's rate (default: %(default)s)")
    parser.add_argument("--link", type=parse_rate, help="each node's link, as in 50Mbit; needs no --rate")
    parser.add_argument("--upstream-link", type=parse_rate, help="upstream's link (default: as --link)")
    parser.add_argument("--trackers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse()
    layers = [Layer(parse_size(size), 7000 + place) for place, size in enumerate(options.layers.split(","))]
    plan = Plan(
        nodes=options.nodes,
        trackers=options.trackers,
        rate=None if options.link else options.rate,
        namespaces=options.link is not None,
        link=options.link,
        upstream_link=options.upstream_link or options.link,
    )
    with Warehouse() as warehouse:
        image = warehouse.image(REPOSITORY, layers)
        for _ in range(options.runs):
            with Lab(warehouse.lab_directory(), warehouse.storage, plan) as lab:
                report(options, image, measure(lab, image))


if __name__ == "__main__":
    main()
