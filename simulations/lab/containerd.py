"""A real containerd of a node's own, and pulls by the real `ctr`, through mirrors that a hosts.toml names.

Knows of p2pd only that a mirror may stand before upstream. In containerd 1.6 `ctr` itself fetches, so it is `ctr` that
runs in the node's network namespace; the daemon needs no network.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from simulations.lab.images import Blob, Image
from simulations.lab.process import LabError, Process, environment, run

PULL_TIMEOUT_S = 120.0

# Whatever a pull into the native snapshotter does not need, so that a start takes a tenth of a second.
_DISABLED = (
    "io.containerd.internal.v1.restart",
    "io.containerd.monitor.v1.cgroups",
    *(f"io.containerd.snapshotter.v1.{kind}" for kind in ("aufs", "btrfs", "devmapper", "overlayfs", "zfs")),
)
# ... and what only the CRI plugin needs.
_FOR_CRI = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.runtime.v1.linux",
    "io.containerd.runtime.v2.task",
    "io.containerd.service.v1.tasks-service",
)
_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [{disabled}]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
# What a pull that failed has left must stand still while a test looks at it: no garbage is collected.
[plugins."io.containerd.gc.v1.scheduler"]
  mutation_threshold = 0
  startup_delay = "24h"
  schedule_delay = "24h"
"""
_CRI_CONFIG = """\
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{hosts}"
"""


@dataclass(frozen=True, slots=True)
class Pull:
    """How one pull went. `seconds` is wall-clock time from the start of `ctr` to its end; `errors` its complaints."""

    reference: str
    code: int
    seconds: float
    errors: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class RunningPull:
    """A pull under way. `wait` may be called from any thread; `kill9` ends it as the death of its machine would."""

    def __init__(self, reference: str, command: Sequence[str]) -> None:
        self._reference = reference
        self._started = time.monotonic()
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
        )

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def wait(self, timeout_s: float = PULL_TIMEOUT_S) -> Pull:
        """Waits for its end. A pull that takes longer is killed and reported with the code -9 and a note."""
        note = ""
        try:
            _, errors = self._child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            _, errors = self._child.communicate()
            note = f"\nkilled by the lab: it still ran after {timeout_s:.0f} s"
        text = "\n".join(errors.decode(errors="replace").splitlines()[-20:])
        return Pull(self._reference, self._child.returncode, time.monotonic() - self._started, text + note)

    def kill9(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._child.kill()
        self._child.communicate()


def write_hosts(directory: Path, registry: str, server: str, mirrors: Sequence[str]) -> None:
    """Writes `directory`/<registry>/hosts.toml: the mirrors in their order, then `server`. Both are URLs."""
    folder = directory / registry
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'server = "{server}"']
    for mirror in mirrors:
        lines += ["", f'[host."{mirror}"]', '  capabilities = ["pull", "resolve"]', '  dial_timeout = "200ms"']
    if not mirrors:  # 1.6 refuses a file without a host
        lines += ["", f'[host."{server}"]', '  capabilities = ["pull", "resolve"]']
    (folder / "hosts.toml").write_text("\n".join(lines) + "\n")


class Containerd:
    """A context manager; writes only under `directory`. `prefix` enters the namespace that `ctr` pulls in.

    With `cri_hosts`, the directory of a hosts.toml, it takes the kubelet's orders as well; of those, it pulls itself.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "containerd",
        prefix: Sequence[str] = (),
        cri_hosts: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.root, self._state = directory / "root", directory / "state"
        self.socket = directory / "c.sock"
        self._prefix = tuple(prefix)
        config = directory / "containerd.toml"
        disabled = _DISABLED if cri_hosts else _DISABLED + _FOR_CRI
        text = _CONFIG.format(
            root=self.root,
            state=self._state,
            socket=self.socket,
            disabled=", ".join(f'"{plugin}"' for plugin in disabled),
        )
        config.write_text(text + (_CRI_CONFIG.format(hosts=cri_hosts) if cri_hosts else ""))
        self.process = Process(name, ["containerd", "--config", config], directory / "containerd.log")

    def __enter__(self) -> Containerd:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.process.start()
        try:
            self.wait_ready()
        except BaseException:
            self.process.stop()
            raise

    def wait_ready(self) -> None:
        """Waits until it answers; LabError if it ends before."""
        self.process.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            run(["ctr", "--address", self.socket, "--connect-timeout", "1s", "images", "ls", "-q"], timeout_s=5)
        except (LabError, subprocess.TimeoutExpired):
            return False
        return True

    def start_pull(
        self, reference: str, hosts: Path, *, unpack: bool = True, platform: str = "linux/amd64"
    ) -> RunningPull:
        """Begins `ctr images pull` (or, without `unpack`, `ctr content fetch`: the same requests, no snapshot)."""
        verb = ("images", "pull", "--snapshotter", "native") if unpack else ("content", "fetch")
        options = ("--hosts-dir", str(hosts), "--platform", platform)
        return RunningPull(reference, [*self._prefix, "ctr", "--address", str(self.socket), *verb, *options, reference])

    def pull(self, reference: str, hosts: Path, *, unpack: bool = True, timeout_s: float = PULL_TIMEOUT_S) -> Pull:
        """Pulls and waits for the end."""
        return self.start_pull(reference, hosts, unpack=unpack).wait(timeout_s)

    def content(self, digest: str) -> Path:
        """Where containerd keeps a whole and verified blob."""
        return self.root / "io.containerd.content.v1.content" / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def ingested(self, digest: str) -> int:
        """Bytes of a blob that containerd has received but not committed."""
        folder = self.root / "io.containerd.content.v1.content" / "ingest"
        for reference in folder.glob("*/ref"):
            with contextlib.suppress(FileNotFoundError):  # committed meanwhile
                if reference.read_text().endswith(digest):
                    return (reference.parent / "data").stat().st_size
        return 0

    def has(self, blob: Blob) -> bool:
        """Whether containerd holds exactly these bytes."""
        return self.content(blob.digest).is_file() and _same(self.content(blob.digest), blob.path)

    def lacks(self, image: Image) -> list[str]:
        """Digests of the image's blobs that containerd does not hold byte for byte; empty if all is well."""
        return [blob.digest for blob in image.blobs if not self.has(blob)]

    def reset(self) -> None:
        """Drops everything it holds: a stop, an empty directory, a start."""
        self.process.stop()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self._state, ignore_errors=True)
        self.start()


def _same(one: Path, other: Path, step: int = 1 << 20) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            left, right = first.read(step), second.read(step)
            if left != right:
                return False
            if not left:
                return True
