"""What a member of the group may write into the control socket: lines of JSON come back, the last one says the end."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from p2pd.admin.control import CommandFailed, serve_control
from tests.fuzz.served import exchange_by_unix

_DIRECTORY = tempfile.TemporaryDirectory(prefix="p2pd-fuzz-")


async def _commands(request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    if request["command"] != "echo":
        raise CommandFailed(f"there is no command {request['command'][:50]!r}")
    yield {"answer": request}


def check(data: bytes) -> None:
    path = Path(_DIRECTORY.name) / "control.sock"

    async def serve(*, task_status) -> None:  # type: ignore[no-untyped-def]
        await serve_control(path, _commands, task_status=task_status)

    received = exchange_by_unix(serve, str(path), data)
    answers = [json.loads(line) for line in received.splitlines()]
    assert received == b"" or received.endswith(b"\n")
    assert all(set(answer) == {"answer"} for answer in answers[:-1])
    assert not answers or answers[-1].keys() <= {"answer", "done", "error"}
