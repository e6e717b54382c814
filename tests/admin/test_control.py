"""The control socket, both sides: the server in trio, the client in a thread as the commands use it."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2pd.admin import control
from p2pd.admin.control import CommandFailed, ControlError, NotAllowed, NotRunning, request, serve_control


async def commands(obj: dict) -> AsyncGenerator[dict, None]:
    match obj["command"]:
        case "count":
            for number in range(obj["to"]):
                yield {"n": number}
        case "fail":
            yield {"n": 0}
            raise CommandFailed("no such image")
        case "bug":
            raise RuntimeError("bug")
        case "nothing":
            return


@asynccontextmanager
async def serving(path: Path, handler: control.Handler = commands) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve_control(path, handler, task_status=task_status))
        yield
        nursery.cancel_scope.cancel()


async def ask(path: Path, command: dict, **options) -> list[dict]:
    with trio.fail_after(10):
        return await trio.to_thread.run_sync(lambda: list(request(path, command, **options)))


def exists(path: Path) -> bool:
    return os.path.lexists(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


async def test_answers_come_in_order_without_the_last(path: Path):
    async with serving(path):
        assert await ask(path, {"command": "count", "to": 3}) == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert await ask(path, {"command": "nothing"}) == []


async def test_a_commands_error_reaches_its_user(path: Path):
    async with serving(path):
        with pytest.raises(CommandFailed, match=r"^no such image$"):
            await ask(path, {"command": "fail"})
        assert await ask(path, {"command": "count", "to": 1}) == [{"n": 0}]


async def test_a_bug_of_ours_is_not_hidden(path: Path):
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="bug"), flatten_subgroups=True):
        async with serving(path):
            with pytest.raises(ControlError, match="broke off"):
                await ask(path, {"command": "bug"})
            await trio.sleep_forever()  # until the server's own end


async def test_only_the_group_may_connect_and_the_socket_goes_at_the_end(path: Path):
    async with serving(path):
        assert stat.filemode(os.stat(path).st_mode) == "srw-rw----"
    assert not exists(path)


async def test_a_stale_socket_is_replaced(path: Path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert exists(path)
    async with serving(path):
        assert await ask(path, {"command": "nothing"}) == []


async def test_a_live_daemons_socket_is_left_alone(path: Path):
    async with serving(path):
        with pytest.raises(ControlError, match="another p2pd serves"):
            await serve_control(path, commands)
        assert await ask(path, {"command": "nothing"}) == []


async def test_another_programs_live_socket_is_left_alone(path: Path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ControlError, match="another program serves"):
            await serve_control(path, commands)
        assert exists(path)


def test_a_file_is_not_a_socket(path: Path):
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(ControlError, match="is not a socket"):
        trio.run(serve_control, path, commands)
    assert path.read_text() == "precious"


def test_a_socket_that_can_not_be_made(tmp_path: Path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ControlError, match=r"run/control\.sock can't be made .*: run as root, or set node\.control"):
        trio.run(serve_control, tmp_path / "run" / "control.sock", commands)


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{}\n", b'{"command": 1}\n', b"\xff\n", b"[" * 9000 + b"\n"])
async def test_bad_requests_get_an_error(path: Path, line: bytes):
    async with serving(path):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(line)
            assert "one line" in json.loads(await stream.receive_some())["error"]


async def test_a_long_request_gets_an_error(path: Path):
    async with serving(path):
        with pytest.raises(ControlError):
            await ask(path, {"command": "x" * control.REQUEST_MAX})
        assert await ask(path, {"command": "nothing"}) == []


async def test_a_client_that_goes_away_cancels_its_command(path: Path):
    events: list[str] = []
    ended = trio.Event()

    async def forever(obj: dict) -> AsyncGenerator[dict, None]:
        try:
            yield {"event": "started"}
            await trio.sleep_forever()
        finally:
            events.append("cancelled")
            ended.set()

    async with serving(path, forever):
        stream = await trio.open_unix_socket(path)
        await stream.send_all(b'{"command": "pull"}\n')
        assert json.loads(await stream.receive_some()) == {"event": "started"}
        assert events == []
        await stream.aclose()
        with trio.fail_after(5):
            await ended.wait()


async def test_a_client_that_does_not_read_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "SEND_SECONDS_MAX", 0.1)
    ended = trio.Event()

    async def flood(obj: dict) -> AsyncGenerator[dict, None]:
        try:
            while True:
                yield {"x": "y" * 100_000}
        finally:
            ended.set()

    async with serving(path, flood):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(b'{"command": "pull"}\n')
            with trio.fail_after(5):
                await ended.wait()


def test_no_daemon(path: Path):
    with pytest.raises(NotRunning, match=r"not running.*control\.sock.*systemctl start p2pd"):
        list(request(path, {"command": "status"}))


def test_no_permission(path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(NotAllowed, match="group p2pd"):
        list(request(path, {"command": "status"}))


async def test_a_daemon_that_says_nothing(path: Path):
    async def silent(obj: dict) -> AsyncGenerator[dict, None]:
        await trio.sleep_forever()
        yield {}

    async with serving(path, silent):
        with pytest.raises(ControlError, match=r"has not answered for 0\.1s"):
            await ask(path, {"command": "status"}, timeout=0.1)


async def test_something_else_behind_the_socket(path: Path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(ControlError, match="does not speak"):
                await ask(path, {"command": "status"})
