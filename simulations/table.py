"""The figures of a run on a terminal. Knows rich; nothing of how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from p2pd.units import format_rate, format_size
from simulations.scenario import Scenario

ROWS = (("p50", "p50_s"), ("p90", "p90_s"), ("p99", "p99_s"), ("p99.9", "p999_s"), ("slowest", "slowest_s"))


def wide_console() -> Console:
    """For tables that are not to be cut when they go to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def title(s: Scenario) -> str:
    """One line on what is simulated."""
    layers = f"{len(s.image)} layer{'s' if len(s.image) > 1 else ''}"
    text = f"{s.nodes} nodes, {format_size(s.total)} in {layers} ({s.pieces} pieces)"
    if s.uplink == s.downlink:
        text += f", {format_rate(s.uplink)} each way"
    else:
        text += f", {format_rate(s.uplink)} up, {format_rate(s.downlink)} down"
    if s.upstream_rate != s.link:
        text += f", upstream {format_rate(s.upstream_rate)}"
    if s.zones > 1:
        text += f", {s.zones} zones 1:{s.oversubscription:g}"
    return text


def print_figures(console: Console, scenario: Scenario, figures: Mapping[str, Any]) -> None:
    console.print(title(scenario), soft_wrap=True)
    console.print()
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("time to the client's last byte")
    table.add_column("s", justify="right")
    table.add_column("over the bound", justify="right")
    for name, seconds, bound_s in times_of(figures):
        table.add_row(name, f"{seconds:.2f}", f"{seconds / bound_s:.3f}")
    console.print(table)
    console.print()
    facts = Table(show_header=False, show_edge=False, pad_edge=False)
    facts.add_column()
    facts.add_column(justify="right")
    for name, value in facts_of(scenario, figures):
        facts.add_row(name, value)
    console.print(facts)
    console.print()
    if not figures["counted"]:
        console.print("No times: no node that lived had anything to fetch and got it.")
    if figures["problem"]:
        console.print(f"[red]not finished: {figures['unfinished']} nodes: {figures['problem']}[/red]", soft_wrap=True)


def times_of(f: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(name, seconds, the bound to hold them against): of the nodes that live and are not made slow; then of those."""
    rows = [(name, f[key], f["bound_s"]) for name, key in ROWS] if f["counted"] else []
    rows.append(("the bound", f["bound_s"], f["bound_s"]))
    if f["stragglers_slowest_s"]:
        rows.append(("slowest of the slow nodes", f["stragglers_slowest_s"], f["stragglers_bound_s"]))
        rows.append(("the slow nodes' bound", f["stragglers_bound_s"], f["stragglers_bound_s"]))
    return rows


def facts_of(s: Scenario, f: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else is to be said of a run, as (name, value)."""
    upload = f["upload_copies"]
    facts = [
        ("upstream copies", f"{f['upstream_copies']:.4f} ({f['upstream_requests']} requests)"),
        ("duplicate bytes", f"{100 * f['duplicate_ratio']:.2f} %"),
        ("refused requests a transfer", f"{f['refused_per_transfer']:.2f}"),
        ("sent by a node, in copies of the image", f"median {upload['p50']:.2f}, most {upload['most']:.2f}"),
        ("nodes that did not end", str(f["unfinished"])),
        ("transfers", f"{f['transfers']} in {f['cpu_s']:.1f} s of CPU"),
    ]
    if s.zones > 1:
        facts.insert(3, ("copies that enter a zone", f"{f['cross_zone_copies']:.2f}"))
    for name, key in (
        ("died", "deaths"), ("came back", "restarts"), ("wrong pieces found", "rejected_pieces"),
        ("layers fetched past p2pd", "bypassed_layers"),
    ):  # fmt: skip
        if f[key]:
            facts.append((name, str(f[key])))
    return facts


def print_grid(console: Console, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each point of a sweep: its worst seed."""
    table = Table(show_edge=False, pad_edge=False)
    for name in names:
        table.add_column(name.removeprefix("settings."), no_wrap=True)
    for heading in ("seeds", "p50", "p99", "slowest", "upstream", "twice", "refused", "zone", "not ended"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(str(row["point"][name]) for name in names), str(row["seeds"]), f"{row['p50_over_bound']:.3f}",
            f"{row['p99_over_bound']:.3f}", f"{row['slowest_over_bound']:.3f}", f"{row['upstream_copies']:.3f}",
            f"{100 * row['duplicate_ratio']:.2f} %", f"{row['refused_per_transfer']:.2f}",
            f"{row['cross_zone_copies']:.2f}", str(row["unfinished"]),
        )  # fmt: skip
    console.print(table)
    console.print(
        "times over the bound; the worst seed of each point; twice: duplicate bytes; zone: copies that enter one"
    )
