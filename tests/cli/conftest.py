"""A daemon's control socket without the daemon: scripted answers, in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pd.admin import CommandFailed, serve_control
from p2pd.config import load

Script = list[dict[str, Any] | float | str]  # answers; seconds to wait; the text of an error


class FakeDaemon:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[dict[str, Any]] = []
        self.scripts: dict[str, Script] = {}

    async def handle(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        self.asked.append(request)
        for step in self.scripts[request["command"]]:
            if isinstance(step, str):
                raise CommandFailed(step)
            if isinstance(step, float):
                await trio.sleep(step)
            else:
                yield step


@contextmanager
def _in_thread(daemon: FakeDaemon) -> Iterator[None]:
    ready, stop = threading.Event(), []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve_control(daemon.path, daemon.handle, task_status=task_status))
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        stop[0]()
        thread.join(10)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path / "control.sock")
    with _in_thread(fake):
        yield fake


@pytest.fixture(scope="package", autouse=True)
def no_configuration_of_this_machine() -> Iterator[None]:
    """Neither /etc/p2pd nor the environment of whoever runs the tests changes what they see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "DEFAULT_PATH", Path("/nonexistent/p2pd.toml"))
        for name in [name for name in os.environ if name.startswith("P2PD_")]:
            patch.delenv(name)
        yield
