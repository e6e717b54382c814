"""What the simulator says of the fleet that is measured: the same nodes, links and layers, the calibrated costs."""

from __future__ import annotations

import os
from statistics import median

from simulations.fleet.calibration import (
    CHECK_RATE,
    FIRST_PULL_CPU_S,
    GOODPUT,
    LATENCY_S,
    PIECE_COST_S,
    SEEDS,
    SEND_BUFFER,
    UNFAIR,
    UPSTREAM_DELAY_S,
)
from simulations.fleet.plan import FleetPlan
from simulations.fleet.report import Prediction
from simulations.results import figures, simulate
from simulations.scenario import Scenario

MANIFEST_SIZE = 1000  # bytes: one piece however long it is
TIMES = ("p50_s", "p90_s", "p99_s", "slowest_s")
RATIOS = ("upstream_copies", "duplicate_ratio", "refused_per_transfer")


def scenario_of(plan: FleetPlan, image: tuple[int, ...], seed: int) -> Scenario:
    """The plan as the simulator sees it, pulling blobs of these sizes."""
    return Scenario(
        nodes=plan.nodes,
        image=image,
        link=plan.link * GOODPUT,
        upstream=plan.upstream_link * GOODPUT,
        upstream_delay=UPSTREAM_DELAY_S,
        latency=LATENCY_S,
        send_buffer=SEND_BUFFER,
        unfair=UNFAIR,
        check_rate=CHECK_RATE,
        piece_cost=PIECE_COST_S,
        seed=seed,
    )


def predict(plan: FleetPlan) -> Prediction:
    """The median over SEEDS of the simulator's runs: the manifest first, and then the layers."""
    runs = [_run(plan, seed) for seed in SEEDS]
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _run(plan: FleetPlan, seed: int) -> Prediction:
    starting = plan.nodes * FIRST_PULL_CPU_S / (os.cpu_count() or 1)
    manifest = starting + figures(simulate(scenario_of(plan, (MANIFEST_SIZE,), seed)))["p50_s"]
    layers = figures(simulate(scenario_of(plan, plan.layers, seed)))
    told = {name: layers[name] + manifest for name in TIMES} | {name: layers[name] for name in RATIOS}
    return told | {"manifest_s": manifest}
