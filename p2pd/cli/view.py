"""The daemon's status as text and tables. Pure: a status goes in, something rich can print comes out.

Missing keys are passed over: a daemon of another version may know less or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from p2pd.units import format_rate, format_size

Status = Mapping[str, Any]
ROWS_MAX = 40  # of one table in the live view; the rest is counted


def status_view(status: Status, *, rows_max: int | None = None) -> RenderableType:
    """All of a status: one line for the node, then warnings, trackers, peers and blobs."""
    parts: list[RenderableType] = [
        _node_line(status),
        *_warnings(status),
        *_certificate_lines(status),
        *_directory_lines(status),
    ]
    peers, blobs = _dicts(status, "peers"), _dicts(status, "blobs")
    convicted = _dicts(status, "convicted")
    if convicted:
        parts += ["", _convicted_table(convicted, rows_max)]
    if peers:
        parts += ["", _peers_table(peers, rows_max)]
    if blobs:
        parts += ["", _blobs_table(blobs, rows_max)]
    else:
        parts += ["", "no blobs yet: they come with the first pull through the mirror, or with `p2pd pull IMAGE`"]
    return Group(*parts)


def _node_line(status: Status) -> str:
    node = _dict(status, "node")
    parts = [f"[bold]{_text(node, 'name')}[/]"]
    if node.get("zone"):
        parts.append(f"zone {_text(node, 'zone')}")
    parts.append(f"p2pd {_text(node, 'version')}, up {_duration(_number(node, 'uptime_s'))}")
    store = _dict(status, "store")
    parts.append(f"store {format_size(_number(store, 'used'))} of {format_size(_number(store, 'limit'))}")
    down = sum(_number(peer, "down_bps") for peer in _dicts(status, "peers"))
    up = sum(_number(peer, "up_bps") for peer in _dicts(status, "peers"))
    parts.append(f"peers in {format_rate(down)}, out {format_rate(up)}")
    return " · ".join(parts)


def _warnings(status: Status) -> Iterator[str]:
    warnings = status.get("warnings")
    texts = [str(text) for text in warnings] if isinstance(warnings, list) else []
    if _dict(status, "node").get("insecure") and not any("insecure" in text for text in texts):
        texts.insert(0, "peers are insecure: anyone in the network can join, read and answer")
    for text in texts:
        yield f"[yellow]warning:[/] {escape(text)}"


def _certificate_lines(status: Status) -> Iterator[str]:
    certificate = _dict(status, "certificate")
    if certificate:
        left = _number(certificate, "remaining_s")
        ends = f"ends in {left / 86400:.0f} days" if left > 2 * 86400 else f"ends in {max(0.0, left / 3600):.1f} hours"
        names = certificate.get("authorities")
        trusted = ", ".join(escape(str(name)) for name in names) if isinstance(names, list) else "-"
        yield f"certificate {_text(certificate, 'name')} {ends if left > 0 else 'has ended'}; trusts {trusted}"


def _directory_lines(status: Status) -> Iterator[str]:
    trackers = _dicts(status, "trackers")
    if trackers:
        listed = ", ".join(f"{_text(tracker, 'address')} {_text(tracker, 'state')}" for tracker in trackers)
        yield f"trackers: {listed}"
    mdns = _dict(status, "mdns")
    if mdns.get("enabled"):
        yield f"mDNS: {_number(mdns, 'found'):.0f} nodes found"


def _peers_table(peers: list[Status], rows_max: int | None) -> Table:
    peers = sorted(peers, key=lambda peer: -_number(peer, "down_bps") - _number(peer, "up_bps"))
    table = _table("peer", "address", "zone", ">in", ">out")
    for peer in peers[:rows_max]:
        table.add_row(
            _text(peer, "name") if peer.get("name") else _text(peer, "id")[:12],
            _text(peer, "address"),
            _text(peer, "zone"),
            format_rate(_number(peer, "down_bps")),
            format_rate(_number(peer, "up_bps")),
        )
    return _with_rest(table, len(peers), rows_max)


def _convicted_table(convicted: list[Status], rows_max: int | None) -> Table:
    table = _table("signed a false link", "node", "address", "blob", ">piece", "evidence")
    for entry in convicted[:rows_max]:
        table.add_row(
            _text(entry, "name") if entry.get("name") else "(never met)",
            _text(entry, "node")[:16],
            _text(entry, "address"),
            short_digest(str(entry.get("digest", "?"))),
            f"{_number(entry, 'index'):.0f}",
            _text(entry, "file"),
        )
    return _with_rest(table, len(convicted), rows_max)


_ORDER = {"fetching": 0, "seeding": 1, "idle": 2, "proven": 3}


def _blobs_table(blobs: list[Status], rows_max: int | None) -> Table:
    blobs = sorted(blobs, key=lambda blob: (_ORDER.get(str(blob.get("state")), 9), -_number(blob, "clients")))
    table = _table("blob", ">size", ">present", "state", "seeder", ">from peers", ">from upstream", ">clients")
    for blob in blobs[:rows_max]:
        table.add_row(
            short_digest(str(blob.get("digest", "?"))),
            format_size(_number(blob, "size")),
            _share(blob),
            _text(blob, "state"),
            _text(blob, "seeder")[:12] if blob.get("seeder") else "-",
            format_size(_number(blob, "from_peers")),
            format_size(_number(blob, "from_upstream")),
            f"{_number(blob, 'clients'):.0f}",
        )
    return _with_rest(table, len(blobs), rows_max)


def short_digest(digest: str) -> str:
    """sha256:0123456789ab, long enough to tell blobs apart."""
    return escape(digest[:19])


def _share(blob: Status) -> str:
    pieces, present = _number(blob, "pieces"), _number(blob, "present")
    if blob.get("state") == "proven" or (pieces and present >= pieces):
        return "100 %"
    return f"{100 * present / pieces:.0f} %" if pieces else "-"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _with_rest(table: Table, count: int, rows_max: int | None) -> Table:
    if rows_max is not None and count > rows_max:
        table.add_row(f"and {count - rows_max} more")
    return table


def _dict(status: Status, key: str) -> Status:
    value = status.get(key)
    return value if isinstance(value, dict) else {}


def _dicts(status: Status, key: str) -> list[Status]:
    value = status.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(status: Status, key: str) -> str:
    value = status.get(key)
    return "?" if value is None else escape(str(value))


def _number(status: Status, key: str) -> float:
    value = status.get(key)
    return value if isinstance(value, int | float) else 0


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{seconds:.0f}s"
    hours, days = minutes // 60, minutes // 1440
    if hours < 1:
        return f"{minutes}m"
    return f"{hours}h {minutes % 60}m" if days < 1 else f"{days}d {hours % 24}h"
