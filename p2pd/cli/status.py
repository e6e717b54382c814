"""`p2pd status`, once; `p2pd top`, live."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.live import Live

from p2pd.admin import ControlError, NotRunning, request
from p2pd.cli.output import Failure, console, control_options, control_path
from p2pd.cli.view import ROWS_MAX, status_view

INTERVAL_MIN = 0.2  # seconds; a status walks through all blobs


def ask_status(path: Path) -> dict[str, Any]:
    """The daemon's status. ControlError when it gives none."""
    for answer in request(path, {"command": "status"}, timeout=10):
        return answer
    raise ControlError(f"p2pd at {path} gave no status: see its log")


@click.command()
@control_options
@click.option("as_json", "--json", is_flag=True, help="Print the whole status as JSON.")
def status(config_path: Path | None, settings: tuple[str, ...], control: Path | None, as_json: bool) -> None:
    """Show this node: its peers, its blobs, who seeds them, and what is wrong."""
    answer = ask_status(control_path(config_path, settings, control))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        console().print(status_view(answer))


@click.command()
@control_options
@click.option("--interval", type=click.FloatRange(min=INTERVAL_MIN), default=1.0, metavar="SECONDS", show_default=True)
def top(config_path: Path | None, settings: tuple[str, ...], control: Path | None, interval: float) -> None:
    """Show this node live, until Ctrl-C."""
    path = control_path(config_path, settings, control)
    if not sys.stdout.isatty():
        raise Failure("top needs a terminal: use `p2pd status`, or `p2pd status --json`", exit_code=2)
    screen = console()
    view: Any = status_view(ask_status(path), rows_max=ROWS_MAX)  # a daemon that does not run is an error at once
    try:
        with Live(view, console=screen, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view, refresh=True)
                time.sleep(interval)
                try:
                    view = status_view(ask_status(path), rows_max=ROWS_MAX)
                except NotRunning:
                    view = "p2pd has stopped; waiting for it (Ctrl-C ends)"
    except KeyboardInterrupt:
        return
