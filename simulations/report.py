"""One run as an HTML page that needs nothing beside itself: figures, tables, and how to run it again."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from p2pd import __version__
from simulations import charts
from simulations.table import facts_of, times_of, title
from simulations.world import World

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; color: #1b2733; max-width: 58rem; margin: 2rem auto; padding: 0 1rem }}
 h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.05rem; margin: 2rem 0 .3rem }}
 p {{ margin: .2rem 0 .6rem; color: #51606f }} svg {{ width: 100%; height: auto }}
 table {{ border-collapse: collapse; margin: .6rem 2rem .6rem 0; display: inline-table; vertical-align: top }}
 td, th {{ padding: .15rem .9rem .15rem 0; text-align: left; font-weight: normal; border-bottom: 1px solid #e3e8ed }}
 td.n {{ text-align: right; font-variant-numeric: tabular-nums }} pre {{ background: #f4f6f8; padding: .7rem;
 overflow-x: auto }} .bad {{ color: #b3261e }}
</style></head><body>
<h1>{title}</h1>
{problem}
{times}{facts}
<h2>How the nodes ended</h2><p>The dashed line is the bound F / B x (1 + floor(log2 N) / M): no way to spread the image
over such lines is faster.</p>{completion}
<h2>Which pieces arrived when</h2><p>Each column is a moment, each row a part of the image; the darker, the more nodes
got it then. The lower edge of the dark band is upstream's stream; rows that stay dark late are pieces that stayed
rare.</p>{heat}
<h2>The lines in use</h2><p>Bytes on the wire over what all uplinks can carry together. Where uplinks send and bytes do
not follow, several of them share one receiver.</p>{lines}
<h2>Where the time went</h2><p>For each node that is not made slow: until its first piece, until 90 % of its pieces, to
the end. The dashed line is the bound.</p>{phases}
<h2>Who sent how much</h2>{uploads}
<h2>To run it again</h2><pre>{command}</pre>
<details><summary>parameters that are not at their defaults (JSON)</summary><pre>{scenario}</pre></details>
<details><summary>figures (JSON)</summary><pre>{figures}</pre></details>
<p>p2pd-sim {version}: the swarm's own code on a model of flows. What that hides stands in docs/simulator.md.</p>
</body></html>
"""


def page(world: World, figures: Mapping[str, Any], command: str) -> str:
    """The whole page. `command` runs the same again."""
    s = world.scenario
    problem = ""
    if figures["problem"]:
        text = f"{figures['unfinished']} nodes did not end: {figures['problem']}"
        problem = f'<p class="bad">{html.escape(text)}</p>'
    times = [(name, f"{seconds:.2f} s", f"{seconds / bound_s:.3f}") for name, seconds, bound_s in times_of(figures)]
    plain = {key: value for key, value in figures.items() if key != "scenario"}
    return PAGE.format(
        title=html.escape(title(s)),
        problem=problem,
        times=_table(times, ("to the client's last byte", "", "over the bound")),
        facts=_table(facts_of(s, figures), ("", "")),
        command=html.escape(command),
        completion=charts.completion(world),
        heat=charts.heat(world),
        lines=charts.lines_in_use(world),
        phases=charts.phases(world),
        uploads=charts.uploads(world),
        scenario=html.escape(json.dumps(figures["scenario"], indent=1)),
        figures=html.escape(json.dumps(plain, indent=1)),
        version=__version__,
    )


def _table(rows: Sequence[tuple[str, ...]], heads: Sequence[str]) -> str:
    body = "<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>" if any(heads) else ""
    for name, *cells in rows:
        body += f"<tr><td>{html.escape(name)}</td>"
        body += "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in cells) + "</tr>"
    return f"<table>{body}</table>"
