"""What the machine spends while something is measured: busy share of all cores, resident memory of a process.

A figure measured on a machine that was full says more about the machine than about the program: benches print the busy
share beside each figure. Reads /proc only.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

TICKS_PER_S = 100  # USER_HZ: the same on every Linux architecture in use
_IDLE_FIELDS = (3, 4)  # idle, iowait (proc(5), /proc/stat)


def _cpu_ticks() -> tuple[int, int]:
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    fields = [int(word) for word in first.split()[1:9]]  # user .. steal; guest time is already within user
    return sum(fields), sum(fields[place] for place in _IDLE_FIELDS)


class Busy:
    """The busy share of the whole machine over a `with` block, from 0 to 1, in `.share`; CPU seconds in `.seconds`."""

    share = 0.0
    seconds = 0.0

    def __enter__(self) -> Busy:
        self._start = _cpu_ticks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        total, idle = (now - then for now, then in zip(_cpu_ticks(), self._start, strict=True))
        self.share, self.seconds = (1 - idle / total if total else 0.0), (total - idle) / TICKS_PER_S


def _status_field(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no {field}")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now, in bytes, mapped files included."""
    return _status_field(pid, "VmRSS")


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process that no file backs, in bytes: what it really holds."""
    return _status_field(pid, "RssAnon")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S  # utime, stime


def core_wait_seconds(pid: int) -> float:
    """How long a process's first thread, for a daemon its event loop, was ready to run and had no core, in seconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
