"""Links have their rate both ways, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab.netns import NAMESPACES, Fabric, Link, socket_in
from tests.lab.process import run

pytestmark = pytest.mark.e2e

RATE = 5_000_000
COUNT = 3_000_000

# Prints bytes a second as the receiver sees them, from the first byte to the last.
_RECEIVE = """
import socket, time
with socket.create_server(("0.0.0.0", 7000)) as listener:
    print("ready", flush=True)
    connection, _ = listener.accept()
    count, started = 0, None
    while data := connection.recv(1 << 16):
        started = started or time.monotonic()
        count += len(data)
    print(count / (time.monotonic() - started), flush=True)
"""


def measured_rate(fabric: Fabric, sender: str, receiver: str) -> float:
    command = [*fabric[receiver].prefix, sys.executable, "-c", _RECEIVE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with socket_in(fabric[sender].namespace, (fabric[receiver].address, 7000)) as connection:
            connection.settimeout(20)
            connection.sendall(bytes(COUNT))
        return float(process.stdout.readline())


def test_the_slower_of_two_links_sets_the_rate_and_all_is_removed() -> None:
    with Fabric({"slow-up": Link(RATE, None), "slow-down": Link(None, RATE), "fast": Link()}) as fabric:
        namespaces = [fabric[name].namespace for name in ("slow-up", "slow-down", "fast")]
        assert measured_rate(fabric, "slow-up", "fast") == pytest.approx(RATE, rel=0.12)
        assert measured_rate(fabric, "fast", "slow-down") == pytest.approx(RATE, rel=0.12)
        assert measured_rate(fabric, "fast", "slow-up") > 4 * RATE
    assert not any((NAMESPACES / namespace).exists() for namespace in namespaces)


def test_a_multicast_datagram_reaches_the_others() -> None:
    receive = (
        "import socket, struct; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5353));"
        "s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('224.0.0.251') + bytes(4));"
        "s.settimeout(10); print('ready', flush=True); print(s.recv(100).decode(), flush=True)"
    )
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('224.0.0.251', 5353))"
    with Fabric({"one": Link(), "two": Link()}) as fabric:
        command = [*fabric["two"].prefix, sys.executable, "-c", receive]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            run([sys.executable, "-c", send], prefix=fabric["one"].prefix)
            assert process.stdout.readline() == "hello\n"
