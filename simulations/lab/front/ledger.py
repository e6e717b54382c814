"""What the front wrote, to whom, for what: one entry for each request. Thread-safe; does no I/O.

Body bytes are those that `send` accepted, so bytes that a dead client never read are counted: on the registry's side
they have left.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import asdict, dataclass

ENTRIES_MAX = 200_000  # a lab's run has hundreds; more is a storm that a test should have noticed

_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<name>[^/?]+)")


@dataclass(slots=True)
class Entry:
    """One request. Times are seconds of the machine's monotonic clock; `ended` is None while the answer goes out."""

    method: str
    kind: str  # "blob", "manifest" (by digest), "tag", "other"
    name: str  # the digest or tag
    client: str  # "containerd", "p2pd", "skopeo", "other"
    peer: str  # the client's address
    range: str | None
    started: float
    status: int = 0
    body_bytes: int = 0
    ended: float | None = None
    ending: str = ""  # "", "cut", "stalled", "client gone", "registry failed"


class LedgerFull(Exception):
    """More requests than any test should make."""


class Ledger:
    """All entries since the start or the last `reset`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def open(self, method: str, path: str, user_agent: str, peer: str, range_: str | None) -> Entry:
        """A new entry for a request that has just been read."""
        kind, name = classify(path)
        entry = Entry(method, kind, name, client_of(user_agent), peer, range_, time.monotonic())
        with self._lock:
            if len(self._entries) >= ENTRIES_MAX:
                raise LedgerFull(f"more than {ENTRIES_MAX} requests: is something asking in a loop?")
            self._entries.append(entry)
        return entry

    def reset(self) -> None:
        """Forgets all entries; answers under way go on uncounted."""
        with self._lock:
            self._entries = []

    def snapshot(self) -> list[dict[str, object]]:
        """All entries as plain dictionaries, those under way with what has gone out so far."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]


def classify(path: str) -> tuple[str, str]:
    """("blob" | "manifest" | "tag" | "other", digest or tag or path) of a request path."""
    match = _PATH.fullmatch(path.partition("?")[0])
    if match is None:
        return "other", path.partition("?")[0]
    if match["kind"] == "blobs":
        return "blob", match["name"]
    if match["kind"] == "manifests":
        return ("manifest" if ":" in match["name"] else "tag"), match["name"]
    return "other", match["kind"]


def client_of(user_agent: str) -> str:
    """Which program asks, by the start of its User-Agent."""
    for name in ("containerd", "p2pd", "skopeo"):
        if user_agent.lower().startswith(name):
            return name
    return "other"
