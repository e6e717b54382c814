"""`p2pd-sim rollout`: one rollout in virtual time, as a table, as JSON and as a page to look at."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from simulations.checkers import Violation
from simulations.options import SimulationCommand, command_of, scenario_of, scenario_options, texts_of
from simulations.output import require_matplotlib, require_place, run_with_progress, write
from simulations.results import figures
from simulations.table import print_figures


@click.command(cls=SimulationCommand)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@scenario_options
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML page to look at.")
def rollout(parameters: dict[str, str], file: Path | None, json_file: Path | None, report: Path | None) -> None:
    """Simulate one rollout. FILE is a scenario in TOML; options go over it.

    Exit code 1 if a node that lives did not get the image.

    \b
    Examples:
      p2pd-sim rollout --nodes 500 --image 3GB/2 --link 300MB/s --report rollout.html
      p2pd-sim rollout --nodes 200 --image ./layout --link 10Gbit --upstream 1Gbit --arrival 30s
      p2pd-sim rollout --nodes 400 --zones 40 --oversubscription 4 --stragglers 10%:0.1
      p2pd-sim rollout scenario.toml --deaths 10% --seed 7 --json figures.json
    """
    texts = texts_of(parameters, file)
    scenario = scenario_of(texts)
    require_place("--json", json_file)
    require_place("--report", report)
    if report:
        require_matplotlib("--report")
    console = Console()
    try:
        world = run_with_progress(scenario, report=report is not None)
    except Violation as error:
        raise click.ClickException(f"a rule was broken: {error}; replay: {command_of(texts)}") from None
    result = figures(world)
    print_figures(console, scenario, result)
    if json_file:
        write(json_file, json.dumps(result, indent=1) + "\n")
    if report:
        from simulations.report import page

        write(report, page(world, result, command_of(texts)))
        console.print(f"report: {report}", soft_wrap=True)
    if result["unfinished"]:
        raise click.exceptions.Exit(1)
