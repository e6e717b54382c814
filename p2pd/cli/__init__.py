"""The command line: `p2pd run`, `status`, `top`, `pull`, `hosts`, `fleet`.

Each command is a file. They read options, speak to the daemon over its control socket (or start it) and print; what is
wrong ends as one line on stderr, with exit code 2 for usage and configuration, 1 for what failed.
"""

from __future__ import annotations

from typing import Any

import click

from p2pd import __version__
from p2pd.admin import ControlError
from p2pd.cli.fleet import fleet
from p2pd.cli.hosts import hosts
from p2pd.cli.output import Failure
from p2pd.cli.pull import pull
from p2pd.cli.run import run
from p2pd.cli.status import status, top
from p2pd.config import ConfigError
from p2pd.hosts import HostsError

__all__ = ["main"]


class _Commands(click.Group):
    """Turns the errors that a user can mend into one line and an exit code. Other exceptions are bugs, and stay."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Failure(str(error), exit_code=2) from None
        except (ControlError, HostsError) as error:
            raise Failure(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pd", message="%(prog)s %(version)s")
def main() -> None:
    """One upstream pull for the whole fleet: a registry mirror on each node, which share what they pull."""


for command in (run, status, top, pull, hosts, fleet):
    main.add_command(command)
