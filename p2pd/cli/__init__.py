"""The command line: `p2pd run`, `status`, `top`, `pull`, `hosts`, `fleet`.

Each command is a file. They read options, speak to the daemon over its control socket (or start it) and print; what is
wrong ends as one line on stderr, with exit code 2 for usage and configuration, 1 for what failed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from p2pd import __version__
from p2pd.admin import ControlError
from p2pd.cli.output import Failure
from p2pd.config import ConfigError
from p2pd.hosts import HostsError

__all__ = ["main"]

# Command -> the module that it is in. Imported when it is called: what the others print with is 4 MiB of memory, which
# the daemon would keep.
COMMANDS = {"run": "run", "status": "status", "top": "status", "pull": "pull", "hosts": "hosts", "fleet": "fleet"}


class _Commands(click.Group):
    """Turns the errors that a user can mend into one line and an exit code. Other exceptions are bugs, and stay."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"p2pd.cli.{COMMANDS[name]}"), name)
        assert isinstance(command, click.Command)
        return command

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
