"""What the commands share: options, errors, consoles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pd.config import ConfigError, load_node

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 200  # columns when the output is not a terminal: nothing is cut off in a log


class Failure(click.ClickException):
    """An error that ends the command with one line on stderr."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click says that it is of the class

    def show(self, file: Any = None) -> None:
        click.echo(f"p2pd: {self.format_message()}", file=file or sys.stderr)


def console() -> Console:
    """For standard output as it is now: a terminal, a pipe, a file."""
    from rich.console import Console  # only here: the daemon prints nothing

    plain = not sys.stdout.isatty()
    return Console(file=sys.stdout, width=PLAIN_WIDTH if plain else None, highlight=False, soft_wrap=plain)


def overrides(settings: tuple[str, ...]) -> dict[str, str]:
    """--set values as a mapping. ConfigError for one without "="."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        # A quoted part of the key may hold the sign itself, but no registry's host does.
        if not equals or not key.strip():
            raise ConfigError(None, f"--set {setting}", "must be TABLE.KEY=VALUE, as in mirror.hold_back=5s")
        found[key.strip()] = value
    return found


def config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--config and --set."""
    function = click.option(
        "settings", "--set", multiple=True, metavar="KEY=VALUE", help="Set one key, as in mirror.hold_back=5s."
    )(function)
    return click.option(
        "config_path",
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration, instead of /etc/p2pd/p2pd.toml.",
    )(function)


def control_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--config, and --control for those who may not read the configuration."""
    function = click.option(
        "control",
        "--control",
        type=click.Path(path_type=Path),
        metavar="SOCKET",
        help="The daemon's control socket, instead of the one that the configuration names.",
    )(function)
    return config_options(function)


def control_path(config_path: Path | None, settings: tuple[str, ...], control: Path | None) -> Path:
    """The socket that a command speaks to. ConfigError when the configuration can't be used."""
    return control if control is not None else load_node(config_path, overrides(settings)).control
