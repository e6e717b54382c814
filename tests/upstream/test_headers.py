"""Content-Range, Retry-After and the other headers that decide something."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pd.upstream.errors import RETRY_AFTER_DEFAULT_S
from p2pd.upstream.headers import (
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    parse_content_range,
    parse_length,
    parse_remaining,
    parse_retry_after,
    plain_media_type,
)

NOW = 1_780_000_000.0


@given(st.integers(0, 10**17), st.integers(0, 10**9), st.integers(1, 10**9))
def test_content_range_round_trip(first: int, more: int, rest: int) -> None:
    given_range = (first, first + more, first + more + rest)
    assert parse_content_range("bytes {}-{}/{}".format(*given_range)) == given_range


@pytest.mark.parametrize(
    "text",
    [None, "", "bytes", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-9/*", "bytes */10", "items 0-9/10",
     "bytes -9/10", "bytes=0-9/10", "bytes 0-9/10, bytes", "bytes \u0661-\u0662/\u0663", "bytes 0-9/" + "9" * 5000],
)  # fmt: skip
def test_content_range_refused(text: str | None) -> None:
    assert parse_content_range(text) is None


@given(st.text(max_size=60))
@example("0\x1f")  # white space to `strip`, not to `int`
def test_any_text_is_survived(text: str) -> None:
    found = parse_content_range(text)
    assert found is None or 0 <= found[0] <= found[1] < found[2]
    assert RETRY_AFTER_MIN_S <= parse_retry_after(text, NOW) <= RETRY_AFTER_MAX_S
    parse_length(text), parse_remaining(text), plain_media_type(text)


@given(st.integers(0, 10**17))
def test_retry_after_in_seconds(seconds: int) -> None:
    assert parse_retry_after(f" {seconds} ", NOW) == min(max(seconds, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


@given(st.integers(-(10**6), 10**6))
def test_retry_after_as_a_date(ahead: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW + ahead, UTC), usegmt=True)
    assert parse_retry_after(date, NOW) == min(max(ahead, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "1.5", "Mon, 99 Foo 2026 25:61:61 GMT", "1e9"])
def test_retry_after_without_sense_is_the_default(text: str | None) -> None:
    assert parse_retry_after(text, NOW) == RETRY_AFTER_DEFAULT_S


@pytest.mark.parametrize(
    ("text", "expected"),
    [("76;w=21600", 76), ("0;w=21600", 0), ("5", 5), ("", None), (None, None), ("many", None), ("-1;w=1", None)],
)
def test_remaining(text: str | None, expected: int | None) -> None:
    assert parse_remaining(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.index.v1+json"),
        ("json", None),
        ("a/b\r\nx: y", None),
        (None, None),
    ],
)
def test_media_type(text: str | None, expected: str | None) -> None:
    assert plain_media_type(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("12", 12), ("0", 0), ("-1", None), ("", None), ("1_0", None), ("\u0663", None)]
)
def test_length(text: str, expected: int | None) -> None:
    assert parse_length(text) == expected
