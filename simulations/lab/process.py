"""One child process of the lab: its log, its end, and the wait until it is ready.

Not a supervisor: nothing is restarted. Knows nothing of p2pd, containerd or registries.

Children end with the lab even if the lab is killed (`setpriv --pdeathsig`). Linux sends that signal when the *thread*
that started the child ends, so long-lived processes are started from the main thread.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 10.0  # between SIGTERM and SIGKILL; p2pd and containerd end in well under a second
READY_TIMEOUT_S = 20.0  # eight daemons that start together on two cores need some seconds
POLL_S = 0.02
TAIL_LINES = 60  # of each log, shown when a test fails

PORTS = range(20_000, 32_000)  # below ip_local_port_range, so that no outgoing connection takes a port before its owner

_DROPPED = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "notify_socket", "pythonpath")


class LabError(Exception):
    """Something that the lab itself needs did not work; the message names it and shows its log's end."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for children: ours without proxies, which would stand between the lab's parts."""
    kept = {key: value for key, value in os.environ.items() if key.lower() not in _DROPPED}
    return kept | {"PYTHONUNBUFFERED": "1", **(extra or {})}


_given: set[int] = set()  # ports that were handed out, and may not be bound yet


def free_port() -> int:
    """A TCP port that nothing listens on at this moment, and that this process has not been given before."""
    for port in random.sample(PORTS, 400):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise LabError(f"none of 400 ports from {PORTS.start} to {PORTS.stop} is free")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Polls until `condition` holds; LabError names `what` was waited for."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(POLL_S)


def run(command: Sequence[str | Path], *, prefix: Sequence[str] = (), timeout_s: float = 120.0) -> str:
    """Runs a short command to its end and returns its standard output; LabError shows what it said if it failed."""
    words = [*prefix, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Process:
    """A command with its log file. `prefix` stands before it: the words that enter a network namespace."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.command = [*prefix, *map(str, command)]
        self._env = environment(env)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LabError(f"{self.name} was not started")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Starts it; the log is appended to, so that a restart keeps the story together."""
        if self.running:
            raise LabError(f"{self.name} runs already")
        words = ["setpriv", "--pdeathsig", "KILL", "--", *self.command]
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._env
                )
            except FileNotFoundError as error:
                raise LabError(f"{words[0]} is not installed: run `make apt`") from error

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Polls `ready` until it holds; LabError with the log's end if the process ends before, or time runs out."""
        end = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                raise LabError(f"{self.name} ended at start:\n{self.tail()}")
            if time.monotonic() > end:
                raise LabError(f"{self.name} was not ready within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to this process, if it still runs."""
        if self._child is not None and self.running:
            self._child.send_signal(number)

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL if it takes too long. Returns the exit code; None if it was never started."""
        if self._child is None:
            return None
        if self.running:
            self._child.terminate()
            try:
                self._child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
        return self._child.wait()

    def kill9(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
