"""`p2pd-sim fleet`: the real daemons on limited links, measured, beside the simulator's prediction."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import click
from rich.console import Console

from p2pd.units import parse_rate, parse_size
from simulations.fleet.measure import REPOSITORY, FleetRun, measure
from simulations.fleet.plan import FleetPlan, PlanError
from simulations.fleet.predict import predict
from simulations.fleet.reader import ReadError
from simulations.fleet.report import as_json, failures, show
from simulations.lab import LabError, Layer, Warehouse

TOOLS = ("docker-registry", "skopeo", "ip", "tc", "setpriv")
RUNS_MAX = 100
LAYER_SEED = 7000  # of the files that a layer is made of: the same in each run, so that a layer is made once


def missing() -> str:
    """What this machine lacks to measure a fleet; empty if nothing."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        lacking.insert(0, "root, to make network namespaces")
    return ", ".join(lacking)


def _rate(_: click.Context, option: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=option) from None


def _sizes(_: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(parse_size(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error), param=option) from None


@click.command()
@click.option("--nodes", type=int, default=16, show_default=True, help="Daemons, each in a network namespace.")
@click.option("--link", callback=_rate, default="25Mbit", show_default=True, help="Each node's link, both ways.")
@click.option("--layers", callback=_sizes, default="32MiB", show_default=True, help="Sizes, with commas.")
@click.option("--upstream-link", callback=_rate, help="The registry's link.  [default: as --link]")
@click.option("--runs", type=click.IntRange(1, RUNS_MAX), default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
def fleet(
    nodes: int,
    link: float | None,
    layers: tuple[int, ...],
    upstream_link: float | None,
    runs: int,
    json_file: Path | None,
) -> None:
    """Measure the real daemons, each behind a limited link, and compare with the prediction.

    Needs root. Exit code 1 if a figure is missed, or if the machine was too busy for a verdict.
    """
    try:
        plan = FleetPlan(nodes, link or 0.0, layers, upstream_link or link or 0.0)
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    if lacking := missing():
        raise click.ClickException(f"a fleet needs {lacking}; `make apt` installs the tools")
    console = Console()
    try:
        measured = _measure_all(console, plan, runs)
    except (LabError, ReadError) as error:
        raise click.ClickException(str(error)) from None
    prediction = predict(plan)
    show(console, plan, measured, prediction)
    if json_file:
        json_file.write_text(json.dumps(as_json(plan, measured, prediction), indent=1) + "\n")
    counted = [run for run in measured if run.counts]
    if not counted or failures(plan, counted, prediction):
        raise click.exceptions.Exit(1)


def _measure_all(console: Console, plan: FleetPlan, runs: int) -> list[FleetRun]:
    done: list[FleetRun] = []
    with Warehouse() as warehouse:
        layers = [Layer(size, LAYER_SEED + place) for place, size in enumerate(plan.layers)]
        with console.status("making the image"):
            image = warehouse.image(REPOSITORY, layers)
        for number in range(1, runs + 1):
            with console.status(f"run {number} of {runs}: {plan.nodes} nodes start, settle and pull"):
                done.append(measure(warehouse.lab_directory(), warehouse.storage, plan, image))
    return done
