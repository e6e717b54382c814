"""nginx with sendfile, as the benches' yardstick and as a cheap upstream: one worker, one folder, plain HTTP."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab import free_port, socket_in, wait_until

CONFIGURATION = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


@contextlib.contextmanager
def serving(files: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Serves `files` and keeps its own in `folder`; its port, and its worker's process id."""
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is needed: apt-get install nginx-light")
    folder.mkdir(exist_ok=True)
    port, user = free_port(), getpass.getuser()  # its own default user may not read a private directory
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, files=files, port=port, user=user))
    process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf"])
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: _listens(port) and children.read_text(), "nginx and its worker")
        yield port, int(children.read_text().split()[0])
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket_in(None, ("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
