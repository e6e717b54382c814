"""`p2pd-sim fleet`: the real daemons on limited links, measured, beside the simulator's prediction."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from p2pd.units import parse_rate
from simulations.fleet.measure import REPOSITORY, FleetRun, measure
from simulations.fleet.plan import FleetPlan, PlanError
from simulations.fleet.predict import predict
from simulations.fleet.reader import ReadError
from simulations.fleet.report import as_json, failures, show
from simulations.lab import Image, LabError, Layer, Warehouse, read_layout
from simulations.output import require_place, write
from simulations.reading import parse_image

TOOLS = ("docker-registry", "skopeo", "ip", "tc", "setpriv")
RUNS_MAX = 100
MADE_MIN = 256 * 1024  # bytes of a layer that is made: below it a tar of files has no room for one
LAYER_SEED = 7000  # of the files that a layer is made of: the same in each run, so that a layer is made once


def missing() -> str:
    """What this machine lacks to measure a fleet; empty if nothing."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        lacking.insert(0, "root, to make network namespaces")
    return ", ".join(lacking)


def _rate(_: click.Context, option: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else parse_rate(text) or 0.0
    except ValueError as error:
        raise click.BadParameter(str(error), param=option) from None


def _image(_: click.Context, option: click.Parameter, text: str) -> Path | tuple[int, ...]:
    if Path(text).is_dir():
        return Path(text)
    try:
        return parse_image(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=option) from None


@click.command()
@click.option("--nodes", type=int, metavar="N", default=16, show_default=True, help="Daemons, each in its namespace.")
@click.option("--link", callback=_rate, metavar="RATE", default="25Mbit", show_default=True, help="Each way.")
@click.option(
    "--image", callback=_image, metavar="IMAGE", default="32MiB", show_default=True,
    help="An OCI layout's directory, to be pulled as it is; or sizes of layers to make of this machine's files: "
    "32MiB, 3x10MB.",
)  # fmt: skip
@click.option("--upstream", callback=_rate, metavar="RATE", help="The registry's link.  [default: as --link]")
@click.option("--runs", type=click.IntRange(1, RUNS_MAX), metavar="N", default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
def fleet(
    nodes: int,
    link: float,
    image: Path | tuple[int, ...],
    upstream: float | None,
    runs: int,
    json_file: Path | None,
) -> None:
    """Measure the real daemons, each behind a limited link, and print the simulator's prediction beside it.

    Every node is a p2pd of its own in a network namespace of its own, its link limited both ways; the upstream is a
    docker-registry behind such a link. Needs root, docker-registry, skopeo and iproute2 (`make apt`).

    Exit code 1 if a figure is missed, or if the machine was above 85 % busy: then there is no verdict. A slower link
    keeps it less busy.

    \b
    Examples:
      p2pd-sim fleet --nodes 16 --link 25Mbit --runs 3
      p2pd-sim fleet --nodes 32 --link 10Mbit --image 2x10MB --upstream 5Mbit --json fleet.json
      p2pd-sim fleet --nodes 8 --image ./layout
    """
    require_place("--json", json_file)
    try:
        given = read_layout(image) if isinstance(image, Path) else None
        sizes = sizes_of(given) if given else image
        if not given and min(sizes, default=0) < MADE_MIN:  # type: ignore[type-var, arg-type]
            raise PlanError(f"--image: layers that are made have at least {MADE_MIN // 1024}KiB each")
        plan = FleetPlan(nodes, link, sizes, link if upstream is None else upstream)  # type: ignore[arg-type]
    except (PlanError, LabError) as error:
        raise click.UsageError(str(error)) from None
    if lacking := missing():
        raise click.ClickException(f"a fleet needs {lacking}; `make apt` installs the tools")
    console = Console()
    try:
        plan, measured = _measure_all(console, plan, given, runs)
    except (LabError, ReadError) as error:
        raise click.ClickException(str(error)) from None
    with console.status("predicting"):
        prediction = predict(plan)
    show(console, plan, measured, prediction)
    if json_file:
        write(json_file, json.dumps(as_json(plan, measured, prediction), indent=1) + "\n")
    counted = [run for run in measured if run.counts]
    if not counted or failures(plan, counted, prediction):
        raise click.exceptions.Exit(1)


def sizes_of(image: Image) -> tuple[int, ...]:
    """The layers' true sizes."""
    return tuple(layer.size for layer in image.layers)


def _measure_all(console: Console, plan: FleetPlan, given: Image | None, runs: int) -> tuple[FleetPlan, list[FleetRun]]:
    """The plan, with the sizes that the layers really have, and all runs."""
    done: list[FleetRun] = []
    with Warehouse() as warehouse:
        with console.status("pushing the image"):
            if given:
                image = warehouse.push(REPOSITORY, given)
            else:
                layers = [Layer(size, LAYER_SEED + place) for place, size in enumerate(plan.layers)]
                image = warehouse.image(REPOSITORY, layers)
        plan = replace(plan, layers=sizes_of(image))
        for number in range(1, runs + 1):
            with console.status(f"run {number} of {runs}: {plan.nodes} nodes start, settle and pull"):
                done.append(measure(warehouse.lab_directory(), warehouse.storage, plan, image))
    return plan, done
