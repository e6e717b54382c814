"""docs/limits.md names a test for each bound on what others can send; here are those that have no better place.

That each constant has the value which the page says is tests/test_readme.py's matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio
from trio.testing import MockClock

from p2pd.admin import control
from p2pd.mirror.targets import QUERY_FIELDS_MAX, BadTarget, parse_target
from p2pd.oci import DESCRIPTORS_MAX, MANIFEST_SIZE_MAX, descriptors_of, media_type_of
from p2pd.upstream.auth import TOKEN_LENGTH_MAX, parse_token
from p2pd.upstream.errors import BadAnswer
from p2pd.upstream.registry import TOKEN_ANSWER_MAX
from p2pd.upstream.urls import URL_LENGTH_MAX, origin

TESTS = Path(__file__).parent
ROWS = re.findall(
    r"^\| `([\w.]+)` \| [^|]+ \| [^|]+ \| `([\w./]+\.py)(?:::(\w+))?` \|",
    (TESTS.parent / "docs" / "limits.md").read_text(),
    re.M,
)


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 50
    assert len({constant for constant, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("constant", "file", "test"), ROWS)
def test_each_bound_has_its_test(constant: str, file: str, test: str) -> None:
    text = (TESTS / file).read_text()
    assert f"def {test}(" in text if test else True


def test_a_query_of_too_many_fields() -> None:
    fields = "&".join(f"x{number}=1" for number in range(QUERY_FIELDS_MAX))
    assert parse_target(f"/v2/a/tags/list?{fields}", "docker.io", lambda host: True).repository == "library/a"
    with pytest.raises(BadTarget, match="can't be read"):
        parse_target(f"/v2/a/tags/list?{fields}&y=1", "docker.io", lambda host: True)


def test_a_token_that_is_too_long() -> None:
    assert TOKEN_LENGTH_MAX < TOKEN_ANSWER_MAX
    assert parse_token(json.dumps({"token": "a" * TOKEN_LENGTH_MAX}).encode(), "r")[0]
    with pytest.raises(BadAnswer, match="without a usable token"):
        parse_token(json.dumps({"token": "a" * (TOKEN_LENGTH_MAX + 1)}).encode(), "r")


def test_a_url_that_is_too_long() -> None:
    assert origin("https://r.example/".ljust(URL_LENGTH_MAX, "a")).host == "r.example"
    with pytest.raises(BadAnswer, match="too long"):
        origin("https://r.example/".ljust(URL_LENGTH_MAX + 1, "a"))


def test_descriptors_beyond_the_bound_are_passed_over() -> None:
    layer = {"digest": "sha256:" + "a" * 64, "size": 1}
    body = json.dumps({"layers": [layer] * (DESCRIPTORS_MAX + 1)}).encode()
    assert len(list(descriptors_of(body))) == DESCRIPTORS_MAX
    index = b'{"manifests": []}'
    assert media_type_of(index.ljust(MANIFEST_SIZE_MAX)) is not None
    assert media_type_of(index.ljust(MANIFEST_SIZE_MAX + 1)) is None


def test_the_head_of_an_answer_is_bounded_by_httpcore() -> None:
    assert httpcore.AsyncHTTP11Connection.MAX_INCOMPLETE_EVENT_SIZE == 100 * 1024


async def commands(request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    yield {"begun": True}
    await trio.sleep_forever()


async def test_more_commands_than_allowed(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "CONNECTIONS_MAX", 2)
    path = tmp_path / "control.sock"
    await nursery.start(lambda task_status: control.serve_control(path, commands, task_status=task_status))
    busy = [await trio.open_unix_socket(str(path)) for _ in range(2)]
    for stream in busy:
        await stream.send_all(b'{"command": "x"}\n')
        assert b"begun" in await stream.receive_some()
    async with await trio.open_unix_socket(str(path)) as third:
        assert await third.receive_some() == b""
    for stream in busy:
        await stream.aclose()
    nursery.cancel_scope.cancel()


async def test_half_a_command_is_not_waited_for(nursery: trio.Nursery, tmp_path: Path, autojump_clock: MockClock):
    path = tmp_path / "control.sock"
    await nursery.start(lambda task_status: control.serve_control(path, commands, task_status=task_status))
    began = trio.current_time()
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b'{"command": ')
        assert b'"error"' in await stream.receive_some()
    assert trio.current_time() - began == pytest.approx(control.REQUEST_SECONDS_MAX, abs=1)
    nursery.cancel_scope.cancel()
