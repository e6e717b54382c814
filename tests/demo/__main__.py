"""Upstream, a tracker and eight nodes on this machine; all pull a real image at once, and a table shows it live.

    python -m tests.demo [--nodes 8]

Each node is a p2pd and a containerd of its own; upstream is a docker-registry behind a counter. At the end: the bytes
that upstream sent over the bytes of the image. Everything is ended and removed again. Needs root and `make apt`.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from p2pd.units import format_rate, format_size, parse_rate
from tests.lab import Image, Lab, LabError, Layer, Machine, Plan, Pull, RunningPull, Warehouse, reference
from tests.lab.fixtures import missing

REPOSITORY = "demo/image"
LAYERS = [Layer(60_000_000, 8001), Layer(35_000_000, 8002, compress=True), Layer(25_000_000, 8003)]
REFRESH_S = 0.25
BAR_WIDTH = 11  # the whole table fits a terminal of 80 columns


class View:
    """The live table: one line for each node, and upstream's below."""

    def __init__(self, lab: Lab, image: Image, pulls: list[RunningPull]) -> None:
        self._lab, self._image, self._pulls = lab, image, pulls
        self._started = time.monotonic()
        self._ended: dict[str, float] = {}

    def table(self) -> Table:
        """The state now."""
        table = Table(
            title=f"{len(self._pulls)} nodes pull {format_size(self._image.size)} at once", title_justify="left"
        )
        for column in ("node", "state", "received"):
            table.add_column(column)
        for column, width in (("from upstream", 13), ("from peers", 11), ("done after", 12)):
            table.add_column(column, justify="right", min_width=width)
        for machine, pull in zip(self._lab.machines, self._pulls, strict=True):
            table.add_row(*self._row(machine, pull))
        table.add_section()
        sent = self.upstream_bytes()
        table.add_row("upstream", "", self._bar(sent), "", format_size(sent), f"{sent / self._image.size:.3f} copies")
        return table

    def upstream_bytes(self) -> int:
        """Body bytes that upstream has written, to p2pd and to containerd."""
        return self._lab.front.traffic().body_bytes()

    def _row(self, machine: Machine, pull: RunningPull) -> tuple[str, str, ProgressBar, str, str, str]:
        try:
            metrics = machine.node.metrics()
        except OSError:
            return machine.name, "[red]gone", self._bar(0), "", "", ""
        upstream, peers = metrics.received("upstream"), metrics.received("peer")
        if not pull.running:
            self._ended.setdefault(machine.name, time.monotonic() - self._started)
        ended = self._ended.get(machine.name)
        state = "[green]done" if ended else "[yellow]seeding" if metrics.total("p2pd_leases_held") else "pulling"
        seconds = f"{ended:.1f} s" if ended else ""
        return machine.name, state, self._bar(upstream + peers), format_size(upstream), format_size(peers), seconds

    def _bar(self, count: int) -> ProgressBar:
        return ProgressBar(total=self._image.size, completed=min(count, self._image.size), width=BAR_WIDTH)


def show(console: Console, lab: Lab, image: Image) -> list[Pull]:
    """Pulls on all machines with the table on the screen; the pulls' results."""
    pulls = [machine.start_pull(reference(REPOSITORY)) for machine in lab.machines]
    view = View(lab, image, pulls)
    with Live(view.table(), console=console, refresh_per_second=1 / REFRESH_S) as live:
        while any(pull.running for pull in pulls):
            time.sleep(REFRESH_S)
            live.update(view.table())
    return lab.wait_all(pulls)


def conclude(console: Console, lab: Lab, image: Image, pulls: list[Pull]) -> bool:
    """Says what upstream sent and whether every node has the image; whether all is well."""
    failed = [machine.name for machine, pull in zip(lab.machines, pulls, strict=True) if not pull.ok]
    different = lab.differences(image)
    sent = lab.front.traffic().body_bytes()
    whole = len(pulls) - len(different)
    console.print(f"\n{whole} of {len(pulls)} nodes have the image, byte for byte.")
    console.print(f"Without p2pd upstream would have sent {format_size(len(pulls) * image.size)}.")
    console.print(f"upstream bytes / image bytes = {sent:,} / {image.size:,} = [bold]{sent / image.size:.3f}")
    if failed or different:
        console.print(f"[red]failed: {', '.join(failed or different)}")
        console.print(lab.report(), markup=False)
    return not failed and not different


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--rate", type=parse_rate, default="15MB/s", help="upstream's rate (default: %(default)s)")
    options = parser.parse_args()
    console = Console()
    if lacking := missing():
        console.print(f"The demo needs {lacking}: run `make apt`, as root.")
        return 1
    try:
        with Warehouse() as warehouse:
            console.print("Making an image of real files and pushing it to a registry ...")
            image = warehouse.image(REPOSITORY, LAYERS)
            rate = format_rate(options.rate) if options.rate else "without limit"
            console.print(f"Starting upstream ({rate}), a tracker and {options.nodes} nodes with containerd ...")
            plan = Plan(nodes=options.nodes, rate=options.rate)
            with Lab(warehouse.lab_directory(), warehouse.storage, plan) as lab:
                is_well = conclude(console, lab, image, show(console, lab, image))
                console.print("Ending it all, and removing what was unpacked ...")
        return 0 if is_well else 1
    except LabError as error:
        console.print(f"[red]{error}", markup=True, highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
