"""`p2pd-sim`: rollouts in virtual time, sweeps over them, comparisons, and the real daemons beside them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from p2pd import __version__
from simulations.options import scenario_of, scenario_options
from simulations.results import figures, simulate
from simulations.scenario import Scenario
from simulations.table import print_figures
from simulations.world import World

LATER = {
    "compare": "simulations.compare",
    "fleet": "simulations.fleet",
    "hunt": "simulations.hunt",
    "sweep": "simulations.sweep",
}


class Group(click.Group):
    """Loads a command's module when it is asked for: measuring daemons needs much that simulating does not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LATER])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LATER:
            return getattr(importlib.import_module(LATER[name]), name)
        return super().get_command(ctx, name)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="p2pd-sim", message="%(prog)s %(version)s")
def main() -> None:
    """How long a rollout takes, before you do it: the swarm's own code on a model of your network."""


@main.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@scenario_options
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML page to look at.")
def rollout(parameters: dict[str, str], file: Path | None, json_file: Path | None, report: Path | None) -> None:
    """Simulate one rollout. FILE is a scenario in TOML; options go over it.

    Exit code 1 if a node did not end.
    """
    scenario = scenario_of(parameters, file)
    if report:
        require_matplotlib()
    console = Console()
    world = run_with_progress(scenario, report=report is not None)
    result = figures(world)
    print_figures(console, scenario, result)
    if json_file:
        write(json_file, json.dumps(result, indent=1) + "\n")
    if report:
        from simulations.report import page

        write(report, page(world, result))
        console.print(f"report: {report}")
    if result["unfinished"]:
        raise click.exceptions.Exit(1)


def run_with_progress(scenario: Scenario, report: bool = False) -> World:
    """Simulate, with a bar on a terminal."""
    if not sys.stderr.isatty():
        return simulate(scenario, report=report)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        total = scenario.nodes * scenario.pieces
        task = progress.add_task("pieces", total=total)
        return simulate(scenario, on_progress=lambda now, done: progress.update(task, completed=done), report=report)


def require_matplotlib() -> None:
    """click.ClickException with the remedy, before an hour of simulation and not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException("a report needs matplotlib: pip install 'p2pd[sim]'")


def write(path: Path, text: str) -> None:
    """click.ClickException if it can't be written."""
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None


if __name__ == "__main__":
    main()
