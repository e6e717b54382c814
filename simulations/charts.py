"""Figures as SVG: of one run for its report, of a sweep as a file. The only module that needs matplotlib.

Takes what `world` and `records` have counted; computes no figure that the table shows.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.clock import NEVER
from simulations.records import PIECE_BINS
from simulations.world import World

INK, BLUE, ORANGE, GREY = "#1b2733", "#1f6fb2", "#d9732b", "#9aa5b1"
GREEN, RED = "#3a8f5c", "#b3261e"
STYLE: Any = {
    "font.size": 9, "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "path",
    "svg.hashsalt": "p2pd", "figure.autolayout": True,
}  # fmt: skip


def as_svg(figure: Figure) -> str:
    """The figure as an <svg> element; the same for the same data."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float = 7.2, height: float = 2.9) -> tuple[Figure, Axes]:
    with plt.rc_context(STYLE):
        return plt.subplots(figsize=(width, height))


def _shown_s(world: World) -> float:
    """How far time is shown: a tenth beyond the last node that is not made slow. The slow ones would hide the rest."""
    ends = [h.done_at for h in world.hosts if h.done_at < NEVER and not h.is_straggler]
    return 1.1 * (max(ends, default=world.clock.now) - world.started_at)


def completion(world: World) -> str:
    """How many nodes have ended after how many seconds of their own, and the bound."""
    bound = world.scenario.bound_s
    groups = [("", BLUE, [h for h in world.hosts if not h.is_straggler])]
    if len(groups[0][2]) < len(world.hosts):
        groups = [("the others", BLUE, groups[0][2]), ("slow nodes", GREY, [h for h in world.hosts if h.is_straggler])]
    figure, axes = _axes()
    with plt.rc_context(STYLE):
        last = bound
        for label, color, hosts in groups:
            times = sorted(h.done_at - h.started_at for h in hosts if h.done_at < NEVER)
            shares = [100 * (n + 1) / len(hosts) for n in range(len(times))]
            axes.step([0, *times], [0, *shares], where="post", color=color, label=label)
            if color == BLUE:
                last = max([last, *times[-1:]])
        axes.axvline(bound, color=ORANGE, linestyle="--", linewidth=1)
        axes.annotate(f"the bound, {bound:.2f} s ", (bound, 4), color=ORANGE, ha="right")
        axes.set(xlabel="s from the node's own start", ylabel="% of the nodes have the image", ylim=(0, 101))
        axes.set_xlim(0, last * 1.1)
        if len(groups) > 1:
            axes.legend(frameon=False, loc="center left")
        return as_svg(figure)


def heat(world: World) -> str:
    """Which pieces arrived when, over all nodes: a good spread is even from top to bottom at any moment."""
    records = world.records
    grid = [list(column) for column in zip(*records.heat, strict=True)]
    shown = min(PIECE_BINS, world.scenario.pieces)
    step = PIECE_BINS / shown
    rows = [grid[int(place * step)] for place in range(shown)]
    figure, axes = _axes(height=3.2)
    with plt.rc_context(STYLE):
        used = min(len(records.heat), 1 + int(_shown_s(world) / records.interval_s))
        share = 100 / len(world.hosts) * shown / world.scenario.pieces
        rows = [[count * share for count in row[:used]] for row in rows]
        span = records.interval_s * used
        image = axes.imshow(
            rows, aspect="auto", origin="lower", cmap="magma_r", interpolation="nearest",
            extent=(0, span, 0, world.scenario.pieces),
        )  # fmt: skip
        for layer in world.image[1:]:
            axes.axhline(layer.first, color=GREY, linewidth=0.6)
        axes.set(xlabel="s", ylabel="piece of the image")
        figure.colorbar(image, ax=axes, label="% of the nodes get it", pad=0.01)
        return as_svg(figure)


def _smooth(values: Sequence[float], around: int = 2) -> list[float]:
    """Each with its neighbours: moments that were looked at, not means."""
    windows = (values[max(0, place - around) : place + around + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def lines_in_use(world: World) -> str:
    """What of the lines was used over time: the nodes', upstream's, the busiest zone's."""
    rates = world.records.rates
    capacity = sum(host.up.capacity for host in world.hosts)
    curves = [
        ("uplinks that send", GREY, 1, [100 * row[2] for row in rates]),
        ("downlinks that receive", ORANGE, 1, [100 * row[3] for row in rates]),
        ("upstream's line", GREEN, 1, [100 * row[4] for row in rates]),
        ("bytes, of what all uplinks can", BLUE, 1.5, [100 * row[1] / capacity for row in rates]),
    ]
    if world.zone_lines:
        curves.append(("busiest zone's line", RED, 1, [100 * row[5] for row in rates]))
    figure, axes = _axes()
    with plt.rc_context(STYLE):
        seconds = [row[0] for row in rates]
        for label, color, width, values in curves:
            axes.plot(seconds, _smooth(values), color=color, linewidth=width, label=label)
        axes.set(xlabel="s", ylabel="%", ylim=(0, 103), xlim=(0, _shown_s(world)))
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return as_svg(figure)


def phases(world: World) -> str:
    """Where the nodes' time went: to the first piece, to 90 % of the pieces, to the end; quickest node on the left."""
    ended = (h for h in world.hosts if h.ninety_at < NEVER > h.done_at and not h.is_straggler)
    hosts = sorted(ended, key=lambda h: h.done_at - h.started_at)
    figure, axes = _axes()
    with plt.rc_context(STYLE):
        step = max(1, len(hosts) // 200)
        chosen = hosts[::step]
        first = [h.first_at - h.started_at for h in chosen]
        ninety = [h.ninety_at - h.started_at for h in chosen]
        done = [h.done_at - h.started_at for h in chosen]
        places = [100 * n / max(1, len(chosen) - 1) for n in range(len(chosen))]
        axes.fill_between(places, 0, first, color=GREY, linewidth=0, label="to the first piece")
        axes.fill_between(places, first, ninety, color=BLUE, linewidth=0, label="to 90 % of the pieces")
        axes.fill_between(places, ninety, done, color=ORANGE, linewidth=0, label="to the end")
        axes.axhline(world.scenario.bound_s, color=INK, linestyle="--", linewidth=1)
        axes.set(xlabel="nodes, quickest first (%)", ylabel="s", xlim=(0, 100))
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return as_svg(figure)


def uploads(world: World) -> str:
    """What each node sent, in copies of the image: in a fair swarm all send about one."""
    copies = sorted((host.sent / world.scenario.total for host in world.hosts), reverse=True)
    figure, axes = _axes(height=2.4)
    with plt.rc_context(STYLE):
        places = [100 * n / max(1, len(copies) - 1) for n in range(len(copies))]
        axes.fill_between(places, 0, copies, color=BLUE, step="post", linewidth=0)
        axes.set(xlabel="nodes, most generous first (%)", ylabel="copies sent", xlim=(0, 100), ylim=(0, None))
        return as_svg(figure)


def sweep_plot(path: Path, axes_of: Mapping[str, Sequence[str]], points: Sequence[Mapping[str, Any]]) -> None:
    """The slowest node over the bound along the first axis with numbers; one line for each of the other values."""
    across = next((name for name, values in axes_of.items() if all(map(_is_number, values))), next(iter(axes_of)))
    numeric = all(map(_is_number, axes_of[across]))
    lines: dict[str, list[tuple[Any, float]]] = {}
    for point in points:
        others = ", ".join(f"{name} {value}" for name, value in point["point"].items() if name != across)
        value = point["point"][across]
        lines.setdefault(others, []).append((float(value) if numeric else value, point["slowest_over_bound"]))
    figure, axes = _axes(7.2, 4.0)
    with plt.rc_context(STYLE):
        for label, line in lines.items():
            axes.plot([x for x, _ in line], [y for _, y in line], marker="o", markersize=3, linewidth=1, label=label)
        if numeric and min(map(float, axes_of[across])) > 0:
            low, high = (edge(map(float, axes_of[across])) for edge in (min, max))
            if high / low > 20:
                axes.set_xscale("log")
        axes.axhline(1.0, color=ORANGE, linestyle="--", linewidth=1)
        axes.set(xlabel=across, ylabel="slowest node over the bound (worst seed)")
        if any(lines):
            axes.legend(frameon=False, fontsize=7)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
