"""`p2pd-tracker run`."""

from __future__ import annotations

import logging
import signal
import sys

import click
import trio

from p2pd import __version__
from p2pd.config import Address
from p2pd.notify import Notifier
from tracker.server import Tracker

log = logging.getLogger("p2pd.tracker")

DEFAULT_PORT = 9590
FLEET_INSECURE = "insecure"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pd-tracker", message="%(prog)s %(version)s")
def main() -> None:
    """The directory of a p2pd fleet: who has or wants a blob, and who pulls it."""


@main.command()
@click.option("--listen", "address", default=f"0.0.0.0:{DEFAULT_PORT}", show_default=True, metavar="ADDRESS")
@click.option("--insecure", is_flag=True, help="Talk to nodes without TLS: for a lab.")
def run(address: str, insecure: bool) -> None:
    """Run the tracker until SIGTERM or SIGINT."""
    try:
        listen = Address.parse(address, DEFAULT_PORT, listening=True)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from None
    if not insecure:
        raise click.UsageError("this tracker has no fleet identity: --insecure runs it without, in a lab")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    log.warning("--insecure: nodes are neither authenticated nor encrypted. A lab switch.")
    try:
        trio.run(_serve, listen)
    except* OSError as group:
        raise click.ClickException(f"--listen {listen}: {group.exceptions[0]}") from None


async def _serve(address: Address) -> None:
    listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    tracker = Tracker(FLEET_INSECURE)
    notifier = Notifier()
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(tracker.serve, listener, nursery)
        nursery.start_soon(tracker.tick)
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
