"""One node, empty swarm: a pull through p2pd over a pull straight from the same upstream, at several upstream speeds.

    python -m tests.bench.single [--client curl]

Both sides alternate in one run, each time with an empty p2pd and an empty containerd; medians are compared. The best
that p2pd can do here is to cost nothing: 1.00.

A second table says who used the machine meanwhile, in CPU seconds for each GB of image. Where upstream, p2pd and
containerd share two cores and nothing else limits them, it is these that add up to the time. With `--client curl` the
layers are fetched by one curl each, which takes a tenth of containerd's time: that shows what p2pd itself costs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from p2pd.units import format_rate, format_size, parse_rate, parse_size
from tests.bench.table import print_table, verdict
from tests.lab import (
    REGISTRY_NAME,
    Busy,
    Image,
    Lab,
    LabError,
    Layer,
    Machine,
    Plan,
    Warehouse,
    cpu_seconds,
    reference,
    write_hosts,
)

RATIO_MAX = 1.10
SECONDS_AIMED = 4.0  # of one pull; long enough that the start of `ctr` does not matter
SIZE_MAX = "900MB"  # ctr looks every 0.1 s whether it is done: of less, that is several per cent
RATES = "10MB/s,30MB/s,100MB/s,200MB/s,none"
PARTS = ("p2pd", "containerd", "upstream", "all")


@dataclass
class Side:
    """What the pulls of one side took: seconds, the machine's busy share, CPU seconds by part of the lab."""

    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    def cpu_row(self, size: int) -> list[str]:
        """Medians, for each GB."""
        return [f"{statistics.median(self.cpu[part]) / size * 1e9:.2f}" for part in PARTS]


def empty(machine: Machine) -> None:
    """Nothing cached anywhere: as on a new node."""
    machine.node.stop()
    shutil.rmtree(machine.node.state, ignore_errors=True)
    machine.node.start()
    machine.containerd.reset()


class ByContainerd:
    """The image, by `ctr`."""

    def __init__(self, lab: Lab, image: Image, name: str) -> None:
        self._lab, self._name = lab, name
        self._straight = lab.directory / "straight"
        write_hosts(self._straight, REGISTRY_NAME, lab.front.url, [])

    def pull(self, machine: Machine, through: bool) -> float:
        hosts = machine.hosts if through else self._straight
        pull = machine.containerd.pull(self._name, hosts, unpack=False, timeout_s=600)
        if not pull.ok:
            raise LabError(f"the pull failed: {pull.errors}\n{machine.node.process.tail()}")
        return pull.seconds


class ByCurl:
    """The image's layers, all at once, thrown away."""

    def __init__(self, lab: Lab, image: Image, name: str) -> None:
        self._lab, self._layers = lab, image.layers
        self._repository = name.removeprefix(f"{REGISTRY_NAME}/").partition(":")[0]

    def pull(self, machine: Machine, through: bool) -> float:
        base = f"http://127.0.0.1:{machine.node.mirror_port}" if through else self._lab.front.url
        query = f"?ns={REGISTRY_NAME.replace(':', '%3A')}" if through else ""
        command = ["curl", "-sS", "-f", "-L", "-o", "/dev/null", "-w", "%{size_download}"]
        began = time.perf_counter()
        running = [
            subprocess.Popen(
                [*command, f"{base}/v2/{self._repository}/blobs/{layer.digest}{query}"],
                stdout=subprocess.PIPE, text=True,
            )
            for layer in self._layers
        ]  # fmt: skip
        for layer, one in zip(self._layers, running, strict=True):
            got = one.communicate()[0]
            if one.returncode or int(got) != layer.size:
                raise LabError(f"curl got {got} bytes of {layer.size}\n{machine.node.process.tail()}")
        return time.perf_counter() - began


CLIENTS = {"containerd": ByContainerd, "curl": ByCurl}
Client = ByContainerd | ByCurl


def timed(lab: Lab, client: Client, through: bool, side: Side) -> None:
    (machine,) = lab.machines
    pids = {
        "p2pd": [machine.node.process.pid],
        "containerd": [machine.containerd.process.pid],
        "upstream": [lab.front.process.pid, lab.registry.process.pid],
    }
    before = {part: sum(map(cpu_seconds, those)) for part, those in pids.items()}
    with Busy() as busy:
        seconds = client.pull(machine, through)
    side.seconds.append(seconds)
    side.busy.append(busy.share)
    for part, those in pids.items():
        side.cpu[part].append(sum(map(cpu_seconds, those)) - before[part])
    side.cpu["all"].append(busy.seconds)


def compare(lab: Lab, client: Client, rounds: int) -> tuple[Side, Side]:
    """Through p2pd, and straight."""
    (machine,) = lab.machines
    through, straight = Side(), Side()
    for turn in range(rounds):
        for is_through in (True, False) if turn % 2 == 0 else (False, True):
            empty(machine)
            timed(lab, client, is_through, through if is_through else straight)
    return through, straight


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.single", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default=RATES, help="of upstream, separated by commas (default: %(default)s)")
    parser.add_argument("--client", choices=list(CLIENTS), default="containerd", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="pulls of each side (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="layers of the image (default: %(default)s)")
    parser.add_argument("--trackers", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse()
    rows, budget = [], []
    with Warehouse() as warehouse:
        for text in options.rates.split(","):
            rate = parse_rate(text)
            total = int(min(rate * SECONDS_AIMED, parse_size(SIZE_MAX))) if rate else parse_size(SIZE_MAX)
            layers = [Layer(total // options.layers, 7100 + place) for place in range(options.layers)]
            repository = f"bench/single-{total}"
            image = warehouse.image(repository, layers)
            plan = Plan(nodes=1, trackers=options.trackers, rate=rate)
            with Lab(warehouse.lab_directory(), warehouse.storage, plan) as lab:
                through, straight = compare(
                    lab, CLIENTS[options.client](lab, image, reference(repository)), options.rounds
                )
            one, other = (statistics.median(side.seconds) for side in (through, straight))
            pairs = [mine / theirs for mine, theirs in zip(through.seconds, straight.seconds, strict=True)]
            speed = format_rate(rate) if rate else "unlimited"
            times = [f"{one:.2f} s", f"{other:.2f} s", f"{one / other:.3f}", f"{min(pairs):.2f} - {max(pairs):.2f}"]
            shares = [f"{statistics.median(side.busy):.0%}" for side in (through, straight)]
            rows.append([speed, format_size(image.size), *times, verdict(one / other, RATIO_MAX), *shares])
            budget.append([f"{speed}, through p2pd", *through.cpu_row(image.size)])
            budget.append([f"{speed}, straight", *straight.cpu_row(image.size)])
    header = ["upstream", "image", "through p2pd", "straight", "ratio", "of pairs", "", "busy", "busy straight"]
    print_table(f"one node, empty swarm, {options.client}; medians of {options.rounds}", header, rows)
    header = ["upstream", *PARTS[:-1], "whole machine"]
    print_table("CPU seconds for each GB of image", header, budget)


if __name__ == "__main__":
    main()
