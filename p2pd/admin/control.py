"""The control socket: commands to the daemon as lines of JSON over a Unix socket that only root and its group may open.

One request object for each connection, {"command": "...", ...}; the answers are objects too, the last of them
{"done": true} or {"error": "..."}. What the commands are is the daemon's affair. Imports nothing of p2pd.

    ControlError          what a command's user is told
      NotRunning          no daemon behind the socket
      NotAllowed          the socket may not be opened
      CommandFailed       the daemon's own answer is an error
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import json
import os
import socket
import stat
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import trio

GROUP = "p2pd"  # whose members may give commands, if the group exists
MODE = 0o660
CONNECTIONS_MAX = 64  # at once; a command holds one
REQUEST_MAX = 64 << 10  # bytes of a request's line
REQUEST_SECONDS_MAX = 10.0  # until a request is whole
SEND_SECONDS_MAX = 30.0  # that a client may leave an answer unread
ANSWER_MAX = 16 << 20  # bytes of an answer's line: a status with thousands of blobs
ANSWER_SECONDS_MAX = 60.0  # between two answers; the daemon reports several times a second
CONNECT_SECONDS_MAX = 5.0

Handler = Callable[[dict[str, Any]], AsyncGenerator[dict[str, Any], None]]


class ControlError(Exception):
    """A command that did not come through; str() is fit for the user and says what to do."""


class NotRunning(ControlError):
    """There is no daemon behind the socket."""


class NotAllowed(ControlError):
    """This user may not open the socket."""


class CommandFailed(ControlError):
    """The daemon's answer is an error. Raised by a handler too, to give that answer."""


class _ClientGone(Exception):
    """The other side closed, or does not read."""


async def serve_control(
    path: Path, handler: Handler, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve commands on a new socket at `path` until cancelled; then the socket is removed.

    `handler` is an async generator function: it gets the request and yields the answers, without the last line. It is
    cancelled when its client goes away. CommandFailed is told to the client; other exceptions are bugs and go up.
    Raises ControlError when another daemon has the socket, or it can't be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            listener = _bound_socket(path, stack)
        except OSError as error:
            raise ControlError(
                f"{path} can't be made ({error.strerror or error}): run as root, or set node.control"
            ) from None
        active = 0

        async def handle(stream: trio.SocketStream) -> None:
            nonlocal active
            if active >= CONNECTIONS_MAX:
                return
            active += 1
            try:
                await _converse(stream, handler)
            except* _ClientGone:
                pass
            finally:
                active -= 1

        await trio.serve_listeners(handle, [trio.SocketListener(listener)], task_status=task_status)


def _bound_socket(path: Path, stack: contextlib.ExitStack) -> trio.socket.SocketType:
    """A listening socket at `path` with its group and mode, in place of one that nobody serves any more."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    # The lock, not the socket, says who lives: two daemons that start at once must not remove each other's sockets.
    lock = stack.enter_context(path.with_name(path.name + ".lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ControlError(f"another p2pd serves {path}: stop it, or give this one its own node.control") from None
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file this mode at once: it is never open to others
        listener.bind(str(path))
        stack.callback(path.unlink, missing_ok=True)
        with contextlib.suppress(KeyError, PermissionError):  # no such group, or not ours to give
            os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
        path.chmod(MODE)
        listener.listen(CONNECTIONS_MAX)
    except BaseException:
        listener.close()
        raise
    return trio.socket.from_stdlib_socket(listener)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"{path} is not a socket, and is left as it is: remove it, or set node.control")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(CONNECT_SECONDS_MAX)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ControlError(
                f"{path} is in use or out of reach ({error.strerror or error}): set node.control"
            ) from None
    raise ControlError(f"another program serves {path}: stop it, or set node.control")


async def _converse(stream: trio.SocketStream, handler: Handler) -> None:
    request = None
    with trio.move_on_after(REQUEST_SECONDS_MAX):
        request = await _request(stream)
    if request is None:
        await _send(stream, {"error": f"a request is one line with a JSON object of at most {REQUEST_MAX} bytes"})
        return
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some(1024):
                    pass
            nursery.cancel_scope.cancel()  # the client is gone: so is its wish

        nursery.start_soon(watch)
        await _answer(stream, handler, request)
        nursery.cancel_scope.cancel()


async def _answer(stream: trio.SocketStream, handler: Handler, request: dict[str, Any]) -> None:
    async with aclosing(handler(request)) as answers:
        try:
            async for answer in answers:
                await _send(stream, answer)
        except CommandFailed as error:
            await _send(stream, {"error": str(error)})
            return
    await _send(stream, {"done": True})


async def _request(stream: trio.SocketStream) -> dict[str, Any] | None:
    data = bytearray()
    while b"\n" not in data:
        try:
            chunk = await stream.receive_some(REQUEST_MAX)
        except trio.BrokenResourceError:
            raise _ClientGone from None
        if not chunk or len(data) + len(chunk) > REQUEST_MAX:
            return None
        data += chunk
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return request if isinstance(request, dict) and isinstance(request.get("command"), str) else None


async def _send(stream: trio.SocketStream, answer: dict[str, Any]) -> None:
    try:
        with trio.fail_after(SEND_SECONDS_MAX):
            await stream.send_all(json.dumps(answer).encode() + b"\n")
    except (trio.BrokenResourceError, trio.TooSlowError):
        raise _ClientGone from None


def request(path: Path, command: dict[str, Any], *, timeout: float = ANSWER_SECONDS_MAX) -> Iterator[dict[str, Any]]:
    """Give a command and yield its answers, without the last; blocking. `timeout` in seconds, for each answer.

    Raises NotRunning, NotAllowed, CommandFailed, or ControlError when the connection breaks off.
    """
    with closing(_connected(path)) as connection, connection.makefile("rb") as lines:
        connection.settimeout(timeout)
        try:
            connection.sendall(json.dumps(command).encode() + b"\n")
            while True:
                answer = _parsed(lines.readline(ANSWER_MAX), path)
                if "error" in answer:
                    raise CommandFailed(str(answer["error"]))
                if answer.get("done") is True:
                    return
                yield answer
        except TimeoutError:
            raise ControlError(f"p2pd at {path} has not answered for {timeout:g}s: see its log") from None
        except OSError as error:
            raise ControlError(f"the connection to p2pd at {path} broke off ({error.strerror}): see its log") from None


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_SECONDS_MAX)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise _refusal(path, error) from None
    return connection


def _refusal(path: Path, error: OSError) -> ControlError:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return NotRunning(
            f"p2pd is not running: nobody serves {path}. Start it with `systemctl start p2pd` or `p2pd run`; "
            "if it has another socket, name it with --control or --config"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotAllowed(f"{path} may not be opened: run this as root, or as a member of the group {GROUP}")
    return ControlError(f"{path}: {error.strerror or error}")


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ControlError(f"p2pd at {path} broke off before the command ended: see its log")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ControlError(f"{path} does not speak p2pd's control protocol")
    return answer
