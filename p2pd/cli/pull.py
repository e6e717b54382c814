"""`p2pd pull IMAGE`: the daemon gets all blobs of an image, and this shows how they come."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from p2pd.admin import ControlError, request
from p2pd.cli.output import Failure, console, control_options, control_path
from p2pd.oci import BadName, parse_reference
from p2pd.units import format_rate, format_size

LINE_SECONDS = 2.0  # between two lines when the output is not a terminal

Event = dict[str, Any]


@click.command()
@control_options
@click.option("as_json", "--json", is_flag=True, help="Print each report of the daemon as a line of JSON.")
@click.argument("image")
def pull(config_path: Path | None, settings: tuple[str, ...], control: Path | None, as_json: bool, image: str) -> None:
    """Get all blobs of IMAGE into this node's store, from its peers where they have them."""
    try:
        parse_reference(image)
    except BadName as error:
        raise Failure(
            f"{image!r} is not an image name: {error}; write it as in docker.io/library/debian:12", 2
        ) from None
    path = control_path(config_path, settings, control)
    events = request(path, {"command": "pull", "image": image})
    if as_json:
        finished = _print_json(events)
    elif sys.stdout.isatty():
        finished = _show_bar(events, image)
    else:
        finished = _print_lines(events, image)
    if finished is None:
        raise ControlError(f"p2pd at {path} ended the pull without saying how: see its log")
    if not as_json:
        click.echo(_summary(finished, image))


def _print_json(events: Iterator[Event]) -> Event | None:
    finished = None
    for event in events:
        click.echo(json.dumps(event))
        finished = event if event.get("event") == "finished" else finished
    return finished


def _print_lines(events: Iterator[Event], image: str) -> Event | None:
    next_line = time.monotonic() + LINE_SECONDS
    for event in events:
        if event.get("event") == "finished":
            return event
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + LINE_SECONDS
            total, done = _number_if_known(event, "total"), _number(event, "done_bytes")
            of = "" if total is None else f" of {format_size(total)} ({100 * done / max(total, 1):.0f} %)"
            click.echo(f"{image}: {format_size(done)}{of}, {_sources(event)}")
    return None


def _show_bar(events: Iterator[Event], image: str) -> Event | None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[sources]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task(image.replace("[", r"\["), total=None, amount="", sources="asking upstream")
        for event in events:
            if event.get("event") == "finished":
                return event
            total, done = _number_if_known(event, "total"), _number(event, "done_bytes")
            amount = f"{format_size(done)} of {format_size(total)}" if total is not None else format_size(done)
            progress.update(task, total=total, completed=done, amount=amount, sources=_sources(event))
    return None


def _summary(event: Event, image: str) -> str:
    peers, upstream = _number(event, "from_peers"), _number(event, "from_upstream")
    seconds = _number(event, "seconds")
    rate = f", {format_rate((peers + upstream) / seconds)}" if seconds > 0 and peers + upstream > 0 else ""
    came = f"{_sources(event)}, in {seconds:.1f}s{rate}" if peers + upstream > 0 else "all of it was here already"
    return f"{image} is here: {event.get('digest', '?')}\n{came}"


def _sources(event: Event) -> str:
    return (
        f"{format_size(_number(event, 'from_peers'))} from peers, "
        f"{format_size(_number(event, 'from_upstream'))} from upstream"
    )


def _number(event: Event, key: str) -> float:
    return _number_if_known(event, key) or 0


def _number_if_known(event: Event, key: str) -> float | None:
    value = event.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
