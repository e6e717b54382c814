"""`p2pd run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from p2pd.cli.output import Failure, config_options, overrides
from p2pd.config import Config, load_config
from p2pd.descriptors import raise_limit


@click.command()
@config_options
@click.option("--check", is_flag=True, help="Read the configuration, say whether it can be used, and end.")
def run(config_path: Path | None, settings: tuple[str, ...], check: bool) -> None:
    """Run the node until SIGTERM or SIGINT."""
    config = load_config(config_path, overrides(settings))
    if check:
        for warning in config.warnings:
            click.echo(f"p2pd: warning: {warning}", err=True)
        _check_identity(config)
        click.echo("the configuration can be used")
        return
    if warning := raise_limit():
        click.echo(f"p2pd: warning: {warning}", err=True)
    from p2pd.daemon import run_daemon  # only here: the other commands need none of it, and start at once

    sys.exit(run_daemon(config))


def _check_identity(config: Config) -> None:
    """Look at the fleet's files as the daemon would."""
    from p2pd.daemon import membership_of
    from p2pd.fleet import FleetError

    try:
        membership = membership_of(config)
    except FleetError as error:
        raise Failure(f"[fleet] {error}", exit_code=2) from None
    for warning in membership.warnings() if membership else []:
        click.echo(f"p2pd: warning: {warning}", err=True)
