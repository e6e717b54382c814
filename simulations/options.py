"""The command line's options for a scenario, one for each parameter, shared by the commands that simulate."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from simulations.reading import build, read_file
from simulations.scenario import Scenario, ScenarioError

# heading -> parameter -> (what the value looks like, what it is)
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "The rollout": {
        "nodes": ("N", "Nodes that want the image."),
        "image": ("IMAGE", "Layers: 3GB/2, 70MB,50MB, 40x5MB-200MB, a manifest's file, or an OCI layout's directory."),
        "link": ("RATE", "Each node's line, each way: 300MB/s, 25Mbit."),
        "upstream": ("RATE", "The registry's whole line.  [default: as --link]"),
        "arrival": ("TIME", "Spread the nodes' starts over so long: 30s."),
        "cached": ("SHARE:N", "Some nodes have the first N layers already: 20%:1."),
        "seed": ("N", "Of everything that is drawn."),
    },
    "The network": {
        "up": ("RATE", "Another rate up.  [default: as --link]"),
        "down": ("RATE", "Another rate down.  [default: as --link]"),
        "upstream_delay": ("TIME", "From a request to upstream to its first byte."),
        "latency": ("TIME", "One way, the nodes' event loops included."),
        "zones": ("N", "Racks or halls, of equal size."),
        "oversubscription": ("X", "A zone's nodes' lines together over the zone's own line."),
        "zone_latency": ("TIME", "Added to the latency between zones."),
        "send_buffer": ("SIZE", "What the kernel takes of a piece ahead of the wire, for each connection."),
        "slow_start": ("", "Charge slow start to connections that were idle: a sensitivity run."),
        "unfair": ("X", "Flows share a line unequally: 0.5, most within a factor of 1.6; a sensitivity run."),
    },
    "The nodes": {
        "check_rate": ("RATE", "How fast a node hashes and writes; 0: costs no time."),
        "piece_cost": ("TIME", "A node's time for a piece beside its bytes."),
        "reader": ("yes|no", "A client on every node that reads in order."),
        "concurrent": ("N", "Layers that a client asks for at a time."),
        "hold_back": ("TIME", "After which a client is shown what is not proven yet."),
        "trackers": ("N", "0: the nodes find each other and are the directory."),
    },
    "What goes wrong": {
        "stragglers": ("SHARE:X", "Nodes whose lines have X of the rate: 10%:0.1 (:up or :down for one way)."),
        "deaths": ("SHARE", "Nodes that die on the way: 10%."),
        "silent": ("", "The dead do not close their connections."),
        "restarts": ("SHARE", "Of the dead, those that come back with their disks."),
        "restart_after": ("TIME", "... after so long."),
        "seeder_death": ("SHARE", "The first layer's seeder dies when it has pulled this share of it."),
        "tracker_loss": ("START:END", "The trackers are gone: 2:6, or 2 for good."),
        "partition": ("START:END:SHARE", "A part of the nodes can't reach the rest: 2:6:30%."),
        "lossy": ("SHARE:TIME", "Nodes whose connections break, one in so long on average: 5%:2s."),
        "lying": ("SHARE:SHARE", "Nodes that send wrong pieces, and how many of theirs are: 2%:50%."),
        "liars": ("LIE,...", "Nodes that mean harm, one for each: forges-seed,accuses."),
        "upstream_failure": ("START:END", "Upstream answers no request: 1:4."),
        "upstream_reason": ("REASON", "... but so: unreachable, limited (429), denied, missing, bad-answer."),
        "heal_after": ("TIME", "When broken connections end for good."),
    },
    "The run": {
        "check": ("", "Check every invariant after every event: ten times slower."),
        "seconds_most": ("TIME", "Simulated time at the most.  [default: a generous multiple of the bound]"),
        "events_most": ("N", "Events at the most.  [default: in proportion to the transfers]"),
    },
}  # fmt: skip
ALL = {name: told for section in SECTIONS.values() for name, told in section.items()}
SHOWN = {
    "image": "3GB/2", "link": "300MB/s", "check_rate": "800MB/s", "send_buffer": "256KiB", "reader": "yes",
    "upstream_delay": "20ms", "latency": "0.5ms", "piece_cost": "0.3ms", "hold_back": "5s", "restart_after": "3s",
}  # fmt: skip


class SimulationCommand(click.Command):
    """A command whose many options stand under headings in its help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        placed = {f"p_{name}" for name in ALL}
        own = [record for name, record in records.items() if name not in placed and record and record[0][0] == "-"]
        with formatter.section("Options"):
            formatter.write_dl(own)
        for heading, parameters in SECTIONS.items():
            rows = [record for name in parameters if (record := records.get(f"p_{name}"))]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def scenario_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All parameters as options; the command gets `parameters`, their texts, to be handed to `scenario_of`."""

    def gather(**arguments: Any) -> Any:
        texts = {}
        for name in ALL:
            value = arguments.pop(f"p_{name}")
            if value not in (None, False):
                texts[name] = "true" if value is True else value
        for text in arguments.pop("policy"):
            name, sign, value = text.partition("=")
            if not sign:
                raise click.BadParameter(f"{text!r}; allowed: NAME=VALUE, as in news_s=0.02", param_hint="--set")
            texts[f"settings.{name}"] = value
        return command(parameters=texts, **arguments)

    gather.__name__, gather.__doc__ = command.__name__, command.__doc__
    gather.__click_params__ = list(getattr(command, "__click_params__", ()))  # type: ignore[attr-defined]
    decorated: Callable[..., Any] = click.option(
        "--set", "policy", multiple=True, metavar="NAME=VALUE",
        help="Another number for the swarm's policy (p2pd/swarm/settings.py): news_s=0.02.",
    )(gather)  # fmt: skip
    for name in reversed(ALL):
        flag, shape = f"--{name.replace('_', '-')}", ALL[name][0]
        if shape:
            decorated = click.option(flag, f"p_{name}", metavar=shape, help=_help(name))(decorated)
        else:
            decorated = click.option(flag, f"p_{name}", is_flag=True, help=_help(name))(decorated)
    return decorated


def _help(name: str) -> str:
    text = ALL[name][1]
    default = getattr(Scenario(), name)
    if "[default" in text or default in (None, False, 0, 0.0, ""):
        return text
    return f"{text}  [default: {SHOWN.get(name, default)}]"


def texts_of(parameters: Mapping[str, str], file: Path | None) -> dict[str, str]:
    """All parameters that somebody gave: a file's, with options over them. click.UsageError."""
    try:
        texts = read_file(file) if file else {}
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
    return {name.replace("-", "_"): text for name, text in texts.items()} | dict(parameters)


def scenario_of(texts: Mapping[str, str]) -> Scenario:
    """click.UsageError names what is wrong."""
    try:
        return build(texts)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None


def command_of(texts: Mapping[str, str]) -> str:
    """The command that runs these parameters again."""
    words = ["p2pd-sim", "rollout"]
    for name, text in texts.items():
        flag = f"--{name.replace('_', '-')}"
        if name.startswith("settings."):
            words += ["--set", f"{name[9:]}={text}"]
        elif ALL[name][0]:
            words += [flag, text]
        elif text == "true":
            words.append(flag)
    return shlex.join(words)
