"""`make simulate`: the one rollout whose times somebody has published, simulated, beside those.

    python -m simulations.kraken [--nodes N] [--seed N] [--report F]

Kraken's README (https://github.com/uber/kraken): "2600 hosts ... a 3G docker image with 2 layers ... 300MB/s ... P50 at
10s, P99 at 18s, P99.9 at 22s", on a real network. Ours are simulated: see docs/simulator.md for what that hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from simulations.options import command_of, scenario_of
from simulations.output import require_matplotlib, require_place, run_with_progress, write
from simulations.results import figures
from simulations.table import wide_console

PUBLISHED_NODES = 2600
SCENARIO = {"nodes": str(PUBLISHED_NODES), "image": "3GB/2", "link": "300MB/s"}
COLUMNS = (("p50", "p50_s"), ("p99", "p99_s"), ("p99.9", "p999_s"), ("slowest", "slowest_s"))
PUBLISHED = {"p50_s": 10.0, "p99_s": 18.0, "p999_s": 22.0}


def rows_of(result: Mapping[str, Any]) -> list[list[str]]:
    """(who, p50, p99, p99.9, slowest): seconds, then the same over the bound."""
    bound = result["bound_s"]
    rows = []
    for form, divisor in (("{:.1f} s", 1.0), ("{:.2f}", bound)):
        beside = (("Kraken, published", PUBLISHED),) if result["nodes"] == PUBLISHED_NODES else ()
        for who, times in (*beside, ("p2pd, simulated", result)):
            cells = [form.format(times[key] / divisor) if key in times else "-" for _, key in COLUMNS]
            rows.append([who if divisor == 1.0 else f"{who}, over the bound", *cells])
    return rows


@click.command()
@click.option("--nodes", default=SCENARIO["nodes"], show_default=True)
@click.option("--seed", default="1", show_default=True)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML page to look at.")
def main(nodes: str, seed: str, report: Path | None) -> None:
    """Simulate Kraken's published rollout."""
    texts = SCENARIO | {"nodes": nodes, "seed": seed}
    scenario = scenario_of(texts)
    require_place("--report", report)
    if report:
        require_matplotlib("--report")
    console = wide_console()
    world = run_with_progress(scenario, report=report is not None)
    result = figures(world)
    table = Table(title=f"{nodes} hosts, 3 GB in 2 layers, 300 MB/s", title_justify="left")
    table.add_column("")
    for name, _ in COLUMNS:
        table.add_column(name, justify="right")
    for row in rows_of(result):
        table.add_row(*row)
    console.print(table)
    console.print(
        f"The bound is {result['bound_s']:.2f} s; {result['upstream_copies']:.3f} copies from upstream, "
        f"{100 * result['duplicate_ratio']:.2f} % duplicate bytes, "
        f"{result['refused_per_transfer']:.2f} refused requests a transfer, {result['unfinished']} nodes unfinished; "
        f"{result['transfers']} transfers in {result['cpu_s']:.0f} s of CPU."
    )
    console.print(f"again: {command_of(texts)}", soft_wrap=True)
    if report:
        from simulations.report import page

        write(report, page(world, result, command_of(texts)))
        console.print(f"report: {report}", soft_wrap=True)
    if result["unfinished"]:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
