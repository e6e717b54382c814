"""What may come to the admin port: one proper answer, or none to half a request."""

from __future__ import annotations

from p2pd.admin.http import serve_admin
from p2pd.admin.metrics import Metrics
from tests.fuzz.served import exchange_by_tcp, statuses


class _State:
    metrics = Metrics("1")

    def not_ready(self) -> str | None:
        return None

    def status(self) -> dict[str, object]:
        return {}


def check(data: bytes) -> None:
    async def serve(listeners, *, task_status) -> None:  # type: ignore[no-untyped-def]
        await serve_admin(listeners, _State(), task_status=task_status)

    found = statuses(exchange_by_tcp(serve, data))
    assert len(found) <= 1
    assert set(found) <= {200, 400, 404, 405, 431}
