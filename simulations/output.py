"""What the commands share: files that they write, the library that draws, and a bar while they run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from simulations.results import simulate
from simulations.scenario import Scenario
from simulations.world import World

PLOT_KINDS = (".svg", ".png", ".pdf")


def require_matplotlib(what: str) -> None:
    """click.ClickException with the remedy, before an hour of simulation and not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException(f"{what} needs matplotlib, which is not installed: pip install 'p2pd[sim]'")


def require_place(option: str, path: Path | None, kinds: tuple[str, ...] = ()) -> None:
    """click.UsageError if nothing can be written there, before the work and not after it."""
    if path is None:
        return
    if kinds and path.suffix not in kinds:
        raise click.UsageError(f"{option} {path}: allowed: a name that ends in {', '.join(kinds)}")
    if not path.parent.is_dir():
        raise click.UsageError(f"{option} {path}: there is no directory {path.parent}")


def write(path: Path, text: str) -> None:
    """click.ClickException if it can't be written."""
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None


def run_with_progress(scenario: Scenario, report: bool = False) -> World:
    """Simulate, with a bar on a terminal: of all nodes' pieces, how many have arrived."""
    if not sys.stderr.isatty():
        return simulate(scenario, report=report)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=scenario.nodes * scenario.pieces)

        def on_progress(now: float, done: int) -> None:
            progress.update(task, completed=done, description=f"simulated second {now:.1f}, pieces arrived")

        return simulate(scenario, on_progress=on_progress, report=report)
