"""The command line's options for a scenario, one for each parameter, shared by the commands that simulate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from simulations.reading import KINDS, build, read_file
from simulations.scenario import Scenario, ScenarioError

HELP = {
    "nodes": "Nodes that want the image.",
    "image": "Layers: 3GB/2, 70MB,50MB, 40x5MB-200MB, a manifest's file, or an OCI layout's directory.",
    "link": "Each node's line, each way: 300MB/s, 25Mbit.",
    "up": "Another rate up.  [default: as --link]",
    "down": "Another rate down.  [default: as --link]",
    "upstream": "The registry's whole line.  [default: as --link]",
    "upstream_delay": "From a request to upstream to its first byte.",
    "latency": "One way, the nodes' event loops included.",
    "zones": "Racks or halls.",
    "oversubscription": "A zone's nodes' lines over its own line.",
    "zone_latency": "Added to the latency between zones.",
    "send_buffer": "What the kernel takes of a piece ahead of the wire, for each connection.",
    "slow_start": "Charge slow start to connections that were idle.",
    "check_rate": "How fast a node hashes and writes.",
    "piece_cost": "A node's time for a piece beside its bytes.",
    "reader": "A client on every node that reads in order.",
    "concurrent": "Layers that a client asks for at a time.",
    "hold_back": "After which a client is shown what is not proven yet.",
    "trackers": "0: the nodes find each other and are the directory.",
    "arrival": "Spread the nodes' starts over so long.",
    "cached": "share:layers that some nodes have already: 20%:1.",
    "stragglers": "share:factor of slow nodes' lines: 10%:0.1 (:up or :down for one way).",
    "deaths": "Share of the nodes that die on the way.",
    "silent": "The dead do not close their connections.",
    "restarts": "Share of the dead that come back with their disks.",
    "restart_after": "... after so long.",
    "seeder_death": "The first layer's seeder dies when it has pulled this share of it.",
    "tracker_loss": "start:end of the trackers' outage: 2, or 2:6.",
    "partition": "start:end:share of a partition: 2:6:30%.",
    "lossy": "share:mean time between broken connections: 5%:2s.",
    "lying": "share:share of wrong pieces: 2%:50%.",
    "upstream_failure": "start:end of upstream's failure: 1:4.",
    "upstream_reason": "What it says then: unreachable, limited (429), denied, missing, bad-answer.",
    "seed": "Of everything that is drawn.",
    "check": "Check every invariant after every event: ten times slower.",
    "heal_after": "When broken connections end for good.",
    "seconds_most": "Simulated time at the most.  [default: a generous multiple of the bound]",
    "events_most": "Events at the most.  [default: in proportion to the transfers]",
}
FLAGS = {"slow_start", "silent", "check"}
LAYERS_NAMED_MAX = 3


def scenario_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All parameters as options; the command gets `parameters`, their texts, to be handed to `scenario_of`."""

    def gather(**arguments: Any) -> Any:
        texts = {}
        for name in KINDS:
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
    decorated: Callable[..., Any] = gather
    decorated = click.option("--set", "policy", multiple=True, metavar="NAME=VALUE", help="A number of the policy.")(
        decorated
    )
    for name in reversed(KINDS):
        flag = f"--{name.replace('_', '-')}"
        if name in FLAGS:
            decorated = click.option(flag, f"p_{name}", is_flag=True, help=HELP[name])(decorated)
        else:
            decorated = click.option(flag, f"p_{name}", metavar="VALUE", help=_help(name))(decorated)
    return decorated


def _help(name: str) -> str:
    default = getattr(Scenario(), name)
    if "[default" in HELP[name] or default in (None, 0, 0.0, ""):
        return HELP[name]
    shown = {"image": "3GB/2", "link": "300MB/s", "check_rate": "800MB/s", "send_buffer": "256KiB"}.get(name)
    return f"{HELP[name]}  [default: {shown or default}]"


def scenario_of(parameters: dict[str, str], file: Path | None) -> Scenario:
    """The scenario of a file with options over it. click.UsageError names what is wrong."""
    try:
        texts = read_file(file) if file else {}
        return build({**{name.replace("-", "_"): text for name, text in texts.items()}, **parameters})
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
