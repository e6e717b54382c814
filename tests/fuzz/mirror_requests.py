"""What a local process may send to the mirror's port: proper answers of the few statuses that clients live with."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from p2pd.mirror.server import serve_mirror
from p2pd.mirror.settings import MirrorSettings
from tests.fuzz.served import exchange_by_tcp, statuses
from tests.mirror.conftest import MANIFEST_TYPE
from tests.mirror.fake_library import FakeLibrary

_DIRECTORY = tempfile.TemporaryDirectory(prefix="p2pd-fuzz-")
STATUSES = {200, 206, 400, 404, 405, 416, 431}


@functools.cache
def _library() -> FakeLibrary:
    library = FakeLibrary(Path(_DIRECTORY.name))
    library.add(b"x" * 1000)
    library.tag("docker.io", "library/test", "v1", library.add(b"{}", media_type=MANIFEST_TYPE))
    return library


def check(data: bytes) -> None:
    async def serve(listeners, *, task_status) -> None:  # type: ignore[no-untyped-def]
        await serve_mirror(listeners, _library(), MirrorSettings(), task_status=task_status)

    assert set(statuses(exchange_by_tcp(serve, data))) <= STATUSES
