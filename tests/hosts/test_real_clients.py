"""What `hosts install` writes, read by the real clients: they ask the mirror first, then the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pd.cli import main

pytestmark = pytest.mark.e2e


class Registry:
    """Answers 404 to everything but the ping, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self.server
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def registry() -> Iterator[Registry]:
    recorder = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            recorder.asked.append(f"{self.command} {self.path}")
            self.send_response(200 if self.path == "/v2/" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args: object) -> None:
            pass

    recorder.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=recorder.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield recorder
    finally:
        recorder.server.shutdown()
        recorder.server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A containerd of its own, without the CRI plugin."""
    assert shutil.which("containerd") and shutil.which("ctr"), "apt-get install containerd"
    base = tmp_path_factory.mktemp("containerd")
    address = base / "c.sock"
    (base / "config.toml").write_text(
        f'version = 2\nroot = "{base}/root"\nstate = "{base}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{address}"\n[ttrpc]\naddress = "{address}.ttrpc"\n'
    )
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", base / "config.toml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(["ctr", "--address", address, "version"], capture_output=True).returncode != 0:
            assert process.poll() is None and time.monotonic() < deadline, (base / "log").read_text()
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def pull(socket: Path, hosts_dir: Path, image: str) -> None:
    command = ["ctr", "--address", socket, "images", "pull", "--hosts-dir", hosts_dir, image]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0 and "failed to resolve reference" in result.stderr, result.stderr


def install(certs: Path, mirror: Registry, upstream: Registry, *options: str, command: str = "install") -> None:
    config = certs.parent / "p2pd.toml"
    config.write_text(f'[upstreams."r.example:5000"]\nurl = "{upstream.url}"\n')
    places = ["--config", str(config), "--certs-dir", str(certs), "--containerd-config", "/nonexistent"]
    arguments = ["hosts", command, "r.example:5000", "--mirror", mirror.url, *places, *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output


def test_the_mirror_is_asked_first_and_then_the_registry(socket: Path, tmp_path: Path):
    with registry() as mirror, registry() as upstream:
        install(tmp_path / "certs.d", mirror, upstream)
        pull(socket, tmp_path / "certs.d", "r.example:5000/team/app:v1")
    assert mirror.asked == ["HEAD /v2/team/app/manifests/v1?ns=r.example%3A5000"]
    assert upstream.asked[0].startswith("HEAD /v2/team/app/manifests/v1")


def test_the_operators_hosts_stay_behind_the_mirror(socket: Path, tmp_path: Path):
    with ExitStack() as stack:
        mirror, upstream, cache = (stack.enter_context(registry()) for _ in range(3))
        path = tmp_path / "certs.d" / "r.example:5000" / "hosts.toml"
        path.parent.mkdir(parents=True)
        path.write_text(
            f'server = "{upstream.url}"\n# ours\n[host."{cache.url}"]\ncapabilities = ["pull", "resolve"]\n'
        )
        install(tmp_path / "certs.d", mirror, upstream)
        pull(socket, tmp_path / "certs.d", "r.example:5000/team/app:v1")
        assert [len(r.asked) for r in (mirror, cache)] == [1, 1]
        assert upstream.asked
        install(tmp_path / "certs.d", mirror, upstream, command="remove")
        pull(socket, tmp_path / "certs.d", "r.example:5000/team/app:v1")
        assert [len(r.asked) for r in (mirror, cache)] == [1, 2]


def test_without_fallback_the_registry_is_never_asked(socket: Path, tmp_path: Path):
    with registry() as mirror, registry() as upstream:
        install(tmp_path / "certs.d", mirror, upstream, "--no-fallback")
        pull(socket, tmp_path / "certs.d", "r.example:5000/team/app:v1")
    assert mirror.asked and not upstream.asked


def test_a_dead_mirror_costs_nothing(socket: Path, tmp_path: Path):
    with registry() as upstream:
        with registry() as mirror:
            install(tmp_path / "certs.d", mirror, upstream)
        start = time.monotonic()
        pull(socket, tmp_path / "certs.d", "r.example:5000/team/app:v1")
        assert time.monotonic() - start < 5
    assert upstream.asked


def test_skopeo_asks_the_mirror_with_the_registry_in_the_path(tmp_path: Path):
    options = ("--client", "containers", "--containers-dir", str(tmp_path / ".config" / "containers"))
    with registry() as mirror, registry() as upstream:
        install(tmp_path / "certs.d", mirror, upstream, *options)
        result = subprocess.run(
            ["skopeo", "inspect", "docker://r.example:5000/team/app:v1"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    assert result.returncode != 0
    assert "GET /v2/r.example_5000/team/app/manifests/v1" in mirror.asked
