"""p2pd and its tracker as processes: a configuration file, a start, a look at the metrics, a kill, a restart.

Knows p2pd only as an operator does: its commands, its TOML keys, its admin port. Imports nothing of p2pd.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from simulations.lab.certificates import Certificates, Papers
from simulations.lab.netns import Member, socket_in
from simulations.lab.process import READY_TIMEOUT_S, Process, free_port

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]

MIRROR_PORT, PEERS_PORT, ADMIN_PORT, TRACKER_PORT = 9580, 9581, 9582, 9590  # in namespaces: the defaults

Settings = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, its body cut where the connection ended. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool  # the body has the length that its header promised


def http_get(
    namespace: str | None,
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> Answer:
    """One request to loopback inside a namespace. OSError if there is no answer at all."""
    with socket_in(namespace, ("127.0.0.1", port), timeout_s) as connection:
        connection.settimeout(timeout_s)
        fields = {"Host": f"127.0.0.1:{port}", "Connection": "close", **(headers or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        answer = http.client.HTTPResponse(connection, method=method)
        try:
            answer.begin()
            try:
                body, whole = answer.read(), True
            except http.client.IncompleteRead as error:
                body, whole = error.partial, False
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body, whole)
        except http.client.HTTPException as error:
            raise ConnectionError(f"port {port} gave no HTTP answer: {error!r}") from error
        finally:
            answer.close()


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self.samples = [
            (sample.name, dict(sample.labels), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over all samples that have these labels; 0 if there are none."""
        wanted = labels.items()
        return sum(value for have, its, value in self.samples if have == name and wanted <= its.items())

    def received(self, source: str) -> int:
        """Bytes that came from "upstream", "peer" or "content_store"."""
        return int(self.total("p2pd_received_bytes_total", source=source))


def toml(settings: Settings) -> str:
    """Tables of strings, numbers, booleans and lists of strings as TOML (JSON's forms of these are TOML's too)."""
    tables = []
    for table, values in settings.items():
        tables.append(f"[{table}]")
        tables += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
        tables.append("")
    return "\n".join(tables)


def merged(*parts: Settings) -> dict[str, dict[str, object]]:
    """Settings laid over each other, key by key; a later part wins."""
    result: dict[str, dict[str, object]] = {}
    for part in parts:
        for table, values in part.items():
            result.setdefault(table, {}).update(values)
    return result


class Node:
    """One p2pd daemon. Its state directory stays over restarts, and so do its ports. `program`: what runs for it."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        upstreams: Mapping[str, str],
        trackers: Sequence[str] = (),
        member: Member | None = None,
        mdns: bool = False,
        settings: Settings | None = None,
        program: Sequence[str | Path] = (BIN / "p2pd",),
        papers: Papers | None = None,
    ) -> None:
        """`papers`: its certificate; without, it talks to others without TLS."""
        directory.mkdir(parents=True, exist_ok=True)
        self.name, self.directory = name, directory
        self.namespace = member.namespace if member else None
        ports = (MIRROR_PORT, PEERS_PORT, ADMIN_PORT) if member else tuple(free_port() for _ in range(3))
        self.mirror_port, self.peers_port, self.admin_port = ports
        self.mirror_url = f"http://127.0.0.1:{self.mirror_port}"
        self.state = directory / "state"
        host = member.address if member else "127.0.0.1"
        own: dict[str, dict[str, object]] = {
            "node": {"name": name, "state_dir": str(self.state), "control": str(directory / "p2pd.sock")},
            "mirror": {"listen": f"127.0.0.1:{self.mirror_port}"},
            "peers": {
                "listen": f"{host}:{self.peers_port}",
                "advertise": f"{host}:{self.peers_port}",
                "insecure": papers is None,
            },
            "fleet": {
                "ca": papers and str(papers.ca),
                "certificate": papers and str(papers.certificate),
                "key": papers and str(papers.key),
            },
            "discovery": {"trackers": list(trackers), "mdns": mdns},
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            **{f'upstreams."{upstream}"': {"url": url} for upstream, url in upstreams.items()},
        }
        self.config = directory / "p2pd.toml"
        self.config.write_text(toml(merged(own, settings or {})))
        command = [*program, "run", "--config", self.config]
        self.process = Process(
            name,
            command,
            directory / "p2pd.log",
            prefix=member.prefix if member else (),
            env={"PYTHONPATH": str(ROOT)},
        )

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and waits until it says that it is ready."""
        self.state.mkdir(exist_ok=True)
        self.process.start()
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits for /readyz to answer 200."""
        self.process.wait_ready(self._ready, timeout_s)

    def _ready(self) -> bool:
        try:
            return self.admin("/readyz").status == 200
        except OSError:
            return False

    def restart(self) -> None:
        """Starts it again on the same state, after a stop or a kill."""
        self.start()

    def stop(self) -> None:
        self.process.stop()

    def kill9(self) -> None:
        self.process.kill9()

    def admin(self, path: str) -> Answer:
        """GET from the admin port."""
        return http_get(self.namespace, self.admin_port, path, timeout_s=10)

    def metrics(self) -> Metrics:
        return Metrics(self.admin("/metrics").body.decode())

    def status(self) -> dict:
        """/status, as JSON."""
        return json.loads(self.admin("/status").body)

    def mirror(self, path: str, **options: object) -> Answer:
        """A request to the mirror, as a client on this node would send it; the options are http_get's."""
        return http_get(self.namespace, self.mirror_port, path, **options)  # type: ignore[arg-type]


class Tracker:
    """One p2pd-tracker. `address` is what nodes are given."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        member: Member | None = None,
        program: Sequence[str | Path] = (BIN / "p2pd-tracker",),
        certificates: Certificates | None = None,
    ) -> None:
        """`certificates`: who issues its own; without, it talks to nodes without TLS."""
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._namespace = member.namespace if member else None
        self._host, self._port = (member.address, TRACKER_PORT) if member else ("127.0.0.1", free_port())
        self.address = f"{self._host}:{self._port}"
        how: list[str | Path] = ["--insecure"]
        if certificates:
            papers = certificates.issue(name, self._host)
            how = ["--ca", papers.ca, "--certificate", papers.certificate, "--key", papers.key]
        command = [*program, "run", "--listen", self.address, "--admin", "none", *how]
        self.process = Process(
            name,
            command,
            directory / f"{name}.log",
            prefix=member.prefix if member else (),
            env={"PYTHONPATH": str(ROOT)},
        )

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and waits until it takes connections."""
        self.process.start()
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        self.process.wait_ready(self._listens)

    def _listens(self) -> bool:
        try:
            socket_in(self._namespace, (self._host, self._port)).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self.process.stop()

    def kill9(self) -> None:
        self.process.kill9()
