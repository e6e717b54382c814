"""A measured fleet as a table and as JSON, beside the simulator's prediction for the same fleet where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from p2pd.units import format_rate, format_size
from simulations.fleet.measure import BUSY_MAX, FleetRun
from simulations.fleet.plan import FleetPlan
from simulations.lab.netns import CONGESTION_CONTROL

SLOWEST_MAX = 1.25  # of the bound
COPIES_MAX = 1.01
DUPLICATES_MAX = 0.01
REFUSED_MAX = 1.0  # a transfer
ERROR_MAX = 0.10  # of the prediction, at p50 and p99

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
Prediction = dict[str, float]  # by the names of the simulator's JSON; and manifest_s, its median


def as_json(plan: FleetPlan, runs: Sequence[FleetRun], prediction: Prediction) -> dict[str, Any]:
    """All figures of all runs; `verdict` is None where no run counts."""
    counted = [run for run in runs if run.counts]
    return {
        "nodes": plan.nodes,
        "link_bytes_s": plan.link,
        "upstream_link_bytes_s": plan.upstream_link,
        "layers": list(plan.layers),
        "congestion_control": CONGESTION_CONTROL,
        "bound_s": runs[0].bound_s,
        "runs": [_run_json(run) for run in runs],
        "prediction": prediction,
        "verdict": failures(plan, counted, prediction) == [] if counted else None,
    }


def _run_json(run: FleetRun) -> dict[str, Any]:
    figures = {f"{name}_s": run.quantile(share) for name, share in QUANTILES}
    return figures | {
        "slowest_s": run.slowest,
        "seconds": list(run.seconds),
        "identical": run.identical,
        "upstream_copies": run.upstream_copies,
        "upstream_requests_max": run.upstream_requests_max,
        "duplicate_ratio": run.duplicate_ratio,
        "refused_per_transfer": run.refused_ratio,
        "cpu_s_per_node": run.cpu_s,
        "waiting_for_a_core": run.core_wait,
        "machine_busy": run.busy,
        "counts": run.counts,
        "manifest_s": run.manifest_s,
        "downlinks_use": run.downlinks_use,
        "uplinks_use": run.uplinks_use,
        "timeline": {
            "moments_s": run.timeline.moments,
            "received_bytes": run.timeline.received,
            "sent_bytes": run.timeline.sent,
        },
    }


def failures(plan: FleetPlan, counted: Sequence[FleetRun], prediction: Prediction) -> list[str]:
    """What the counted runs miss of the figures that are asked for, the median run standing for each."""
    found = []
    checks = (
        ("slowest over the bound", [run.slowest / run.bound_s for run in counted], SLOWEST_MAX),
        ("upstream copies", [run.upstream_copies for run in counted], COPIES_MAX),
        ("duplicates", [run.duplicate_ratio for run in counted], DUPLICATES_MAX),
        ("refused a transfer", [run.refused_ratio for run in counted], REFUSED_MAX),
        ("nodes with other bytes", [float(plan.nodes - run.identical) for run in counted], 0.0),
    )
    for name, values, most in checks:
        if median(values) > most:
            found.append(f"{name}: {median(values):.3f}, at most {most:g} is asked for")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        off = prediction[f"{name}_s"] / median(run.quantile(share) for run in counted) - 1
        if abs(off) > ERROR_MAX:
            found.append(f"the prediction of {name} is {off:+.0%} off, at most {ERROR_MAX:.0%} is asked for")
    return found


def show(console: Console, plan: FleetPlan, runs: Sequence[FleetRun], prediction: Prediction) -> None:
    """One table: a column for each run and one for the prediction; then the verdict."""
    sizes = " + ".join(format_size(size) for size in plan.layers)
    title = f"{plan.nodes} real nodes, {sizes}, links {format_rate(plan.link)} each way ({CONGESTION_CONTROL})"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("over the bound" if len(runs) > 1 else "")
    for number in range(1, len(runs) + 1):
        table.add_column(f"run {number}" if len(runs) > 1 else "measured", justify="right")
    table.add_column("predicted", justify="right")
    for row in _rows(runs, prediction):
        table.add_row(*row)
    console.print(table)
    counted = [run for run in runs if run.counts]
    if not counted:
        console.print(f"No verdict: the machine was above {BUSY_MAX:.0%} busy, so this measures the machine.")
        return
    if len(counted) < len(runs):
        console.print(f"{len(runs) - len(counted)} of {len(runs)} runs do not count: above {BUSY_MAX:.0%} busy.")
    missed = failures(plan, counted, prediction)
    of = " of the median run" if len(counted) > 1 else ""
    console.print("\n".join(f"Missed: {one}." for one in missed) or f"All figures{of} are within what is asked for.")


def _rows(runs: Sequence[FleetRun], prediction: Prediction) -> list[list[str]]:
    least = runs[0].bound_s
    rows = [["bound", *(f"{run.bound_s:.2f} s" for run in runs), f"{least:.2f} s"]]
    for name, share in QUANTILES:
        told = f"{prediction[f'{name}_s'] / least:.3f}"
        rows.append([f"{name} / bound", *(f"{run.quantile(share) / least:.3f}" for run in runs), told])
    rows += [
        ["slowest / bound", *(f"{r.slowest / least:.3f}" for r in runs), f"{prediction['slowest_s'] / least:.3f}"],
        ["slowest", *(f"{r.slowest:.2f} s" for r in runs), f"{prediction['slowest_s']:.2f} s"],
        ["upstream copies", *(f"{r.upstream_copies:.3f}" for r in runs), f"{prediction['upstream_copies']:.3f}"],
        ["duplicates", *(f"{r.duplicate_ratio:.2%}" for r in runs), f"{prediction['duplicate_ratio']:.2%}"],
        ["refused a transfer", *(f"{r.refused_ratio:.2f}" for r in runs), f"{prediction['refused_per_transfer']:.2f}"],
        ["manifest (p50)", *(f"{r.manifest_s:.2f} s" for r in runs), f"{prediction['manifest_s']:.2f} s"],
        ["uplinks used", *(f"{r.uplinks_use:.0%}" for r in runs), "-"],
        ["identical nodes", *(f"{r.identical} of {len(r.seconds)}" for r in runs), "-"],
        ["CPU a node", *(f"{r.cpu_s:.2f} s" for r in runs), "-"],
        ["waiting for a core", *(f"{r.core_wait:.0%}" for r in runs), "-"],
        ["machine busy", *(f"{r.busy:.0%}" for r in runs), "-"],
    ]
    return rows
