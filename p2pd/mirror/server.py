"""The mirror's sockets: accept, one task for each connection, one log line for each request.

Knows connection.py and service.py. Errors of clients end their connection; errors of ours end the daemon.
"""

from __future__ import annotations

import contextlib
import logging

import trio

from p2pd.mirror.connection import BadRequest, ClientGone, Connection, Request
from p2pd.mirror.library import Library
from p2pd.mirror.service import Service, error_answer
from p2pd.mirror.settings import MirrorSettings

log = logging.getLogger("p2pd.mirror")

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
    connections = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal connections
        if connections >= settings.connections_max:
            log.warning("mirror: %d connections are open, another was closed at once", connections)
            return
        connections += 1
        try:
            await _serve_connection(stream, service, settings)
        finally:
            connections -= 1

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started()


async def _serve_connection(stream: trio.SocketStream, service: Service, settings: MirrorSettings) -> None:
    connection = Connection(stream, settings)
    try:
        while (request := await connection.next_request()) is not None:
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
