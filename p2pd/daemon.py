"""The daemon: the one place where the parts meet, in one nursery, in reading order: build, wire, run, stop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random, SystemRandom

import trio

from p2pd import __version__
from p2pd.admin import ControlError, Metrics, serve_admin, serve_control
from p2pd.config import Address, Config
from p2pd.content.access import Access
from p2pd.content.arrival import text
from p2pd.content.arrivals import Arrivals
from p2pd.content.catalogue import Catalogue
from p2pd.content.images import Images
from p2pd.content.library import Library
from p2pd.content.pulling import Puller
from p2pd.content.readers import Patience
from p2pd.content.tags import Tags
from p2pd.content.verdicts import Verdicts
from p2pd.discovery.mdns import Found, run_mdns
from p2pd.engine import Engine
from p2pd.fleet import FleetError, FleetFiles, Identity, Membership, NodeKey, verify
from p2pd.fleet.keys import KeyFileError
from p2pd.hashing import HashingUnavailable, self_test
from p2pd.mirror import MirrorSettings, serve_mirror
from p2pd.notify import Notifier
from p2pd.oci import normal_host
from p2pd.peers.handshake import FLEET_INSECURE, FLEET_MEMBERS
from p2pd.peers.network import Network
from p2pd.status import Status
from p2pd.store import Store, StoreError
from p2pd.swarm import commands as cmd
from p2pd.swarm import events as ev
from p2pd.swarm.messages import PROTOCOL_VERSION, Contact, Hello
from p2pd.swarm.node import Node
from p2pd.swarm.settings import Settings
from p2pd.swarm.voucher import node_id
from p2pd.upstream import Upstreams

log = logging.getLogger("p2pd")

STOP_GRACE_S = 2.0  # after SIGTERM: what the mirror is sending may end, then FIN
SELF_CHECK_LAG_S = 10.0  # an event loop or a core that is later than this is not healthy


class StartError(Exception):
    """The daemon can't start here. The message says what is in the way."""


@dataclass
class Meter:
    """Counts the peers' bytes, for the metrics and for the blob that they belong to."""

    metrics: Metrics
    arrivals: Arrivals
    zone: str

    def from_peer(self, digest: bytes, count: int, zone: str) -> None:
        self.metrics.received("peer", count)
        arrival = self.arrivals.get(text(digest))
        if arrival:
            arrival.from_peers += count
        if zone != self.zone:
            self.metrics.cross_zone("in", count)

    def to_peer(self, count: int, zone: str) -> None:
        self.metrics.sent("peer", count)
        if zone != self.zone:
            self.metrics.cross_zone("out", count)


@dataclass
class Renewal:
    """What follows when the fleet's files have been read anew."""

    engine: Engine
    network: Network
    tags: Tags
    mdns: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __call__(self, before: Identity, now: Identity) -> None:
        """Connections stay, unless this node is another one now, or a CA that they may rest on is trusted no more."""
        key = now.key
        if before.key.public != key.public:
            me = replace(self.engine.node.state.me, node_id=node_id(key.public))
            log.info("the certificate has another key: this node goes on as %s", me.node_id.hex()[:16])
            self.network.hello = replace(self.network.hello, key=key.public)
            self.tags.renamed(key.public, key.sign)
            self.engine.post(ev.Renamed(me, key.public, key.sign))
            self.network.close_all("this node has a new key")
            self.mdns.cancel()
        elif not now.trusts_all_of(before):
            self.network.close_all("a CA is trusted no more")


def run_daemon(config: Config) -> int:
    """Run a node until SIGTERM or SIGINT; the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpcore", "p2pd.mirror"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    problems: list[BaseException] = []
    try:
        trio.run(_main, config, strict_exception_groups=True)
    except* (StartError, StoreError, KeyFileError, FleetError, HashingUnavailable, ControlError) as group:
        problems = _leaves(group)
    for problem in problems:
        print(f"p2pd: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _leaves(group: BaseExceptionGroup) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _main(config: Config) -> None:
    log.info("p2pd %s; %s", __version__, self_test())
    warnings = list(config.warnings) + _spoken_warnings(config)
    for warning in warnings:
        log.warning("%s", warning)
    metrics = Metrics(__version__)
    membership = membership_of(config)
    store = Store.open(config.node.state_dir / "blobs", config.store.size_limit)
    try:
        # Behind the store's lock: there is one node here.
        key = membership.identity.key if membership else NodeKey.load_or_make(config.node.state_dir)
        async with trio.open_nursery() as nursery:
            await _run_node(config, nursery, metrics, key, membership, store, warnings)
            nursery.cancel_scope.cancel()
    finally:
        _put_away(store)


def membership_of(config: Config) -> Membership | None:
    """What [fleet] names. FleetError if its files can't be used."""
    fleet = config.fleet
    if not (fleet.ca and fleet.certificate and fleet.key):
        return None
    return Membership(FleetFiles(fleet.ca, fleet.certificate, fleet.key))


def _put_away(store: Store) -> None:
    """Record what is checked, as far as the disk lets us."""
    for waiting in store.partials():
        try:
            waiting.flush()
        except StoreError as error:
            log.error("%s: what is checked could not be recorded: %s", waiting.digest, error)
    store.close()


def _spoken_warnings(config: Config) -> list[str]:
    """What the operator must hear at each start."""
    warnings = []
    if config.peers.insecure:
        warnings.append("[peers] insecure = true: peers are neither authenticated nor encrypted. A lab switch.")
    elif config.fleet.ca is None:
        warnings.append(
            "this node has no fleet identity: it mirrors and caches alone, and neither asks nor serves peers "
            "(`p2pd fleet issue` makes one for [fleet]; [peers] insecure = true in a lab)"
        )
    if config.mirror.share_private:
        warnings.append("[mirror] share_private = true: every client of this mirror can read private images")
    return warnings


async def _run_node(
    config: Config,
    nursery: trio.Nursery,
    metrics: Metrics,
    key: NodeKey,
    membership: Membership | None,
    store: Store,
    warnings: list[str],
) -> None:
    """Build the parts, wire them, run until told to stop."""
    random = Random(SystemRandom().random())
    swarming = config.peers.insecure or membership is not None
    fleet = FLEET_MEMBERS if membership else FLEET_INSECURE
    listeners = await _listen(config.peers.listen, "peers") if swarming else []
    port = listeners[0].socket.getsockname()[1] if listeners else 0
    node = _core(config, key, port, random)
    me = node.state.me
    engine = Engine(node)
    upstreams = _upstreams(config, metrics)
    arrivals = Arrivals(store, engine, metrics, nursery)
    puller = Puller(upstreams, arrivals, engine, metrics, nursery)
    catalogue = Catalogue()
    hello = Hello(PROTOCOL_VERSION, key.public, me.name, me.zone, me.host, me.port, fleet)
    network = Network(
        engine.post,
        node.link,
        arrivals,
        Meter(metrics, arrivals, config.node.zone),
        hello,
        nursery,
        contexts=lambda: membership.identity if membership else None,
        on_refused=metrics.handshake_refused,
        upload_limit=config.peers.upload_limit,
        download_limit=config.peers.download_limit,
    )
    verdicts = Verdicts(config.node.state_dir / "evidence", metrics, nursery)
    verdicts.load()
    tags = Tags(
        upstreams,
        config.discovery.tags,
        as_node=config.mirror.share_private,
        key=key.public,
        sign=key.sign,
        verify=verify if swarming else None,
        ask=network.send_to_all,
        answer=network.send,
        key_of=partial(_key_of, node),
    )
    network.on_tag_message = tags.heard
    library = Library(
        store,
        upstreams,
        tags,
        arrivals,
        catalogue,
        engine,
        metrics,
        Patience(config.mirror.hold_back, config.mirror.header_wait, config.mirror.stream == "vouched"),
        random,
        Access(upstreams, tags, private=config.mirror.private, share_private=config.mirror.share_private),
    )
    images = Images(library, arrivals, store)
    status = Status(config, metrics, engine, network, arrivals, store, images, verdicts, warnings, membership)
    token = trio.lowlevel.current_trio_token()
    store.on_evict = lambda digest: token.run_sync_soon(arrivals.evicted, digest)
    arrivals.on_hold = partial(_hold, upstreams)
    arrivals.can_pull = puller.can_pull
    engine.carry_out(
        network.commands() | arrivals.commands() | puller.commands() | verdicts.commands() | _counting(metrics)
    )

    arrivals.load()
    nursery.start_soon(engine.run)
    nursery.start_soon(arrivals.sweep)
    nursery.start_soon(_keep_metrics, status)
    await _start_admin(config, nursery, status)
    renewal = Renewal(engine, network, tags)
    if membership:
        membership.on_change = renewal
        nursery.start_soon(membership.watch)
    if swarming:
        nursery.start_soon(network.serve, listeners)
        _keep_trackers(config, nursery, network)
        if config.discovery.mdns:
            nursery.start_soon(_keep_mdns, config, fleet, status, renewal)
    mirror_scope = await nursery.start(_run_mirror, config, library)
    status.ready = True
    log.info("mirror on %s, peers on %s", config.mirror.listen, f"port {port}" if swarming else "none")
    notifier = Notifier()
    notifier.ready(f"mirror on {config.mirror.listen}")
    nursery.start_soon(_feed_watchdog, notifier, engine)
    gc.collect()
    gc.freeze()  # all that is there now stays: looking through it again and again took a tenth of a fast pull's time

    await _until_told()
    notifier.stopping()
    status.stopping = True
    log.info("stopping")
    mirror_scope.cancel()
    with trio.move_on_after(STOP_GRACE_S):
        await upstreams.aclose()


def _core(config: Config, key: NodeKey, port: int, random: Random) -> Node:
    """The swarm's logic. `port`: where this node's peers reach it, 0 without any."""
    advertise, settings = config.peers.advertise, Settings()
    me = Contact(
        node_id(key.public),
        config.node.name,
        config.node.zone,
        advertise.host if advertise else "",
        advertise.port if advertise else port,
    )
    discovers = bool(port) and (config.discovery.mdns or bool(config.discovery.trackers))
    settles_after_s = settings.settle_s if discovers else 0.0
    now = trio.current_time()
    return Node(me, key.public, key.sign, verify, random, now, settings=settings, settles_after_s=settles_after_s)


def _keep_trackers(config: Config, nursery: trio.Nursery, network: Network) -> None:
    """Keep a connection to each tracker."""
    for place, tracker in enumerate(config.discovery.trackers):
        network.trackers[str(tracker)] = "connecting"
        nursery.start_soon(network.keep_tracker, place, tracker.host, tracker.port)


async def _run_mirror(config: Config, library: Library, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    settings = MirrorSettings(
        default_upstream=normal_host(config.mirror.default_upstream), header_wait=config.mirror.header_wait
    )
    listeners = await _listen(config.mirror.listen, "mirror")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_mirror, listeners, library, settings))
            task_status.started(scope)


async def _start_admin(config: Config, nursery: trio.Nursery, status: Status) -> None:
    listeners = await _listen(config.admin.listen, "admin")
    await nursery.start(partial(serve_admin, listeners, status, names=[config.node.name]))
    try:
        await nursery.start(serve_control, config.node.control, status.control)
    except OSError as error:
        raise StartError(
            f"the control socket {config.node.control} can't be made: {error.strerror}; "
            "see [node] control in the configuration"
        ) from None


async def _keep_mdns(config: Config, fleet: str, status: Status, renewal: Renewal) -> None:
    """For ever: be found, under the id of now."""
    advertise = config.peers.advertise
    host = advertise.host if advertise else config.peers.listen.host
    interfaces = None if host in ("0.0.0.0", "::") else [host]

    def seen(view: tuple[Found, ...]) -> None:
        status.mdns_found = len(view)
        members = tuple(Contact(f.node_id, f.name, f.zone, f.host, f.port) for f in view)
        status.engine.post(ev.Members(members))

    while True:
        me = status.engine.node.state.me
        with trio.CancelScope() as renewal.mdns:
            await run_mdns(Found(me.node_id, host, me.port, me.name, me.zone), interfaces, fleet, seen)


def _upstreams(config: Config, metrics: Metrics) -> Upstreams:
    try:
        return Upstreams(config.upstreams, config.credentials, on_request=metrics.upstream_request)
    except ValueError as error:
        raise StartError(str(error) if str(error).startswith("[") else f"[upstreams] {error}") from None


def _hold(upstreams: Upstreams, upstream: str, seconds: int) -> None:
    """Another node was told by a registry to wait."""
    if upstreams.is_known(upstream):
        upstreams.get(upstream).hold(seconds)


def _key_of(node: Node, number: int) -> bytes | None:
    """The key of a connected node; trackers are none."""
    peer = node.state.peers.get(number)
    return peer.key if peer and peer.tracker < 0 else None


def _counting(metrics: Metrics) -> dict[type, Callable]:
    """The commands that only count and log."""

    def blame(c: cmd.Blame) -> None:
        metrics.piece_rejected(c.reason)
        log.warning("peer %s (%s): %s (%s, piece %d)", c.name, c.node_id.hex()[:16], c.reason, text(c.digest), c.index)

    def count(c: cmd.Count) -> None:
        if c.what == "duplicate":
            metrics.duplicate(c.amount)
        elif c.what == "refused":
            metrics.refused_request()
        elif c.what == "handed on":
            metrics.lease_handed_on()
            log.info("this node sends far more slowly than its peers: one of them is to pull a blob in its place")

    return {cmd.Blame: blame, cmd.Count: count}


async def _keep_metrics(status: Status) -> None:
    while True:
        status.refresh()
        await trio.sleep(1.0)


async def _feed_watchdog(notifier: Notifier, engine: Engine) -> None:
    """Feed systemd's watchdog, after a real look: the loop turns, the core answers, its deadline is kept."""
    interval = notifier.watchdog_interval()
    if interval is None:
        return
    while True:
        began = trio.current_time()
        await trio.sleep(interval / 2)
        is_late = trio.current_time() - began > interval / 2 + SELF_CHECK_LAG_S
        is_stuck = engine.node.deadline < trio.current_time() - SELF_CHECK_LAG_S
        if is_late or is_stuck:
            log.error("the self-check failed: the watchdog is not fed")
            continue
        notifier.watchdog()


async def _until_told() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


async def _listen(address: Address, what: str) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except socket.gaierror as error:
        raise StartError(f"[{what}] listen = {address}: {error.strerror}") from None
    except OSError as error:
        raise StartError(f"[{what}] listen = {address}: {error.strerror}; is another p2pd running?") from None
