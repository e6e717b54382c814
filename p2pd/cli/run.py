"""`p2pd run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from p2pd.cli.output import config_options, overrides
from p2pd.config import load_config


@click.command()
@config_options
@click.option("--check", is_flag=True, help="Read the configuration, say whether it can be used, and end.")
def run(config_path: Path | None, settings: tuple[str, ...], check: bool) -> None:
    """Run the node until SIGTERM or SIGINT."""
    config = load_config(config_path, overrides(settings))
    if check:
        for warning in config.warnings:
            click.echo(f"p2pd: warning: {warning}", err=True)
        click.echo("the configuration can be used")
        return
    from p2pd.daemon import run_daemon  # only here: the other commands need none of it, and start at once

    sys.exit(run_daemon(config))
