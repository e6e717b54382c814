"""Nodes of the same link find each other by multicast DNS (RFC 6762, RFC 6763): service type _p2pd._tcp.local.

A hint, never needed for a pull, and not authenticated: whoever is in the view must still prove itself when it is
connected to. Not a directory: what nodes have is asked elsewhere. Knows zeroconf, which runs an asyncio loop of its own
in a thread of its own; its callbacks cross over by `TrioToken.run_sync_soon` and only mark a name as due. Imports
nothing of p2pd.

An instance is named by its node id. Its TXT record: id (hex), v (protocol version), zone, fleet, name.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import logging
import math
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ifaddr
import trio
import zeroconf

log = logging.getLogger("p2pd.discovery.mdns")

SERVICE_TYPE = "_p2pd._tcp.local."
PROTOCOL_VERSION = 1
NODE_ID_SIZE = 20  # bytes
VIEW_MAX = 4096  # instances: far above what one link holds; bounds what a flood of names can make us keep
BATCH_MAX = 64  # names looked up at a time
TEXT_MAX = 200  # bytes of a zone or a name; a TXT string has at most 255 with its key (RFC 6763, section 6.1)
RETRY_S = 10.0  # between attempts to open the sockets, and between looks at the machine's addresses
CLOSE_S = 10.0  # for the goodbye, which takes a second or less where nothing hangs
LOOKUP_S_MAX = 3.0  # zeroconf asks several times within it
UNANSWERED_MAX = 2  # lookups in a row without an answer before an instance leaves the view: packets get lost
RETRY_UNANSWERED_S_MAX = 300.0  # between lookups of a name that has stopped answering
TTL_S = 120  # of our records: RFC 6762, section 10, recommends it for records that name a host

# What opening sockets, registering and looking up raise when the network is not as it should be.
_TROUBLE = (OSError, RuntimeError, zeroconf.Error, asyncio.TimeoutError, concurrent.futures.CancelledError)


class _Trouble(Exception):
    """The network, not us; never leaves this module."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A node: its id (20 bytes), where its peers' port is, the name it is shown by, and its zone."""

    node_id: bytes
    host: str
    port: int
    name: str
    zone: str


Send = Callable[[tuple[Found, ...]], None]
Result = TypeVar("Result")
Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface


async def run_mdns(
    me: Found,
    interfaces: list[str] | None,
    fleet: str,
    send: Send,
    *,
    ttl_s: int = TTL_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Announce `me` and watch for the others of `fleet`, until cancelled.

    `interfaces`: names ("eth0") or addresses; None for all. `me.host`: an address, or "0.0.0.0" for those of the
    interfaces. `send` is called in this task with the whole view, without `me`, whenever it has changed. Trouble with
    the network is logged once and tried again every 10 s; nothing of it is raised. Started at once, before anything was
    sent. `ttl_s`: how long others may remember our records; a killed node leaves a view within about twice that.
    """
    view = _View(_instance(me.node_id), recheck_s=ttl_s / 2)
    session = _Session(me, interfaces, fleet, ttl_s, view, send)
    task_status.started()
    said: str | None = None
    while True:
        try:
            await session.run()
            said = None  # the machine's addresses changed: open anew at once
        except _Trouble as trouble:
            level = logging.DEBUG if str(trouble) == said and not session.opened else logging.WARNING
            log.log(level, "mDNS does not work now, and is tried again every %.0f s: %s", RETRY_S, trouble)
            said = str(trouble)
            await trio.sleep(RETRY_S)


@dataclass(slots=True)
class _Entry:
    """What is known of one instance: looked up again at `due` (trio's clock)."""

    due: float
    found: Found | None = None
    unanswered: int = 0


@dataclass
class _View:
    """Which instances there are. Pure: `now` is an argument.

    zeroconf keeps an instance's name for at least 1125 s, whatever its sender says; so a node that was killed is
    noticed by its other records: each instance is looked up again, and one that stays without an answer leaves.
    """

    own: str
    recheck_s: float
    entries: dict[str, _Entry] = field(default_factory=dict)
    overflowed: bool = False

    def heard(self, name: str, gone: bool, now: float) -> None:
        """zeroconf says that `name` came, changed or left."""
        if gone:
            self.entries.pop(name, None)
        elif name == self.own:
            return
        elif name in self.entries:
            self.entries[name].due = now
        elif len(self.entries) < VIEW_MAX:
            self.entries[name] = _Entry(now)
        elif not self.overflowed:
            self.overflowed = True
            log.warning("mDNS names more than %d instances of %s: further ones are ignored", VIEW_MAX, SERVICE_TYPE)

    def all_due(self, now: float) -> None:
        """A new session knows nothing: ask for each instance again."""
        for entry in self.entries.values():
            entry.due = now

    def due(self, now: float) -> list[str]:
        """The names to look up now; a part of them if there are many."""
        return [name for name, entry in self.entries.items() if entry.due <= now][:BATCH_MAX]

    def deadline(self) -> float:
        """When the next name is due."""
        return min((entry.due for entry in self.entries.values()), default=math.inf)

    def answered(self, name: str, found: Found, now: float) -> None:
        if name in self.entries:
            self.entries[name] = _Entry(now + self.recheck_s, found)

    def unanswered(self, name: str, now: float) -> None:
        entry = self.entries.get(name)
        if entry is None:
            return
        entry.unanswered += 1
        if entry.unanswered >= UNANSWERED_MAX:
            entry.found = None
        wait = 1.0 if entry.found else RETRY_S * 2 ** min(entry.unanswered - 1, 10)
        entry.due = now + min(wait, RETRY_UNANSWERED_S_MAX)

    def refused(self, name: str) -> None:
        """It is of another fleet, or malformed: forgotten until it is heard of again."""
        self.entries.pop(name, None)

    def nodes(self) -> tuple[Found, ...]:
        return tuple(sorted(entry.found for entry in self.entries.values() if entry.found))


class _Session:
    """One set of sockets after the other, on the addresses that the machine has; the view outlives them."""

    def __init__(
        self, me: Found, interfaces: list[str] | None, fleet: str, ttl_s: int, view: _View, send: Send
    ) -> None:
        self._me = me
        self._interfaces = interfaces
        self._fleet = fleet
        self._ttl_s = ttl_s
        self._view = view
        self._send = send
        self.opened = False  # the last `run` had got as far as that
        self._sent: tuple[Found, ...] = ()
        self._wake = trio.Event()

    async def run(self) -> None:
        """Until the machine's addresses change. _Trouble if the network does not work."""
        self.opened = False
        networks = await _in_thread(local_networks, self._interfaces)
        service = await _in_thread(self._service, networks)
        zc = await _in_thread(_open, networks)
        self.opened = True
        try:
            self._view.all_due(trio.current_time())
            token = trio.lowlevel.current_trio_token()
            await _in_thread(self._browse, zc, token)
            with _trouble_alone():
                async with trio.open_nursery() as nursery:
                    # Takes a second and more, and can't be cancelled: others are found meanwhile.
                    nursery.start_soon(_in_thread, _register, zc, service)
                    nursery.start_soon(self._keep_view, zc, networks)
                    await self._until_addresses_change(networks)
                    nursery.cancel_scope.cancel()
        finally:
            # Says goodbye, so that the others need not wait for the end of our records. It waits for zeroconf's own
            # threads, without a limit: the node's end must not hang on that.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S), contextlib.suppress(_Trouble):
                await _in_thread(zc.close, abandon_on_cancel=True)

    async def _until_addresses_change(self, networks: list[Network]) -> None:
        while True:
            await trio.sleep(RETRY_S)
            if await _in_thread(local_networks, self._interfaces) != networks:
                log.info("this machine's addresses changed: mDNS starts anew")
                return

    def _service(self, networks: list[Network]) -> zeroconf.ServiceInfo:
        me = self._me
        return zeroconf.ServiceInfo(
            SERVICE_TYPE,
            _instance(me.node_id),
            port=me.port,
            properties={
                "id": me.node_id.hex(),
                "v": str(PROTOCOL_VERSION),
                "zone": _short(me.zone),
                "fleet": self._fleet,
                "name": _short(me.name),
            },
            # Its own name for the addresses too: the host's own <hostname>.local. may be another responder's.
            server=f"p2pd-{me.node_id.hex()}.local.",
            parsed_addresses=_addresses_of(me.host, networks),
            host_ttl=self._ttl_s,
            other_ttl=self._ttl_s,
        )

    def _browse(self, zc: zeroconf.Zeroconf, token: trio.lowlevel.TrioToken) -> None:
        def on_change(*, name: str, state_change: zeroconf.ServiceStateChange, **_: object) -> None:
            gone = state_change is zeroconf.ServiceStateChange.Removed
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._heard, name, gone, idempotent=True)

        zeroconf.ServiceBrowser(zc, SERVICE_TYPE, handlers=[on_change])

    def _heard(self, name: str, gone: bool) -> None:
        self._view.heard(name, gone, trio.current_time())
        self._wake.set()

    async def _keep_view(self, zc: zeroconf.Zeroconf, networks: list[Network]) -> None:
        while True:
            self._wake = trio.Event()
            names = self._view.due(trio.current_time())
            if names:
                answers = await _in_thread(_look_up, zc, names, abandon_on_cancel=True)
                self._take_in(answers, networks)
            nodes = self._view.nodes()
            if nodes != self._sent:
                self._sent = nodes
                self._send(nodes)
            with trio.move_on_at(self._view.deadline()):
                await self._wake.wait()

    def _take_in(self, answers: dict[str, zeroconf.ServiceInfo | None], networks: list[Network]) -> None:
        now = trio.current_time()
        for name, info in answers.items():
            if info is None:
                self._view.unanswered(name, now)
                continue
            found = read_service(info, self._fleet, networks)
            if found is None:
                self._view.refused(name)
            else:
                self._view.answered(name, found, now)


def read_service(info: zeroconf.ServiceInfo, fleet: str, networks: Iterable[Network]) -> Found | None:
    """The node that an instance's records describe; None if it is another fleet's, or malformed in any way."""
    text = {key: value or b"" for key, value in info.properties.items()}
    if text.get(b"fleet") != fleet.encode() or text.get(b"v") != str(PROTOCOL_VERSION).encode():
        log.debug("mDNS: %s is of another fleet or protocol version", info.name)
        return None
    try:
        node_id = bytes.fromhex(text[b"id"].decode("ascii"))
        zone, name = text.get(b"zone", b"").decode(), text.get(b"name", b"").decode()
    except (KeyError, ValueError):
        log.debug("mDNS: %s has no readable TXT record", info.name)
        return None
    host = nearest(info.parsed_scoped_addresses(), networks)
    if (
        len(node_id) != NODE_ID_SIZE
        or info.name.lower() != _instance(node_id)
        or host is None
        or not info.port
        or not all(part.isprintable() and len(part.encode()) <= TEXT_MAX for part in (zone, name))
    ):
        log.debug("mDNS: %s is malformed", info.name)
        return None
    return Found(node_id, host, info.port, name, zone)


def nearest(addresses: Iterable[str], networks: Iterable[Network]) -> str | None:
    """The address to try: one on a network that we are on, rather than any other, rather than one of our own.

    Many machines have the same address on a bridge of their own (172.17.0.1 with Docker): ours would lead to ourselves.
    """
    own = list(networks)

    def distance(text: str) -> int:
        address = ipaddress.ip_address(text.partition("%")[0])
        if any(address == network.ip for network in own):
            return 2
        return 0 if any(address in network.network for network in own) else 1

    return min(addresses, key=distance, default=None)


def local_networks(interfaces: list[str] | None) -> list[Network]:
    """This machine's addresses on `interfaces` (names or addresses; None for all), each with its network.

    IPv4; IPv6 also where there is no IPv4 but loopback, or where an IPv6 address is asked for. OSError if none.
    """
    found: set[Network] = set()
    asked_v6 = False
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            if interfaces is None or adapter.name in interfaces or text in interfaces:
                found.add(ipaddress.ip_interface(f"{text}/{ip.network_prefix}"))
                asked_v6 = asked_v6 or (ip.is_IPv6 and interfaces is not None and text in interfaces)
    if any(one.version == 4 and not one.ip.is_loopback for one in found) and not asked_v6:
        found = {one for one in found if one.version == 4}
    if not found:
        raise OSError(f"no address on {', '.join(interfaces) if interfaces else 'any interface'}")
    return sorted(found, key=lambda one: (one.version, one))


def _instance(node_id: bytes) -> str:
    return f"{node_id.hex()}.{SERVICE_TYPE}"


def _short(text: str) -> str:
    return text.encode()[:TEXT_MAX].decode(errors="ignore")


def _addresses_of(host: str, networks: list[Network]) -> list[str]:
    """What to announce for `host`: itself, what it resolves to, or the interfaces' addresses if it is unspecified."""
    if host and not _is_unspecified(host):
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    own = [str(one.ip) for one in networks]
    return [text for text in own if not ipaddress.ip_address(text).is_loopback] or own


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _open(networks: list[Network]) -> zeroconf.Zeroconf:
    interfaces: list[Any] = [str(one.ip) for one in networks]
    return zeroconf.Zeroconf(interfaces=interfaces, use_asyncio=False)


def _register(zc: zeroconf.Zeroconf, service: zeroconf.ServiceInfo) -> None:
    # No probing for the name (RFC 6762, section 8.1): it is a key's hash, and nobody else's.
    zc.register_service(service, cooperating_responders=True)


def _look_up(zc: zeroconf.Zeroconf, names: list[str]) -> dict[str, zeroconf.ServiceInfo | None]:
    """Ask for all `names` at once; blocks for up to LOOKUP_S_MAX. What is known is answered without a packet."""
    loop = zc.loop
    assert loop is not None
    asked = {
        name: asyncio.run_coroutine_threadsafe(
            zc.async_get_service_info(SERVICE_TYPE, name, timeout=int(LOOKUP_S_MAX * 1000)), loop
        )
        for name in names
    }
    answers: dict[str, zeroconf.ServiceInfo | None] = {}
    for name, future in asked.items():
        try:
            answers[name] = future.result(timeout=2 * LOOKUP_S_MAX)
        except zeroconf.BadTypeInNameException:
            answers[name] = None  # a name that the type's grammar does not allow
    return answers


async def _in_thread(function: Callable[..., Result], *arguments: Any, abandon_on_cancel: bool = False) -> Result:
    """The border to zeroconf and the sockets: what blocks is called here; what the network does becomes _Trouble."""
    try:
        return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=abandon_on_cancel)
    except _TROUBLE as error:
        raise _Trouble(f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _trouble_alone() -> Iterator[None]:
    """trio wraps what a nursery's tasks raise in a group: trouble comes out of it by itself, a bug stays as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        trouble, rest = group.split(_Trouble)
        if rest is not None:
            raise rest from None  # a bug, or the end: then the network does not matter
        assert trouble is not None
        raise _Trouble("; ".join(str(error) for error in trouble.exceptions)) from group
