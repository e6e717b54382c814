"""sd_notify against a real datagram socket, by path and in the abstract namespace."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pd.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@p2pd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(2)
        yield listener, name


def test_messages(manager: tuple[socket.socket, str]):
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.ready("mirror on\n127.0.0.1:9580")
    assert notifier.status("3 peers")
    assert notifier.watchdog()
    assert notifier.stopping()
    assert [listener.recv(1000) for _ in range(4)] == [
        b"READY=1\nSTATUS=mirror on 127.0.0.1:9580",
        b"STATUS=3 peers",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


@pytest.mark.parametrize("name", ["", "/nonexistent/notify", "vsock:2:1234"])
def test_without_systemd_nothing_happens(name: str):
    notifier = Notifier({"NOTIFY_SOCKET": name} if name else {})
    assert not notifier.ready()
    assert not notifier.watchdog()


def test_a_full_socket_does_not_block(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")})
        assert not all(notifier.watchdog() for _ in range(5000))


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None):
    assert Notifier(environ).watchdog_interval() == seconds
