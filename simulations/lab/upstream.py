"""The upstream of a lab as its users see it: a real registry, the front before it, and what the front counted.

`Front` runs `simulations.lab.front` as a process of its own and gives it orders; `Traffic` answers questions about what
went out. Knows nothing of p2pd.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from simulations.lab.front.ledger import Entry
from simulations.lab.process import LabError, Process, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The front's entries at one moment, and sums over them. Filters that are not given match all."""

    entries: tuple[Entry, ...]

    def select(
        self,
        *,
        client: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        method: str | None = None,
        status: int | None = None,
    ) -> list[Entry]:
        """The entries of one client, kind ("blob", "manifest", "tag"), digest or tag, method, status."""
        wanted = {"client": client, "kind": kind, "name": name, "method": method, "status": status}
        given = {field: value for field, value in wanted.items() if value is not None}
        return [entry for entry in self.entries if all(getattr(entry, field) == given[field] for field in given)]

    def body_bytes(self, **filters: Any) -> int:
        """Bytes of bodies written to sockets."""
        return sum(int(entry.body_bytes) for entry in self.select(**filters))

    def requests(self, **filters: Any) -> int:
        """How many requests came."""
        return len(self.select(**filters))

    def requests_by_name(self, names: Iterable[str]) -> dict[str, int]:
        """Requests of any method for each digest."""
        return {name: self.requests(name=name) for name in names}

    def table(self) -> str:
        """One line for each request, for a failed test's report."""
        return "\n".join(
            f"{e.started:10.3f} {e.client:10} {e.peer:12} {e.method:4} {e.kind:8} {e.name[:19]:19} {e.range or '':22}"
            f" {e.status} {e.body_bytes:>10} {e.ending}"
            for e in self.entries
        )


class Front:
    """A context manager; `url` is what clients use, on loopback or on `host` inside a namespace."""

    def __init__(
        self,
        directory: Path,
        registry: str,
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        rate: float | None = None,
        latency: float = 0.0,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address = f"{host}:{self.port}"
        self.url = f"http://{self.address}"
        self._first_rate, self._first_latency = rate, latency
        self._control = directory / "front.sock"
        self.process = Process(
            "front",
            [
                *(sys.executable, "-m", "simulations.lab.front", "--listen", self.address),
                *("--registry", registry, "--control", self._control),
            ],
            directory / "front.log",
            prefix=prefix,
            env={"PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Front:
        self._control.unlink(missing_ok=True)
        self.process.start()
        try:
            self.process.wait_ready(self._answers)
            self.set_rate(self._first_rate)
            self.set_latency(self._first_latency)
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def _answers(self) -> bool:
        try:
            return self._order({"do": "port"}) == self.port
        except OSError:
            return False

    def _order(self, order: dict[str, object]) -> object:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._control))
            connection.sendall(json.dumps(order).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        if "error" in answer:
            raise LabError(f"the front refused {order}: {answer['error']}")
        return answer["ok"]

    def set_rate(self, rate: float | None) -> None:
        """Limits all answers together, in bytes a second; None takes the limit away."""
        self._order({"do": "rate", "rate": rate})

    def set_latency(self, latency: float) -> None:
        """Seconds before each answer."""
        self._order({"do": "latency", "latency": latency})

    def refuse(self, refuse: bool = True) -> None:
        """Refuses new connections, or takes them again."""
        self._order({"do": "refuse", "refuse": refuse})

    def add_rule(self, **settings: object) -> int:
        """A fault: the fields of simulations.lab.front.rules.Rule. Returns its number."""
        number = self._order({"do": "add", "rule": settings})
        assert isinstance(number, int)
        return number

    def clear_rules(self, number: int | None = None) -> None:
        """Heals one fault, or all."""
        self._order({"do": "clear", "number": number})

    def reset(self) -> None:
        """Begins to count anew."""
        self._order({"do": "reset"})

    def traffic(self) -> Traffic:
        """What was counted since the start or the last reset."""
        entries = self._order({"do": "entries"})
        assert isinstance(entries, list)
        return Traffic(tuple(Entry(**entry) for entry in entries))

    def wait_for_bytes(self, name: str, count: int, timeout_s: float = 30.0) -> None:
        """Waits until so many bytes of one digest have gone out, to anyone."""
        wait_until(lambda: self.traffic().body_bytes(name=name) >= count, f"{count} bytes of {name}", timeout_s)

    def wait_for(self, condition: Callable[[Traffic], bool], what: str, timeout_s: float = 30.0) -> None:
        """Waits until what was counted fulfils a condition."""
        wait_until(lambda: condition(self.traffic()), what, timeout_s)

    def rate_between(self, seconds: float) -> float:
        """Bytes a second that go out over the next `seconds`."""
        before = self.traffic().body_bytes()
        time.sleep(seconds)
        return (self.traffic().body_bytes() - before) / seconds
