"""`p2pd-sim compare`: p2pd beside other ways to bring an image to the same nodes, which are models, and say so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from p2pd.units import format_rate, format_size
from simulations.models import Case, Outcome, direct, hypercube, hypercube_rounds, layerwise, rarest_first
from simulations.options import SimulationCommand, scenario_of, scenario_options, texts_of
from simulations.output import require_place, write
from simulations.results import figures, percentile, simulate
from simulations.scenario import Scenario

# What makes nodes or times unequal: the models do not know it, so the comparison would not be one.
UNEQUAL = (
    "up", "down", "zones", "zone_latency", "arrival", "cached", "stragglers", "deaths", "restarts", "seeder_death",
    "tracker_loss", "partition", "lossy", "lying", "upstream_failure", "unfair",
)  # fmt: skip
MODELS: tuple[Callable[[Case], Outcome], ...] = (direct, layerwise, rarest_first, hypercube)


class Incomparable(ValueError):
    """A scenario that the models do not know. The message names the parameter."""


def case_of(scenario: Scenario) -> Case:
    """The scenario as the models see it. Incomparable."""
    plain = Scenario()
    for name in UNEQUAL:
        if getattr(scenario, name) != getattr(plain, name):
            raise Incomparable(
                f"{name}: the models know equal nodes that start together; `p2pd-sim rollout` simulates it for p2pd"
            )
    return Case(
        nodes=scenario.nodes,
        link=scenario.link,
        upstream=scenario.upstream_rate,
        layers=scenario.image,
        pieces=scenario.pieces,
        seed=scenario.seed,
    )


def row_of(outcome: Outcome, bound_s: float, cpu_s: float) -> dict[str, Any]:
    """A model's figures, by the same names as p2pd's."""
    ordered = sorted(outcome.seconds)
    return {
        "name": outcome.name,
        "is_model": True,
        "p50_s": percentile(ordered, 0.5),
        "p99_s": percentile(ordered, 0.99),
        "slowest_s": ordered[-1],
        "slowest_over_bound": ordered[-1] / bound_s,
        "upstream_copies": outcome.upstream_copies,
        "rounds": outcome.rounds,
        "cpu_s": cpu_s,
    }


def compare_all(scenario: Scenario, note: Callable[[str], None] = lambda what: None) -> list[dict[str, Any]]:
    """A row for each model, then p2pd's. `note` hears what is being run. Incomparable."""
    case = case_of(scenario)
    rows = []
    for model in MODELS:
        note(model.__name__)
        begun = time.process_time()
        outcome = model(case)
        rows.append(row_of(outcome, scenario.bound_s, time.process_time() - begun))
    note("p2pd")
    result = figures(simulate(scenario))
    row = {name: result[name] for name in rows[0] if name in result}
    rows.append({"name": "p2pd", "is_model": False, "rounds": -1} | row)
    if result["unfinished"]:
        rows[-1]["name"] += f", {result['unfinished']} nodes unfinished"
    return rows


def show(console: Console, scenario: Scenario, rows: list[dict[str, Any]]) -> None:
    """One table."""
    sizes = f"{format_size(scenario.total)} in {len(scenario.image)} layers, {scenario.pieces} pieces"
    console.print(
        f"{scenario.nodes} nodes, {sizes}, links {format_rate(scenario.link)}, bound {scenario.bound_s:.2f} s"
    )
    table = Table()
    table.add_column("", no_wrap=True)
    for name in ("p50", "p99", "slowest", "/ bound", "copies", "rounds"):
        table.add_column(name, justify="right")
    for row in rows:
        kind = "model" if row["is_model"] else "simulated"
        table.add_row(
            f"{kind}: {row['name']}",
            *(f"{row[name]:.2f} s" for name in ("p50_s", "p99_s", "slowest_s")),
            f"{row['slowest_over_bound']:.3f}",
            f"{row['upstream_copies']:.3f}",
            str(row["rounds"]) if row["rounds"] >= 0 else "-",
        )
    console.print(table)
    least = hypercube_rounds(scenario.nodes, scenario.pieces)
    console.print(
        f"Models: equal links, a common start, no latency, no cost of a piece; copies are upstream's. A round is one "
        f"piece over one link; no schedule needs fewer than M + floor(log2 N) = {least}."
    )


@click.command(cls=SimulationCommand)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@scenario_options
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
def compare(parameters: dict[str, str], file: Path | None, json_file: Path | None) -> None:
    """Compare p2pd with other ways to do it: none, whole layers, rarest piece first, the hypercube schedule.

    FILE is a scenario in TOML; options go over it. The others are models; p2pd is its own code, simulated.

    \b
    Example:
      p2pd-sim compare --nodes 200 --image 1GB/2 --link 100MB/s
    """
    scenario = scenario_of(texts_of(parameters, file))
    require_place("--json", json_file)
    console = Console()
    try:
        with console.status("") as status:
            rows = compare_all(scenario, lambda what: status.update(f"running {what}"))
    except Incomparable as error:
        raise click.UsageError(str(error)) from None
    show(console, scenario, rows)
    if json_file:
        about = {"bound_s": scenario.bound_s, "nodes": scenario.nodes, "pieces": scenario.pieces, "rows": rows}
        write(json_file, json.dumps(about, indent=1) + "\n")


__all__ = ["Incomparable", "case_of", "compare", "compare_all"]
