"""mDNS: the view by itself, what is believed of a record, and real nodes in network namespaces."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import zeroconf

from p2pd.discovery import mdns
from p2pd.discovery.mdns import Found, local_networks, nearest, read_service, run_mdns

NETWORKS = [ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("172.17.0.1/16")]


def node(number: int, host: str = "10.0.0.9") -> Found:
    return Found(bytes([number]) * 20, host, 9000 + number, f"node {number}", "rack 7")


def name_of(found: Found) -> str:
    return f"{found.node_id.hex()}.{mdns.SERVICE_TYPE}"


def service(found: Found, fleet: str = "f", **changes: object) -> zeroconf.ServiceInfo:
    """What `found` announces, with `changes` to its TXT record, its name or its port."""
    text: dict[str, object] = {"id": found.node_id.hex(), "v": "1", "zone": found.zone, "fleet": fleet}
    text["name"] = found.name
    name, port = changes.pop("instance", name_of(found)), changes.pop("port", found.port)
    text |= changes
    info = zeroconf.ServiceInfo(
        mdns.SERVICE_TYPE,
        str(name),
        port=port,  # type: ignore[arg-type]
        properties={key: value for key, value in text.items() if value is not None},
        parsed_addresses=[found.host],
        server="x.local.",
    )
    return info


class TestView:
    def view(self) -> mdns._View:
        return mdns._View(name_of(node(0)), recheck_s=60)

    def test_heard_then_answered_then_checked_again(self) -> None:
        view, name = self.view(), name_of(node(1))
        view.heard(name, False, 5.0)
        assert (view.due(5.0), view.nodes()) == ([name], ())
        view.answered(name, node(1), 6.0)
        assert (view.due(65.9), view.nodes(), view.deadline()) == ([], (node(1),), 66.0)
        assert view.due(66.0) == [name]

    def test_goodbye(self) -> None:
        view, name = self.view(), name_of(node(1))
        view.heard(name, False, 0.0)
        view.answered(name, node(1), 0.0)
        view.heard(name, True, 1.0)
        assert (view.nodes(), view.deadline()) == ((), math.inf)
        view.answered(name, node(1), 2.0)  # a lookup that was under way
        assert view.nodes() == ()

    def test_one_lost_answer_is_forgiven_two_are_not(self) -> None:
        view, name = self.view(), name_of(node(1))
        view.heard(name, False, 0.0)
        view.answered(name, node(1), 0.0)
        view.unanswered(name, 60.0)
        assert (view.nodes(), view.deadline()) == ((node(1),), 61.0)
        view.unanswered(name, 64.0)
        assert (view.nodes(), view.deadline()) == ((), 84.0)
        for _ in range(20):
            view.unanswered(name, 100.0)
        assert view.deadline() == 100.0 + mdns.RETRY_UNANSWERED_S_MAX
        view.heard(name, False, 110.0)
        view.answered(name, node(1), 110.0)
        assert view.nodes() == (node(1),)

    def test_oneself_is_not_in_it(self) -> None:
        view = self.view()
        view.heard(name_of(node(0)), False, 0.0)
        assert view.due(0.0) == []

    def test_it_is_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        view = self.view()
        for number in range(mdns.VIEW_MAX + 10):
            view.heard(f"{number}.{mdns.SERVICE_TYPE}", False, 0.0)
        assert len(view.entries) == mdns.VIEW_MAX
        assert len(view.due(0.0)) == mdns.BATCH_MAX
        assert len(caplog.records) == 1
        view.refused(f"0.{mdns.SERVICE_TYPE}")
        view.heard(name_of(node(1)), False, 0.0)
        assert name_of(node(1)) in view.entries

    def test_a_new_session_asks_for_all_again(self) -> None:
        view = self.view()
        for number in (1, 2):
            view.heard(name_of(node(number)), False, 0.0)
            view.answered(name_of(node(number)), node(number), 0.0)
        view.all_due(10.0)
        assert view.due(10.0) == [name_of(node(1)), name_of(node(2))]
        assert view.nodes() == (node(1), node(2))


def test_a_record_is_read() -> None:
    assert read_service(service(node(1)), "f", NETWORKS) == node(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"fleet": "other"},
        {"fleet": None},
        {"v": "2"},
        {"v": None},
        {"id": None},
        {"id": "zz"},
        {"id": b"\xff\xfe"},
        {"id": "02" * 20},  # another instance's id
        {"id": "01" * 19, "instance": f"{'01' * 19}.{mdns.SERVICE_TYPE}"},
        {"instance": f"somebody.{mdns.SERVICE_TYPE}"},
        {"port": 0},
        {"zone": b"\xff"},
        {"zone": "rack\n7"},
        {"name": "\x1b[2J"},
        {"name": "n" * 201},
    ],
)
def test_a_record_that_is_not_believed(changes: dict[str, object]) -> None:
    assert read_service(service(node(1), **changes), "f", NETWORKS) is None


def test_a_record_without_addresses() -> None:
    info = service(node(1))
    info.addresses = []
    assert read_service(info, "f", NETWORKS) is None


@pytest.mark.parametrize(
    ("addresses", "best"),
    [
        (["172.17.0.1", "192.168.1.5", "10.0.0.7"], "10.0.0.7"),
        (["172.17.0.1", "192.168.1.5"], "192.168.1.5"),
        (["172.17.0.1"], "172.17.0.1"),
        (["fe80::1%3", "10.0.0.7"], "10.0.0.7"),
        ([], None),
    ],
)
def test_the_nearest_address(addresses: list[str], best: str | None) -> None:
    assert nearest(addresses, NETWORKS) == best


def test_local_networks() -> None:
    assert ipaddress.ip_interface("127.0.0.1/8") in local_networks(["lo"])
    assert local_networks(["127.0.0.1"]) == [ipaddress.ip_interface("127.0.0.1/8")]
    assert set(local_networks(["127.0.0.1"])) <= set(local_networks(None))
    with pytest.raises(OSError, match="nothing0"):
        local_networks(["nothing0"])


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_an_unspecified_host_becomes_the_interfaces_addresses(host: str) -> None:
    loopback = ipaddress.ip_interface("127.0.0.1/8")
    assert mdns._addresses_of(host, [*NETWORKS, loopback]) == ["10.0.0.1", "172.17.0.1"]
    assert mdns._addresses_of(host, [loopback]) == ["127.0.0.1"]
    assert mdns._addresses_of("10.9.9.9", [loopback]) == ["10.9.9.9"]


async def test_trouble_is_logged_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mdns, "RETRY_S", 0.01)
    attempts: list[object] = []
    enough = trio.Event()
    token = trio.lowlevel.current_trio_token()
    real = mdns.local_networks

    def counted(interfaces: list[str] | None) -> object:
        attempts.append(interfaces)
        if len(attempts) == 4:
            token.run_sync_soon(enough.set)
        return real(interfaces)

    monkeypatch.setattr(mdns, "local_networks", counted)
    with caplog.at_level(logging.INFO), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: run_mdns(node(0), ["nothing0"], "f", print, task_status=task_status)
            )
            await enough.wait()
            nursery.cancel_scope.cancel()
    assert [record.message for record in caplog.records if "nothing0" in record.message] == [
        "mDNS does not work now, and is tried again every 0 s: OSError: no address on nothing0"
    ]


async def test_a_bug_in_send_is_not_taken_for_the_network() -> None:
    def broken(view: tuple[Found, ...]) -> None:
        raise OSError("a bug of ours")

    with trio.fail_after(20), pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_mdns(node(1, "127.0.0.1"), ["lo"], "bug", broken))
            nursery.start_soon(lambda: run_mdns(node(2, "127.0.0.1"), ["lo"], "bug", lambda view: None))
    assert caught.group_contains(OSError, match="a bug of ours")


async def test_the_nodes_end_does_not_hang_on_the_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "CLOSE_S", 0.1)
    goes_on, closed = threading.Event(), threading.Event()
    real = zeroconf.Zeroconf.close

    def hangs(zc: zeroconf.Zeroconf) -> None:
        goes_on.wait(60)
        real(zc)
        closed.set()

    monkeypatch.setattr(zeroconf.Zeroconf, "close", hangs)
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: run_mdns(node(1, "127.0.0.1"), ["lo"], "hangs", lambda view: None))
                await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
        assert not closed.is_set()
    finally:
        goes_on.set()
    assert closed.wait(20)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Lan:
    """Namespaces joined by a bridge, which is in one of its own."""

    def __init__(self, count: int) -> None:
        self._names = [f"p2pdmdns-{os.getpid()}-{at}" for at in range(count + 1)]
        self._children: list[Child] = []

    def build(self) -> None:
        switch, *machines = self._names
        for name in self._names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        for at, machine in enumerate(machines):
            peer = ("peer", "name", "eth0", "netns", machine)
            ip("-n", switch, "link", "add", f"v{at}", "master", "br0", "up", "type", "veth", *peer)
            ip("-n", machine, "address", "add", f"10.77.0.{at + 1}/24", "dev", "eth0")
            ip("-n", machine, "link", "set", "eth0", "up")
            ip("-n", machine, "route", "add", "224.0.0.0/4", "dev", "eth0")

    def start(self, at: int, *, host: str = "0.0.0.0", interface: str = "", fleet: str = "f", ttl_s: int = 3) -> Child:
        child = Child(self._names[at + 1], at, host, interface, fleet, ttl_s)
        self._children.append(child)
        return child

    def close(self) -> None:
        for child in self._children:
            child.kill()
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


class Child:
    """One process of mdns_child.py; `view` is the last that it printed: numbers of the nodes and their hosts."""

    def __init__(self, namespace: str, number: int, host: str, interface: str, fleet: str, ttl_s: int) -> None:
        module = [sys.executable, "-m", "tests.discovery.mdns_child"]
        arguments = [str(number), host, interface, fleet, str(ttl_s)]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *module, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.view: dict[int, str] = {}
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)

    def wait_for(self, wanted: Callable[[dict[int, str]], bool], timeout_s: float) -> float:
        """Seconds until the view was as wanted."""
        start = time.monotonic()
        while not wanted(self.view):
            left = start + timeout_s - time.monotonic()
            try:
                line = self._lines.get(timeout=max(left, 0.001))
            except queue.Empty:
                raise AssertionError(f"after {timeout_s} s the view is {self.view}") from None
            self.view = {}
            for node_id, host, port, name, zone in json.loads(line):
                number = int(node_id[:2], 16)
                assert (port, name, zone) == (9000 + number, f"node {number}", "rack 7")
                self.view[number] = host
        return time.monotonic() - start

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def lan() -> Iterator[Lan]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    lan = Lan(4)
    try:
        try:
            lan.build()
        except FileNotFoundError:
            pytest.skip("there is no ip command (package iproute2)")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        yield lan
    finally:
        if shutil.which("ip"):
            lan.close()


def test_nodes_of_a_link_see_each_other_come_and_go(lan: Lan) -> None:
    first = lan.start(0)
    second = lan.start(1, interface="eth0")
    third = lan.start(2, host="10.77.0.3")
    foreign = lan.start(3, fleet="other")
    hosts = {0: "10.77.0.1", 1: "10.77.0.2", 2: "10.77.0.3"}
    for number, child in enumerate((first, second, third)):
        others = {other: host for other, host in hosts.items() if other != number}
        child.wait_for(lambda view, others=others: view == others, 10)
    assert second.terminate() == 0  # says goodbye: long before its records end
    for child, other in ((first, 2), (third, 0)):
        assert child.wait_for(lambda view, other=other: view == {other: hosts[other]}, 10) < 5
    third.kill()  # says nothing
    first.wait_for(lambda view: view == {}, 30)
    lan.start(1)
    first.wait_for(lambda view: view == {1: hosts[1]}, 10)
    foreign.terminate()
    assert foreign.view == {}
    assert foreign._lines.empty()
