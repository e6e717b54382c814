"""A fleet with liars in it, and a client at each honest node that does what containerd does.

One upstream, one tracker or none, real daemons; no containerd, whose part is played here: it asks the mirror, goes on
upstream at the byte where the mirror's body broke off, and compares the digest at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from simulations.lab.lab import REGISTRY_NAME
from simulations.lab.netns import Fabric, Link, socket_in
from simulations.lab.nodes import Node, Settings, Tracker
from simulations.lab.registry import Registry
from simulations.lab.upstream import Front
from tests.lab import Image, Warehouse

CLIENT_TIMEOUT_S = 60.0
SETTLED_S = 3.0  # a directory that is new grants nothing, and then draws among all who want a blob
NAMED_WITHIN_S = 15.0  # some lies are told on and on: so long they may take until they are seen for what they are
HEAD_START_S = 0.5  # of a liar that is to be the seeder; and of the honest nodes where no liar is to be
PROVEN_WITHIN_S = 45.0  # after the clients' end: a node goes on for a blob that its client has given up


@dataclass(frozen=True, slots=True)
class Case:
    """One fleet. `liars`: what each liar does, more than one thing with commas."""

    name: str
    liars: tuple[str, ...] = ()
    tracker: str = ""  # the tracker's own lie
    nodes: int = 6
    trackerless: bool = False
    size: int = 12_000_000
    rate: float = 6e6
    hold_back: str = "20s"
    stream: str = "vouched"
    flips_once: bool = False  # upstream itself sends one wrong byte, to whoever asks first
    seeder_lies: bool = False  # then more than one copy may be needed
    costs_copies: bool = False  # a tracker's word on leases is the last: what docs/security.md does not promise
    evidence: bool = False  # whether it leaves any
    says: tuple[str, ...] = ()  # what the honest nodes' logs say of a liar, by name, where it leaves no evidence

    @property
    def finds_by_mdns(self) -> bool:
        """In network namespaces, with mDNS: without a tracker, or beside one that lies; a node has it by default."""
        return self.trackerless or bool(self.tracker)


@dataclass(slots=True)
class Seen:
    """What one honest node's client saw."""

    name: str
    status: int
    from_mirror: int
    is_prefix: bool  # of the true blob
    was_cut: bool
    again: int  # the status of the re-opened request, 0 without one
    right: bool  # what the client has in the end, with what it got from upstream itself
    seconds: float


@dataclass(slots=True)
class Outcome:
    """How a case ended."""

    case: Case
    seen: list[Seen] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)  # honest nodes that do not have the blob
    convicted: dict[str, int] = field(default_factory=dict)  # names, with the number of nodes that hold evidence
    named: dict[str, list[str]] = field(default_factory=dict)  # names in the logs, with what is said of them
    accused_honest: dict[str, list[str]] = field(default_factory=dict)
    barred_honest: list[str] = field(default_factory=list)
    copies: float = 0.0  # that honest nodes took from upstream
    refuted_streams: int = 0
    running: bool = True
    lied: bool = True  # a liar that ended by itself shows nothing
    seconds: float = 0.0

    def is_liar_named(self) -> bool:
        """Whether what the case asks for is said of a liar."""
        liars = {f"liar{number}" for number in range(1, len(self.case.liars) + 1)}
        said = [reason for name in liars for reason in self.named.get(name, [])]
        by_word = not self.case.says or any(words in one for one in said for words in self.case.says)
        return by_word and (not self.case.evidence or bool(liars & set(self.convicted)))


class Fleet:
    """A context manager: everything that it started ends with it."""

    def __init__(self, directory: Path, warehouse: Warehouse, case: Case, image: Image) -> None:
        self.directory, self.case, self.image = directory, case, image
        self._warehouse = warehouse
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Fleet:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self._build()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        case = self.case
        liars = [f"liar{number}" for number in range(1, len(case.liars) + 1)]
        honest = [f"node{number}" for number in range(1, case.nodes - len(liars) + 1)]
        fabric: Mapping = {}
        if case.finds_by_mdns:
            names = ["upstream", *honest, *liars, *(["tracker"] if case.tracker else [])]
            fabric = self._stack.enter_context(Fabric({name: Link() for name in names}))
        member = fabric.get("upstream") if isinstance(fabric, dict) else (fabric["upstream"] if fabric else None)
        prefix = member.prefix if member else ()
        registry = Registry(
            self.directory / "registry",
            self._warehouse.storage,
            namespace=member.namespace if member else None,
            prefix=prefix,
        )
        self._stack.enter_context(registry)
        self.front = Front(
            self.directory / "front",
            registry.address,
            host=member.address if member else "127.0.0.1",
            prefix=prefix,
            rate=case.rate,
        )
        self._stack.enter_context(self.front)
        trackers = []
        if not case.trackerless:
            program = {"program": _hostile(case.tracker, "p2pd-tracker")} if case.tracker else {}
            tracker = Tracker(self.directory, "tracker", member=fabric["tracker"] if fabric else None, **program)
            self._stack.callback(tracker.stop)
            tracker.start()
            trackers = [tracker.address]
            self.tracker = tracker
        settings: Settings = {"mirror": {"hold_back": case.hold_back, "stream": case.stream}}
        self.honest, self.liars = [], []
        for name, lie in zip(honest + liars, [""] * len(honest) + list(case.liars), strict=True):
            node = Node(
                self.directory / name,
                name,
                upstreams={REGISTRY_NAME: self.front.url},
                trackers=trackers,
                member=fabric[name] if fabric else None,
                mdns=case.finds_by_mdns,
                settings=settings,
                **({"program": _hostile(lie, "p2pd")} if lie else {}),
            )
            self._stack.callback(node.stop)
            (self.liars if lie else self.honest).append(node)
        for node in self.liars + self.honest:
            node.start(wait=False)
        for node in self.liars + self.honest:
            node.wait_ready()

    # -- clients ----------------------------------------------------------------------------------------------------

    def _path(self, repository: str) -> str:
        return f"/v2/{repository}/blobs/{self.image.biggest.digest}?ns={REGISTRY_NAME.replace(':', '%3A')}"

    def run(self, repository: str) -> Outcome:
        """Everybody asks for the blob, the liars a moment earlier or later; what came of it."""
        began = time.monotonic()
        outcome = Outcome(self.case)
        time.sleep(SETTLED_S)
        layer = self.image.biggest
        true = layer.path.read_bytes()
        if self.case.flips_once:
            self.front.add_rule(name=layer.digest, flip_at=layer.size // 2, times=1)
        threading.Thread(target=self._liars_ask, args=(repository,), daemon=True).start()
        time.sleep(HEAD_START_S if self.case.seeder_lies else 0)
        with ThreadPoolExecutor(len(self.honest)) as pool:
            outcome.seen = list(pool.map(lambda node: self._pull(node, repository, true), self.honest))
        end = time.monotonic() + PROVEN_WITHIN_S
        waiting = list(self.honest)
        while waiting and time.monotonic() < end:
            waiting = [node for node in waiting if not self._has_proven(node)]
            if waiting:
                time.sleep(0.3)
        time.sleep(1.0)  # accusations that are on their way
        outcome.unproven = [node.name for node in waiting]
        end = time.monotonic() + NAMED_WITHIN_S
        self._judge(outcome)
        while time.monotonic() < end and not outcome.is_liar_named():
            time.sleep(1.0)
            self._judge(outcome)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _liars_ask(self, repository: str) -> None:
        time.sleep(0 if self.case.seeder_lies else HEAD_START_S)
        for liar in self.liars:
            threading.Thread(target=self._ask_in_vain, args=(liar, repository), daemon=True).start()

    def _ask_in_vain(self, liar: Node, repository: str) -> None:
        with contextlib.suppress(OSError):
            liar.mirror(self._path(repository), timeout_s=CLIENT_TIMEOUT_S)

    def _pull(self, node: Node, repository: str, true: bytes) -> Seen:
        """As containerd: the manifest, then the blob; what the mirror does not give comes from upstream."""
        began = time.monotonic()
        ns = REGISTRY_NAME.replace(":", "%3A")
        with contextlib.suppress(OSError):
            node.mirror(f"/v2/{repository}/manifests/latest?ns={ns}", timeout_s=CLIENT_TIMEOUT_S)
        try:
            answer = node.mirror(self._path(repository), timeout_s=CLIENT_TIMEOUT_S)
            status, body, whole = answer.status, answer.body if answer.status == 200 else b"", answer.whole
        except OSError:
            status, body, whole = 0, b"", False
        got, again = body, 0
        was_cut = status == 200 and not (whole and len(body) == len(true))
        if was_cut and body:
            try:
                more = node.mirror(
                    self._path(repository), headers={"Range": f"bytes={len(body)}-"}, timeout_s=CLIENT_TIMEOUT_S
                )
                again, got = more.status, body + (more.body if more.status == 206 else b"")
            except OSError:
                pass
        if len(got) < len(true):
            got += self._from_upstream(node, repository, len(got))
        right = hashlib.sha256(got).digest() == hashlib.sha256(true).digest()
        took = time.monotonic() - began
        return Seen(node.name, status, len(body), true.startswith(body), was_cut, again, right, took)

    def _from_upstream(self, node: Node, repository: str, start: int) -> bytes:
        host, _, port = self.front.address.rpartition(":")
        with socket_in(node.namespace, (host, int(port)), CLIENT_TIMEOUT_S) as connection:
            connection.settimeout(CLIENT_TIMEOUT_S)
            path = f"/v2/{repository}/blobs/{self.image.biggest.digest}"
            fields = [f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: containerd/played", "Connection: close"]
            connection.sendall("\r\n".join([*fields, f"Range: bytes={start}-", "", ""]).encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.read() if answer.status in (200, 206) else b""

    # -- what came of it --------------------------------------------------------------------------------------------

    def _has_proven(self, node: Node) -> bool:
        try:
            blobs = node.status()["blobs"]
        except (OSError, ValueError):
            return False
        return any(b["digest"] == self.image.biggest.digest and b["state"] == "proven" for b in blobs)

    def _judge(self, outcome: Outcome) -> None:
        outcome.convicted, outcome.named, outcome.accused_honest, outcome.barred_honest = {}, {}, {}, []
        outcome.refuted_streams = 0
        honest, liars = {n.name for n in self.honest}, {n.name for n in self.liars}
        layer = self.image.biggest
        outcome.running = all(node.process.running for node in self.honest)
        outcome.lied = all(node.process.running for node in self.liars)
        for node in self.honest if outcome.running else ():
            for entry in node.status()["convicted"]:
                outcome.convicted[entry["name"]] = outcome.convicted.get(entry["name"], 0) + 1
                if entry["name"] in honest and entry["cases"] >= 2:
                    outcome.barred_honest.append(entry["name"])
            outcome.refuted_streams += int(node.metrics().total("p2pd_refuted_streams_total"))
        for node in self.honest:
            for name, reason in _named(node.process.log.read_text(errors="replace")):
                if name in liars | {"tracker"}:
                    outcome.named.setdefault(name, []).append(reason)
                elif name in honest:
                    outcome.accused_honest.setdefault(name, []).append(f"{reason} (says {node.name})")
        if not self.case.trackerless:
            for name in re.findall(r"node (\S+) \(\w+\) floods", self.tracker.process.log.read_text(errors="replace")):
                outcome.named.setdefault(name, []).append("floods")
        own = 0.0  # what a liar pulls for itself, when nobody deals with it any more, is not to be prevented
        for liar in self.liars if not self.case.seeder_lies else ():
            with contextlib.suppress(OSError, ValueError):
                own += liar.metrics().received("upstream")
        outcome.copies = (self.front.traffic().body_bytes(name=layer.digest) - own) / layer.size


def _named(log: str) -> list[tuple[str, str]]:
    """(name, what is said of it) in one node's log."""
    said = re.findall(r"peer (\S+) \(\w+\): (.*) \(sha256:", log)
    return said + [(name, "broke the protocol") for name in re.findall(r"peer (\S+) \(.*\) broke the protocol", log)]


def _hostile(lie: str, program: str) -> list[str]:
    return [sys.executable, "-m", "tests.hostile", lie, program]
