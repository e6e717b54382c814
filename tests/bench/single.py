"""One node, empty swarm: a pull through p2pd over a pull straight from the same upstream, at several upstream speeds.

    python -m tests.bench.single

Both sides alternate in one run, each time with an empty p2pd and an empty containerd; medians are compared. The best
that p2pd can do here is to cost nothing: 1.00.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from p2pd.units import format_rate, format_size, parse_rate, parse_size
from tests.bench.table import print_table, verdict
from tests.lab import REGISTRY_NAME, Busy, Lab, LabError, Layer, Machine, Plan, Warehouse, reference, write_hosts

RATIO_MAX = 1.10
SECONDS_AIMED = 4.0  # of one pull; long enough that the start of `ctr` does not matter
SIZE_MAX = "300MB"


def empty(machine: Machine) -> None:
    """Nothing cached anywhere: as on a new node."""
    machine.node.stop()
    shutil.rmtree(machine.node.state, ignore_errors=True)
    machine.node.start()
    machine.containerd.reset()


def timed(machine: Machine, name: str, hosts: Path) -> float:
    pull = machine.containerd.pull(name, hosts, unpack=False, timeout_s=600)
    if not pull.ok:
        raise LabError(f"the pull failed: {pull.errors}\n{machine.node.process.tail()}")
    return pull.seconds


def compare(lab: Lab, name: str, rounds: int) -> tuple[list[float], list[float], float]:
    """Seconds through p2pd, seconds straight, and the machine's busy share through p2pd."""
    (machine,) = lab.machines
    straight_hosts = lab.directory / "straight"
    write_hosts(straight_hosts, REGISTRY_NAME, lab.front.url, [])
    through, straight, busy_shares = [], [], []
    for turn in range(rounds):
        for which in ("p2pd", "straight") if turn % 2 == 0 else ("straight", "p2pd"):
            empty(machine)
            if which == "straight":
                straight.append(timed(machine, name, straight_hosts))
            else:
                with Busy() as busy:
                    through.append(timed(machine, name, machine.hosts))
                busy_shares.append(busy.share)
    return through, straight, statistics.median(busy_shares)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.single", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="10MB/s,30MB/s,100MB/s,none", help="of upstream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="pulls of each side (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="layers of the image (default: %(default)s)")
    parser.add_argument("--trackers", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse()
    rows = []
    with Warehouse() as warehouse:
        for text in options.rates.split(","):
            rate = parse_rate(text)
            total = int(min(rate * SECONDS_AIMED, parse_size(SIZE_MAX))) if rate else parse_size(SIZE_MAX)
            layers = [Layer(total // options.layers, 7100 + place) for place in range(options.layers)]
            repository = f"bench/single-{total}"
            image = warehouse.image(repository, layers)
            plan = Plan(nodes=1, trackers=options.trackers, rate=rate)
            with Lab(warehouse.lab_directory(), warehouse.storage, plan) as lab:
                through, straight, busy = compare(lab, reference(repository), options.rounds)
            one, other = statistics.median(through), statistics.median(straight)
            speed = format_rate(rate) if rate else "unlimited"
            times = [f"{one:.2f} s", f"{other:.2f} s", f"{one / other:.3f}", verdict(one / other, RATIO_MAX)]
            rows.append([speed, format_size(image.size), *times, f"{busy:.0%}"])
    header = ["upstream", "image", "through p2pd", "straight", "ratio", "", "busy"]
    print_table(f"one node, empty swarm; medians of {options.rounds}", header, rows)


if __name__ == "__main__":
    main()
