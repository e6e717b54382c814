"""What is simulated: one frozen Scenario, checked as a whole. Sizes in bytes, rates in bytes/s, times in seconds.

Not the reading of options and files: that is `reading`. Every impossible value is a ScenarioError that names the
parameter and what is allowed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from p2pd.swarm.pieces import BLOB_SIZE_MAX, Geometry
from p2pd.swarm.settings import Settings

KIB, MIB = 1024, 1024 * 1024
NODES_MAX = 20_000  # what one directory takes, and about 20 GB of memory here
LAYERS_MAX = 512  # as many as a node keeps in mind; real images have up to 127
FOREVER = float("inf")


# What a liar may do: `simulations.liars` has one class for each.
LIES = (
    "flips", "forges-run", "forges-seed", "has-all", "sits", "replays", "accuses", "floods", "directory-fails",
    "directory-sits",
)  # fmt: skip


class ScenarioError(ValueError):
    """A parameter that can't be. `where` names it."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


@dataclass(frozen=True, slots=True)
class Share:
    """Some of the nodes, and how bad it is with them: "10%:0.1"."""

    share: float
    amount: float
    which: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in seconds after the start; `share` of the nodes where that matters."""

    start: float
    end: float = FOREVER
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One rollout. The defaults are a calm one in a data hall."""

    nodes: int = 100
    image: tuple[int, ...] = (1_500_000_000, 1_500_000_000)
    # the network
    link: float = 300e6
    up: float = 0.0  # 0: as `link`
    down: float = 0.0
    upstream: float = 0.0  # the registry's whole line; 0: as `link`
    upstream_delay: float = 0.02  # until a request's first byte
    latency: float = 0.0005  # one way, the nodes' event loops included
    zones: int = 1
    oversubscription: float = 1.0  # of a zone's uplink: its nodes' lines over its own
    zone_latency: float = 0.0  # more than `latency`, between zones
    send_buffer: float = 256 * KIB  # of the sender's kernel, for each connection
    slow_start: bool = False
    unfair: float = 0.0  # how unequally flows share a line: the deviation of the logarithm of what each takes
    # the nodes
    check_rate: float = 800e6  # hash and write; 0: costs nothing
    piece_cost: float = 0.0003  # for each piece, beside its bytes
    reader: bool = True  # a client that reads each layer in order
    concurrent: int = 3  # layers that a client asks for at a time; the rest is prefetch
    hold_back: float = 5.0  # after which a reader is shown what is not yet proven
    settings: tuple[tuple[str, Any], ...] = ()  # of the swarm's policy, by their names
    trackers: int = 1
    # conditions
    arrival: float = 0.0  # the nodes' starts are spread over so long
    cached: Share | None = None  # share of the nodes : layers that they have already
    stragglers: Share | None = None  # share : their links over the others' : both, up or down
    deaths: float = 0.0
    silent: bool = False  # the dead do not even close their connections
    restarts: float = 0.0  # share of the dead that come back
    restart_after: float = 3.0
    seeder_death: float = 0.0  # the first layer's seeder dies when it has pulled so much of it; 0: never
    tracker_loss: Span | None = None
    partition: Span | None = None
    lossy: Share | None = None  # share of the nodes : mean seconds until one of its connections breaks
    lying: Share | None = None  # share of the nodes : share of their pieces that are wrong
    liars: tuple[str, ...] = ()  # a node each: what it does, by the names in `liars.LIES`
    upstream_failure: Span | None = None
    upstream_reason: str = "unreachable"
    # the run
    seed: int = 1
    check: bool = False  # all checkers after every event
    heal_after: float = 0.0  # when faults end; 0: by themselves, when they have happened
    seconds_most: float = 0.0  # 0: a generous multiple of the bound
    events_most: int = 0  # 0: in proportion to the transfers

    def __post_init__(self) -> None:
        check(self)

    # -- what follows from it ---------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """The image's bytes."""
        return sum(self.image)

    @property
    def pieces(self) -> int:
        return sum(Geometry.of(size).count for size in self.image)

    @property
    def uplink(self) -> float:
        return self.up or self.link

    @property
    def downlink(self) -> float:
        return self.down or self.link

    @property
    def upstream_rate(self) -> float:
        return self.upstream or self.link

    @property
    def bound_s(self) -> float:
        """F / B x (1 + floor(log2 N) / M) for N equal nodes, or F over upstream's rate where that is slower."""
        rate = min(self.uplink, self.downlink)
        spread = self.total / rate * (1 + (self.nodes.bit_length() - 1) / self.pieces)
        return max(spread, self.total / self.upstream_rate)

    @property
    def stragglers_bound_s(self) -> float:
        """What a slow node's own line down takes at least; `bound_s` where that is more."""
        if not self.stragglers or self.stragglers.which == "up":
            return self.bound_s
        return max(self.bound_s, self.total / (self.downlink * self.stragglers.amount))

    @property
    def policy(self) -> Settings:
        return Settings(**dict(self.settings))

    @property
    def limit_s(self) -> float:
        if self.seconds_most:
            return self.seconds_most
        worst = min(1.0, self.stragglers.amount) if self.stragglers else 1.0
        return 300 + self.arrival + self.heal_after + 20 * self.bound_s * self.oversubscription / worst

    @property
    def limit_events(self) -> int:
        return self.events_most or 2_000_000 + 400 * self.nodes * self.pieces

    def but(self, **changes: Any) -> Scenario:
        """The same with other values. ScenarioError."""
        return dataclasses.replace(self, **changes)


FAILURES = ("unreachable", "limited", "denied", "missing", "bad-answer")


def check(s: Scenario) -> None:
    """ScenarioError for the first parameter that can't be."""
    _within("nodes", s.nodes, 1, NODES_MAX)
    if not s.image:
        raise ScenarioError("image", "no layer: at least one size, as in 3GB/2")
    _within("image (layers)", len(s.image), 1, LAYERS_MAX)
    for size in s.image:
        _within("image (a layer's bytes)", size, 1, BLOB_SIZE_MAX)
    for name in ("link", "upstream", "up", "down"):
        least = 1.0
        value = getattr(s, name)
        if (name == "link" or value) and not least <= value < FOREVER:
            raise ScenarioError(name, f"{value:g} bytes/s; allowed: a rate above 0, as in 300MB/s or 25Mbit")
    for name, low, high in (
        ("upstream_delay", 0, 60), ("latency", 0, 10), ("zone_latency", 0, 10), ("send_buffer", 0, 1 << 30),
        ("unfair", 0, 2),
        ("check_rate", 0, 1e15), ("piece_cost", 0, 10), ("hold_back", 0, 3600), ("arrival", 0, 86400),
        ("restart_after", 0, 86400), ("heal_after", 0, 86400), ("seconds_most", 0, 1e7), ("oversubscription", 1, 1e6),
        ("events_most", 0, 1e12), ("trackers", 0, 8), ("concurrent", 1, LAYERS_MAX), ("seed", 0, 1 << 62),
    ):  # fmt: skip
        _within(name, getattr(s, name), low, high)
    _within("zones", s.zones, 1, s.nodes)
    for name in ("deaths", "restarts", "seeder_death"):
        _share(name, getattr(s, name))
    if s.deaths >= 1:
        raise ScenarioError("deaths", "100 % of the nodes: nobody is left; allowed: below 100%")
    _check_shares(s)
    for lie in s.liars:
        if lie not in LIES:
            raise ScenarioError("liars", f"{lie!r}; allowed: {', '.join(LIES)}")
    if s.liars and len(s.liars) >= s.nodes:
        raise ScenarioError("liars", f"{len(s.liars)} of {s.nodes} nodes: nobody honest is left")
    for name in ("tracker_loss", "partition", "upstream_failure"):
        span = getattr(s, name)
        if span and not 0 <= span.start < span.end:
            raise ScenarioError(name, f"from {span.start:g} to {span.end:g} s; allowed: an end after its start")
        if span:
            _share(name, span.share)
    if s.partition and s.partition.end == FOREVER:
        raise ScenarioError("partition", "it never ends, so its nodes can't either; allowed: start:end, as in 2:6")
    if s.upstream_failure and s.upstream_failure.end == FOREVER:
        raise ScenarioError("upstream_failure", "it never ends, so no node can; allowed: start:end, as in 1:4")
    if s.upstream_reason not in FAILURES:
        raise ScenarioError("upstream_reason", f"{s.upstream_reason!r}; allowed: {', '.join(FAILURES)}")
    if s.trackers == 0 and s.nodes > 256:
        raise ScenarioError("trackers", "0, which is mDNS on one segment: at most 256 nodes; allowed: 1 to 8")
    _check_settings(s)


def _check_shares(s: Scenario) -> None:
    if s.stragglers:
        _share("stragglers", s.stragglers.share)
        if s.stragglers.share >= 1:
            raise ScenarioError("stragglers", "100 % of the nodes; allowed: below 100%, or a lower --link for all")
        if not 0 < s.stragglers.amount <= 1:
            raise ScenarioError("stragglers", f"factor {s.stragglers.amount:g}; allowed: above 0 and at most 1")
        if s.stragglers.which not in ("", "both", "up", "down"):
            raise ScenarioError("stragglers", f"{s.stragglers.which!r}; allowed: both, up or down")
    if s.cached:
        _share("cached", s.cached.share)
        _within("cached (layers)", s.cached.amount, 0, len(s.image))
    if s.lossy:
        _share("lossy", s.lossy.share)
        _within("lossy (seconds between breaks)", s.lossy.amount, 0.05, 86400)
    if s.lying:
        _share("lying", s.lying.share)
        _share("lying (share of pieces)", s.lying.amount)


def _check_settings(s: Scenario) -> None:
    known = {f.name: f for f in dataclasses.fields(Settings)}
    for name, value in s.settings:
        if name not in known:
            raise ScenarioError(f"settings.{name}", unknown(name, known))
        kind = float if known[name].type in (float, "float") else int
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind is int and value != int(value)):
            raise ScenarioError(
                f"settings.{name}", f"{value!r}; allowed: {'a number' if kind is float else 'a whole number'}"
            )
        _within(f"settings.{name}", value, 0, 1 << 40)


def unknown(word: str, known: Any) -> str:
    """What is wrong with a name that nobody knows."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
    return f"no such parameter{hint}"


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ScenarioError(name, f"{value:g}; allowed: {low:g} to {high:g}")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ScenarioError(name, f"{100 * value:g} %; allowed: 0% to 100%")
