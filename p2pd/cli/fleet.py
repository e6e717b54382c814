"""`p2pd fleet init` and `issue`: the fleet's CA, and its members' certificates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from p2pd.cli.output import Failure

DEFAULT_DIRECTORY = Path("p2pd-fleet")
NODE_PLACE, TRACKER_PLACE = "/etc/p2pd/fleet", "/etc/p2pd-tracker"  # as in the README
CA_DAYS = 3650
MEMBER_DAYS = 365
DAYS_MAX = 36500

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Where the CA is kept: on a machine of the operator's, not on a node.",
)


def days_option(default: int):
    return click.option(
        "--days", type=click.IntRange(1, DAYS_MAX), default=default, show_default=True, help="How long it is valid."
    )


@click.group()
def fleet() -> None:
    """Make the fleet's CA, and its nodes' and trackers' certificates."""


@fleet.command()
@directory_option
@days_option(CA_DAYS)
@click.option("--name", help="To tell this CA from the next one; today's date if not given.")
def init(directory: Path, days: int, name: str | None) -> None:
    """Make the fleet's CA. Whoever has its key can make members."""
    from p2pd.fleet.authority import init_authority  # only here: the other commands need none of it
    from p2pd.fleet.identity import FleetError

    try:
        made = init_authority(directory, name or f"{datetime.now(UTC):%Y-%m-%d}", days)
    except FleetError as error:
        raise Failure(str(error)) from None
    dir_words = "" if directory == DEFAULT_DIRECTORY else f" --dir {directory}"
    click.echo(f"The fleet's CA, valid until {made.ends_at:%Y-%m-%d}:")
    click.echo(f"  {made.certificate}  goes to every node and tracker")
    click.echo(f"  {made.key}  stays here; keep a copy in a safe place: whoever has it can make members")
    click.echo(f"Next, for each node:     p2pd fleet issue NAME{dir_words}")
    click.echo(f"      for each tracker:  p2pd fleet issue NAME{dir_words} --address IP-OR-DNS")


@fleet.command()
@click.argument("name")
@directory_option
@days_option(MEMBER_DAYS)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="IP-OR-DNS",
    help="An address of it; may be repeated. A tracker needs those that [discovery] trackers names it by.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where its files go, instead of --dir.")
def issue(name: str, directory: Path, days: int, addresses: tuple[str, ...], out: Path | None) -> None:
    """Make the certificate and the key of the node or tracker NAME."""
    from p2pd.fleet.authority import CA_CERTIFICATE, issue
    from p2pd.fleet.identity import FleetError

    try:
        made = issue(directory, name, addresses, days, out or directory)
    except FleetError as error:
        raise Failure(str(error)) from None
    click.echo(f"The certificate of {name}, valid until {made.ends_at:%Y-%m-%d}. Copy to {name}, into {NODE_PLACE}")
    click.echo(f"(a tracker's into {TRACKER_PLACE}), owned by root, readable by the service's group alone:")
    click.echo(f"  {directory / CA_CERTIFICATE}  as ca.crt")
    click.echo(f"  {made.certificate}  as node.crt")
    click.echo(f"  {made.key}  as node.key; then remove it here")
    if not addresses:
        click.echo("It serves a node. A tracker's needs --address.")
