"""`p2pd-tracker run`."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import click
import trio

from p2pd import __version__
from p2pd.admin import serve_admin
from p2pd.config import Address
from p2pd.fleet import FleetError, FleetFiles, Membership, NodeKey
from p2pd.notify import Notifier
from p2pd.peers.handshake import FLEET_INSECURE, FLEET_MEMBERS
from tracker.admin import Shown
from tracker.garbage import Garbage
from tracker.server import Tracker

log = logging.getLogger("p2pd.tracker")

DEFAULT_PORT, ADMIN_PORT = 9590, 9592

PEM = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pd-tracker", message="%(prog)s %(version)s")
def main() -> None:
    """The directory of a p2pd fleet: who has or wants a blob, and who pulls it."""


@main.command()
@click.option("--listen", "address", default=f"0.0.0.0:{DEFAULT_PORT}", show_default=True, metavar="ADDRESS")
@click.option("--ca", type=PEM, metavar="FILE", help="The fleet's CA; several in one file are trusted alike.")
@click.option("--certificate", type=PEM, metavar="FILE", help="This tracker's certificate; then its intermediates.")
@click.option("--key", type=PEM, metavar="FILE", help="The certificate's key.")
@click.option(
    "--admin",
    "admin_address",
    default=f"127.0.0.1:{ADMIN_PORT}",
    show_default=True,
    metavar="ADDRESS",
    help="Where metrics, health and status are read; none: nowhere.",
)
@click.option("--insecure", is_flag=True, help="Talk to nodes without TLS: for a lab.")
def run(
    address: str, ca: Path | None, certificate: Path | None, key: Path | None, admin_address: str, insecure: bool
) -> None:
    """Run the tracker until SIGTERM or SIGINT."""
    listen = _address(address, DEFAULT_PORT, "--listen")
    admin = None if admin_address == "none" else _address(admin_address, ADMIN_PORT, "--admin")
    membership = None
    if ca and certificate and key:
        if insecure:
            raise click.UsageError("--insecure together with a certificate: leave one of them out")
        try:
            membership = Membership(FleetFiles(ca, certificate, key))
        except FleetError as error:
            raise click.ClickException(str(error)) from None
    elif ca or certificate or key:
        raise click.UsageError("--ca, --certificate and --key go together")
    elif not insecure:
        raise click.UsageError(
            "this tracker has no fleet identity: give it --ca, --certificate and --key "
            "(`p2pd fleet issue` makes them); --insecure runs it without, in a lab"
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if membership is None:
        log.warning("--insecure: nodes are neither authenticated nor encrypted. A lab switch.")
    try:
        trio.run(_serve, listen, admin, membership)
    except* _CannotListen as group:
        raise click.ClickException(str(group.exceptions[0])) from None


class _CannotListen(Exception):
    """The message names the option, the address and the reason."""


def _address(text: str, port: int, option: str) -> Address:
    try:
        return Address.parse(text, port, listening=True)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


async def _listen(address: Address, option: str) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise _CannotListen(f"{option} {address}: {error.strerror or error}") from None


async def _serve(address: Address, admin: Address | None, membership: Membership | None) -> None:
    listeners = await _listen(address, "--listen")
    admin_listeners = await _listen(admin, "--admin") if admin else []
    shown = Shown(membership)
    garbage = Garbage()
    if membership is None:
        tracker = Tracker(
            FLEET_INSECURE, NodeKey.generate().public, on_refused=shown.refused, on_left=garbage.node_left
        )
    else:
        key = membership.identity.key.public
        tracker = Tracker(FLEET_MEMBERS, key, lambda: membership.identity, shown.refused, garbage.node_left)
        membership.on_change = tracker.identity_changed
    shown.summary = tracker.summary
    notifier = Notifier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tracker.serve, listeners)
        nursery.start_soon(tracker.tick)
        if admin_listeners:
            nursery.start_soon(serve_admin, admin_listeners, shown)
        if membership:
            nursery.start_soon(membership.watch)
        nursery.start_soon(_feed_watchdog, notifier)
        log.info("tracker on %s", address)
        notifier.ready(f"tracker on {address}")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        notifier.stopping()
        nursery.cancel_scope.cancel()


async def _feed_watchdog(notifier: Notifier) -> None:
    interval = notifier.watchdog_interval()
    while interval is not None:
        await trio.sleep(interval / 2)
        notifier.watchdog()
