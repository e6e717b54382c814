"""The mirror's sockets: accept, one task for each connection, one log line for each request.

Knows connection.py and service.py. Errors of clients end their connection; errors of ours end the daemon.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from math import inf

import trio

from p2pd.mirror.connection import BadRequest, ClientGone, Connection, Request
from p2pd.mirror.library import Library
from p2pd.mirror.service import Service, error_answer
from p2pd.mirror.settings import MirrorSettings

log = logging.getLogger("p2pd.mirror")

FULL_QUIET_S = 60.0  # between two log lines that say that all places are taken
LOGGED_PATH_MAX = 400  # characters: a name of 255, a digest of 71, and the words between


async def serve_mirror(
    listeners: list[trio.SocketListener],
    library: Library,
    settings: MirrorSettings,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; the listeners are closed then, and every connection ends with FIN.

    `task_status.started()` is called once connections are accepted.
    """
    service = Service(library, settings)
    places = _Places(settings)

    async def handle(stream: trio.SocketStream) -> None:
        connection = Connection(stream, settings)
        with trio.CancelScope() as scope, places.take(connection, scope) as is_taken:
            if is_taken:
                await _serve_connection(connection, service, places)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started()


class _Places:
    """The connections that there are, and which of them has to go when there are too many."""

    def __init__(self, settings: MirrorSettings) -> None:
        self._settings = settings
        self._open: dict[Connection, trio.CancelScope] = {}
        self._idle: dict[Connection, None] = {}  # those without a request in hand, longest idle first
        self._quiet_until = -inf

    @contextlib.contextmanager
    def take(self, connection: Connection, scope: trio.CancelScope) -> Iterator[bool]:
        """A place until the end of the block, with `scope` cancelled when another one needs it more; or none."""
        if len(self._open) >= self._settings.connections_max and not self._make_room():
            yield False
            return
        self._open[connection] = scope
        try:
            yield True
        finally:
            self._open.pop(connection, None)

    @contextlib.contextmanager
    def idling(self, connection: Connection) -> Iterator[None]:
        """While the next request is waited for, and comes in."""
        self._idle[connection] = None
        try:
            yield
        finally:
            self._idle.pop(connection, None)

    def _make_room(self) -> bool:
        victim = next(iter(self._idle), None)
        if victim is None:
            victim = max(self._open, key=Connection.unread_for)
            if victim.unread_for() < self._settings.unread_max:
                self._say_full("another was closed at once")
                return False
        self._say_full("the idle, and those that do not read, make room")
        self._idle.pop(victim, None)
        self._open.pop(victim).cancel()
        return True

    def _say_full(self, what: str) -> None:
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + FULL_QUIET_S
            log.warning("mirror: %d connections are open: %s", self._settings.connections_max, what)


async def _serve_connection(connection: Connection, service: Service, places: _Places) -> None:
    try:
        while True:
            with places.idling(connection):
                request = await connection.next_request()
            if request is None:
                break
            await _serve_request(request, connection, service)
            if not connection.next_cycle():
                break
    except BadRequest as error:
        log.info("mirror: %s", error)
        answer = error_answer(error.status, "UNSUPPORTED", str(error))
        with contextlib.suppress(ClientGone):
            await connection.send_answer(answer.status, answer.headers, answer.body)
    finally:
        await connection.aclose()


async def _serve_request(request: Request, connection: Connection, service: Service) -> None:
    """Answer one request while watching whether its client is still there."""
    began, note = trio.current_time(), "the client went away"

    async def cancel_when_gone(scope: trio.CancelScope) -> None:
        await connection.watch()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_gone, nursery.cancel_scope)
        try:
            note = await service.respond(request, connection)
        except ClientGone as error:
            note = str(error)
        nursery.cancel_scope.cancel()
    _log_request(request, connection, trio.current_time() - began, "" if connection.is_complete else note)


def _log_request(request: Request, connection: Connection, took_s: float, note: str) -> None:
    path = request.target.partition("?")[0][:LOGGED_PATH_MAX]
    log.info(
        "mirror: %s %s %s %d bytes %.3f s%s",
        request.method,
        path,
        connection.status or "-",
        connection.sent,
        took_s,
        f" ({note})" if note else "",
    )
