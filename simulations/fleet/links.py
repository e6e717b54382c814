"""How full each link was, moment by moment: the kernel's own counters of the nodes' interfaces.

What a timeline is for: a swarm is behind the bound when uplinks idle, and this says whose, and when. Costs some file
reads a sample; asks the daemons nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

SAMPLE_S = 0.2
DEVICE = "eth0"


def counters(pid: int) -> tuple[int, int]:
    """Bytes received and sent by the interface of a process's network namespace; (0, 0) once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    except OSError:
        return 0, 0
    for line in lines:
        name, _, fields = line.partition(":")
        if name.strip() == DEVICE:
            words = fields.split()
            return int(words[0]), int(words[8])
    return 0, 0


@dataclass(slots=True)
class Timeline:
    """`moments` in seconds from the start; for each node the bytes in and out since the sample before."""

    moments: list[float] = field(default_factory=list)
    received: dict[str, list[int]] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=dict)

    def use(self, rate: float, until: float) -> tuple[float, float]:
        """The mean use of the nodes' downlinks and uplinks from the start to `until`: 1 is full all the time."""
        steps = [place for place, moment in enumerate(self.moments) if moment <= until]
        capacity = rate * until * len(self.received)
        if not steps or not capacity:
            return 0.0, 0.0
        down, up = (
            sum(series[place] for series in table.values() for place in steps) for table in (self.received, self.sent)
        )
        return down / capacity, up / capacity

    def phases(self, rate: float, until: float, parts: int = 10) -> list[tuple[float, float]]:
        """The same for `parts` equal stretches of the time up to `until`."""
        found = []
        for part in range(parts):
            begin, end = until * part / parts, until * (part + 1) / parts
            steps = [place for place, moment in enumerate(self.moments) if begin < moment <= end]
            capacity = rate * (end - begin) * len(self.received)
            down, up = (
                sum(series[place] for series in table.values() for place in steps)
                for table in (self.received, self.sent)
            )
            found.append((down / capacity, up / capacity) if capacity else (0.0, 0.0))
        return found


class LinkSampler:
    """A context manager that samples until its end. `pids` by the node's name."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link sampler")
        self.timeline = Timeline(received={name: [] for name in pids}, sent={name: [] for name in pids})

    def __enter__(self) -> LinkSampler:
        self.started = time.monotonic()
        self._last = {name: counters(pid) for name, pid in self._pids.items()}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()  # what moved since the last one: on a busy machine that is a good part of a short run

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        self.timeline.moments.append(time.monotonic() - self.started)
        for name, pid in self._pids.items():
            now, last = counters(pid), self._last[name]
            self.timeline.received[name].append(max(0, now[0] - last[0]))
            self.timeline.sent[name].append(max(0, now[1] - last[1]))
            self._last[name] = now
