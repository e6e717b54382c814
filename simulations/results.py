"""From a world that has run to the figures, and their JSON.

Times run from each node's own start to its client's last byte, over the nodes that are not made slow and that lived;
what the slow ones needed stands beside. Nothing here is drawn or printed.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from simulations.clock import NEVER, LimitReached
from simulations.hosts import Host
from simulations.records import Records
from simulations.scenario import Scenario
from simulations.world import World

GRACE = 1.6  # of the bound: what the report's time axis shows at least


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an ascending list: a time that a node really had. 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


def simulate(
    scenario: Scenario, *, on_progress: Callable[[float, int], None] | None = None, report: bool = False
) -> World:
    """Run a scenario to its end. A run that does not end in its limits is returned as it is: see `problem`.

    `on_progress` hears now and then of the simulated seconds and of the pieces that arrived so far.
    """
    span = scenario.bound_s * GRACE + scenario.arrival if report or on_progress else 0.0
    world = World(scenario, records=Records(span, scenario.pieces, on_progress))
    begun = time.process_time()
    enabled = gc.isenabled()
    gc.disable()  # millions of small events, none of them in a cycle
    try:
        world.run()
    except LimitReached as error:
        world.problem = str(error)
    finally:
        if enabled:
            gc.enable()
        world.cpu_s = time.process_time() - begun
    return world


def figures(world: World) -> dict[str, Any]:
    """The JSON's fields."""
    s, r = world.scenario, world.records
    ended = [h for h in world.hosts if h.started_at < h.done_at < NEVER]  # not those that had all of it already
    times = sorted(h.done_at - h.started_at for h in ended if not h.is_straggler)
    slow = sorted(h.done_at - h.started_at for h in ended if h.is_straggler)
    useful = sum(h.received for h in world.hosts) - r.duplicate
    sent = sorted(h.sent / s.total for h in world.hosts)
    upstream = world.pulls.bytes_sent / s.total
    crossed = (r.cross_zone + world.pulls.bytes_sent) / (s.total * s.zones) if s.zones > 1 else 0.0
    slowest = times[-1] if times else 0.0
    result: dict[str, Any] = {
        "p50_s": percentile(times, 0.5),
        "p90_s": percentile(times, 0.9),
        "p99_s": percentile(times, 0.99),
        "p999_s": percentile(times, 0.999),
        "slowest_s": slowest,
        "bound_s": s.bound_s,
        "upstream_copies": upstream,
        "duplicate_ratio": r.duplicate / useful if useful > 0 else 0.0,
        "cross_zone_copies": crossed,
        "unfinished": world.unfinished,
        "transfers": r.transfers,
        "cpu_s": world.cpu_s,
        "seed": s.seed,
        "p50_over_bound": percentile(times, 0.5) / s.bound_s,
        "p99_over_bound": percentile(times, 0.99) / s.bound_s,
        "slowest_over_bound": slowest / s.bound_s,
        "refused_per_transfer": r.counts.get("refused", 0) / max(1, r.transfers),
        "hedged_per_transfer": r.counts.get("hedged", 0) / max(1, r.transfers),
        "upload_copies": {
            "p1": percentile(sent, 0.01), "p50": percentile(sent, 0.5), "p99": percentile(sent, 0.99),
            "most": sent[-1],
        },
        "counted": len(times),
        "stragglers_p50_s": percentile(slow, 0.5),
        "stragglers_bound_s": s.stragglers_bound_s if slow else 0.0,
        "stragglers_slowest_s": slow[-1] if slow else 0.0,
        "nodes": s.nodes, "pieces": s.pieces, "deaths": r.deaths, "restarts": r.restarts,
        "rejected_pieces": r.rejected, "protocol_errors": r.protocol_errors, "blamed": r.blamed,
        "convictions": r.convicted,
        "upstream_requests": world.pulls.requests, "bypassed_layers": world.pulls.bypassed,
        "given_up": r.given_up, "stalled_clients": r.stalled, "events": world.clock.events,
        "problem": world.problem, "fingerprint": fingerprint(world), "scenario": describe(s),
    }  # fmt: skip
    return result


def fingerprint(world: World) -> str:
    """Differs if anything in the run went another way: when each node ended, and how much happened."""
    text = ",".join(_ending(host) for host in world.hosts)
    happened = world.clock.events - len(world.records.rates)  # looking on is no part of the run
    text += f";{happened};{world.records.transfers};{world.clock.now!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _ending(host: Host) -> str:
    return f"{host.done_at!r}:{host.sent!r}:{host.received!r}"


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def describe(scenario: Scenario) -> dict[str, Any]:
    """A scenario's parameters, without those that stand at their defaults."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(scenario):
        value = getattr(scenario, field.name)
        if value != field.default or field.name in ("nodes", "image", "link", "seed"):
            plain[field.name] = _plain(value)
    return plain
