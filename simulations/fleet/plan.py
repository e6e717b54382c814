"""What a measured fleet is: how many daemons, on which links, pulling what; and the bound for their times."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor, log2

from p2pd.swarm.pieces import Geometry
from simulations.lab.nodes import Settings

NODES_MAX = 200  # network namespaces on one switch, and what one machine's memory holds
MEMORY_MAX = 4 * 1024**3  # bytes: what all clients received is kept, to be compared after the clock has stopped
RATE_MIN = 125_000.0  # bytes/s (1 Mbit/s): below it the shaper's own bucket outweighs a piece


class PlanError(ValueError):
    """A fleet that can't be measured. The message names the parameter and what is allowed."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Rates in bytes/s each way, sizes in bytes. `settings` goes over each daemon's configuration."""

    nodes: int
    link: float
    layers: tuple[int, ...]
    upstream_link: float
    settings: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise PlanError(f"--nodes {self.nodes}: 1 to {NODES_MAX} are allowed")
        for name, rate in (("--link", self.link), ("--upstream", self.upstream_link)):
            if rate < RATE_MIN:
                raise PlanError(f"{name} {rate * 8 / 1e6:g} Mbit: at least {RATE_MIN * 8 / 1e6:g} Mbit is allowed")
        if not self.layers:
            raise PlanError("--image: no layer; allowed: one or more")
        if self.nodes * sum(self.layers) > MEMORY_MAX:
            needed = self.nodes * sum(self.layers) / 1024**3
            raise PlanError(
                f"--nodes {self.nodes} --image of {sum(self.layers)} bytes: what the clients receive would take "
                f"{needed:.1f} GiB of memory; at most {MEMORY_MAX / 1024**3:g} GiB are allowed"
            )


def bound(plan: FleetPlan) -> float:
    """Seconds that no schedule can beat: F / B x (1 + floor(log2 N) / M), or F over upstream's link where that is less.

    `link` is the rate of the link itself: the headers of Ethernet, IP and TCP, 4.6 % of the payload, count against us.
    """
    count = sum(Geometry.of(size).count for size in plan.layers)
    spread = sum(plan.layers) / plan.link * (1 + floor(log2(plan.nodes)) / count)
    return max(spread, sum(plan.layers) / plan.upstream_link)
